//! What can go wrong, one enum per operation.

use std::path::PathBuf;

use store_core::disk::DiskError;

/// Why a store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has the directory open.
    #[error("{}: another instance is running on this directory; stop it or choose another one", dir.display())]
    Locked {
        /// The directory.
        dir: PathBuf,
    },
    /// The directory cannot be used.
    #[error("{}: cannot be used as a data directory", dir.display())]
    Directory {
        /// The directory.
        dir: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// What is on the disk cannot be continued.
    #[error("{}: {reason}", dir.display())]
    Recovery {
        /// The directory.
        dir: PathBuf,
        /// What was found, and what to do.
        reason: String,
    },
    /// The disk failed.
    #[error("the store's disk failed")]
    Disk(#[from] DiskError),
    /// A store with peers was opened outside of a tokio runtime.
    #[error("a store with peers needs a tokio runtime")]
    NoRuntime,
    /// The store's thread could not be started, or ended while it was starting.
    #[error("the store's thread did not start: {reason}")]
    Thread {
        /// Why.
        reason: String,
    },
}

/// Why a write was not acknowledged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommitError {
    /// The transaction is too large. It was not applied.
    #[error("the transaction has {size} bytes; {limit} are allowed")]
    TooLarge {
        /// Its size.
        size: usize,
        /// What is allowed.
        limit: usize,
    },
    /// The disk has no room for it. It was not applied; the store can still be read.
    #[error("the store's disk is full: free some space")]
    DiskFull,
    /// No leader was found for it in time. It was not applied.
    #[error("the store has no leader at the moment")]
    NotLeader {
        /// Who leads, when that is known.
        leader: Option<u64>,
    },
    /// The store was closed before it took the transaction. It was not applied.
    #[error("the store is closed")]
    Closed,
    /// The transaction was under way for too long, or when the store stopped. It may have been applied, or may still
    /// be.
    #[error("the outcome is unknown")]
    Unknown,
}

/// Why a read could not be served.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The store does not hold that revision yet.
    #[error("the store did not reach the revision in time")]
    TimedOut,
    /// This member cannot confirm that what it holds is the newest.
    #[error("this member cannot confirm that its state is the newest")]
    Unconfirmed,
    /// The store is closed.
    #[error("the store is closed")]
    Closed,
}

/// Why the key of the files was not replaced, or not looked at.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RekeyError {
    /// A file cannot be read.
    #[error("the store's files cannot be read")]
    Disk(#[from] DiskError),
    /// The store is closed.
    #[error("the store is closed")]
    Closed,
}

/// Why the store cannot go on. The state in memory may be ahead of the disk: the process has to end.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the store cannot go on: {reason}")]
pub struct FatalError {
    /// What happened.
    pub reason: String,
}
