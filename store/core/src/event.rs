//! What a watcher learns of an applied operation.

use bytes::Bytes;

/// One applied operation. Every revision has exactly one event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The revision that the operation took.
    pub revision: u64,
    /// The key that it changed.
    pub key: Bytes,
    /// What it did.
    pub change: Change,
    /// The entry that was there before, without its bytes: enough to undo the operation.
    pub(crate) before: Option<Before>,
}

/// What happened to a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A value was stored.
    Put {
        /// The value, with its revision spliced in.
        value: Bytes,
        /// The value that it replaced.
        previous: Option<Bytes>,
    },
    /// The key was removed.
    Delete {
        /// The last value, with the revision of the deletion spliced in.
        last: Bytes,
        /// The last value as it was stored.
        previous: Bytes,
    },
}

/// The facts of a replaced or removed entry besides its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Before {
    pub(crate) create_revision: u64,
    pub(crate) revision: u64,
    pub(crate) expires_at_ms: i64,
    pub(crate) splice_at: u32,
}

// === impl Event ===

impl Event {
    /// An event made by hand, for tests of those who consume events; it cannot be undone by a history.
    pub fn for_tests(revision: u64, key: impl Into<Bytes>, change: Change) -> Self {
        Self { revision, key: key.into(), change, before: None }
    }

    /// The value that was there before the operation.
    pub fn previous(&self) -> Option<&Bytes> {
        match &self.change {
            Change::Put { previous, .. } => previous.as_ref(),
            Change::Delete { previous, .. } => Some(previous),
        }
    }

    /// About what an event takes besides its key and values.
    pub(crate) const OVERHEAD: usize = 192;

    /// Bytes that this event keeps in memory.
    pub fn size(&self) -> usize {
        let values = match &self.change {
            Change::Put { value, previous } => value.len() + previous.as_ref().map_or(0, Bytes::len),
            Change::Delete { last, previous } => last.len() + previous.len(),
        };
        values + self.key.len() + Self::OVERHEAD
    }
}
