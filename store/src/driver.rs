//! The store's thread: takes everything that waits, has the core commit it, publishes, answers.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use raft::eraftpb::Message;
use rustix::process::setpriority_process;
use store_core::checkpoint::Image;
use store_core::crypt::Key;
use store_core::disk::{Disk, DiskError};
use store_core::files::FilesError;
use store_core::history::History;
use store_core::host::{Host, HostError, HostSettings, Output, Stopped, key_ids};
use store_core::members::Members;
use store_core::node::{Change, ChangeRefusal, Event, Published as Batch, Refusal, Settings};
use store_core::recovery::{self, RecoveryError};
use store_core::{Outcome, Txn};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{oneshot, watch};
use tokio::task::yield_now;

use crate::handle::{Request, Started};
use crate::jobs;
use crate::membership::{Leadership, View};
use crate::options::{FatalHandler, Start};
use crate::peer_service::PeerService;
use crate::peers::{Addresses, Peers, Runtimes};
use crate::published::Published;
use crate::real_disk::{DirLock, RealDisk};
use crate::{CommitError, FatalError, OpenError, Options, ReadError};

/// How much is taken into one batch.
const BATCH_BYTES: usize = 4 << 20;
const BATCH_COUNT: usize = 4096;
/// The longest that the thread waits in a group of several.
const TICK_MS: u64 = 50;
/// A leader that takes so long for what came together is waited for by everybody: as long as followers wait at least.
const SLOW: Duration = Duration::from_millis(300);
/// The thread of a store with peers does little at a time, and everybody waits for it: on a machine that is busy with workloads
/// it goes first, and a leader's signs of life come in time. One without peers goes with everybody else: the later it runs,
/// the more writes share a sync.
const NICE: i32 = -10;
/// How long a store that closes waits for its successor and for its writers.
const CLOSE_WITHIN: Duration = Duration::from_secs(2);

struct Driver {
    member: u64,
    host: Host,
    peers: Option<Peers>,
    members: Arc<ArcSwap<Members>>,
    addresses: Arc<Addresses>,
    leadership: watch::Sender<Leadership>,
    changes: HashMap<u64, oneshot::Sender<Result<u64, ChangeRefusal>>>,
    closing: Option<Closing>,
    published: Arc<Published>,
    requests: UnboundedSender<Request>,
    writers: HashMap<u64, oneshot::Sender<Result<Outcome, CommitError>>>,
    readers: HashMap<u64, oneshot::Sender<Result<(), ReadError>>>,
    next_ticket: u64,
    jobs: Vec<JoinHandle<()>>,
}

/// Who waits for the end, and how long it may take.
struct Closing {
    until: Instant,
    done: Vec<oneshot::Sender<()>>,
}

/// A new key, and whom to tell when it is in use.
type Rekey = (Key, oneshot::Sender<()>);

/// What came in together.
#[derive(Default)]
struct Intake {
    txns: Vec<(u64, Txn)>,
    bytes: usize,
    events: Vec<Event>,
    rekey: Vec<Rekey>,
    closing: Vec<oneshot::Sender<()>>,
}

/// Opens the directory, recovers, and starts the thread.
pub(crate) fn start(options: Options) -> Result<Started, OpenError> {
    let shared = match &options.peers {
        Some(_) => Some(Handle::try_current().map_err(|_| OpenError::NoRuntime)?),
        None => None,
    };
    let (disk, lock) = RealDisk::open(&options.dir)?;
    let disk: Arc<dyn Disk> = Arc::new(disk);
    let disk = options.disk_layer.as_ref().map_or(disk.clone(), |layer| layer(disk));
    let now = now_ms();
    let opened = Host::open(disk, options.keys(), &host_settings(&options, now), now);
    let (mut host, notes) = opened.map_err(|error| open_error(&options, error))?;
    for note in notes {
        tracing::warn!(dir = %options.dir.display(), "{note}");
    }
    let outputs = host.take_outputs();
    let first = outputs.iter().find_map(|output| match output {
        Output::Publish(batch) => Some(batch.events.first()?.revision - 1),
        _ => None,
    });
    let begin = first.unwrap_or(host.snapshot().revision());
    let history = History::new(begin, options.history);
    let published = Arc::new(Published::new(host.snapshot().clone(), history));
    let (requests, waiting) = unbounded_channel();
    let (member, address) = (options.member, options.start.member().address);
    let addresses = Arc::new(Addresses::default());
    let members = Arc::new(ArcSwap::from_pointee(Members::default()));
    let runtime = Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| OpenError::Thread { reason: error.to_string() })?;
    let own = runtime.handle().clone();
    let service = PeerService::new(member, requests.clone(), members.clone(), addresses.clone(), own.clone());
    let peers = options.peers.zip(shared).map(|(connector, shared)| {
        let runtimes = Runtimes { own, shared };
        Peers::new(member, address, connector, addresses.clone(), requests.clone(), runtimes)
    });
    let (leadership, leaderships) = watch::channel(Leadership { member, ..Leadership::default() });
    let driver = Driver {
        member,
        host,
        peers,
        members,
        addresses: addresses.clone(),
        leadership,
        changes: HashMap::new(),
        closing: None,
        published: published.clone(),
        requests: requests.clone(),
        writers: HashMap::new(),
        readers: HashMap::new(),
        next_ticket: 1,
        jobs: Vec::new(),
    };
    spawn(driver, outputs, waiting, lock, runtime, options.on_fatal)?;
    Ok(Started { published, requests, leadership: leaderships, service, addresses })
}

fn host_settings(options: &Options, now_ms: i64) -> HostSettings {
    let mut node = Settings::new(options.member);
    node.checkpoint_log_bytes = options.checkpoint_log_bytes;
    let start = match &options.start {
        Start::First { .. } => recovery::Start::First(options.start.member()),
        Start::Join { .. } => recovery::Start::Join(options.start.member()),
    };
    HostSettings {
        node,
        start,
        segment_bytes: options.segment_bytes,
        boot: now_ms.max(1).cast_unsigned(),
        seed: rand::random(),
    }
}

fn spawn(
    mut driver: Driver,
    outputs: Vec<Output>,
    mut waiting: UnboundedReceiver<Request>,
    lock: DirLock,
    runtime: Runtime,
    on_fatal: FatalHandler,
) -> Result<(), OpenError> {
    driver.perform(outputs, now_ms());
    // Not moved in: dropped with a closure that found no thread, a runtime would wait for its tasks, and panic.
    let (hand_over, handed_over) = std::sync::mpsc::channel::<Runtime>();
    let body = move || {
        let Ok(runtime) = handed_over.recv() else { return };
        if driver.peers.is_some() {
            // Refused without the capability for it: then it goes with everybody else.
            let _ = setpriority_process(None, NICE);
        }
        // A panic must not leave a store behind that looks alive: it ends like any other fatal error.
        let ended = catch_unwind(AssertUnwindSafe(|| runtime.block_on(driver.run(&mut waiting))));
        // Nobody confirms any more that what is published is the newest.
        driver.published.confirm(false);
        let closing = match ended {
            Ok(Ok(closing)) => closing,
            Ok(Err(stopped)) => {
                on_fatal(&FatalError { reason: stopped.to_string() });
                return;
            }
            Err(panic) => {
                let text = panic.downcast_ref::<String>().map(String::as_str);
                let text = text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("panic");
                on_fatal(&FatalError { reason: text.to_owned() });
                return;
            }
        };
        driver.finish(&mut waiting);
        drop((driver, waiting, runtime, lock));
        for done in closing {
            // Who closed may have stopped waiting.
            let _ = done.send(());
        }
    };
    match std::thread::Builder::new().name("store".into()).spawn(body) {
        Ok(_) => {
            // The thread waits for it.
            let _ = hand_over.send(runtime);
            Ok(())
        }
        Err(error) => {
            runtime.shutdown_background();
            Err(OpenError::Thread { reason: error.to_string() })
        }
    }
}

fn open_error(options: &Options, error: HostError) -> OpenError {
    match error {
        HostError::Recovery(RecoveryError::Disk(error)) => OpenError::Disk(error),
        HostError::Stopped(Stopped::Log(FilesError::Disk(error @ DiskError::Full))) => OpenError::Disk(error),
        other => OpenError::Recovery { dir: options.dir.clone(), reason: other.to_string() },
    }
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

// === impl Driver ===

impl Driver {
    /// Works until it is told to close.
    async fn run(
        &mut self,
        waiting: &mut UnboundedReceiver<Request>,
    ) -> Result<Vec<oneshot::Sender<()>>, Stopped> {
        loop {
            let first = self.wait(waiting).await;
            let mut intake = self.take_in(first, waiting);
            let (now, began) = (now_ms(), Instant::now());
            let rekey = std::mem::take(&mut intake.rekey);
            let mut done = self.hand_in(intake, now).map(|()| true);
            loop {
                // Also of a host that has stopped: who was answered before is told.
                let outputs = self.host.take_outputs();
                if self.perform(outputs, now) {
                    // Messages go before this thread waits for the disk: peers write at the same time.
                    yield_now().await;
                }
                if !done? {
                    break;
                }
                done = self.host.sync(now);
            }
            self.follow_up(began.elapsed(), rekey, now)?;
            self.jobs.retain(|job| !job.is_finished());
            if let Some(closing) = self.closing.take_if(|closing| Instant::now() >= closing.until) {
                return Ok(closing.done);
            }
            if self.closing.is_some() && self.may_close() {
                return Ok(self.closing.take().map_or(Vec::new(), |closing| closing.done));
            }
        }
    }

    /// Hands in what came, up to the sync.
    fn hand_in(&mut self, mut intake: Intake, now: i64) -> Result<(), Stopped> {
        match &mut self.closing {
            Some(closing) => closing.done.append(&mut intake.closing),
            None if intake.closing.is_empty() => {}
            None => {
                let done = std::mem::take(&mut intake.closing);
                self.closing = Some(Closing { until: Instant::now() + CLOSE_WITHIN, done });
                let heir = self.host.node().successor().filter(|_| self.host.node().leads());
                // Nobody waits for the answer: what counts is who leads.
                let change = heir.map(Change::TransferLead);
                intake.events.extend(change.map(|change| Event::Change { ticket: 0, change }));
            }
        }
        self.host.begin(intake.txns, intake.events, now)
    }

    /// What comes after the sync: the word that all of it took long, and another key.
    fn follow_up(&mut self, took: Duration, rekey: Vec<Rekey>, now: i64) -> Result<(), Stopped> {
        let is_slow = took >= SLOW && self.peers.is_some();
        if !is_slow && rekey.is_empty() {
            return Ok(());
        }
        if is_slow {
            self.host.handle(Event::Slow, now)?;
        }
        for (key, answer) in rekey {
            self.host.rekey(key, now)?;
            // Who asked may have stopped waiting.
            let _ = answer.send(());
        }
        let outputs = self.host.take_outputs();
        self.perform(outputs, now);
        Ok(())
    }

    /// Whether another one leads, where there is one, and all writers have their answers.
    fn may_close(&self) -> bool {
        let node = self.host.node();
        (!node.leads() || node.successor().is_none()) && self.writers.is_empty()
    }

    /// Waits for a request, or until the node wants to be told the time.
    async fn wait(&self, waiting: &mut UnboundedReceiver<Request>) -> Option<Request> {
        if let Ok(request) = waiting.try_recv() {
            if self.peers.is_some() {
                // This thread did not wait: what peers have sent meanwhile is still in their sockets. The first turn looks
                // there, the second reads.
                yield_now().await;
                yield_now().await;
            }
            return Some(request);
        }
        let Some(at) = self.host.node().poll_timeout() else {
            return Some(waiting.recv().await.unwrap_or_else(closed));
        };
        let left = u64::try_from(at.saturating_sub(now_ms())).unwrap_or(0);
        // Not longer than a tick, wherever the clock was set to meanwhile.
        let left = if self.peers.is_some() { left.min(TICK_MS) } else { left };
        match tokio::time::timeout(Duration::from_millis(left), waiting.recv()).await {
            Ok(request) => Some(request.unwrap_or_else(closed)),
            Err(_) => None,
        }
    }

    /// Takes in a first request and all that wait behind it.
    fn take_in(&mut self, first: Option<Request>, waiting: &mut UnboundedReceiver<Request>) -> Intake {
        let mut intake = Intake::default();
        let waited = first.is_none();
        if let Some(request) = first {
            self.sort_in(request, &mut intake);
        }
        if waited || self.is_due() {
            intake.events.push(Event::Tick);
        }
        while intake.bytes < BATCH_BYTES && intake.txns.len() < BATCH_COUNT && intake.closing.is_empty() {
            let Ok(request) = waiting.try_recv() else { break };
            self.sort_in(request, &mut intake);
        }
        intake
    }

    /// Whether the node wants to be told the time, also when requests come without a pause, or when the clock was set
    /// back.
    fn is_due(&self) -> bool {
        let now = now_ms();
        let is_off = |at: i64| self.peers.is_some() && at > now + TICK_MS.cast_signed();
        self.host.node().poll_timeout().is_some_and(|at| at <= now || is_off(at))
    }

    fn sort_in(&mut self, request: Request, intake: &mut Intake) {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        match request {
            // Who answers was dropped: the store is closed.
            Request::Commit { answer, .. } if self.closing.is_some() => {
                drop(answer.send(Err(CommitError::Closed)));
            }
            Request::Read { answer } if self.closing.is_some() => {
                drop(answer.send(Err(ReadError::Closed)));
            }
            Request::Commit { txn, answer } => {
                intake.bytes += txn.size();
                intake.txns.push((ticket, txn));
                self.writers.insert(ticket, answer);
            }
            Request::Read { answer } => {
                intake.events.push(Event::Read { ticket });
                self.readers.insert(ticket, answer);
            }
            Request::Change { change, answer } => {
                intake.events.push(Event::Change { ticket, change });
                self.changes.insert(ticket, answer);
            }
            // Who asked may have stopped waiting.
            Request::Describe { answer } => {
                drop(answer.send(View::of(self.member, self.host.node())));
            }
            Request::Image { answer } => drop(answer.send(Box::new(self.host.node().image()))),
            Request::Receive { version, answer } => drop(answer.send(self.host.receiver(version))),
            Request::Rekey { key, answer } => intake.rekey.push((key, answer)),
            Request::KeyIds { answer } => drop(answer.send(key_ids(&**self.host.disk()))),
            Request::Tell(event) => intake.events.push(event),
            Request::Close { done } => intake.closing.push(done),
        }
    }

    /// Carries out what the host has left to do; whether messages wait to be sent.
    fn perform(&mut self, outputs: Vec<Output>, now_ms: i64) -> bool {
        let mut sends = false;
        for output in outputs {
            match output {
                Output::Publish(batch) => self.publish(batch, now_ms),
                Output::Confirm(tickets) => {
                    tickets.iter().for_each(|ticket| self.answer_read(*ticket, Ok(())))
                }
                Output::Refuse(refused) => {
                    refused.into_iter().for_each(|(ticket, why)| self.refuse(ticket, why))
                }
                Output::DiskFull(tickets) => {
                    tickets.iter().for_each(|ticket| self.answer(*ticket, Err(CommitError::DiskFull)));
                }
                Output::Replace(snapshot) => self.published.replace(snapshot),
                Output::Changed { ticket, result } => {
                    if let Some(answer) = self.changes.remove(&ticket) {
                        // Who asked may have stopped waiting.
                        let _ = answer.send(result);
                    }
                }
                Output::Send(messages) => {
                    sends = true;
                    if let Some(peers) = &mut self.peers {
                        peers.send(messages);
                    }
                }
                Output::SendState { message, image } => self.send_state(&message, *image),
                Output::Job(job) => self.jobs.extend(jobs::start(job, self.requests.clone())),
            }
        }
        self.tell_group();
        self.published.confirm(self.host.node().is_confirmed());
        sends
    }

    fn send_state(&self, message: &Message, image: Image) {
        match &self.peers {
            Some(peers) => peers.send_state(message, image),
            None => {
                let failed = Event::StateSent { member: message.to, ok: false };
                // Fails only when the thread has gone, and this is the thread.
                let _ = self.requests.send(Request::Tell(failed));
            }
        }
    }

    /// Tells who leads and who the members are, where that has changed.
    fn tell_group(&mut self) {
        let node = self.host.node();
        let now = Leadership { member: self.member, leader: node.leader(), term: node.term() };
        self.leadership.send_if_modified(|told| std::mem::replace(told, now) != now);
        let members = node.state().members();
        if **self.members.load() != *members {
            self.members.store(Arc::new(members.clone()));
            self.addresses.set_known(members);
            if let Some(peers) = &mut self.peers {
                peers.retain(members);
            }
        }
    }

    fn publish(&mut self, batch: Batch, now_ms: i64) {
        if !batch.events.is_empty() {
            self.published.publish(batch.snapshot, &batch.events, now_ms);
        }
        for (ticket, outcome) in batch.answers {
            self.answer(ticket, Ok(outcome));
        }
    }

    fn refuse(&mut self, ticket: u64, why: Refusal) {
        self.answer_read(ticket, Err(ReadError::Unconfirmed));
        self.answer(
            ticket,
            Err(match why {
                Refusal::NotLeader { leader } => CommitError::NotLeader { leader },
                Refusal::Unknown => CommitError::Unknown,
            }),
        );
    }

    fn answer(&mut self, ticket: u64, result: Result<Outcome, CommitError>) {
        if let Some(answer) = self.writers.remove(&ticket) {
            // Who asked may have stopped waiting.
            let _ = answer.send(result);
        }
    }

    fn answer_read(&mut self, ticket: u64, result: Result<(), ReadError>) {
        if let Some(answer) = self.readers.remove(&ticket) {
            // Who asked may have stopped waiting.
            let _ = answer.send(result);
        }
    }

    /// Waits for the jobs, and answers whoever asked too late.
    fn finish(&mut self, waiting: &mut UnboundedReceiver<Request>) {
        for job in self.jobs.drain(..) {
            // A job that panicked has left at most a partial file, which the next start removes.
            let _ = job.join();
        }
        while let Ok(request) = waiting.try_recv() {
            match request {
                Request::Commit { answer, .. } => drop(answer.send(Err(CommitError::Closed))),
                Request::Read { answer } => drop(answer.send(Err(ReadError::Closed))),
                // Dropped answers say that the store is closed.
                Request::Tell(_)
                | Request::Change { .. }
                | Request::Describe { .. }
                | Request::Image { .. }
                | Request::Receive { .. }
                | Request::Rekey { .. }
                | Request::KeyIds { .. } => {}
                Request::Close { done } => drop(done.send(())),
            }
        }
    }
}

/// All handles are gone: nobody waits for the end.
fn closed() -> Request {
    let (done, _) = oneshot::channel();
    Request::Close { done }
}
