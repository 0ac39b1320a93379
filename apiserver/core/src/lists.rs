//! A memo of whole list bodies: large collections that are read again at the same revision.

use std::sync::{Arc, Mutex};

use api::catalogue::Resource;
use bytes::Bytes;

/// Smaller bodies are made faster than they are looked up and kept.
const SMALLEST: usize = 64 * 1024;
/// Larger ones are not worth their memory.
const LARGEST: usize = 4 * 1024 * 1024;
/// How many bodies are kept.
const KEPT: usize = 2;

/// Bodies of lists that were made lately. What a revision shows never changes, so nothing here goes stale.
#[derive(Clone, Default)]
pub(crate) struct Lists {
    bodies: Arc<Mutex<Vec<Kept>>>,
}

struct Kept {
    prefix: String,
    version: String,
    revision: u64,
    body: Bytes,
}

// === impl Lists ===

impl Lists {
    /// The body of the list of all objects below `prefix` at a revision.
    pub fn get(&self, prefix: &str, resource: &Resource, revision: u64) -> Option<Bytes> {
        let bodies = self.bodies.lock().ok()?;
        let found = bodies.iter().find(|kept| {
            kept.revision == revision && kept.prefix == prefix && kept.version == *resource.version
        })?;
        Some(found.body.clone())
    }

    /// Keeps a body if it is worth it; the oldest makes room.
    pub fn put(&self, prefix: &str, resource: &Resource, revision: u64, body: &Bytes) {
        if !(SMALLEST..=LARGEST).contains(&body.len()) {
            return;
        }
        let Ok(mut bodies) = self.bodies.lock() else { return };
        bodies.retain(|kept| kept.prefix != prefix);
        if bodies.len() >= KEPT {
            bodies.remove(0);
        }
        let version = resource.version.clone().into_owned();
        bodies.push(Kept { prefix: prefix.to_owned(), version, revision, body: body.clone() });
    }
}
