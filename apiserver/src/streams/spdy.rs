//! SPDY/3.1, as clients before Kubernetes 1.31 ask for it, and later ones inside a WebSocket: the handshake, and frames.

use std::io;

use apiserver_core::failure::{self, Refused};
use bytes::Bytes;
use futures::{Sink, SinkExt as _};
use http::{HeaderMap, HeaderName, HeaderValue, Response, header};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, BufReader};
use tokio::sync::mpsc;
use tokio_util::codec::{BytesCodec, FramedWrite};

use super::switching;
use crate::body::Body;
use crate::respond::header_has;

mod dictionary;
pub mod wire;

pub(super) use wire::{Frame, Reader, WireError, Writer};

const PROTOCOL_HEADER: HeaderName = HeaderName::from_static("x-stream-protocol-version");

/// A handshake that was found good.
pub(super) struct Accepted {
    protocol: &'static str,
}

/// Whether the client asks for SPDY at all.
pub(super) fn is_asked(headers: &HeaderMap) -> bool {
    header_has(headers, header::UPGRADE, "SPDY/3.1") && header_has(headers, header::CONNECTION, "upgrade")
}

/// Checks the handshake.
pub(super) fn accept(headers: &HeaderMap, protocol: &'static str) -> Result<Accepted, Refused> {
    if header_has(headers, PROTOCOL_HEADER, protocol) {
        return Ok(Accepted { protocol });
    }
    Err(failure::bad_request(&format!("unable to negotiate a protocol: the server speaks {protocol}")))
}

// === impl Accepted ===

impl Accepted {
    /// The answer that ends the handshake.
    pub(super) fn response(&self) -> Response<Body> {
        let mut response = switching("SPDY/3.1");
        response.headers_mut().insert(PROTOCOL_HEADER, HeaderValue::from_static(self.protocol));
        response
    }
}

/// An upgraded connection, to be read and to be written.
pub(super) fn halves(
    upgraded: Upgraded,
) -> (impl AsyncRead + Unpin, impl Sink<Bytes, Error = io::Error> + Unpin) {
    let (read, write) = tokio::io::split(TokioIo::new(upgraded));
    (BufReader::new(read), FramedWrite::new(write, BytesCodec::new()))
}

/// Writes what is queued, until an empty frame or until nobody queues any more.
pub(super) async fn write_all(
    mut write: impl Sink<Bytes, Error = io::Error> + Unpin,
    mut queue: mpsc::Receiver<Bytes>,
) {
    while let Some(frame) = queue.recv().await {
        if frame.is_empty() {
            break;
        }
        let written = if queue.is_empty() { write.send(frame).await } else { write.feed(frame).await };
        if written.is_err() {
            return;
        }
    }
    // Fails only when the client is gone already.
    let _ = write.close().await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn streams_are_opened_and_data_arrives() {
        let mut writer = Writer::new().expect("a writer");
        let mut bytes = Vec::new();
        bytes.extend_from_slice(&wire::open(&mut writer, 1, &[("streamtype", "error")]));
        bytes.extend_from_slice(&wire::open(&mut writer, 3, &[("streamtype", "stdin"), ("x", "y")]));
        bytes.extend_from_slice(&wire::data(3, b"hello"));
        bytes.extend_from_slice(&wire::fin(3));
        bytes.extend_from_slice(&wire::pong(7));
        let mut reader = Reader::new(&bytes[..]);
        let mut next = async || reader.next().await.expect("read").expect("a frame");
        let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(
            next().await,
            Frame::Open { stream: 1, headers: vec![header("streamtype", "error")], fin: false }
        );
        assert_eq!(
            next().await,
            Frame::Open {
                stream: 3,
                headers: vec![header("streamtype", "stdin"), header("x", "y")],
                fin: false
            }
        );
        assert_eq!(next().await, Frame::Data { stream: 3, bytes: Bytes::from_static(b"hello"), fin: false });
        assert_eq!(next().await, Frame::Data { stream: 3, bytes: Bytes::new(), fin: true });
        assert_eq!(next().await, Frame::Ping { id: 7 });
        assert!(reader.next().await.expect("read").is_none());
    }

    #[tokio::test]
    async fn a_large_frame_is_read_in_pieces() {
        let data = vec![b'x'; 100_000];
        let mut bytes = 3_u32.to_be_bytes().to_vec();
        bytes.extend_from_slice(&(1 << 24 | 100_000_u32).to_be_bytes());
        bytes.extend_from_slice(&data);
        bytes.extend_from_slice(&wire::pong(1));
        let mut reader = Reader::new(&bytes[..]);
        let mut read = Vec::new();
        loop {
            match reader.next().await.expect("read").expect("a frame") {
                Frame::Data { stream: 3, bytes, fin } => {
                    read.extend_from_slice(&bytes);
                    assert_eq!(fin, read.len() == data.len());
                }
                Frame::Ping { id: 1 } => break,
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(read, data);
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(
            frames in proptest::collection::vec((0_u8..12, proptest::collection::vec(proptest::num::u8::ANY, 0..64)), 0..8),
            rest in proptest::collection::vec(proptest::num::u8::ANY, 0..32),
        ) {
            let mut bytes = Vec::new();
            for (kind, payload) in frames {
                bytes.extend_from_slice(&[0x80, 3, 0, kind, 0, 0, 0, payload.len() as u8]);
                bytes.extend_from_slice(&payload);
            }
            bytes.extend_from_slice(&rest);
            let mut reader = Reader::new(&bytes[..]);
            let read = async { while let Ok(Some(_)) = reader.next().await {} };
            futures::executor::block_on(read);
        }
    }
}
