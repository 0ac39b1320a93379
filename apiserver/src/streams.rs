//! Carries exec, attach and logs between a client's connection and a node's tunnel.

use std::sync::Arc;

use apiserver_core::ConnectPlan;
use apiserver_core::connect::{Stream, Streams};
use apiserver_core::failure::Refused;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header, request::Parts};
use hyper::upgrade::Upgraded;
use proto::tunnel::{Attach, Exec, frame, open};

use crate::body::Body;
use crate::metrics::LongRunning;
use crate::respond::{IntoHttp as _, failure};
use crate::shell::Shell;
use crate::tunnel::{OpenError, Receiver, Session};

mod logs;
mod remote;
mod spdy;
mod websocket;

/// How a client wants its streams carried.
enum Carrier {
    WebSocket(websocket::Accepted),
    Spdy(spdy::Accepted),
}

/// Opens what the plan asks for and answers with its beginning; the streams go on by themselves.
pub(crate) async fn carry(
    shell: &Arc<Shell>,
    plan: ConnectPlan,
    parts: Parts,
    guard: LongRunning,
) -> Response<Body> {
    let ConnectPlan { node, namespace, name, uid, stream } = plan;
    match stream {
        Stream::Logs(logs) => {
            logs::carry(shell, &node, logs::request(namespace, name, uid, logs), guard).await
        }
        Stream::Exec { container, command, streams } => {
            let Streams { stdin, stdout, stderr, tty } = streams;
            let request = open::Request::Exec(Exec {
                namespace,
                pod: name,
                uid,
                container,
                command,
                stdin,
                stdout,
                stderr,
                tty,
            });
            remote_command(shell, &node, request, streams, parts, guard).await
        }
        Stream::Attach { container, streams } => {
            let Streams { stdin, stdout, stderr, tty } = streams;
            let request = open::Request::Attach(Attach {
                namespace,
                pod: name,
                uid,
                container,
                stdin,
                stdout,
                stderr,
                tty,
            });
            remote_command(shell, &node, request, streams, parts, guard).await
        }
        Stream::PortForward { .. } | Stream::Proxy { .. } => failure(
            StatusCode::NOT_IMPLEMENTED,
            "NotImplemented",
            "this server does not forward ports and does not proxy",
        ),
    }
}

async fn remote_command(
    shell: &Shell,
    node: &str,
    request: open::Request,
    streams: Streams,
    parts: Parts,
    guard: LongRunning,
) -> Response<Body> {
    let carrier = match Carrier::accept(&parts.headers) {
        Ok(carrier) => carrier,
        Err(refusal) => return refusal.into_http(),
    };
    let session = match shell.tunnels.open(node, request).await {
        Ok(session) => session,
        Err(error) => return open_failure(&error),
    };
    let upgrade = hyper::upgrade::on(http::Request::from_parts(parts, ()));
    let answer = carrier.response();
    let stop = shell.stop.clone();
    shell.tasks.spawn(async move {
        let _guard = guard;
        let carried = async {
            match upgrade.await {
                Ok(upgraded) => carrier.run(upgraded, session, streams).await,
                Err(error) => tracing::debug!(%error, "a client left before its stream began"),
            }
        };
        tokio::select! {
            () = carried => {}
            () = stop.cancelled() => {}
        }
    });
    answer
}

// === impl Carrier ===

impl Carrier {
    fn accept(headers: &HeaderMap) -> Result<Carrier, Refused> {
        if spdy::is_asked(headers) {
            return spdy::accept(headers).map(Carrier::Spdy);
        }
        websocket::accept(headers).map(Carrier::WebSocket)
    }

    fn response(&self) -> Response<Body> {
        match self {
            Carrier::WebSocket(accepted) => accepted.response(),
            Carrier::Spdy(accepted) => accepted.response(),
        }
    }

    async fn run(self, upgraded: Upgraded, session: Session, streams: Streams) {
        match self {
            Carrier::WebSocket(accepted) => accepted.run(upgraded, session, streams).await,
            Carrier::Spdy(accepted) => accepted.run(upgraded, session, streams).await,
        }
    }
}

/// The answer when a session could not be opened.
fn open_failure(error: &OpenError) -> Response<Body> {
    let status = StatusCode::from_u16(error.code()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let reason = match status {
        StatusCode::BAD_REQUEST => "BadRequest",
        StatusCode::NOT_FOUND => "NotFound",
        StatusCode::GATEWAY_TIMEOUT => "Timeout",
        StatusCode::CONFLICT => "Conflict",
        _ => "InternalError",
    };
    failure(status, reason, &error.to_string())
}

fn switching(protocol: &'static str) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static(protocol));
    response
}

/// The next thing that a remote command says.
enum Said {
    Stdout(bytes::Bytes),
    Stderr(bytes::Bytes),
    /// The command is over: the Status for the error channel.
    Over(String),
}

/// Reads the agent's frames until there is something to tell the client.
async fn said(incoming: &mut Receiver) -> Said {
    loop {
        return match incoming.next().await {
            Ok(Some(frame::Frame::Stdout(bytes))) => Said::Stdout(bytes.into()),
            Ok(Some(frame::Frame::Stderr(bytes))) => Said::Stderr(bytes.into()),
            Ok(Some(frame::Frame::Exit(exit))) => Said::Over(remote::exit_status(exit.code)),
            Ok(Some(frame::Frame::Failure(failure))) => Said::Over(remote::failure_status(&failure.message)),
            Ok(Some(_)) => continue,
            // The agent's last frame says how the command ended: without it nothing is known.
            Ok(None) => {
                Said::Over(remote::failure_status("the node ended the stream before the command ended"))
            }
            Err(error) => Said::Over(remote::failure_status(&error.to_string())),
        };
    }
}
