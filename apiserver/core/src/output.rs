//! How objects are shown: as they are, as a table, or their metadata only.

use bytes::Bytes;
use serde_json::{Value, json};

/// The form of an answer.
#[derive(Clone, Debug)]
pub struct Output {}

impl Output {
    /// Whether objects are shown as they are stored.
    pub fn is_plain(&self) -> bool {
        true
    }

    /// What a watch event shows of an object.
    pub fn event_object(&self, object: &Bytes) -> Bytes {
        object.clone()
    }

    /// The object of a bookmark.
    pub fn bookmark(&self, revision: u64, _initial_end: bool) -> Value {
        json!({"metadata": {"resourceVersion": revision.to_string()}})
    }
}
