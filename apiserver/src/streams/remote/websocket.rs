//! Remote commands over WebSocket: `v5.channel.k8s.io` and `v4.channel.k8s.io`.
//!
//! The first byte of a binary message is the channel: 0 stdin, 1 stdout, 2 stderr, 3 the final Status, 4 the
//! terminal's size, and in v5 255, which closes the channel that its payload names.

use apiserver_core::connect::Streams;
use bytes::{BufMut as _, Bytes, BytesMut};
use futures::{SinkExt as _, StreamExt as _, stream::SplitSink, stream::SplitStream};
use hyper::upgrade::Upgraded;
use proto::tunnel::frame::Frame;
use tokio_tungstenite::tungstenite::Message;

use super::{Said, resize, said};
use crate::streams::websocket::{self, Accepted, Socket};
use crate::tunnel::{Receiver, Sender, Session};

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
const RESIZE: u8 = 4;
const CLOSE: u8 = 255;

/// The protocols served, best first.
pub(in crate::streams) const PROTOCOLS: [&str; 2] = ["v5.channel.k8s.io", "v4.channel.k8s.io"];

/// Carries the streams until the command or the client is gone.
pub(in crate::streams) async fn run(
    accepted: Accepted,
    upgraded: Upgraded,
    session: Session,
    streams: Streams,
) {
    let (sink, stream) = websocket::socket(upgraded).await.split();
    let (sender, receiver) = session.split();
    let half_close = accepted.protocol == PROTOCOLS[0];
    let output = output(sink, receiver, streams);
    let input = input(stream, sender, half_close);
    // The output ends when the command does; the input ends when the client is gone.
    tokio::select! {
        () = output => {}
        () = input => {}
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
            return websocket::close(sink).await;
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
        let sent = match frame {
            Frame::Stdin(bytes) => sender.send_all(bytes.into(), Frame::Stdin).await,
            other => sender.send(other).await,
        };
        if sent.is_err() {
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
        RESIZE => resize(&data).map(Frame::Resize),
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
