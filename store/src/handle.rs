//! The handle through which the rest of the server uses the store.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use proto::peer::peer_server::PeerServer;
use store_core::checkpoint::{CheckpointError, Image, Receiver};
use store_core::crypt::Key;
use store_core::disk::DiskError;
use store_core::history::Compacted;
use store_core::members::Member;
use store_core::node::{Change, ChangeRefusal, Event};
use store_core::{Outcome, Snapshot, Txn};
use tokio::net::TcpStream;
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::{oneshot, watch};
use tokio_rustls::TlsStream;

use crate::connector::SharedConnector;
use crate::driver;
use crate::membership::{self, ChangeError, Leadership, MemberStatus, PeerId, View};
use crate::peer_service::PeerService;
use crate::peers::{self, Addresses};
use crate::published::{Observer, Published};
use crate::{CommitError, OpenError, Options, ReadError, RekeyError};

/// A learner has caught up that has after this long what was applied before.
const CATCH_UP: Duration = Duration::from_millis(500);

/// What the handle asks of the store's thread.
pub(crate) enum Request {
    Commit { txn: Txn, answer: oneshot::Sender<Result<Outcome, CommitError>> },
    Read { answer: oneshot::Sender<Result<(), ReadError>> },
    Change { change: Change, answer: oneshot::Sender<Result<u64, ChangeRefusal>> },
    Describe { answer: oneshot::Sender<View> },
    Image { answer: oneshot::Sender<Box<Image>> },
    Receive { version: u32, answer: oneshot::Sender<Result<Receiver, CheckpointError>> },
    Rekey { key: Key, answer: oneshot::Sender<()> },
    KeyIds { answer: oneshot::Sender<Result<BTreeSet<u64>, DiskError>> },
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
    requests: UnboundedSender<Request>,
    max_txn_bytes: usize,
    leadership: watch::Receiver<Leadership>,
    service: PeerService,
    connector: Option<SharedConnector>,
    addresses: Arc<Addresses>,
}

/// What a started store is reached by.
pub(crate) struct Started {
    pub(crate) published: Arc<Published>,
    pub(crate) requests: UnboundedSender<Request>,
    pub(crate) leadership: watch::Receiver<Leadership>,
    pub(crate) service: PeerService,
    pub(crate) addresses: Arc<Addresses>,
}

// === impl Store ===

impl Store {
    /// Opens the store, creates it where there is none, and returns when what is on the disk is read. Blocks
    /// meanwhile. In a group of one the state is then complete; in a larger one [`Self::linearizable`] tells.
    pub fn open(options: Options) -> Result<Self, OpenError> {
        let (max_txn_bytes, connector) = (options.max_txn_bytes, options.peers.clone());
        let Started { published, requests, leadership, service, addresses } = driver::start(options)?;
        let inner = Inner { published, requests, max_txn_bytes, leadership, service, connector, addresses };
        Ok(Self { inner: Arc::new(inner) })
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

    /// The whole state, with every write acknowledged before the call, as it goes into a backup. Cheap: it shares everything
    /// with the newest state.
    pub async fn image(&self) -> Result<Box<Image>, ReadError> {
        self.linearizable().await?;
        let (answer, answered) = oneshot::channel();
        self.inner.requests.send(Request::Image { answer }).map_err(|_| ReadError::Closed)?;
        answered.await.map_err(|_| ReadError::Closed)
    }

    /// Encrypts new files with this key, which the caller has made durable before, and has a checkpoint written. The keys of
    /// before are needed for as long as [`Self::key_ids`] names them.
    ///
    /// # Errors
    /// When the store is closed.
    pub async fn rekey(&self, key: Key) -> Result<(), RekeyError> {
        let (answer, answered) = oneshot::channel();
        self.inner.requests.send(Request::Rekey { key, answer }).map_err(|_| RekeyError::Closed)?;
        answered.await.map_err(|_| RekeyError::Closed)
    }

    /// The ids of the keys that this member's files are encrypted with.
    ///
    /// # Errors
    /// When a file cannot be read, or the store is closed.
    pub async fn key_ids(&self) -> Result<BTreeSet<u64>, RekeyError> {
        let (answer, answered) = oneshot::channel();
        self.inner.requests.send(Request::KeyIds { answer }).map_err(|_| RekeyError::Closed)?;
        Ok(answered.await.map_err(|_| RekeyError::Closed)??)
    }

    /// The service that peers call, for the server that listens for them. Whoever mounts it lets only members in, and
    /// puts the caller's [`PeerId`](crate::PeerId) into the request's extensions.
    pub fn peer_service(&self) -> PeerServer<PeerService> {
        self.inner.service.clone().server()
    }

    /// Takes in the stream of messages that a member sends over a connection whose protocol is
    /// [`PEER_PROTOCOL`](crate::PEER_PROTOCOL). The caller has found who it is by the client certificate, and has read
    /// nothing from it.
    pub fn take_stream(&self, peer: PeerId, stream: TlsStream<TcpStream>) {
        self.inner.service.take_stream(peer, stream);
    }

    /// The group's members, by id. Asks the others how far they have come, and waits for them no longer than a second.
    pub async fn members(&self) -> Vec<MemberStatus> {
        let (answer, answered) = oneshot::channel();
        if self.inner.requests.send(Request::Describe { answer }).is_err() {
            return Vec::new();
        }
        let Ok(view) = answered.await else { return Vec::new() };
        let others = view.members.iter().map(|(id, ..)| *id).filter(|id| *id != view.member);
        let replies = futures::future::join_all(others.map(|id| self.ask(id))).await;
        let replies: Vec<_> = replies.into_iter().flatten().collect();
        let matched = |id: u64, own: Option<u64>| {
            let leader = replies.iter().find(|reply| Some(reply.member) == view.leader);
            let told = leader.and_then(|reply| reply.members.iter().find(|member| member.id == id));
            own.or(told.and_then(|member| member.matched))
        };
        let applied = |id: u64| match id == view.member {
            true => Some(view.applied),
            false => replies.iter().find(|reply| reply.member == id).map(|reply| reply.applied),
        };
        let status = |(id, member, role, own): &(u64, Member, _, Option<u64>)| MemberStatus {
            id: *id,
            name: member.name.clone(),
            address: member.address.clone(),
            role: *role,
            leads: view.leader == Some(*id),
            applied: applied(*id),
            matched: matched(*id, *own),
        };
        view.members.iter().map(status).collect()
    }

    async fn ask(&self, id: u64) -> Option<proto::peer::DescribeReply> {
        let address = self.inner.addresses.get(id)?;
        peers::describe(self.inner.connector.as_ref()?, &address).await
    }

    /// Adds a member as a learner and returns its id, which was never given before. The member itself begins with
    /// [`Start::Join`](crate::Start::Join); when it has caught up, the leader makes it a voter.
    pub async fn add_member(
        &self,
        name: impl Into<String>,
        address: impl Into<String>,
    ) -> Result<u64, ChangeError> {
        self.change(Change::Add(Member { name: name.into(), address: address.into() })).await
    }

    /// Removes a member for good. It stops itself when it learns of it; its id is not given again. When it leads, the
    /// lead goes to another voter first.
    pub async fn remove_member(&self, id: u64) -> Result<(), ChangeError> {
        self.change(Change::Remove(id)).await.map(|_| ())
    }

    /// Makes a learner a voter without waiting until the leader does so. One that is away or far behind is refused: as a
    /// voter it could cost the group its majority.
    pub async fn promote(&self, id: u64) -> Result<(), ChangeError> {
        let members = self.members().await;
        if let Some(target) = membership::target(&members, id) {
            tokio::time::sleep(CATCH_UP).await;
            membership::caught_up(&self.members().await, id, target)?;
        }
        self.change(Change::Promote(id)).await.map(|_| ())
    }

    /// Hands the lead to a voter, and returns when this member has seen it lead.
    pub async fn transfer_lead(&self, id: u64) -> Result<(), ChangeError> {
        self.change(Change::TransferLead(id)).await.map(|_| ())
    }

    async fn change(&self, change: Change) -> Result<u64, ChangeError> {
        let (answer, answered) = oneshot::channel();
        let request = Request::Change { change: change.clone(), answer };
        self.inner.requests.send(request).map_err(|_| ChangeError::Closed)?;
        let result = answered.await.map_err(|_| ChangeError::Closed)?;
        result.map_err(|refusal| ChangeError::of(refusal, &change))
    }

    /// Who leads, now and whenever that changes. The channel closes with the store.
    pub fn leadership(&self) -> watch::Receiver<Leadership> {
        self.inner.leadership.clone()
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
