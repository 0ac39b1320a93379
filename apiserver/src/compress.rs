//! Compresses large answers for clients that ask for it.

use std::io::Write as _;

use bytes::{BufMut as _, Bytes, BytesMut};
use flate2::{Compression, write::GzEncoder};
use http::{HeaderMap, header};

use apiserver_core::Body;

/// Smaller answers are sent as they are.
const WORTH_IT: usize = 128 * 1024;

/// Whether an answer of this length should be compressed for a client with these headers.
pub(crate) fn is_wanted(headers: &HeaderMap, length: usize) -> bool {
    length > WORTH_IT && accepts_gzip(headers)
}

/// Whether a client with these headers reads gzip.
pub(crate) fn accepts_gzip(headers: &HeaderMap) -> bool {
    headers
        .get_all(header::ACCEPT_ENCODING)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|coding| {
            let mut parts = coding.split(';').map(str::trim);
            let name = parts.next().unwrap_or_default();
            let refused = parts.any(|part| matches!(part, "q=0" | "q=0.0" | "q=0.00" | "q=0.000"));
            name.eq_ignore_ascii_case("gzip") && !refused
        })
}

/// The compressed body; `None` when it cannot be compressed.
pub(crate) fn gzip(body: &Body) -> Option<Bytes> {
    let out = BytesMut::with_capacity(body.len() / 8).writer();
    let mut encoder = GzEncoder::new(out, Compression::fast());
    let pieces = match body {
        Body::One(bytes) => std::slice::from_ref(bytes),
        Body::Many(pieces) => pieces.as_slice(),
    };
    for piece in pieces {
        encoder.write_all(piece).ok()?;
    }
    Some(encoder.finish().ok()?.into_inner().freeze())
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn what_was_compressed_can_be_read() {
        let body = Body::Many(vec![Bytes::from(vec![b'x'; 200_000]), Bytes::from_static(b"end")]);
        let packed = gzip(&body).expect("compressed");
        let mut text = Vec::new();
        flate2::read::GzDecoder::new(&packed[..]).read_to_end(&mut text).expect("read");
        assert_eq!(text, body.to_bytes());
    }

    #[test]
    fn only_who_asks_for_gzip_gets_it() {
        let check = |value: &'static str, expected: bool| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT_ENCODING, http::HeaderValue::from_static(value));
            assert_eq!(is_wanted(&headers, WORTH_IT + 1), expected, "{value}");
            assert!(!is_wanted(&headers, WORTH_IT));
        };
        check("gzip", true);
        check("deflate, GZIP;q=1.0, *;q=0.5", true);
        check("gzip;q=0", false);
        check("identity", false);
    }
}
