//! Reads the body of a request.

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::body::Body as HttpBody;

use crate::body::BodyError;

/// So much of a body that is too large is read and forgotten; then the connection ends.
const MAX_FORGOTTEN: usize = 64 * 1024 * 1024;

/// Why a body was not read.
pub(crate) enum BodyFailure {
    /// Longer than is allowed.
    TooLarge,
    /// The client stopped sending.
    Broken,
}

/// Reads the whole body, no more than `limit`. Of a larger one a part is read and forgotten: a client that is still
/// sending would not see the answer.
pub(crate) async fn collect<B>(body: B, limit: usize) -> Result<Bytes, BodyFailure>
where
    B: HttpBody<Data = Bytes>,
    B::Error: Into<BodyError>,
{
    if body.is_end_stream() {
        return Ok(Bytes::new());
    }
    let mut body = Box::pin(body);
    let mut first = Bytes::new();
    let mut rest = BytesMut::new();
    let mut length = 0;
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|_| BodyFailure::Broken)?.into_data() else { continue };
        length += data.len();
        if length > MAX_FORGOTTEN {
            break;
        }
        if length > limit {
            (first, rest) = (Bytes::new(), BytesMut::new());
        } else if first.is_empty() {
            first = data;
        } else {
            if rest.is_empty() {
                rest.extend_from_slice(&first);
            }
            rest.extend_from_slice(&data);
        }
    }
    match length > limit {
        true => Err(BodyFailure::TooLarge),
        false if rest.is_empty() => Ok(first),
        false => Ok(rest.freeze()),
    }
}
