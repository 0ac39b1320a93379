//! The way to the group's other members: a stream of messages to each, and whole states for who is too far behind.
//!
//! Nothing here waits for a peer on the store's thread: what does not fit into a peer's queue is dropped and reported
//! lost, and Raft sends it again.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::Stream;
use proto::peer::peer_client::PeerClient;
use proto::peer::{DescribeReply, DescribeRequest, Hello, InstallHead, InstallPart, Letters};
use protobuf::Message as _;
use raft::eraftpb::Message;
use store_core::checkpoint::{self, Image, Texts};
use store_core::members::Members;
use store_core::node::Event;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

use crate::handle::Request;
use crate::membership::SharedConnector;
use crate::peer_service::{MESSAGE_LIMIT, REFUSAL, REMOVED};

/// Messages that may wait for one peer, and their bytes.
const QUEUE: usize = 4096;
const QUEUE_BYTES: usize = 64 << 20;
/// Messages that go together, in bytes.
const FRAME_BYTES: usize = 1 << 20;
/// Frames on their way into a stream.
const FRAMES: usize = 4;
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
    requests: Sender<Request>,
    runtime: Handle,
}

/// The queue of one peer; its task ends when this is dropped.
struct Link {
    letters: mpsc::Sender<Bytes>,
    queued: Arc<AtomicUsize>,
}

/// How a stream to a peer ended.
enum Ended {
    Broken,
    Removed,
    Closed,
}

/// The beginning of a peer's channel, with the settings that the store counts on: small messages go at once, and a
/// connection that is dead is noticed within two seconds. The connector adds TLS.
pub fn endpoint(address: &str) -> Result<Endpoint, tonic::transport::Error> {
    // The scheme is plain because TLS is laid by the connector.
    let endpoint = Endpoint::from_shared(format!("http://{address}"))?;
    Ok(endpoint
        .tcp_nodelay(true)
        .connect_timeout(Duration::from_secs(1))
        .http2_keep_alive_interval(Duration::from_secs(1))
        .keep_alive_timeout(Duration::from_secs(1))
        .initial_stream_window_size(8 << 20)
        .initial_connection_window_size(16 << 20))
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
        requests: Sender<Request>,
        runtime: Handle,
    ) -> Self {
        let way = Way { member, address, connector, addresses, requests, runtime };
        Self { way, links: BTreeMap::new() }
    }

    /// Sends messages, without waiting.
    pub(crate) fn send(&mut self, messages: Vec<Message>) {
        let mut lost = None;
        for message in messages {
            let way = &self.way;
            let link = self.links.entry(message.to).or_insert_with(|| Link::start(way.clone(), message.to));
            // A message that cannot be encoded is as good as lost.
            let sent = message.write_to_bytes().is_ok_and(|bytes| link.send(bytes.into()));
            if !sent && lost != Some(message.to) {
                lost = Some(message.to);
                self.way.tell(Event::Unreachable { member: message.to });
            }
        }
    }

    /// Sends a whole state, in the background.
    pub(crate) fn send_state(&self, message: &Message, image: Image) {
        let (way, member) = (self.way.clone(), message.to);
        let message = message.write_to_bytes().map(Bytes::from);
        self.way.runtime.spawn(async move {
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
    let mut client = PeerClient::new(connector.connect(address));
    let reply = tokio::time::timeout(DESCRIBE_WITHIN, client.describe(DescribeRequest {})).await;
    reply.ok()?.ok().map(tonic::Response::into_inner)
}

// === impl Link ===

impl Link {
    fn start(way: Way, member: u64) -> Self {
        let (letters, queue) = mpsc::channel(QUEUE);
        let queued = Arc::new(AtomicUsize::new(0));
        let runtime = way.runtime.clone();
        runtime.spawn(keep(way, member, queue, queued.clone()));
        Self { letters, queued }
    }

    fn send(&self, letter: Bytes) -> bool {
        let len = letter.len();
        if self.queued.load(Ordering::Relaxed) + len > QUEUE_BYTES {
            return false;
        }
        self.queued.fetch_add(len, Ordering::Relaxed);
        let sent = self.letters.try_send(letter).is_ok();
        if !sent {
            self.queued.fetch_sub(len, Ordering::Relaxed);
        }
        sent
    }
}

/// Keeps a stream to a peer as long as there is something to send.
async fn keep(way: Way, member: u64, mut queue: mpsc::Receiver<Bytes>, queued: Arc<AtomicUsize>) {
    let mut pause = PAUSE_MIN;
    while let Some(first) = queue.recv().await {
        queued.fetch_sub(first.len(), Ordering::Relaxed);
        let begun = Instant::now();
        match way.session(member, first, &mut queue, &queued).await {
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
        while let Ok(old) = queue.try_recv() {
            queued.fetch_sub(old.len(), Ordering::Relaxed);
        }
    }
}

// === impl Way ===

impl Way {
    fn tell(&self, event: Event) {
        // An error means that the store was closed.
        let _ = self.requests.send(Request::Tell(event));
    }

    fn client(&self, member: u64) -> Option<PeerClient<Channel>> {
        let address = self.addresses.get(member)?;
        Some(PeerClient::new(self.connector.connect(&address)).max_encoding_message_size(MESSAGE_LIMIT))
    }

    /// One stream, until it ends.
    async fn session(
        &self,
        member: u64,
        first: Bytes,
        queue: &mut mpsc::Receiver<Bytes>,
        queued: &AtomicUsize,
    ) -> Ended {
        let Some(mut client) = self.client(member) else { return Ended::Broken };
        let (frames, stream) = mpsc::channel(FRAMES);
        let hello = Hello { member: self.member, address: self.address.clone() };
        let mut frame = Letters { hello: Some(hello), messages: vec![first] };
        let mut call = std::pin::pin!(client.deliver(receiver(stream)));
        loop {
            let mut bytes = 0;
            while bytes < FRAME_BYTES
                && let Ok(letter) = queue.try_recv()
            {
                bytes += letter.len();
                queued.fetch_sub(letter.len(), Ordering::Relaxed);
                frame.messages.push(letter);
            }
            tokio::select! {
                ended = &mut call => return Ended::of(member, ended.err()),
                // An error means that the call has ended, which is seen above.
                _ = frames.send(std::mem::take(&mut frame)) => {}
            }
            tokio::select! {
                ended = &mut call => return Ended::of(member, ended.err()),
                letter = queue.recv() => match letter {
                    Some(letter) => {
                        queued.fetch_sub(letter.len(), Ordering::Relaxed);
                        frame.messages.push(letter);
                    }
                    None => return Ended::Closed,
                },
            }
        }
    }

    async fn send_state(&self, member: u64, message: Bytes, image: Image) -> Result<(), Status> {
        let mut client =
            self.client(member).ok_or_else(|| Status::unavailable("the member's address is not known"))?;
        let (parts, stream) = mpsc::channel(FRAMES);
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
    fn of(member: u64, status: Option<Status>) -> Self {
        match status {
            Some(status) if status.code() == Code::FailedPrecondition && is_removed(&status) => Self::Removed,
            status => {
                tracing::debug!(member, ?status, "the stream to a member ended");
                Self::Broken
            }
        }
    }
}

fn is_removed(status: &Status) -> bool {
    status.metadata().get(REFUSAL).is_some_and(|refusal| refusal == REMOVED)
}

/// A stream of what comes out of a channel.
fn receiver<T: Send + 'static>(receiver: mpsc::Receiver<T>) -> impl Stream<Item = T> + Send {
    futures::stream::unfold(receiver, |mut receiver| async {
        receiver.recv().await.map(|item| (item, receiver))
    })
}
