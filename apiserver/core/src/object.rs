//! Small readings and writings of objects.

use bytes::{Bytes, BytesMut};

use crate::scan;

/// The bytes of an object with another resourceVersion.
pub fn with_revision(object: &Bytes, revision: u64) -> Bytes {
    let Some(range) = scan::locate(object, &["metadata", "resourceVersion"]) else { return object.clone() };
    let mut out = BytesMut::with_capacity(object.len() + 8);
    out.extend_from_slice(&object[..range.start]);
    out.extend_from_slice(format!("\"{revision}\"").as_bytes());
    out.extend_from_slice(&object[range.end..]);
    out.freeze()
}
