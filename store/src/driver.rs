//! The store's thread: takes everything that waits, has the core commit it, publishes, answers.

mod start;

use std::collections::HashMap;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use raft::eraftpb::Message;
use store_core::checkpoint::Image;
use store_core::crypt::Key;
use store_core::host::{Host, Output, Stopped, key_ids};
use store_core::members::Members;
use store_core::node::{Change, ChangeRefusal, Event, Published as Batch, Refusal};
use store_core::{Outcome, Txn};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use tokio::sync::{oneshot, watch};
use tokio::task::yield_now;

use crate::alarm::Alarm;
use crate::answers::{Answer, Answers};
use crate::handle::Request;
use crate::jobs;
use crate::membership::{Leadership, View};
use crate::peers::{Addresses, Peers};
use crate::published::Published;
use crate::{CommitError, ReadError};

pub(crate) use start::start;

/// How much is taken into one batch.
const BATCH_BYTES: usize = 4 << 20;
const BATCH_COUNT: usize = 4096;
/// The longest that the thread waits in a group of several.
const TICK_MS: u64 = 50;
/// A leader that takes so long for what came together is waited for by everybody. Half as long as followers wait at least: a
/// leader that is silent for longer is replaced before it can hand over.
const SLOW: Duration = Duration::from_millis(150);
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
    answers: Answers,
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
        let mut alarm = Alarm::new();
        loop {
            let first = self.wait(waiting, &mut alarm).await;
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
    async fn wait(&mut self, waiting: &mut UnboundedReceiver<Request>, alarm: &mut Alarm) -> Option<Request> {
        if let Ok(request) = waiting.try_recv() {
            if self.peers.is_some() {
                // This thread did not wait: what peers have sent meanwhile is still in their sockets, and is read first.
                yield_now().await;
            }
            return Some(request);
        }
        loop {
            let Some(left) = self.time_left() else {
                return Some(waiting.recv().await.unwrap_or_else(closed));
            };
            alarm.set(left);
            tokio::select! {
                biased;
                request = waiting.recv() => return Some(request.unwrap_or_else(closed)),
                () = alarm.rings() => if self.is_due() {
                    return None;
                },
            }
        }
    }

    /// How long the node can do without being told the time.
    fn time_left(&self) -> Option<Duration> {
        let at = self.host.node().poll_timeout()?;
        let left = u64::try_from(at.saturating_sub(now_ms())).unwrap_or(0);
        // Not longer than a tick, wherever the clock was set to meanwhile.
        Some(Duration::from_millis(if self.peers.is_some() { left.min(TICK_MS) } else { left }))
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
        self.answers.deliver();
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
        let (leader, term, hand_overs) = (node.leader(), node.term(), node.hand_overs());
        let now = Leadership { member: self.member, leader, term, hand_overs };
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
            self.answers.give(Answer::Write(answer, result));
        }
    }

    fn answer_read(&mut self, ticket: u64, result: Result<(), ReadError>) {
        if let Some(answer) = self.readers.remove(&ticket) {
            self.answers.give(Answer::Read(answer, result));
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
