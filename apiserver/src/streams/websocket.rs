//! Remote commands over WebSocket: `v5.channel.k8s.io` and `v4.channel.k8s.io`.
//!
//! The first byte of a binary message is the channel: 0 stdin, 1 stdout, 2 stderr, 3 the final Status, 4 the
//! terminal's size, and in v5 255, which closes the channel that its payload names.

use apiserver_core::connect::Streams;
use apiserver_core::failure::{self, Refused};
use bytes::{BufMut as _, Bytes, BytesMut};
use futures::{SinkExt as _, StreamExt as _, stream::SplitSink, stream::SplitStream};
use http::{HeaderMap, HeaderValue, Response, header};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use proto::tunnel::frame::Frame;
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Message,
        handshake::derive_accept_key,
        protocol::{CloseFrame, Role, WebSocketConfig, frame::coding::CloseCode},
    },
};

use super::{Said, remote, said, switching};
use crate::body::Body;
use crate::respond::header_has;
use crate::tunnel::{Receiver, Sender, Session};

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
const RESIZE: u8 = 4;
const CLOSE: u8 = 255;

/// The largest message that a client may send.
const MAX_MESSAGE: usize = 1024 * 1024;

/// The protocols served, best first.
const PROTOCOLS: [&str; 2] = ["v5.channel.k8s.io", "v4.channel.k8s.io"];

type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// A handshake that was found good.
pub(super) struct Accepted {
    accept: HeaderValue,
    protocol: &'static str,
}

/// Checks the handshake.
pub(super) fn accept(headers: &HeaderMap) -> Result<Accepted, Refused> {
    if !header_has(headers, header::UPGRADE, "websocket")
        || !header_has(headers, header::CONNECTION, "upgrade")
    {
        return Err(failure::bad_request("Upgrade request required"));
    }
    let Some(key) = headers.get(header::SEC_WEBSOCKET_KEY) else {
        return Err(failure::bad_request("Sec-WebSocket-Key is missing"));
    };
    if headers.get(header::SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
        return Err(failure::bad_request("only WebSocket version 13 is served"));
    }
    let protocol = PROTOCOLS
        .into_iter()
        .find(|protocol| header_has(headers, header::SEC_WEBSOCKET_PROTOCOL, protocol))
        .ok_or_else(|| {
            failure::bad_request(
                "unable to negotiate: the server speaks v5.channel.k8s.io and v4.channel.k8s.io",
            )
        })?;
    let accept = HeaderValue::from_str(&derive_accept_key(key.as_bytes()))
        .map_err(|_| failure::bad_request("Sec-WebSocket-Key cannot be read"))?;
    Ok(Accepted { accept, protocol })
}

// === impl Accepted ===

impl Accepted {
    /// The answer that ends the handshake.
    pub(super) fn response(&self) -> Response<Body> {
        let mut response = switching("websocket");
        let headers = response.headers_mut();
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, self.accept.clone());
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(self.protocol));
        response
    }

    /// Carries the streams until the command or the client is gone.
    pub(super) async fn run(self, upgraded: Upgraded, session: Session, streams: Streams) {
        let config =
            WebSocketConfig::default().max_message_size(Some(MAX_MESSAGE)).max_frame_size(Some(MAX_MESSAGE));
        let socket =
            WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, Some(config)).await;
        let (sink, stream) = socket.split();
        let (sender, receiver) = session.split();
        let half_close = self.protocol == PROTOCOLS[0];
        let output = output(sink, receiver, streams);
        let input = input(stream, sender, half_close);
        // The output ends when the command does; the input ends when the client is gone.
        tokio::select! {
            () = output => {}
            () = input => {}
        }
    }
}

/// Agent to client. Ends when the command ended or the client cannot be written to.
async fn output(mut sink: SplitSink<Socket, Message>, mut receiver: Receiver, streams: Streams) {
    // Tells the client that the streams are open, before there is any output.
    let first = if streams.stdout {
        STDOUT
    } else if streams.stderr {
        STDERR
    } else {
        ERROR
    };
    if sink.send(message(first, b"")).await.is_err() {
        return;
    }
    loop {
        let (text, over) = match said(&mut receiver).await {
            Said::Stdout(bytes) => (message(STDOUT, &bytes), false),
            Said::Stderr(bytes) => (message(STDERR, &bytes), false),
            Said::Over(status) => (message(ERROR, status.as_bytes()), true),
        };
        if sink.send(text).await.is_err() {
            return;
        }
        if over {
            // Closing can only fail when the client is gone, which ends the stream just as well.
            let normal = CloseFrame { code: CloseCode::Normal, reason: "".into() };
            let _ = sink.send(Message::Close(Some(normal))).await;
            let _ = sink.close().await;
            return;
        }
    }
}

/// Client to agent. Ends when the client closes its connection or the agent does not listen any more.
async fn input(mut stream: SplitStream<Socket>, sender: Sender, half_close: bool) {
    while let Some(Ok(incoming)) = stream.next().await {
        let payload = match incoming {
            Message::Binary(bytes) => bytes,
            Message::Close(_) => return,
            _ => continue,
        };
        let Some(frame) = frame(payload, half_close) else { continue };
        if sender.send(frame).await.is_err() {
            // The command is over; what it still has to say comes by the other direction.
            std::future::pending::<()>().await;
        }
    }
}

/// What a client's message means; `None` when it means nothing to a command.
fn frame(payload: Bytes, half_close: bool) -> Option<Frame> {
    let (channel, data) = (*payload.first()?, payload.slice(1..));
    match channel {
        STDIN if !data.is_empty() => Some(Frame::Stdin(data.into())),
        RESIZE => remote::resize(&data).map(Frame::Resize),
        CLOSE if half_close && data.first() == Some(&STDIN) => Some(Frame::CloseStdin(true)),
        _ => None,
    }
}

fn message(channel: u8, data: &[u8]) -> Message {
    let mut bytes = BytesMut::with_capacity(data.len() + 1);
    bytes.put_u8(channel);
    bytes.extend_from_slice(data);
    Message::Binary(bytes.freeze())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(payload: &'static [u8], half_close: bool, expected: Option<Frame>) {
        assert_eq!(frame(Bytes::from_static(payload), half_close), expected);
    }

    #[test]
    fn channels_are_told_apart() {
        check(b"\x00ls\n", true, Some(Frame::Stdin(b"ls\n".to_vec())));
        check(b"\xff\x00", true, Some(Frame::CloseStdin(true)));
        check(b"\xff\x00", false, None);
        check(b"\xff\x01", true, None);
        check(b"\x00", true, None);
        check(b"", true, None);
        check(b"\x01out", true, None);
    }
}
