//! Streams a container's log as plain text.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures::StreamExt as _;
use http::{HeaderValue, Response, header};
use hyper::body::{Body as HttpBody, Frame};
use proto::tunnel::{Logs, frame, open};

use super::open_failure;
use crate::body::{Body, BodyError};
use crate::metrics::LongRunning;
use crate::shell::Shell;
use crate::tunnel::Sender;

/// The request to the agent.
pub(super) fn request(
    namespace: String,
    pod: String,
    uid: String,
    logs: apiserver_core::connect::Logs,
) -> open::Request {
    open::Request::Logs(Logs {
        namespace,
        pod,
        uid,
        container: logs.container,
        follow: logs.follow,
        previous: logs.previous,
        timestamps: logs.timestamps,
        since_seconds: logs.since_seconds,
        since_time: logs.since_time.unwrap_or_default(),
        tail_lines: logs.tail_lines,
        limit_bytes: logs.limit_bytes,
    })
}

/// Opens the log and answers with its bytes as they come.
pub(super) async fn carry(
    shell: &Shell,
    node: &str,
    request: open::Request,
    guard: LongRunning,
) -> Response<Body> {
    let session = match shell.tunnels.open(node, request).await {
        Ok(session) => session,
        Err(error) => return open_failure(&error),
    };
    let (sender, receiver) = session.split();
    let lines = futures::stream::unfold(receiver, |mut receiver| async move {
        let item = match receiver.next().await {
            Ok(Some(frame::Frame::Data(bytes))) => Ok(Bytes::from(bytes)),
            Ok(Some(frame::Frame::Failure(failure))) => Err(BodyError::from(failure.message)),
            Ok(Some(_)) => Ok(Bytes::new()),
            Ok(None) => return None,
            Err(error) => Err(error.into()),
        };
        Some((item, receiver))
    });
    // A followed log ends with the server.
    let lines = lines.take_until(shell.stop.clone().cancelled_owned());
    let body = LogBody { lines: Box::pin(lines), _session: sender, _guard: guard };
    let mut response = Response::new(Body::stream(body));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    response
}

/// The bytes of a log; the session ends when the client drops it.
struct LogBody {
    lines: Pin<Box<dyn futures::Stream<Item = Result<Bytes, BodyError>> + Send>>,
    _session: Sender,
    _guard: LongRunning,
}

impl HttpBody for LogBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        loop {
            match self.lines.poll_next_unpin(context) {
                Poll::Ready(Some(Ok(bytes))) if bytes.is_empty() => {}
                other => return other.map(|item| item.map(|item| item.map(Frame::data))),
            }
        }
    }
}
