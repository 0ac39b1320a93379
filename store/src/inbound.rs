//! Takes in the streams of messages that other members open, on the store's own thread.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use prost::Message as _;
use proto::peer::{Hello, Refusal};
use store_core::node::Event;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio_rustls::TlsStream;
use tonic::Status;

use crate::connector;
use crate::frames::{self, Frames};
use crate::handle::Request;
use crate::peer_service::{PeerService, is_removal};

/// How long it may take to tell a member that it is refused.
const REFUSE_WITHIN: Duration = Duration::from_secs(1);

/// Why a stream ends before its sender ends it.
#[derive(Debug, thiserror::Error)]
enum StreamError {
    #[error("the connection failed")]
    Io(#[from] io::Error),
    #[error("{}", .0.message())]
    Refused(#[from] Status),
    #[error("the hello cannot be read")]
    Hello(#[from] prost::DecodeError),
}

// === impl PeerService ===

impl PeerService {
    /// Takes in what comes, until the stream ends. Must run on the store's runtime.
    pub(crate) async fn receive(self, caller: u64, mut stream: TlsStream<TcpStream>) {
        if let Err(error) = connector::adopt(&mut stream) {
            tracing::warn!(member = caller, %error, "the stream of a member cannot be taken in");
            return;
        }
        let mut frames = Frames::new(stream);
        let Err(error) = self.take_in(caller, &mut frames).await else { return };
        tracing::debug!(member = caller, %error, "the stream of a member ended");
        if let StreamError::Refused(status) = error {
            let refusal = Refusal { removed: is_removal(&status), reason: status.message().to_owned() };
            // Who cannot be told any more will ask again.
            let _ = tokio::time::timeout(REFUSE_WITHIN, refuse(&mut frames, &refusal)).await;
        }
    }

    async fn take_in(
        &self,
        caller: u64,
        frames: &mut Frames<TlsStream<TcpStream>>,
    ) -> Result<(), StreamError> {
        let Some(hello) = frames.next().await? else { return Ok(()) };
        self.check(caller)?;
        let hello = Hello::decode(hello)?;
        if hello.member != caller {
            return Err(
                Status::permission_denied("the hello and the certificate name different members").into()
            );
        }
        self.learn(caller, hello.address);
        while let Some(letter) = frames.next().await? {
            self.take_letter(caller, &letter)?;
        }
        Ok(())
    }

    fn take_letter(&self, caller: u64, letter: &Bytes) -> Result<(), Status> {
        self.check(caller)?;
        self.tell(Request::Tell(Event::Message(self.message(caller, letter)?)))
    }
}

/// Says why, and reads on until the other end closes: with something unread, what was said could be lost.
async fn refuse(frames: &mut Frames<TlsStream<TcpStream>>, refusal: &Refusal) -> io::Result<()> {
    let mut out = Vec::new();
    frames::put(&mut out, |out| refusal.encode(out)).map_err(io::Error::other)?;
    let stream = frames.get_mut();
    stream.write_all(&out).await?;
    stream.shutdown().await?;
    while frames.next().await?.is_some() {}
    Ok(())
}
