//! How a store is opened.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use store_core::crypt::{Key, Keys};
use store_core::disk::Disk;
use store_core::history::Limits;
use store_core::members::Member;

use crate::FatalError;
use crate::connector::SharedConnector;

/// What happens when the store cannot go on.
pub(crate) type FatalHandler = Arc<dyn Fn(&FatalError) + Send + Sync>;

/// How a member begins when its directory is empty. Otherwise it continues from what is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Start {
    /// It founds a group, of which it is the only voter. A member that is there already takes over a changed name or
    /// address.
    First {
        /// What people call it.
        name: String,
        /// Where its peers reach it.
        address: String,
    },
    /// It waits for the state that the group's leader sends to it. [`Options::member`] is the id that
    /// [`Store::add_member`](crate::Store::add_member) gave it; the store opens at once, empty, and
    /// [`Store::linearizable`](crate::Store::linearizable) tells when it has joined.
    Join {
        /// What people call it.
        name: String,
        /// Where its peers reach it.
        address: String,
    },
}

/// Lays something between a store and the disk that its directory is on: tests have disks that are slow or break.
pub type DiskLayer = Arc<dyn Fn(Arc<dyn Disk>) -> Arc<dyn Disk> + Send + Sync>;

/// How a store is opened.
#[derive(Clone)]
pub struct Options {
    /// The directory that holds log and checkpoints; created when missing, for the owner only.
    pub dir: PathBuf,
    /// What new files are encrypted with. The caller keeps the key; without it the data is lost.
    pub key: Key,
    /// Earlier keys that files may still need. After the next checkpoint nothing does.
    pub retired_keys: Vec<Key>,
    /// This member's id.
    pub member: u64,
    /// How the member begins when the directory is empty.
    pub start: Start,
    /// How peers are reached; `None` in a group of one. With it the store must be opened within a tokio runtime.
    pub peers: Option<SharedConnector>,
    /// How much past is kept for watches and paged lists.
    pub history: Limits,
    /// The size of a log segment.
    pub segment_bytes: u64,
    /// The log grows at least this large before a checkpoint is written (and at least as large as the data).
    pub checkpoint_log_bytes: u64,
    /// The size that one transaction may have.
    pub max_txn_bytes: usize,
    /// What lies between the store and the disk; `None`: nothing.
    pub disk_layer: Option<DiskLayer>,
    pub(crate) on_fatal: FatalHandler,
}

// === impl Start ===

impl Start {
    pub(crate) fn member(&self) -> Member {
        let (Self::First { name, address } | Self::Join { name, address }) = self;
        Member { name: name.clone(), address: address.clone() }
    }
}

// === impl Options ===

impl Options {
    /// The usual options for a directory and a key.
    pub fn new(dir: impl Into<PathBuf>, key: Key) -> Self {
        Self {
            dir: dir.into(),
            key,
            retired_keys: Vec::new(),
            member: 1,
            start: Start::First { name: String::new(), address: String::new() },
            peers: None,
            history: Limits::default(),
            segment_bytes: 16 << 20,
            checkpoint_log_bytes: 8 << 20,
            max_txn_bytes: 8 << 20,
            disk_layer: None,
            on_fatal: Arc::new(end_the_process),
        }
    }

    /// Replaces what happens when the store cannot go on (a failed sync, a log that cannot be written). The
    /// default writes the reason to the log and to stderr and aborts the process: the state in memory may be
    /// ahead of the disk, so nothing may be served from it. When the handler returns, the store is closed and
    /// writers that wait get [`CommitError::Unknown`](crate::CommitError::Unknown).
    pub fn on_fatal(mut self, handler: impl Fn(&FatalError) + Send + Sync + 'static) -> Self {
        self.on_fatal = Arc::new(handler);
        self
    }

    pub(crate) fn keys(&self) -> Keys {
        Keys::new(self.key.clone(), self.retired_keys.clone())
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("dir", &self.dir)
            .field("member", &self.member)
            .finish_non_exhaustive()
    }
}

fn end_the_process(error: &FatalError) {
    tracing::error!(%error, "the store ends the process");
    eprintln!("orlop: {error}");
    std::process::abort();
}
