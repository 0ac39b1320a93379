//! A connection that writes once a turn: an answer of gRPC is three frames, for which HTTP/2 would flush twice.

use std::future::{Future, poll_fn};
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// More is written at once.
const HELD_BYTES: usize = 16 << 10;

/// A stream whose flushes wait for the end of the turn.
pub struct Cork<S>(Arc<Mutex<Corked<S>>>);

struct Corked<S> {
    stream: S,
    held: Vec<u8>,
}

/// Serves a connection over a stream, which `connect` lays over a corked one.
pub async fn serve<S, C: Future>(stream: S, connect: impl FnOnce(Cork<S>) -> C) -> C::Output
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let corked = Arc::new(Mutex::new(Corked { stream, held: Vec::new() }));
    let mut connection = pin!(connect(Cork(corked.clone())));
    poll_fn(|cx| {
        let turn = connection.as_mut().poll(cx);
        // An error comes again with what is written next.
        let _ = lock(&corked).poll_out(cx);
        turn
    })
    .await
}

fn lock<S>(corked: &Mutex<Corked<S>>) -> MutexGuard<'_, Corked<S>> {
    corked.lock().unwrap_or_else(PoisonError::into_inner)
}

// === impl Corked ===

impl<S: AsyncWrite + Unpin> Corked<S> {
    /// Writes what is held.
    fn poll_out(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.held.is_empty() {
            return Poll::Ready(Ok(()));
        }
        while !self.held.is_empty() {
            let written = ready!(Pin::new(&mut self.stream).poll_write(cx, &self.held))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.held.drain(..written);
        }
        Pin::new(&mut self.stream).poll_flush(cx)
    }
}

// === impl Cork ===

impl<S: AsyncRead + Unpin> AsyncRead for Cork<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut lock(&self.0).stream).poll_read(cx, into)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Cork<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(data)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut corked = lock(&self.0);
        if corked.held.len() >= HELD_BYTES {
            ready!(corked.poll_out(cx))?;
        }
        data.iter().for_each(|part| corked.held.extend_from_slice(part));
        Poll::Ready(Ok(data.iter().map(|part| part.len()).sum()))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut corked = lock(&self.0);
        ready!(corked.poll_out(cx))?;
        Pin::new(&mut corked.stream).poll_shutdown(cx)
    }
}
