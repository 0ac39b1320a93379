//! What a writer asks of the store: comparisons, then operations, all or nothing.

use bytes::Bytes;

/// An atomic write: when every comparison holds, all operations are applied, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Txn {
    /// What must hold in the state before the first operation.
    pub compares: Vec<Compare>,
    /// What is done; a later operation sees the earlier ones.
    pub ops: Vec<Op>,
}

/// One precondition of a [`Txn`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compare {
    /// The key that is looked at.
    pub key: Bytes,
    /// What is expected there.
    pub expect: Expect,
}

/// What a [`Compare`] expects to find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// The key has no live value.
    Absent,
    /// The key has a live value.
    Present,
    /// The key has a live value that was last written at this revision.
    Revision(u64),
}

/// One operation of a [`Txn`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Stores a value; takes one revision.
    Put {
        /// The key that is written.
        key: Bytes,
        /// What is stored.
        value: Value,
        /// When the leader proposes to delete the key again, in milliseconds of the Unix epoch.
        expires_at_ms: Option<i64>,
    },
    /// Removes a key; takes one revision when the key is there, and is nothing when it is not.
    Delete {
        /// The key that is removed.
        key: Bytes,
    },
}

/// Bytes to store, and where the store writes the revision into them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Value {
    /// The value without its revision.
    pub bytes: Bytes,
    /// The offset at which apply splices in the decimal revision; `None`: stored as it is.
    /// An offset behind the end of `bytes` is taken as the end.
    pub splice_at: Option<u32>,
}

/// What became of a [`Txn`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was applied.
    Committed {
        /// One revision per operation, in order. A delete of an absent key changes nothing, takes no
        /// revision, and reports the store's revision at that point.
        revisions: Vec<u64>,
    },
    /// A comparison failed; nothing was changed.
    Conflict {
        /// The first comparison that failed.
        compare: usize,
    },
}

// === impl Txn ===

impl Txn {
    /// The bytes of keys and values that this transaction carries.
    pub fn size(&self) -> usize {
        let compares: usize = self.compares.iter().map(|compare| compare.key.len() + 16).sum();
        let ops: usize = self
            .ops
            .iter()
            .map(|op| match op {
                Op::Put { key, value, .. } => key.len() + value.bytes.len() + 32,
                Op::Delete { key } => key.len() + 16,
            })
            .sum();
        compares + ops
    }

    /// A transaction without comparisons that stores one value as it is.
    pub fn put(key: impl Into<Bytes>, value: impl Into<Bytes>) -> Self {
        let op = Op::Put { key: key.into(), value: Value::plain(value), expires_at_ms: None };
        Self { compares: Vec::new(), ops: vec![op] }
    }

    /// A transaction without comparisons that removes one key.
    pub fn delete(key: impl Into<Bytes>) -> Self {
        Self { compares: Vec::new(), ops: vec![Op::Delete { key: key.into() }] }
    }

    /// The same transaction with one more comparison.
    pub fn when(mut self, key: impl Into<Bytes>, expect: Expect) -> Self {
        self.compares.push(Compare { key: key.into(), expect });
        self
    }
}

// === impl Value ===

impl Value {
    /// A value that is stored as it is.
    pub fn plain(bytes: impl Into<Bytes>) -> Self {
        Self { bytes: bytes.into(), splice_at: None }
    }

    /// A value that gets its decimal revision written in at `offset`.
    pub fn spliced(bytes: impl Into<Bytes>, offset: u32) -> Self {
        Self { bytes: bytes.into(), splice_at: Some(offset) }
    }
}
