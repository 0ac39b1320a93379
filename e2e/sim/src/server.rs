//! One server process: the store's host on a simulated disk, driven as the store's thread drives it.

mod life;
mod peers;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::{Rc, Weak};
use std::sync::Arc;

use apiserver_core::Derived;
use futures::channel::oneshot;
use raft::eraftpb::MessageType;
use store_core::disk::SimDisk;
use store_core::history::{History, Limits};
use store_core::host::{Host, Job, Output, Stopped};
use store_core::node::{Change, ChangeRefusal, Event, Published, Refusal};
use store_core::recovery::Start;
use store_core::{Outcome, Snapshot, Txn};

use crate::clock::Clock;
use crate::cluster::Cluster;
use crate::kernel::{MS, SECOND, Scope, Sim, Time};
use crate::network::Place;
use crate::streams::Watchers;

/// How much of the past a server keeps.
const HISTORY: Limits = Limits { bytes: 1 << 20, age_ms: 120_000 };

/// The longest that the store's thread waits before it looks at its clock again.
const TICK_MS: u64 = 50;

/// A server, whether it runs or not.
pub struct Server {
    /// Its member id.
    pub member: u64,
    /// Its disk.
    pub disk: SimDisk,
    /// Its clocks.
    pub clock: Clock,
    sim: Sim,
    cluster: Weak<Cluster>,
    start: Start,
    running: RefCell<Option<Running>>,
    backlog: RefCell<Option<Vec<Event>>>,
    /// A bit that was flipped on the disk, so that it can be flipped back when that was noticed.
    flipped: RefCell<Option<(String, u64)>>,
    /// What happens to it when it has sent a message of this kind.
    ambush: Cell<Option<(MessageType, Trap)>>,
    /// It will not start again.
    retired: Cell<bool>,
    boots: Cell<u64>,
    next_ticket: Cell<u64>,
    /// The run that serves the API.
    ready: Cell<Option<Scope>>,
}

struct Running {
    scope: Scope,
    host: Host,
    published: View,
    history: History,
    writers: BTreeMap<u64, oneshot::Sender<Result<Outcome, CommitError>>>,
    readers: BTreeMap<u64, oneshot::Sender<bool>>,
    changes: BTreeMap<u64, oneshot::Sender<Result<u64, ChangeRefusal>>>,
    waiting: Vec<(u64, oneshot::Sender<()>)>,
    intake: Vec<(u64, Txn)>,
    watchers: Watchers,
    /// When the node is told the time next.
    armed: Option<u64>,
}

/// What requests are planned on.
#[derive(Clone)]
pub struct View {
    /// The newest state that was published.
    pub snapshot: Snapshot,
    /// The indexes over it.
    pub derived: Derived,
}

/// What may happen to a server right after it has said something to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trap {
    /// It loses its power.
    PowerCut,
    /// It hears no other server any more, and is heard by none.
    CutOff,
}

/// Why a transaction has no outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommitError {
    /// Another member leads; nothing was done.
    NotLeader,
    /// It may or may not be applied.
    Unknown,
    /// Nothing was done.
    DiskFull,
}

// === impl Server ===

impl Server {
    /// A server that does not run yet, with an empty disk.
    pub fn new(sim: &Sim, cluster: &Weak<Cluster>, member: u64, start: Start) -> Rc<Self> {
        Rc::new(Self {
            member,
            disk: SimDisk::new(),
            clock: Clock::new(sim),
            sim: sim.clone(),
            cluster: cluster.clone(),
            start,
            running: RefCell::default(),
            backlog: RefCell::default(),
            flipped: RefCell::default(),
            ambush: Cell::new(None),
            retired: Cell::new(false),
            boots: Cell::new(0),
            next_ticket: Cell::new(1),
            ready: Cell::new(None),
        })
    }

    /// Where it runs.
    pub fn place(&self) -> Place {
        Place::Server(self.member)
    }

    /// The process, while it runs.
    pub fn scope(&self) -> Option<Scope> {
        self.running.borrow().as_ref().map(|running| running.scope)
    }

    /// Whether it serves the API: what every cluster has is there.
    pub fn is_ready(&self) -> bool {
        self.ready.get().is_some() && self.ready.get() == self.scope()
    }

    /// This run serves the API from now on.
    pub fn set_ready(&self, scope: Scope) {
        self.ready.set(Some(scope));
    }

    /// Completes after `delay`.
    pub fn sleep(&self, delay: Time) -> crate::kernel::Sleep {
        self.sim.sleep(delay)
    }

    /// Whether it believes to lead.
    pub fn leads(&self) -> bool {
        self.running.borrow().as_ref().is_some_and(|running| running.host.node().leads())
    }

    /// The index up to which it has applied the log; 0 while it does not run.
    pub fn applied(&self) -> u64 {
        self.running.borrow().as_ref().map_or(0, |running| running.host.node().state().applied().index)
    }

    /// What it has published.
    pub fn view(&self) -> Option<View> {
        self.running.borrow().as_ref().map(|running| running.published.clone())
    }

    /// The events that it keeps behind a revision; `None` when they are forgotten.
    pub fn past(&self, after: u64) -> Option<Vec<Arc<store_core::Event>>> {
        let running = self.running.borrow();
        let running = running.as_ref()?;
        Some(running.history.after(after).ok()?.events(&running.published.snapshot))
    }

    /// The state as it was at a revision, while that is within the kept past.
    pub fn view_at(&self, revision: u64) -> Option<Snapshot> {
        let running = self.running.borrow();
        let running = running.as_ref()?;
        let current = &running.published.snapshot;
        if revision >= current.revision() {
            return Some(current.clone());
        }
        let past = running.history.between(revision, current.revision()).ok()?;
        Some(current.rewound(&past.events(current)))
    }

    /// Lends the watchers.
    pub fn watchers<T>(&self, with: impl FnOnce(&mut Watchers) -> T) -> Option<T> {
        self.running.borrow_mut().as_mut().map(|running| with(&mut running.watchers))
    }

    // --- work ---

    /// Asks for a checkpoint, however short the log is.
    pub fn checkpoint(self: &Rc<Self>) {
        self.tell(Event::WantCheckpoint);
    }

    /// Applies a transaction durably. Everything that comes within a moment shares one record and one sync.
    pub fn commit(self: &Rc<Self>, txn: Txn) -> oneshot::Receiver<Result<Outcome, CommitError>> {
        let (answer, answered) = oneshot::channel();
        let ticket = self.ticket();
        let mut first = false;
        if let Some(running) = self.running.borrow_mut().as_mut() {
            first = running.intake.is_empty();
            running.intake.push((ticket, txn));
            running.writers.insert(ticket, answer);
        }
        if first {
            let server = self.clone();
            self.sim.after(self.sim.between(0, MS / 2), move || server.flush());
        }
        answered
    }

    /// Waits until what is published holds every write acknowledged before; `false`: that is not known here.
    pub fn confirm(self: &Rc<Self>) -> oneshot::Receiver<bool> {
        let (answer, answered) = oneshot::channel();
        let ticket = self.ticket();
        if let Some(running) = self.running.borrow_mut().as_mut() {
            running.readers.insert(ticket, answer);
        }
        self.tell(Event::Read { ticket });
        answered
    }

    /// Changes the group.
    pub fn change(self: &Rc<Self>, change: Change) -> oneshot::Receiver<Result<u64, ChangeRefusal>> {
        let (answer, answered) = oneshot::channel();
        let ticket = self.ticket();
        if let Some(running) = self.running.borrow_mut().as_mut() {
            running.changes.insert(ticket, answer);
        }
        self.tell(Event::Change { ticket, change });
        answered
    }

    /// Waits until a revision is published here.
    pub fn reached(&self, revision: u64) -> oneshot::Receiver<()> {
        let (answer, answered) = oneshot::channel();
        if let Some(running) = self.running.borrow_mut().as_mut() {
            if running.published.snapshot.revision() >= revision {
                // The receiver is in our hands.
                let _ = answer.send(());
            } else {
                running.waiting.push((revision, answer));
            }
        }
        answered
    }

    fn ticket(&self) -> u64 {
        self.next_ticket.replace(self.next_ticket.get() + 1)
    }

    fn flush(self: &Rc<Self>) {
        if self.is_paused() {
            return;
        }
        let txns = match self.running.borrow_mut().as_mut() {
            Some(running) => std::mem::take(&mut running.intake),
            None => return,
        };
        if !txns.is_empty() {
            self.drive(|host, now_ms| host.commit(txns, now_ms));
        }
    }

    /// Hands the node an event.
    pub fn tell(self: &Rc<Self>, event: Event) {
        if let Some(backlog) = self.backlog.borrow_mut().as_mut() {
            backlog.push(event);
            return;
        }
        self.drive(|host, now_ms| host.handle(event, now_ms));
    }

    fn drive(self: &Rc<Self>, step: impl FnOnce(&mut Host, i64) -> Result<(), Stopped>) {
        let outcome = {
            let mut running = self.running.borrow_mut();
            let Some(running) = running.as_mut() else { return };
            let done = step(&mut running.host, self.clock.wall_ms());
            // Also of a host that has stopped: who was answered before is told.
            (done, running.host.take_outputs())
        };
        let (done, outputs) = outcome;
        self.perform(outputs);
        match done {
            Ok(()) => {
                self.remember_group();
                self.arm();
            }
            Err(stopped) => self.stopped(&stopped),
        }
    }

    fn stopped(self: &Rc<Self>, stopped: &Stopped) {
        self.sim.note(format_args!("server {} stops: {stopped}", self.member));
        let cluster = self.cluster.upgrade();
        if let Stopped::Halted { reason } = stopped {
            if let Some(cluster) = cluster.as_ref().filter(|cluster| cluster.is_leaving(self.member)) {
                return cluster.retire(self);
            }
            // Who has joined and was called by nobody may be started again.
            let waits = self.running.borrow().as_ref().is_some_and(|it| !it.host.node().has_begun());
            if !waits {
                self.sim.violated("member-recovers", format!("member {} halts: {reason}", self.member));
            }
        }
        self.kill();
        if let Some(cluster) = cluster {
            cluster.stopped(self);
        }
    }

    /// Sees to it that the node is told the time when it wants to, by this machine's wall clock.
    fn arm(self: &Rc<Self>) {
        let (scope, at) = {
            let mut running = self.running.borrow_mut();
            let Some(running) = running.as_mut() else { return };
            let Some(at) = running.host.node().poll_timeout() else { return };
            let wait = u64::try_from(at.saturating_sub(self.clock.wall_ms())).unwrap_or(0);
            // Not longer than a tick, wherever the clock was set to meanwhile.
            let wait = wait.min(TICK_MS);
            let at = self.sim.now() + wait * MS;
            if running.armed.is_some_and(|armed| armed <= at) {
                return;
            }
            running.armed = Some(at);
            (running.scope, at)
        };
        let server = self.clone();
        self.sim.at(at, move || {
            if let Some(running) = server.running.borrow_mut().as_mut() {
                // A timer of before, or one that an earlier one has taken the place of.
                if running.scope != scope || running.armed != Some(at) {
                    return;
                }
                running.armed = None;
            }
            if !server.is_paused() {
                server.drive(|host, now_ms| host.handle(Event::Tick, now_ms));
            }
        });
    }

    fn perform(self: &Rc<Self>, outputs: Vec<Output>) {
        for output in outputs {
            match output {
                Output::Publish(batch) => self.publish(batch),
                Output::Confirm(tickets) => tickets.iter().for_each(|ticket| self.answer_read(*ticket, true)),
                Output::Refuse(refused) => {
                    for (ticket, why) in refused {
                        self.answer_read(ticket, false);
                        let error = match why {
                            Refusal::NotLeader { .. } => CommitError::NotLeader,
                            Refusal::Unknown => CommitError::Unknown,
                        };
                        self.answer(ticket, Err(error));
                    }
                }
                Output::DiskFull(tickets) => {
                    tickets.iter().for_each(|ticket| self.answer(*ticket, Err(CommitError::DiskFull)));
                }
                Output::Replace(snapshot) => self.replace(snapshot),
                Output::Changed { ticket, result } => {
                    let waiting =
                        self.running.borrow_mut().as_mut().and_then(|it| it.changes.remove(&ticket));
                    if let Some(waiting) = waiting {
                        // Who asked may have given up.
                        let _ = waiting.send(result);
                    }
                }
                Output::Send(messages) => self.send(messages),
                Output::SendState { message, image } => self.send_state(message, *image),
                Output::Job(job) => self.begin(job),
            }
        }
        self.tell_group();
    }

    /// Has the cluster know the newest group that any member has applied.
    fn tell_group(&self) {
        let (running, cluster) = (self.running.borrow(), self.cluster.upgrade());
        if let (Some(running), Some(cluster)) = (running.as_ref(), cluster) {
            let node = running.host.node();
            cluster.observe(self.member, node.state().applied().index, node.conf_state());
        }
    }

    /// Has the cluster note which group this member knows, now that everything is synced.
    fn remember_group(&self) {
        let (running, cluster) = (self.running.borrow(), self.cluster.upgrade());
        if let (Some(running), Some(cluster)) = (running.as_ref(), cluster) {
            cluster.remember(self.member, running.host.node().conf_state());
        }
    }

    /// No events lead to this state: whoever follows starts over.
    fn replace(&self, snapshot: Snapshot) {
        let Some(cluster) = self.cluster.upgrade() else { return };
        let mut running = self.running.borrow_mut();
        let Some(running) = running.as_mut() else { return };
        let revision = snapshot.revision();
        self.sim.note(format_args!("server {} goes on from a state at {revision}", self.member));
        let snapshot = snapshot.with_compacted_revision(revision);
        cluster.checks.replicas.state(self.member, &snapshot);
        running.history = History::new(revision, HISTORY);
        running.watchers = Watchers::default();
        running.published = View { derived: Derived::build(&snapshot), snapshot };
        running.wake_waiting(revision);
    }

    fn publish(self: &Rc<Self>, batch: Published) {
        let Some(cluster) = self.cluster.upgrade() else { return };
        if !batch.events.is_empty() {
            let mut running = self.running.borrow_mut();
            let Some(running) = running.as_mut() else { return };
            running.history.push(&batch.events, self.clock.wall_ms());
            let floor = running.history.compacted_revision();
            let snapshot = batch.snapshot.with_compacted_revision(floor);
            if snapshot.revision() >= running.published.snapshot.revision() {
                let known = running.published.derived.revision();
                let new = batch.events.iter().filter(|event| event.revision > known);
                running.published.derived.apply(new.map(|event| &**event));
                running.published.snapshot = snapshot.clone();
            }
            cluster.checks.published(self.member, &batch.events, &snapshot);
            running.watchers.deliver(&cluster, self.place(), &batch.events);
            let revision = snapshot.revision();
            running.wake_waiting(revision);
        }
        for (ticket, outcome) in batch.answers {
            self.answer(ticket, Ok(outcome));
        }
    }

    fn answer(&self, ticket: u64, result: Result<Outcome, CommitError>) {
        let writer = self.running.borrow_mut().as_mut().and_then(|running| running.writers.remove(&ticket));
        if let Some(writer) = writer {
            // Who asked may have given up.
            let _ = writer.send(result);
        }
    }

    fn answer_read(&self, ticket: u64, confirmed: bool) {
        let reader = self.running.borrow_mut().as_mut().and_then(|running| running.readers.remove(&ticket));
        if let Some(reader) = reader {
            // Who asked may have given up.
            let _ = reader.send(confirmed);
        }
    }

    fn begin(self: &Rc<Self>, job: Box<Job>) {
        let (server, scope) = (self.clone(), self.scope());
        self.sim.after(self.sim.between(MS, SECOND / 4), move || {
            if server.scope() != scope {
                return;
            }
            let done = job.run();
            if let Some(error) = done.error {
                server.sim.note(format_args!("server {}: a job failed: {error}", server.member));
            }
            if let Some(event) = done.event {
                server.tell(event);
            }
        });
    }

    /// Bookmarks and ends of watches come with time.
    fn tend_watchers(self: &Rc<Self>, scope: Scope) {
        let (server, sim) = (self.clone(), self.sim.clone());
        self.sim.spawn(scope, async move {
            loop {
                sim.sleep(SECOND).await;
                let Some(cluster) = server.cluster.upgrade() else { return };
                server.watchers(|watchers| watchers.tend(&cluster, server.place()));
            }
        });
    }
}

// === impl Running ===

impl Running {
    fn wake_waiting(&mut self, revision: u64) {
        for (_, waiter) in self.waiting.extract_if(.., |(wanted, _)| *wanted <= revision) {
            // Who waited may have given up.
            let _ = waiter.send(());
        }
    }
}
