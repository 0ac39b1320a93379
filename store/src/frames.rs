//! The stream of messages from one member to another, on a TLS connection of its own.
//!
//! ```text
//! from the member that dialed:   hello, message*      (orlop.peer.v1.Hello, eraftpb.Message)
//! from the other:                refusal              (orlop.peer.v1.Refusal), then the stream ends
//! each as a frame:               length u32 little-endian | body
//! ```

use std::io;

use bytes::{Buf as _, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _};

/// The size that one message between members may have.
pub(crate) const MESSAGE_LIMIT: usize = 128 << 20;

const HEAD: usize = 4;
/// Messages are slices of what was read: a new piece of this size is begun when less than the other one is left of it.
const READ_BYTES: usize = 64 << 10;
const READ_AT_LEAST: usize = 4 << 10;

/// Reads frames.
pub(crate) struct Frames<R> {
    from: R,
    read: BytesMut,
}

/// Appends a frame whose body `write` appends; nothing is left of it when that fails.
pub(crate) fn put<E>(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>) -> Result<(), E> {
    let start = out.len();
    out.extend_from_slice(&[0; HEAD]);
    if let Err(error) = write(out) {
        out.truncate(start);
        return Err(error);
    }
    let len = (out.len() - start - HEAD) as u32;
    out[start..start + HEAD].copy_from_slice(&len.to_le_bytes());
    Ok(())
}

// === impl Frames ===

impl<R: AsyncRead + Unpin> Frames<R> {
    pub(crate) fn new(from: R) -> Self {
        Self { from, read: BytesMut::new() }
    }

    /// The next frame's body; `None` when the stream has ended between two frames. When the future is dropped, nothing
    /// is lost.
    pub(crate) async fn next(&mut self) -> io::Result<Option<Bytes>> {
        loop {
            if let Some(body) = self.take()? {
                return Ok(Some(body));
            }
            if self.read.capacity() - self.read.len() < READ_AT_LEAST {
                self.read.reserve(READ_BYTES);
            }
            if self.from.read_buf(&mut self.read).await? == 0 {
                return match self.read.is_empty() {
                    true => Ok(None),
                    false => Err(io::ErrorKind::UnexpectedEof.into()),
                };
            }
        }
    }

    /// Where frames were read from.
    pub(crate) fn get_mut(&mut self) -> &mut R {
        &mut self.from
    }

    fn take(&mut self) -> io::Result<Option<Bytes>> {
        let Some(head) = self.read.first_chunk::<HEAD>() else { return Ok(None) };
        let len = u32::from_le_bytes(*head) as usize;
        if len > MESSAGE_LIMIT {
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("a message of {len} bytes")));
        }
        if self.read.len() < HEAD + len {
            self.read.reserve(HEAD + len - self.read.len());
            return Ok(None);
        }
        self.read.advance(HEAD);
        Ok(Some(self.read.split_to(len).freeze()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framed(bodies: &[&[u8]]) -> Vec<u8> {
        let mut out = Vec::new();
        for body in bodies {
            put(&mut out, |out| {
                out.extend_from_slice(body);
                Ok::<_, ()>(())
            })
            .unwrap();
        }
        out
    }

    #[tokio::test]
    async fn frames_are_read_whatever_the_pieces_in_which_they_come() {
        let bodies: [&[u8]; 4] = [b"hello", b"", &[7; 300], b"x"];
        let sent = framed(&bodies);
        for piece in [1, 3, 100, sent.len()] {
            let (mut write, read) = tokio::io::duplex(piece);
            let sent = sent.clone();
            let writing =
                tokio::spawn(async move { tokio::io::AsyncWriteExt::write_all(&mut write, &sent).await });
            let mut frames = Frames::new(read);
            for body in bodies {
                assert_eq!(frames.next().await.unwrap().as_deref(), Some(body));
            }
            assert_eq!(frames.next().await.unwrap(), None);
            writing.await.unwrap().unwrap();
        }
    }

    #[tokio::test]
    async fn a_frame_that_is_cut_or_too_large_is_an_error() {
        let cut = framed(&[b"hello"]);
        let error = Frames::new(&cut[..cut.len() - 1]).next().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        let error = Frames::new(&[0xff; 8][..]).next().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn nothing_is_left_of_a_frame_that_could_not_be_written() {
        let mut out = framed(&[b"a"]);
        let before = out.clone();
        let failed = put(&mut out, |out| {
            out.extend_from_slice(b"half");
            Err("no")
        });
        assert_eq!((failed, out), (Err("no"), before));
    }
}
