//! The handle through which the rest of the server uses the store.

use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Duration;

use store_core::history::Compacted;
use store_core::node::Event;
use store_core::{Outcome, Snapshot, Txn};
use tokio::sync::{oneshot, watch};

use proto::peer::peer_server::PeerServer;

use crate::driver;
use crate::membership::{ChangeError, Leadership, MemberStatus};
use crate::peers::PeerService;
use crate::published::{Observer, Published};
use crate::{CommitError, OpenError, Options, ReadError};

/// What the handle asks of the store's thread.
pub(crate) enum Request {
    Commit { txn: Txn, answer: oneshot::Sender<Result<Outcome, CommitError>> },
    Read { answer: oneshot::Sender<Result<(), ReadError>> },
    Tell(Event),
    Close { done: oneshot::Sender<()> },
}

/// The store. Clones are the same store; when the last one is dropped it closes by itself.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    published: Arc<Published>,
    requests: Sender<Request>,
    max_txn_bytes: usize,
}

// === impl Store ===

impl Store {
    /// Opens the store, creates it where there is none, and returns when its state is complete. Blocks meanwhile.
    pub fn open(options: Options) -> Result<Self, OpenError> {
        let max_txn_bytes = options.max_txn_bytes;
        let (published, requests) = driver::start(options)?;
        Ok(Self { inner: Arc::new(Inner { published, requests, max_txn_bytes }) })
    }

    /// The newest applied state. Never waits.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.inner.published.snapshot()
    }

    /// A state that holds every write acknowledged before the call, by any member. Works on any member: many readers
    /// share one confirmation by the group.
    pub async fn linearizable(&self) -> Result<Arc<Snapshot>, ReadError> {
        // In a group of one a write is published before it is acknowledged.
        if !self.inner.published.confirmed() {
            let (answer, answered) = oneshot::channel();
            self.inner.requests.send(Request::Read { answer }).map_err(|_| ReadError::Closed)?;
            answered.await.map_err(|_| ReadError::Closed)??;
        }
        Ok(self.snapshot())
    }

    /// The newest state, once it holds `revision`; waits for it no longer than `within`.
    pub async fn at_least(&self, revision: u64, within: Duration) -> Result<Arc<Snapshot>, ReadError> {
        let snapshot = self.snapshot();
        if snapshot.revision() >= revision {
            return Ok(snapshot);
        }
        let mut revisions = self.inner.published.revisions();
        let reached = revisions.wait_for(|reached| *reached >= revision);
        match tokio::time::timeout(within, reached).await {
            Ok(Ok(_)) => Ok(self.snapshot()),
            Ok(Err(_)) => Err(ReadError::Closed),
            Err(_) => Err(ReadError::TimedOut),
        }
    }

    /// The state as it was at `revision`, while that is within the kept past; the newest one when `revision` is
    /// not behind it.
    pub fn at(&self, revision: u64) -> Result<Arc<Snapshot>, Compacted> {
        self.inner.published.at(revision)
    }

    /// Applies a transaction durably, at most once, on any member. Everything that waits at the same time shares one
    /// record and one sync. When it is answered, this member has applied it: its next read sees it.
    ///
    /// When the future is dropped, the transaction may still be applied.
    pub async fn commit(&self, txn: Txn) -> Result<Outcome, CommitError> {
        let (size, limit) = (txn.size(), self.inner.max_txn_bytes);
        if size > limit {
            return Err(CommitError::TooLarge { size, limit });
        }
        let (answer, answered) = oneshot::channel();
        self.inner.requests.send(Request::Commit { txn, answer }).map_err(|_| CommitError::Closed)?;
        // Dropped without an answer: the thread ended while it had the transaction.
        answered.await.unwrap_or(Err(CommitError::Unknown))
    }

    /// Has `observer` see every batch that is applied from now on. Returns the state before the first of them:
    /// its events begin right behind that state's revision.
    pub fn observe(&self, observer: Box<dyn Observer>) -> Arc<Snapshot> {
        self.inner.published.observe(observer)
    }

    /// The events behind `after_revision`, oldest first.
    pub fn history(&self, after_revision: u64) -> Result<Vec<Arc<store_core::Event>>, Compacted> {
        self.inner.published.events_after(after_revision)
    }

    /// The service that peers call, for the server that listens for them. Whoever mounts it lets only members in, and
    /// puts the caller's [`PeerId`](crate::PeerId) into the request's extensions.
    pub fn peer_service(&self) -> PeerServer<PeerService> {
        PeerService::server()
    }

    /// The group's members, by id. Asks the others how far they have come, and waits for them no longer than a second.
    pub async fn members(&self) -> Vec<MemberStatus> {
        Vec::new()
    }

    /// Adds a member as a learner and returns its id, which was never given before. The member itself begins with
    /// [`Start::Join`](crate::Start::Join); when it has caught up, the leader makes it a voter.
    pub async fn add_member(
        &self,
        name: impl Into<String>,
        address: impl Into<String>,
    ) -> Result<u64, ChangeError> {
        let (_name, _address) = (name.into(), address.into());
        Err(ChangeError::TimedOut)
    }

    /// Removes a member for good. It stops itself when it learns of it; its id is not given again. When it leads, the
    /// lead goes to another voter first.
    pub async fn remove_member(&self, id: u64) -> Result<(), ChangeError> {
        Err(ChangeError::NoSuchMember { id })
    }

    /// Makes a learner a voter without waiting until the leader does so.
    pub async fn promote(&self, id: u64) -> Result<(), ChangeError> {
        Err(ChangeError::NoSuchMember { id })
    }

    /// Hands the lead to a voter, and returns when this member has seen it lead.
    pub async fn transfer_lead(&self, id: u64) -> Result<(), ChangeError> {
        Err(ChangeError::NoSuchMember { id })
    }

    /// Who leads, now and whenever that changes. The channel closes with the store.
    pub fn leadership(&self) -> watch::Receiver<Leadership> {
        watch::Sender::new(Leadership::default()).subscribe()
    }

    /// Hands the lead to a voter that has caught up, where there is one, finishes the writes that were asked for
    /// before, stops the thread and frees the directory. Later writes get
    /// [`CommitError::Closed`]; reads of the last snapshot go on working.
    pub async fn close(&self) {
        let (done, closed) = oneshot::channel();
        if self.inner.requests.send(Request::Close { done }).is_ok() {
            // An error means that the thread has already gone.
            let _ = closed.await;
        }
    }
}

// === impl Inner ===

impl Drop for Inner {
    fn drop(&mut self) {
        let (done, _) = oneshot::channel();
        // An error means that the store was closed before.
        let _ = self.requests.send(Request::Close { done });
    }
}
