//! Response bodies: one buffer, several buffers, or a stream.

use std::{
    collections::VecDeque,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{Bytes, BytesMut};
use hyper::body::{Body as HttpBody, Frame, SizeHint};

/// Why a body could not be read or sent to its end.
pub type BodyError = Box<dyn std::error::Error + Send + Sync>;

/// Pieces smaller than this are put together before they are sent.
const PIECE: usize = 64 * 1024;

/// The body of every answer.
pub struct Body(Inner);

enum Inner {
    One(Bytes),
    Many { pieces: VecDeque<Bytes>, left: u64 },
    Stream(Pin<Box<dyn HttpBody<Data = Bytes, Error = BodyError> + Send>>),
}

// === impl Body ===

impl Body {
    /// No bytes at all.
    pub fn empty() -> Body {
        Body(Inner::One(Bytes::new()))
    }

    /// One buffer.
    pub fn one(bytes: impl Into<Bytes>) -> Body {
        Body(Inner::One(bytes.into()))
    }

    /// Several buffers, sent in order.
    pub fn many(pieces: Vec<Bytes>) -> Body {
        let left = pieces.iter().map(|piece| piece.len() as u64).sum();
        Body(Inner::Many { pieces: pieces.into(), left })
    }

    /// A body that is produced while it is sent.
    pub fn stream<B>(body: B) -> Body
    where
        B: HttpBody<Data = Bytes, Error = BodyError> + Send + 'static,
    {
        Body(Inner::Stream(Box::pin(body)))
    }
}

impl From<apiserver_core::Body> for Body {
    fn from(body: apiserver_core::Body) -> Body {
        match body {
            apiserver_core::Body::One(bytes) => Body::one(bytes),
            apiserver_core::Body::Many(pieces) => Body::many(pieces),
        }
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut self.0 {
            Inner::One(bytes) if bytes.is_empty() => Poll::Ready(None),
            Inner::One(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Inner::Many { pieces, left } => {
                let next = gather(pieces);
                *left -= next.as_ref().map_or(0, |bytes| bytes.len() as u64);
                Poll::Ready(next.map(|bytes| Ok(Frame::data(bytes))))
            }
            Inner::Stream(body) => body.as_mut().poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Inner::One(bytes) => bytes.is_empty(),
            Inner::Many { left, .. } => *left == 0,
            Inner::Stream(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Inner::One(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Inner::Many { left, .. } => SizeHint::with_exact(*left),
            Inner::Stream(body) => body.size_hint(),
        }
    }
}

/// The next pieces, as one buffer of about [`PIECE`] bytes.
fn gather(pieces: &mut VecDeque<Bytes>) -> Option<Bytes> {
    while pieces.front().is_some_and(Bytes::is_empty) {
        pieces.pop_front();
    }
    let first = pieces.pop_front()?;
    if first.len() >= PIECE || pieces.is_empty() {
        return Some(first);
    }
    let mut out = BytesMut::with_capacity(PIECE.max(first.len()));
    out.extend_from_slice(&first);
    while let Some(next) = pieces.front() {
        if out.len() + next.len() > PIECE {
            break;
        }
        out.extend_from_slice(next);
        pieces.pop_front();
    }
    Some(out.freeze())
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;

    #[tokio::test]
    async fn pieces_arrive_whole_and_in_order() {
        let pieces = vec![
            Bytes::from_static(b"["),
            Bytes::from(vec![b'a'; 100]),
            Bytes::new(),
            Bytes::from(vec![b'b'; 2 * PIECE]),
            Bytes::from_static(b"]"),
        ];
        let expected = pieces.concat();
        let body = Body::many(pieces);
        assert_eq!(body.size_hint().exact(), Some(expected.len() as u64));
        let sent = body.collect().await.expect("collected").to_bytes();
        assert_eq!(sent, expected);
    }
}
