//! Remote commands over the channels of a WebSocket.
//!
//! They are: 0 stdin, 1 stdout, 2 stderr, 3 the final Status, 4 the terminal's size, and in v5 255, which closes the
//! channel that its payload names. Before v4 channel 3 has the words of a failure, and nothing of a success.

use apiserver_core::connect::Streams;
use bytes::Bytes;
use futures::{SinkExt as _, StreamExt as _, stream::SplitSink, stream::SplitStream};
use hyper::upgrade::Upgraded;
use proto::tunnel::frame::Frame;
use tokio_tungstenite::tungstenite::Message;

use super::{Said, failure_text, resize, said};
use crate::streams::channel::Coding;
use crate::streams::websocket::{self, Accepted, Socket};
use crate::tunnel::{Receiver, Sender, Session};

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
const RESIZE: u8 = 4;
const CLOSE: u8 = 255;

/// The protocols served, best first. Clients that name none get the oldest.
pub(in crate::streams) const PROTOCOLS: [&str; 6] = [
    "v5.channel.k8s.io",
    "v4.channel.k8s.io",
    "v4.base64.channel.k8s.io",
    "channel.k8s.io",
    "base64.channel.k8s.io",
    "",
];

/// What the protocols differ in.
#[derive(Clone, Copy)]
struct Dialect {
    coding: Coding,
    /// Whether the client can close its input.
    half_close: bool,
    /// Whether channel 3 has a Status.
    status: bool,
}

/// Carries the streams until the command or the client is gone.
pub(in crate::streams) async fn run(
    accepted: Accepted,
    upgraded: Upgraded,
    session: Session,
    streams: Streams,
) {
    let (sink, stream) = websocket::socket(upgraded).await.split();
    let (sender, receiver) = session.split();
    let dialect = Dialect::of(accepted.protocol);
    let output = output(sink, receiver, streams, dialect);
    let input = input(stream, sender, dialect);
    // The output ends when the command does; the input ends when the client is gone.
    tokio::select! {
        () = output => {}
        () = input => {}
    }
}

/// Agent to client. Ends when the command ended or the client cannot be written to.
async fn output(
    mut sink: SplitSink<Socket, Message>,
    mut receiver: Receiver,
    streams: Streams,
    dialect: Dialect,
) {
    // Tells the client that the streams are open, before there is any output.
    let first = if streams.stdout {
        STDOUT
    } else if streams.stderr {
        STDERR
    } else {
        ERROR
    };
    if sink.send(dialect.coding.write(first, b"")).await.is_err() {
        return;
    }
    loop {
        let (text, over) = match said(&mut receiver).await {
            Said::Stdout(bytes) => (dialect.coding.write(STDOUT, &bytes), false),
            Said::Stderr(bytes) => (dialect.coding.write(STDERR, &bytes), false),
            Said::Over(status) => match dialect.last_words(status) {
                Some(words) => (dialect.coding.write(ERROR, words.as_bytes()), true),
                None => return websocket::close(sink).await,
            },
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
async fn input(mut stream: SplitStream<Socket>, sender: Sender, dialect: Dialect) {
    while let Some(Ok(message)) = stream.next().await {
        if message.is_close() {
            return;
        }
        let Some((channel, data)) = dialect.coding.read(message) else { continue };
        let Some(frame) = frame(channel, data, dialect.half_close) else { continue };
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
fn frame(channel: u8, data: Bytes, half_close: bool) -> Option<Frame> {
    match channel {
        STDIN if !data.is_empty() => Some(Frame::Stdin(data.into())),
        RESIZE => resize(&data).map(Frame::Resize),
        CLOSE if half_close && data.first() == Some(&STDIN) => Some(Frame::CloseStdin(true)),
        _ => None,
    }
}

// === impl Dialect ===

impl Dialect {
    fn of(protocol: &str) -> Dialect {
        let (half_close, status) = (protocol.starts_with("v5."), protocol.starts_with('v'));
        Dialect { coding: Coding::of(protocol), half_close, status }
    }

    /// What the error channel says at the end.
    fn last_words(self, status: String) -> Option<String> {
        if self.status { Some(status) } else { failure_text(&status) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(channel: u8, data: &'static [u8], half_close: bool, expected: Option<Frame>) {
        assert_eq!(frame(channel, Bytes::from_static(data), half_close), expected);
    }

    #[test]
    fn channels_are_told_apart() {
        check(0, b"ls\n", true, Some(Frame::Stdin(b"ls\n".to_vec())));
        check(255, b"\x00", true, Some(Frame::CloseStdin(true)));
        check(255, b"\x00", false, None);
        check(255, b"\x01", true, None);
        check(0, b"", true, None);
        check(1, b"out", true, None);
    }

    #[test]
    fn old_protocols_end_with_words_or_nothing() {
        let (success, failure) = (super::super::exit_status(0), super::super::exit_status(3));
        assert_eq!(
            Dialect::of("v4.base64.channel.k8s.io").last_words(success.clone()),
            Some(success.clone())
        );
        for protocol in ["channel.k8s.io", "base64.channel.k8s.io", ""] {
            assert_eq!(Dialect::of(protocol).last_words(success.clone()), None);
            let words = Dialect::of(protocol).last_words(failure.clone());
            assert_eq!(words.as_deref(), Some("command terminated with non-zero exit code: exit status 3"));
        }
    }
}
