//! A session that carries a connection, as a stream of bytes in both directions.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures::Stream;
use proto::tunnel::{Frame, frame};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::sync::PollSender;
use tonic::{Status, Streaming};

use super::{PIECE, Session};

// === impl Session ===

impl Session {
    /// The session of a Dial, as the connection that it carries.
    pub(crate) fn into_pipe(self) -> impl AsyncRead + AsyncWrite + Send + Unpin + 'static {
        let (sender, receiver) = self.split();
        tokio::io::join(
            Reader { frames: receiver.0, left: Bytes::new(), ended: false },
            Writer { frames: PollSender::new(sender.0), ended: false },
        )
    }
}

/// Bytes from the agent. Its end is not the session's: the other direction goes on.
struct Reader {
    frames: Streaming<Frame>,
    left: Bytes,
    ended: bool,
}

// === impl Reader ===

impl AsyncRead for Reader {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.left.is_empty() && !self.ended {
            let frame = match ready!(Pin::new(&mut self.frames).poll_next(context)) {
                Some(Ok(Frame { frame })) => frame,
                Some(Err(status)) => return Poll::Ready(Err(io::Error::other(status))),
                None => return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
            };
            match frame {
                Some(frame::Frame::Data(bytes)) => self.left = bytes.into(),
                Some(frame::Frame::End(_)) => self.ended = true,
                Some(frame::Frame::Failure(failure)) => {
                    return Poll::Ready(Err(io::Error::other(failure.message)));
                }
                _ => {}
            }
        }
        let count = self.left.len().min(buffer.remaining());
        buffer.put_slice(&self.left.split_to(count));
        Poll::Ready(Ok(()))
    }
}

/// Bytes towards the agent.
struct Writer {
    frames: PollSender<Result<Frame, Status>>,
    ended: bool,
}

// === impl Writer ===

impl Writer {
    fn send(&mut self, frame: frame::Frame) -> io::Result<()> {
        self.frames.send_item(Ok(Frame { frame: Some(frame) })).map_err(|_| gone())
    }
}

fn gone() -> io::Error {
    io::ErrorKind::BrokenPipe.into()
}

impl AsyncWrite for Writer {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.ended {
            return Poll::Ready(Err(gone()));
        }
        ready!(self.frames.poll_reserve(context)).map_err(|_| gone())?;
        let piece = &bytes[..bytes.len().min(PIECE)];
        self.send(frame::Frame::Data(piece.to_vec()))?;
        Poll::Ready(Ok(piece.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.ended {
            ready!(self.frames.poll_reserve(context)).map_err(|_| gone())?;
            self.send(frame::Frame::End(true))?;
            self.ended = true;
        }
        Poll::Ready(Ok(()))
    }
}
