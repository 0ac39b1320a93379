//! Remote commands over SPDY/3.1, as clients before Kubernetes 1.31 ask for them.
//!
//! The client opens one stream each for errors, stdin, stdout, stderr and terminal sizes, and names it by the
//! header `streamtype`.

use std::{collections::HashMap, time::Duration};

use apiserver_core::connect::Streams;
use bytes::{Bytes, BytesMut};
use hyper::upgrade::Upgraded;
use proto::tunnel::frame;
use tokio::sync::{mpsc, oneshot};

use super::{Said, resize, said};
use crate::streams::spdy::{self, Frame, Reader, WireError, Writer, wire};
use crate::tunnel::{Receiver, Sender, Session};

/// The protocol served.
pub(in crate::streams) const PROTOCOL: &str = "v4.channel.k8s.io";
/// How long a client has to open its streams.
const OPEN_TIMEOUT: Duration = Duration::from_secs(30);
/// Frames that wait to be written.
const QUEUE: usize = 16;
/// The longest line with a terminal size.
const MAX_SIZE: usize = 256;

/// What a stream carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kind {
    Error,
    Stdin,
    Stdout,
    Stderr,
    Resize,
}

/// Carries the streams until the command or the client is gone.
pub(in crate::streams) async fn run(upgraded: Upgraded, session: Session, streams: Streams) {
    let (read, write) = spdy::halves(upgraded);
    let (sender, receiver) = session.split();
    let (frames, queue) = mpsc::channel(QUEUE);
    let (opened, ready) = oneshot::channel();
    let input = Input {
        reader: Reader::new(read),
        kinds: HashMap::new(),
        expected: expected(streams),
        opened: Some(opened),
        frames: frames.clone(),
        sender,
        size: BytesMut::new(),
    };
    let output = async {
        tokio::join!(output(ready, receiver, frames), spdy::write_all(write, queue));
    };
    // The output ends when the command does; the input ends when the client is gone.
    tokio::select! {
        () = output => {}
        ended = input.run() => if let Err(error) = ended {
            tracing::debug!(error = &error as &dyn std::error::Error, "a SPDY client was cut off");
        },
    }
}

/// The streams that a client opens.
fn expected(streams: Streams) -> Vec<Kind> {
    let wanted = [
        (true, Kind::Error),
        (streams.stdin, Kind::Stdin),
        (streams.stdout, Kind::Stdout),
        (streams.stderr && !streams.tty, Kind::Stderr),
        (streams.tty, Kind::Resize),
    ];
    wanted.into_iter().filter(|(wanted, _)| *wanted).map(|(_, kind)| kind).collect()
}

/// Client to agent.
struct Input<R> {
    reader: Reader<R>,
    kinds: HashMap<u32, Kind>,
    expected: Vec<Kind>,
    /// Told the streams' ids by kind, once all are open.
    opened: Option<oneshot::Sender<HashMap<Kind, u32>>>,
    frames: mpsc::Sender<Bytes>,
    sender: Sender,
    size: BytesMut,
}

// === impl Input ===

impl<R: tokio::io::AsyncRead + Unpin> Input<R> {
    async fn run(mut self) -> Result<(), WireError> {
        let mut writer = Writer::new().ok_or(WireError::Headers)?;
        while let Some(frame) = self.reader.next().await? {
            match frame {
                Frame::Open { stream, headers, fin } => {
                    self.open(stream, &headers);
                    let reply = writer.reply(stream).ok_or(WireError::Headers)?;
                    // The output has ended when nothing takes the frames any more.
                    let _ = self.frames.send(reply).await;
                    self.announce();
                    if fin && self.kinds.get(&stream) == Some(&Kind::Stdin) {
                        self.tell(frame::Frame::CloseStdin(true)).await;
                    }
                }
                Frame::Data { stream, bytes, fin } => self.data(stream, bytes, fin).await,
                Frame::Reset { stream } if self.kinds.get(&stream) == Some(&Kind::Stdin) => {
                    self.tell(frame::Frame::CloseStdin(true)).await;
                }
                Frame::Ping { id } => {
                    let _ = self.frames.send(wire::pong(id)).await;
                }
                Frame::Reset { .. } | Frame::Other => {}
            }
        }
        Ok(())
    }

    fn open(&mut self, stream: u32, headers: &[(String, String)]) {
        let kind = headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("streamtype"));
        let kind = kind.and_then(|(_, value)| match value.as_str() {
            "error" => Some(Kind::Error),
            "stdin" => Some(Kind::Stdin),
            "stdout" => Some(Kind::Stdout),
            "stderr" => Some(Kind::Stderr),
            "resize" => Some(Kind::Resize),
            _ => None,
        });
        if let Some(kind) = kind {
            self.kinds.insert(stream, kind);
        }
    }

    fn announce(&mut self) {
        let open: HashMap<Kind, u32> = self.kinds.iter().map(|(stream, kind)| (*kind, *stream)).collect();
        if self.expected.iter().all(|kind| open.contains_key(kind))
            && let Some(opened) = self.opened.take()
        {
            // An error means that the output has ended.
            let _ = opened.send(open);
        }
    }

    async fn data(&mut self, stream: u32, bytes: Bytes, fin: bool) {
        match self.kinds.get(&stream) {
            Some(Kind::Stdin) => {
                if !bytes.is_empty() {
                    self.tell(frame::Frame::Stdin(bytes.into())).await;
                }
                if fin {
                    self.tell(frame::Frame::CloseStdin(true)).await;
                }
            }
            Some(Kind::Resize) => {
                self.size.extend_from_slice(&bytes);
                while let Some(end) = self.size.iter().position(|byte| *byte == b'}') {
                    let line = self.size.split_to(end + 1);
                    if let Some(size) = resize(&line) {
                        self.tell(frame::Frame::Resize(size)).await;
                    }
                }
                if self.size.len() > MAX_SIZE {
                    self.size.clear();
                }
            }
            _ => {}
        }
    }

    async fn tell(&mut self, frame: frame::Frame) {
        // When the agent does not listen any more, the command is over; the output says how it ended.
        let _ = self.sender.send(frame).await;
    }
}

/// Agent to client: frames for the writer, then an empty one as the end.
async fn output(
    ready: oneshot::Receiver<HashMap<Kind, u32>>,
    mut receiver: Receiver,
    frames: mpsc::Sender<Bytes>,
) {
    let Ok(Ok(streams)) = tokio::time::timeout(OPEN_TIMEOUT, ready).await else {
        let _ = frames.send(Bytes::new()).await;
        return;
    };
    loop {
        let (kind, bytes, over) = match said(&mut receiver).await {
            Said::Stdout(bytes) => (Kind::Stdout, bytes, false),
            Said::Stderr(bytes) => (Kind::Stderr, bytes, false),
            Said::Over(status) => (Kind::Error, Bytes::from(status), true),
        };
        if let Some(stream) = streams.get(&kind)
            && frames.send(wire::data(*stream, &bytes)).await.is_err()
        {
            return;
        }
        if over {
            break;
        }
    }
    let ends = [Kind::Stdout, Kind::Stderr, Kind::Error].into_iter().filter_map(|kind| streams.get(&kind));
    let last = streams.values().copied().max().unwrap_or_default();
    let closing = ends.map(|stream| wire::fin(*stream)).chain([wire::goaway(last), Bytes::new()]);
    for frame in closing {
        if frames.send(frame).await.is_err() {
            return;
        }
    }
}
