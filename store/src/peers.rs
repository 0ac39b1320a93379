//! The way to the group's other members: a stream of messages to each, and whole states for who is too far behind.
//!
//! Nothing here waits for a peer on the store's thread: what does not fit into a peer's queue is dropped and reported
//! lost, and Raft sends it again.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::Stream;
use prost::Message as _;
use proto::peer::peer_client::PeerClient;
use proto::peer::{DescribeReply, DescribeRequest, Hello, InstallHead, InstallPart, Refusal};
use protobuf::Message as _;
use raft::eraftpb::Message;
use store_core::checkpoint::{self, Image, Texts};
use store_core::members::Members;
use store_core::node::Event;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::sync::mpsc::{self, UnboundedSender};
use tokio_rustls::TlsStream;
use tonic::Status;

use crate::connector::{self, SharedConnector};
use crate::frames::{self, Frames};
use crate::handle::Request;

/// Bytes of messages that may wait for one peer.
const QUEUE_BYTES: usize = 64 << 20;
/// A buffer that has grown larger is not kept.
const KEPT_BYTES: usize = 1 << 20;
/// Parts of a state on their way into a call.
const PARTS: usize = 4;
const PAUSE_MIN: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_millis(500);
/// A session that lasted as long was a good one.
const SETTLED: Duration = Duration::from_secs(2);
/// How long a whole state may take.
const STATE_WITHIN: Duration = Duration::from_secs(600);
const DESCRIBE_WITHIN: Duration = Duration::from_secs(1);

/// Where members are reached: as the group knows, or as they said themselves, which is newer.
#[derive(Debug, Default)]
pub(crate) struct Addresses {
    known: Mutex<HashMap<u64, String>>,
    told: Mutex<HashMap<u64, String>>,
}

/// The other members, as the store's thread sends to them.
pub(crate) struct Peers {
    way: Way,
    links: BTreeMap<u64, Link>,
}

/// What every task that reaches a peer needs.
#[derive(Clone)]
struct Way {
    member: u64,
    address: String,
    connector: SharedConnector,
    addresses: Arc<Addresses>,
    requests: UnboundedSender<Request>,
    runtimes: Runtimes,
}

/// Where tasks run.
#[derive(Clone)]
pub(crate) struct Runtimes {
    /// The store's thread: streams of messages, which it waits for anyway.
    pub(crate) own: Handle,
    /// The process's: what takes longer (handshakes, whole states).
    pub(crate) shared: Handle,
}

/// The messages that wait for one peer; its task ends when this is dropped.
struct Link {
    outbox: Arc<Outbox>,
}

#[derive(Default)]
struct Outbox {
    frames: Mutex<Vec<u8>>,
    filled: Notify,
    closed: AtomicBool,
}

/// How a stream to a peer ended.
enum Ended {
    Broken,
    Removed,
    Closed,
}

// === impl Addresses ===

impl Addresses {
    pub(crate) fn set_known(&self, members: &Members) {
        let addresses = members.iter().map(|(id, member)| (id, member.address.clone()));
        *lock(&self.known) = addresses.filter(|(_, address)| !address.is_empty()).collect();
    }

    pub(crate) fn set_told(&self, member: u64, address: String) {
        if !address.is_empty() {
            lock(&self.told).insert(member, address);
        }
    }

    pub(crate) fn get(&self, member: u64) -> Option<String> {
        let told = lock(&self.told).get(&member).cloned();
        told.or_else(|| lock(&self.known).get(&member).cloned())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

// === impl Peers ===

impl Peers {
    pub(crate) fn new(
        member: u64,
        address: String,
        connector: SharedConnector,
        addresses: Arc<Addresses>,
        requests: UnboundedSender<Request>,
        runtimes: Runtimes,
    ) -> Self {
        let way = Way { member, address, connector, addresses, requests, runtimes };
        Self { way, links: BTreeMap::new() }
    }

    /// Sends messages, without waiting: they go when the store's thread lets its other tasks run.
    pub(crate) fn send(&mut self, messages: Vec<Message>) {
        let mut lost = None;
        for message in messages {
            let way = &self.way;
            let link = self.links.entry(message.to).or_insert_with(|| Link::start(way.clone(), message.to));
            if !link.outbox.put(&message) && lost != Some(message.to) {
                lost = Some(message.to);
                self.way.tell(Event::Unreachable { member: message.to });
            }
        }
    }

    /// Sends a whole state, in the background.
    pub(crate) fn send_state(&self, message: &Message, image: Image) {
        let (way, member) = (self.way.clone(), message.to);
        let message = message.write_to_bytes().map(Bytes::from);
        self.way.runtimes.shared.spawn(async move {
            let sent = match message {
                Ok(message) => {
                    tokio::time::timeout(STATE_WITHIN, way.send_state(member, message, image)).await
                }
                Err(_) => Ok(Err(Status::internal("the message cannot be encoded"))),
            };
            let sent = sent.unwrap_or_else(|_| Err(Status::deadline_exceeded("it took too long")));
            match &sent {
                Ok(()) => tracing::info!(member, "sent the whole state to a member that was too far behind"),
                Err(status) => {
                    tracing::warn!(member, %status, "the state did not reach the member; sent again")
                }
            }
            way.tell(Event::StateSent { member, ok: sent.is_ok() });
        });
    }

    /// Lets go of members that are gone.
    pub(crate) fn retain(&mut self, members: &Members) {
        self.links.retain(|member, _| !members.was_removed(*member));
    }
}

/// Asks another member what it knows of the group.
pub(crate) async fn describe(connector: &SharedConnector, address: &str) -> Option<DescribeReply> {
    let mut client = PeerClient::new(connector::channel(connector, address));
    let reply = tokio::time::timeout(DESCRIBE_WITHIN, client.describe(DescribeRequest {})).await;
    reply.ok()?.ok().map(tonic::Response::into_inner)
}

// === impl Link ===

impl Link {
    fn start(way: Way, member: u64) -> Self {
        let outbox = Arc::new(Outbox::default());
        way.runtimes.own.clone().spawn(keep(way, member, outbox.clone()));
        Self { outbox }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.outbox.closed.store(true, Ordering::Release);
        self.outbox.filled.notify_one();
    }
}

// === impl Outbox ===

impl Outbox {
    /// `false`: the message is lost.
    fn put(&self, message: &Message) -> bool {
        let mut frames = lock(&self.frames);
        if frames.len() > QUEUE_BYTES {
            return false;
        }
        // A message that cannot be encoded is as good as lost.
        let put = frames::put(&mut frames, |out| message.write_to_vec(out));
        self.filled.notify_one();
        put.is_ok()
    }

    /// Takes everything that waits, and leaves an empty buffer; waits for something. `false`: nothing will come.
    async fn take(&self, into: &mut Vec<u8>) -> bool {
        into.clear();
        into.shrink_to(KEPT_BYTES);
        loop {
            if self.closed.load(Ordering::Acquire) {
                return false;
            }
            std::mem::swap(&mut *lock(&self.frames), into);
            if !into.is_empty() {
                return true;
            }
            self.filled.notified().await;
        }
    }
}

/// Keeps a stream to a peer as long as there is something to send.
async fn keep(way: Way, member: u64, outbox: Arc<Outbox>) {
    let mut pause = PAUSE_MIN;
    let mut frames = Vec::new();
    while outbox.take(&mut frames).await {
        let begun = Instant::now();
        match way.session(member, frames, &outbox).await {
            Ended::Closed => return,
            Ended::Broken => way.tell(Event::Unreachable { member }),
            Ended::Removed => way.tell(Event::Removed),
        }
        if begun.elapsed() > SETTLED {
            pause = PAUSE_MIN;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
        // What waited is old: Raft knows that it is lost, and sends what is needed now.
        lock(&outbox.frames).clear();
        frames = Vec::new();
    }
}

// === impl Way ===

impl Way {
    fn tell(&self, event: Event) {
        // An error means that the store was closed.
        let _ = self.requests.send(Request::Tell(event));
    }

    /// One stream, until it ends. Begins with the frames that wait already.
    async fn session(&self, member: u64, mut frames: Vec<u8>, outbox: &Outbox) -> Ended {
        let stream = match self.dial(member).await {
            Ok(stream) => stream,
            Err(error) => {
                tracing::debug!(member, %error, "a member cannot be reached");
                return Ended::Broken;
            }
        };
        let hello = Hello { member: self.member, address: self.address.clone() };
        let mut first = Vec::new();
        // Room for it is made as needed: it cannot fail.
        let _ = frames::put(&mut first, |out| hello.encode(out));
        first.append(&mut frames);
        frames = first;
        let (read, mut write) = tokio::io::split(stream);
        let mut answers = Frames::new(read);
        loop {
            let written = async {
                write.write_all(&frames).await?;
                write.flush().await
            };
            tokio::select! {
                answer = answers.next() => return Ended::of(member, answer),
                written = written => if let Err(error) = written {
                    tracing::debug!(member, %error, "the stream to a member broke");
                    return Ended::Broken;
                },
            }
            tokio::select! {
                answer = answers.next() => return Ended::of(member, answer),
                more = outbox.take(&mut frames) => if !more {
                    return Ended::Closed;
                },
            }
        }
    }

    /// Connects, and brings the connection to the store's thread.
    async fn dial(&self, member: u64) -> io::Result<TlsStream<TcpStream>> {
        let address = self.addresses.get(member).ok_or(io::ErrorKind::AddrNotAvailable)?;
        let dialing = self.runtimes.shared.spawn(connector::dial(self.connector.clone(), address));
        let mut stream = dialing.await.map_err(io::Error::other)??;
        connector::adopt(&mut stream)?;
        Ok(stream)
    }

    async fn send_state(&self, member: u64, message: Bytes, image: Image) -> Result<(), Status> {
        let address = self.addresses.get(member);
        let address = address.ok_or_else(|| Status::unavailable("the member's address is not known"))?;
        let mut client = PeerClient::new(connector::channel(&self.connector, &address));
        let (parts, stream) = mpsc::channel(PARTS);
        let head = InstallHead { member: self.member, message, version: checkpoint::VERSION };
        tokio::task::spawn_blocking(move || {
            let mut head = Some(head);
            let mut texts = Texts::new(image);
            while let Some(text) = texts.next_text(Vec::new()) {
                let checksum = crc32fast::hash(&text);
                let part = InstallPart { head: head.take(), text: text.into(), checksum };
                if parts.blocking_send(part).is_err() {
                    return;
                }
            }
        });
        client.install(receiver(stream)).await.map(|_| ())
    }
}

// === impl Ended ===

impl Ended {
    /// What a member that ends a stream has said.
    fn of(member: u64, answer: io::Result<Option<Bytes>>) -> Self {
        let refusal = answer.ok().flatten().map(Refusal::decode);
        match refusal {
            Some(Ok(refusal)) if refusal.removed => Self::Removed,
            refusal => {
                tracing::debug!(member, ?refusal, "the stream to a member ended");
                Self::Broken
            }
        }
    }
}

/// A stream of what comes out of a channel.
fn receiver<T: Send + 'static>(receiver: mpsc::Receiver<T>) -> impl Stream<Item = T> + Send {
    futures::stream::unfold(receiver, |mut receiver| async {
        receiver.recv().await.map(|item| (item, receiver))
    })
}
