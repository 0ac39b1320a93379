//! The live keys at one revision; cheap to clone, cheap to keep.

use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use imbl::OrdMap;

use crate::event::{Before, Change, Event};
use crate::hash;

/// The revision of an empty store: the first write gets the next one, so that 0 stays free to mean "any".
pub const FIRST_REVISION: u64 = 1;

const NEVER: i64 = i64::MAX;
const UNSPLICED: u32 = u32::MAX;

/// A live value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The bytes, with the revision spliced in.
    pub value: Bytes,
    /// The revision at which the key came to life.
    pub create_revision: u64,
    /// The revision of the last write.
    pub revision: u64,
    expires_at_ms: i64,
    splice_at: u32,
}

/// The live keys at one revision. Cloning shares everything.
#[derive(Clone, Debug)]
pub struct Snapshot {
    pub(crate) objects: OrdMap<Bytes, Entry>,
    pub(crate) revision: u64,
    pub(crate) compacted_revision: u64,
    pub(crate) hash: u64,
    pub(crate) data_bytes: u64,
}

// === impl Entry ===

impl Entry {
    pub(crate) fn new(
        value: Bytes,
        create_revision: u64,
        revision: u64,
        expires_at_ms: Option<i64>,
        splice_at: Option<u32>,
    ) -> Self {
        Self {
            value,
            create_revision,
            revision,
            expires_at_ms: expires_at_ms.unwrap_or(NEVER),
            splice_at: splice_at.unwrap_or(UNSPLICED),
        }
    }

    /// When the key expires, in milliseconds of the Unix epoch.
    pub fn expires_at_ms(&self) -> Option<i64> {
        (self.expires_at_ms != NEVER).then_some(self.expires_at_ms)
    }

    /// Where the decimal revision begins in `value`.
    pub fn splice_at(&self) -> Option<u32> {
        (self.splice_at != UNSPLICED).then_some(self.splice_at)
    }

    pub(crate) fn before(&self) -> Before {
        Before {
            create_revision: self.create_revision,
            revision: self.revision,
            expires_at_ms: self.expires_at_ms,
            splice_at: self.splice_at,
        }
    }

    fn restored(value: Bytes, before: Before) -> Self {
        Self {
            value,
            create_revision: before.create_revision,
            revision: before.revision,
            expires_at_ms: before.expires_at_ms,
            splice_at: before.splice_at,
        }
    }
}

// === impl Snapshot ===

impl Default for Snapshot {
    fn default() -> Self {
        Self {
            objects: OrdMap::new(),
            revision: FIRST_REVISION,
            compacted_revision: FIRST_REVISION,
            hash: 0,
            data_bytes: 0,
        }
    }
}

impl Snapshot {
    /// A snapshot with these keys and values, written in this order from the first revision on.
    pub fn for_tests<K: Into<Bytes>, V: Into<Bytes>>(objects: impl IntoIterator<Item = (K, V)>) -> Self {
        let mut snapshot = Self::default();
        for (key, value) in objects {
            snapshot.revision += 1;
            let entry = Entry::new(value.into(), snapshot.revision, snapshot.revision, None, None);
            snapshot.put(key.into(), entry);
        }
        snapshot
    }

    /// The revision of the last write that this snapshot holds.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Events up to and with this revision were forgotten when the snapshot was taken.
    pub fn compacted_revision(&self) -> u64 {
        self.compacted_revision
    }

    /// The same snapshot, with another bound of the kept past.
    pub fn with_compacted_revision(mut self, revision: u64) -> Self {
        self.compacted_revision = revision;
        self
    }

    /// The additive hash over live (key, revision, value).
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// The bytes of all live keys and values.
    pub fn data_bytes(&self) -> u64 {
        self.data_bytes
    }

    /// How many keys are live.
    pub fn len(&self) -> usize {
        self.objects.len()
    }

    /// Whether no key is live.
    pub fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }

    /// The live value of a key.
    pub fn get(&self, key: &[u8]) -> Option<&Entry> {
        self.objects.get(key)
    }

    /// The live keys from `from` (with it) to `to` (without it), in order. Nothing when `to` is not behind `from`.
    pub fn range<'a>(
        &'a self,
        from: &[u8],
        to: &[u8],
    ) -> impl Iterator<Item = (&'a Bytes, &'a Entry)> + use<'a> {
        let upper = if from < to { Bound::Excluded(to) } else { Bound::Excluded(from) };
        self.objects.range::<_, [u8]>((Bound::Included(from), upper))
    }

    /// The live keys that begin with `prefix`, in order.
    pub fn prefix<'a>(&'a self, prefix: &[u8]) -> impl Iterator<Item = (&'a Bytes, &'a Entry)> + use<'a> {
        let end = prefix_end(prefix);
        let upper = end.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        self.objects.range::<_, [u8]>((Bound::Included(prefix), upper))
    }

    /// How many live keys begin with `prefix`.
    pub fn count_prefix(&self, prefix: &[u8]) -> usize {
        self.prefix(prefix).count()
    }

    /// This snapshot as it was before `events`, which are those that led to it, oldest first.
    pub fn rewound(&self, events: &[Arc<Event>]) -> Self {
        let mut snapshot = self.clone();
        events.iter().rev().for_each(|event| snapshot.undo(event));
        snapshot
    }

    /// The same object as this snapshot holds it, where it does.
    pub(crate) fn shared(&self, key: Bytes, entry: Entry) -> (Bytes, Entry) {
        match self.objects.get_key_value(&key[..]) {
            Some((held, same)) if *same == entry => (held.clone(), same.clone()),
            _ => (key, entry),
        }
    }

    /// Stores an entry and returns the one that it replaces, keeping hash and size in step.
    pub(crate) fn put(&mut self, key: Bytes, entry: Entry) -> Option<Entry> {
        self.hash = self.hash.wrapping_add(hash::entry(&key, entry.revision, &entry.value));
        self.data_bytes += (key.len() + entry.value.len()) as u64;
        let old = self.objects.insert(key.clone(), entry)?;
        self.forget(&key, &old);
        Some(old)
    }

    /// Removes an entry and returns it, keeping hash and size in step.
    pub(crate) fn remove(&mut self, key: &[u8]) -> Option<(Bytes, Entry)> {
        let (key, old) = self.objects.remove_with_key(key)?;
        self.forget(&key, &old);
        Some((key, old))
    }

    fn forget(&mut self, key: &[u8], old: &Entry) {
        self.hash = self.hash.wrapping_sub(hash::entry(key, old.revision, &old.value));
        self.data_bytes -= (key.len() + old.value.len()) as u64;
    }

    /// Takes one event back; events are taken back newest first.
    fn undo(&mut self, event: &Event) {
        match (&event.change, event.before) {
            (Change::Put { previous: Some(previous), .. }, Some(before))
            | (Change::Delete { previous, .. }, Some(before)) => {
                self.put(event.key.clone(), Entry::restored(previous.clone(), before));
            }
            _ => {
                self.remove(&event.key);
            }
        }
        self.revision = event.revision - 1;
    }
}

/// The first key behind all keys that begin with `prefix`; `None` when there is no such key.
pub fn prefix_end(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|byte| *byte != u8::MAX)?;
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    Some(end)
}
