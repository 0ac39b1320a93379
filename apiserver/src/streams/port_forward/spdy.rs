//! Forwarded ports over SPDY: two streams a connection, one for errors and one for data, found by their request id.

use std::collections::HashMap;
use std::io;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::Sink;
use tokio::io::AsyncRead;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::{Dialer, Input, Output, WAITING};
use crate::streams::spdy::{Frame, Reader, WireError, Writer, wire, write_all};

/// Frames that wait to be written.
const QUEUE: usize = 16;
/// Streams that a client may have open.
const MAX_STREAMS: usize = 2048;
/// How long a client has to open the second stream of a connection.
const PAIR_TIMEOUT: Duration = Duration::from_secs(30);

/// What a stream is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Error,
    Data,
}

/// A stream's headers, as far as they matter.
#[derive(Debug, PartialEq, Eq)]
struct Opening {
    kind: Kind,
    port: u16,
    request: String,
}

/// A stream whose other one is not there yet.
struct Half {
    kind: Kind,
    stream: u32,
    since: Instant,
}

/// The two streams of one connection, towards the client.
struct Pair {
    data: u32,
    error: u32,
    frames: mpsc::Sender<Bytes>,
}

/// What is open in one client's connection.
struct Streams {
    dialer: Dialer,
    frames: mpsc::Sender<Bytes>,
    writer: Writer,
    /// By request id.
    halves: HashMap<String, Half>,
    /// The ways into connections, by data stream.
    inputs: HashMap<u32, mpsc::Sender<Input>>,
    connections: JoinSet<()>,
}

/// Carries connections until the client is gone.
pub(super) async fn run(
    read: impl AsyncRead + Unpin,
    write: impl Sink<Bytes, Error = io::Error> + Unpin,
    dialer: Dialer,
) {
    let (frames, queue) = mpsc::channel(QUEUE);
    let Some(writer) = Writer::new() else { return };
    let streams = Streams {
        dialer,
        frames,
        writer,
        halves: HashMap::new(),
        inputs: HashMap::new(),
        connections: JoinSet::new(),
    };
    // The input ends when the client is gone, and the connections with it.
    tokio::select! {
        () = write_all(write, queue) => {}
        ended = streams.run(Reader::new(read)) => if let Err(error) = ended {
            tracing::debug!(error = &error as &dyn std::error::Error, "a SPDY client was cut off");
        },
    }
}

// === impl Streams ===

impl Streams {
    async fn run(mut self, mut reader: Reader<impl AsyncRead + Unpin>) -> Result<(), WireError> {
        while let Some(frame) = reader.next().await? {
            match frame {
                Frame::Open { stream, headers, fin } => {
                    self.open(stream, &headers).await?;
                    if fin {
                        self.input(stream, Input::End).await;
                    }
                }
                Frame::Data { stream, bytes, fin } => {
                    if !bytes.is_empty() {
                        self.input(stream, Input::Bytes(bytes)).await;
                    }
                    if fin {
                        self.input(stream, Input::End).await;
                    }
                }
                Frame::Reset { stream } => {
                    self.inputs.remove(&stream);
                    self.halves.retain(|_, half| half.stream != stream);
                }
                Frame::Ping { id } => self.say(wire::pong(id)).await,
                Frame::Other => {}
            }
        }
        Ok(())
    }

    async fn say(&self, frame: Bytes) {
        // An error means that the client does not read any more, which ends all.
        let _ = self.frames.send(frame).await;
    }

    async fn input(&self, stream: u32, input: Input) {
        if let Some(way) = self.inputs.get(&stream) {
            // An error means that the connection has failed, which its error stream has told.
            let _ = way.send(input).await;
        }
    }

    async fn open(&mut self, stream: u32, headers: &[(String, String)]) -> Result<(), WireError> {
        self.tidy().await;
        let Some(opening) = opening(stream, headers).filter(|_| self.has_room(stream)) else {
            self.say(wire::reset(stream, wire::REFUSED)).await;
            return Ok(());
        };
        let Opening { kind, port, request } = opening;
        let other = match self.halves.remove(&request) {
            Some(half) if half.kind == kind => {
                // The request has this stream already.
                self.halves.insert(request, half);
                self.say(wire::reset(stream, wire::REFUSED)).await;
                return Ok(());
            }
            other => other,
        };
        let reply = self.writer.reply(stream).ok_or(WireError::Headers)?;
        self.say(reply).await;
        let Some(other) = other else {
            self.halves.insert(request, Half { kind, stream, since: Instant::now() });
            return Ok(());
        };
        let (data, error) = match kind {
            Kind::Data => (stream, other.stream),
            Kind::Error => (other.stream, stream),
        };
        let (way, input) = mpsc::channel(WAITING);
        self.inputs.insert(data, way);
        let (dialer, pair) = (self.dialer.clone(), Pair { data, error, frames: self.frames.clone() });
        self.connections.spawn(async move { dialer.forward(port, input, &pair).await });
        Ok(())
    }

    fn has_room(&self, stream: u32) -> bool {
        self.halves.len() + 2 * self.inputs.len() < MAX_STREAMS && !self.inputs.contains_key(&stream)
    }

    /// Forgets connections that have ended, and streams whose other one does not come.
    async fn tidy(&mut self) {
        while self.connections.try_join_next().is_some() {}
        self.inputs.retain(|_, way| !way.is_closed());
        let late: Vec<(String, u32)> = self
            .halves
            .iter()
            .filter(|(_, half)| half.since.elapsed() > PAIR_TIMEOUT)
            .map(|(request, half)| (request.clone(), half.stream))
            .collect();
        for (request, stream) in late {
            self.halves.remove(&request);
            self.say(wire::reset(stream, wire::REFUSED)).await;
        }
    }
}

/// What a stream is opened for. Clients without request ids open the error stream first, and the data stream next.
fn opening(stream: u32, headers: &[(String, String)]) -> Option<Opening> {
    let header = |wanted: &str| {
        let found = headers.iter().find(|(name, _)| name.eq_ignore_ascii_case(wanted));
        found.map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    };
    let kind = match header("streamtype")? {
        "error" => Kind::Error,
        "data" => Kind::Data,
        _ => return None,
    };
    let port = header("port")?.parse().ok().filter(|port| *port > 0)?;
    let request = match (header("requestid"), kind) {
        (Some(request), _) => request.to_owned(),
        (None, Kind::Error) => stream.to_string(),
        (None, Kind::Data) => stream.checked_sub(2)?.to_string(),
    };
    Some(Opening { kind, port, request })
}

// === impl Pair ===

impl Output for Pair {
    async fn bytes(&self, bytes: &[u8]) -> bool {
        self.frames.send(wire::data(self.data, bytes)).await.is_ok()
    }

    async fn end(&self) -> bool {
        // The client waits for the end of the error stream before it closes its own end.
        self.frames.send(wire::fin(self.data)).await.is_ok()
            && self.frames.send(wire::fin(self.error)).await.is_ok()
    }

    async fn fail(&self, message: &str) {
        let told = [wire::data(self.error, message.as_bytes()), wire::fin(self.error), wire::fin(self.data)];
        for frame in told {
            // An error means that the client is gone.
            let _ = self.frames.send(frame).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(stream: u32, headers: &[(&str, &str)], expected: Option<(Kind, u16, &str)>) {
        let headers: Vec<(String, String)> =
            headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let expected =
            expected.map(|(kind, port, request)| Opening { kind, port, request: request.to_owned() });
        assert_eq!(opening(stream, &headers), expected);
    }

    #[test]
    fn streams_are_paired_by_request() {
        let data = [("streamtype", "data"), ("port", "80"), ("requestid", "7")];
        check(3, &data, Some((Kind::Data, 80, "7")));
        check(1, &[("Streamtype", "error"), ("Port", "80")], Some((Kind::Error, 80, "1")));
        check(3, &[("Streamtype", "data"), ("Port", "80")], Some((Kind::Data, 80, "1")));
        check(1, &[("streamtype", "data"), ("port", "80")], None);
        check(3, &[("streamtype", "data"), ("port", "0"), ("requestid", "7")], None);
        check(3, &[("streamtype", "data"), ("port", "65536"), ("requestid", "7")], None);
        check(3, &[("streamtype", "stdin"), ("port", "80"), ("requestid", "7")], None);
        check(3, &[("port", "80")], None);
    }
}
