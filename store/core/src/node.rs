//! One member of the group, as a machine: events in, actions out; it owns consensus and state, and does no I/O.
//!
//! The host hands in events with the time, then takes actions until there are none, and carries them out in the
//! order in which they come. [`Action`] says what each may assume.

mod apply;
mod raft_log;
mod reads;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use raft::eraftpb::{ConfState, Message, MessageType};
use raft::{Config, RawNode, StateRole};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha20Rng;

use crate::checkpoint::Image;
use crate::command::{self, Body, Command, Origin};
use crate::event;
use crate::log::Record;
use crate::recovery::Recovered;
use crate::snapshot::Snapshot;
use crate::state::StateMachine;
use crate::txn::{Outcome, Txn};

use raft_log::RaftLog;
use reads::Reads;

const BATCH_BYTES: usize = 4 << 20;

/// The most that the node writes at a tick.
pub const EXPIRE_BYTES: usize = 256 << 10;

/// What the host tells the node.
#[derive(Debug)]
pub enum Event {
    /// A writer waits for a transaction. Those handed in before the next action is taken share an entry.
    Commit {
        /// By what name the answer comes.
        ticket: u64,
        /// What to apply.
        txn: Txn,
    },
    /// A reader waits for confirmed state.
    Read {
        /// By what name the answer comes.
        ticket: u64,
    },
    /// A [`Action::Sync`] is done.
    Persisted {
        /// Its number.
        number: u64,
    },
    /// A message came from a peer.
    Message(Box<Message>),
    /// Nothing happened but time. May make the node write up to [`EXPIRE_BYTES`].
    Tick,
    /// There is no room to write expiries: the node waits before it tries again.
    NoRoom,
    /// A checkpoint is wanted, however short the log is.
    WantCheckpoint,
    /// The checkpoint at this index is complete and was read back.
    CheckpointWritten {
        /// Its applied index.
        index: u64,
    },
    /// The checkpoint could not be written; it is tried again when the log has grown further.
    CheckpointFailed,
}

/// What the host does for the node, in order.
#[derive(Debug)]
pub enum Action {
    /// Append a record to the log. It need not be durable before the next `Sync`.
    Append(Record),
    /// Make all appended records durable, then report [`Event::Persisted`]. Later actions need not wait for it:
    /// whatever depends on durability is held back by the node. If the sync fails the process must end.
    Sync {
        /// Names this sync.
        number: u64,
    },
    /// Send messages to peers. They may be sent at once, whatever syncs are under way.
    Send(Vec<Message>),
    /// Make the new state visible: the snapshot and its events first, only then the answers.
    Publish(Published),
    /// Answer readers: the state that was published last is confirmed for them.
    Confirm {
        /// The readers.
        tickets: Vec<u64>,
    },
    /// Tell writers and readers that they will get no outcome from here.
    Refuse(Vec<(u64, Refusal)>),
    /// Write a checkpoint, in the background, then report it. No other is under way. The log goes on in a new
    /// segment from here, so that the checkpoint covers whole segments.
    Checkpoint(Box<Image>),
    /// Remove what the checkpoint at this index covers: earlier segments and other checkpoints. Any time later.
    Release {
        /// The checkpoint's applied index.
        index: u64,
    },
    /// The replicated log holds what this version cannot apply: stop, and say so.
    Halt {
        /// Why.
        reason: String,
    },
}

/// A new state, and who waited for it.
#[derive(Debug)]
pub struct Published {
    /// The state after the batch.
    pub snapshot: Snapshot,
    /// What the batch did, in order.
    pub events: Vec<Arc<event::Event>>,
    /// The outcomes, by ticket.
    pub answers: Vec<(u64, Outcome)>,
}

/// Why a writer or reader gets no outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// This member does not lead; nothing was done.
    NotLeader {
        /// Who leads, when that is known.
        leader: Option<u64>,
    },
    /// The lead was lost meanwhile: a write may or may not be applied.
    Unknown,
}

/// What a node needs to know.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// This member's id.
    pub member: u64,
    /// The time between ticks, while there are peers, in milliseconds.
    pub tick_ms: i64,
    /// The least number of ticks without a leader before an election; the most is twice that.
    pub election_ticks: usize,
    /// The log grows at least this large before a checkpoint.
    pub checkpoint_log_bytes: u64,
    /// How far expiries are put together, in milliseconds.
    pub expiry_grain_ms: i64,
    /// The bytes of applied entries that are kept for slow peers.
    pub catch_up_bytes: usize,
}

/// One member of the group.
pub struct Node {
    raft: RawNode<RaftLog>,
    state: StateMachine,
    settings: Settings,
    boot: u64,
    next_sequence: u64,
    waiting: VecDeque<(u64, Txn)>,
    /// The tickets of what was proposed, by boot and sequence.
    proposed: BTreeMap<(u64, u64), u64>,
    reads: Reads,
    actions: VecDeque<Action>,
    held: VecDeque<(u64, Vec<Message>)>,
    syncing: Option<u64>,
    role: StateRole,
    election: Election,
    rng: ChaCha20Rng,
    next_tick_ms: i64,
    next_expiry_ms: i64,
    log_bytes: u64,
    checkpoint: Checkpointing,
    halted: bool,
}

/// The election timeout that was drawn for a term and role.
#[derive(Clone, Copy, Debug, Default)]
struct Election {
    epoch: Option<(u64, StateRole)>,
    ticks: usize,
}

#[derive(Clone, Copy, Debug, Default)]
struct Checkpointing {
    running: bool,
    wanted: bool,
    /// The log's size when the last attempt began.
    begun_at: u64,
    /// The log's size from which on the next attempt is made after a failure.
    retry_at: u64,
}

// === impl Settings ===

impl Settings {
    /// The usual settings.
    pub fn new(member: u64) -> Self {
        Self {
            member,
            tick_ms: 50,
            election_ticks: 6,
            checkpoint_log_bytes: 8 << 20,
            expiry_grain_ms: 2000,
            catch_up_bytes: 16 << 20,
        }
    }
}

// === impl Node ===

impl Node {
    /// A node that continues from what was recovered. A group of one elects itself at once.
    ///
    /// `boot` names this run; it must be larger than that of any run before.
    pub fn new(
        settings: Settings,
        recovered: Recovered,
        boot: u64,
        seed: u64,
        now_ms: i64,
    ) -> raft::Result<Self> {
        let Recovered { image, hard_state, entries, .. } = recovered;
        let log_bytes = entries.iter().map(|entry| entry.data.len() as u64).sum();
        let (applied, conf_state) = (image.applied, image.conf_state.clone());
        let storage = RaftLog::new(applied, hard_state, conf_state, entries);
        let config = Config {
            id: settings.member,
            applied: applied.index,
            election_tick: settings.election_ticks,
            heartbeat_tick: 1,
            min_election_tick: settings.election_ticks,
            max_election_tick: settings.election_ticks * 2,
            check_quorum: true,
            pre_vote: true,
            max_size_per_msg: 1 << 20,
            max_inflight_msgs: 256,
            max_committed_size_per_ready: 8 << 20,
            ..Config::default()
        };
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let state = image.into_state();
        let mut node = Self {
            raft: RawNode::new(&config, storage, &logger)?,
            boot: boot.max(state.next_boot(settings.member)),
            state,
            settings,
            next_sequence: 1,
            waiting: VecDeque::new(),
            proposed: BTreeMap::new(),
            reads: Reads::default(),
            actions: VecDeque::new(),
            held: VecDeque::new(),
            syncing: None,
            role: StateRole::Follower,
            election: Election::default(),
            rng: ChaCha20Rng::seed_from_u64(seed),
            next_tick_ms: now_ms + settings.tick_ms,
            next_expiry_ms: now_ms,
            log_bytes,
            checkpoint: Checkpointing::default(),
            halted: false,
        };
        node.randomize_election();
        if node.alone() {
            node.raft.campaign()?;
            node.randomize_election();
        }
        node.pump();
        Ok(node)
    }

    /// Takes in one event. `now_ms` is the time, in milliseconds of the Unix epoch.
    pub fn handle(&mut self, event: Event, now_ms: i64) {
        self.follow_clock(now_ms);
        match event {
            Event::Commit { ticket, txn } if self.leads() => self.waiting.push_back((ticket, txn)),
            Event::Commit { ticket, .. } => self.refuse_as_follower(ticket),
            Event::Read { ticket } => self.read(ticket),
            Event::Persisted { number } => self.persisted(number),
            // A peer's state comes as a checkpoint, not as a message.
            Event::Message(message) if message.get_msg_type() == MessageType::MsgSnapshot => {}
            // An error means that Raft has no use for the message.
            Event::Message(message) => {
                drop(self.raft.step(*message));
                self.randomize_election();
            }
            Event::Tick => self.pass_time(now_ms),
            Event::NoRoom => self.next_expiry_ms = now_ms + self.settings.expiry_grain_ms,
            Event::WantCheckpoint => self.checkpoint.wanted = true,
            Event::CheckpointWritten { index } => {
                self.checkpoint.running = false;
                self.log_bytes = self.log_bytes.saturating_sub(self.checkpoint.begun_at);
                self.checkpoint.retry_at = 0;
                self.actions.push_back(Action::Release { index });
            }
            Event::CheckpointFailed => {
                self.checkpoint.running = false;
                self.checkpoint.retry_at = self.log_bytes + self.settings.checkpoint_log_bytes / 4;
            }
        }
    }

    /// The next thing to do.
    pub fn poll_action(&mut self) -> Option<Action> {
        if self.halted {
            return self.actions.pop_front();
        }
        self.pump();
        self.propose_waiting();
        self.pump();
        self.consider_checkpoint();
        self.actions.pop_front()
    }

    /// When the node wants an [`Event::Tick`] at the latest. A group of one without expiring keys never does.
    pub fn poll_timeout(&self) -> Option<i64> {
        let tick = (!self.alone()).then_some(self.next_tick_ms);
        let expiry = self.state.next_expiry_ms().filter(|_| self.leads());
        let expiry = expiry.map(|at| at.max(self.next_expiry_ms));
        tick.into_iter().chain(expiry).min()
    }

    /// Whether this member leads and has shown so by committing in its term.
    pub fn leads(&self) -> bool {
        self.raft.raft.state == StateRole::Leader
    }

    /// Whether what is applied here is by itself the newest state: the group has no other voter, and everything
    /// that was committed is applied.
    pub fn is_confirmed(&self) -> bool {
        let raft = &self.raft.raft;
        self.alone()
            && self.leads()
            && raft.commit_to_current_term()
            && raft.raft_log.committed == self.state.applied().index
    }

    /// The applied state.
    pub fn state(&self) -> &StateMachine {
        &self.state
    }

    /// The group's members.
    pub fn conf_state(&self) -> &ConfState {
        &self.raft.store().conf_state
    }

    fn alone(&self) -> bool {
        let members = self.conf_state();
        members.voters == [self.settings.member]
            && members.voters_outgoing.is_empty()
            && members.learners.is_empty()
            && members.learners_next.is_empty()
    }

    fn refuse_as_follower(&mut self, ticket: u64) {
        let leader = Some(self.raft.raft.leader_id).filter(|leader| *leader != raft::INVALID_ID);
        self.actions.push_back(Action::Refuse(vec![(ticket, Refusal::NotLeader { leader })]));
    }

    /// Puts everything that waits into one entry, within bounds.
    fn propose_waiting(&mut self) {
        while !self.waiting.is_empty() {
            let mut commands = Vec::new();
            let mut bytes = 0;
            while let Some((ticket, txn)) = self.waiting.pop_front() {
                bytes += txn.size();
                let origin = self.mint();
                self.proposed.insert((origin.boot, origin.sequence), ticket);
                commands.push(Command { origin, body: Body::Txn(txn) });
                if bytes >= BATCH_BYTES {
                    break;
                }
            }
            self.propose(&commands);
        }
    }

    fn propose(&mut self, commands: &[Command]) {
        if self.raft.propose(Vec::new(), command::encode(commands)).is_ok() {
            return;
        }
        let leader = Some(self.raft.raft.leader_id).filter(|leader| *leader != raft::INVALID_ID);
        let proposed = &mut self.proposed;
        let origins = commands.iter().map(|command| command.origin);
        let tickets = origins.filter_map(|origin| proposed.remove(&(origin.boot, origin.sequence)));
        let refused = tickets.map(|ticket| (ticket, Refusal::NotLeader { leader })).collect();
        self.actions.push_back(Action::Refuse(refused));
    }

    fn mint(&mut self) -> Origin {
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        Origin { member: self.settings.member, boot: self.boot, sequence }
    }

    fn persisted(&mut self, number: u64) {
        self.raft.on_persist_ready(number);
        if self.syncing.is_some_and(|newest| newest <= number) {
            self.syncing = None;
        }
        while let Some((_, messages)) = self.held.pop_front_if(|(sync, _)| *sync <= number) {
            self.actions.push_back(Action::Send(messages));
        }
    }

    /// A clock that was set back must not hold the next tick back by as much: a member that does not tick neither
    /// leads nor votes.
    fn follow_clock(&mut self, now_ms: i64) {
        self.next_tick_ms = self.next_tick_ms.min(now_ms + self.settings.tick_ms);
        self.next_expiry_ms = self.next_expiry_ms.min(now_ms + self.settings.expiry_grain_ms);
    }

    fn pass_time(&mut self, now_ms: i64) {
        if !self.alone() && now_ms >= self.next_tick_ms {
            self.raft.tick();
            self.randomize_election();
            self.next_tick_ms = now_ms + self.settings.tick_ms;
        }
        if self.leads() && self.poll_expiry(now_ms) {
            self.next_expiry_ms = now_ms + self.settings.expiry_grain_ms;
            let keys = self.state.expired(now_ms, EXPIRE_BYTES);
            let origin = self.mint();
            self.propose(&[Command { origin, body: Body::Expire(keys) }]);
        }
    }

    fn poll_expiry(&self, now_ms: i64) -> bool {
        now_ms >= self.next_expiry_ms && self.state.next_expiry_ms().is_some_and(|at| at <= now_ms)
    }

    /// Takes from Raft what is ready, and turns it into actions.
    fn pump(&mut self) {
        while !self.halted && self.raft.has_ready() {
            let mut ready = self.raft.ready();
            self.send(ready.take_messages());
            let record = Record { hard_state: ready.hs().cloned(), entries: ready.take_entries() };
            let storage = self.raft.mut_store();
            if let Some(hard_state) = &record.hard_state {
                storage.hard_state = hard_state.clone();
            }
            storage.append(&record.entries);
            // A new commit index alone is not worth a write: it comes with the next record.
            if ready.must_sync() {
                self.log_bytes += record.entries.iter().map(|entry| entry.data.len() as u64).sum::<u64>();
                let hard_state = Some(self.raft.store().hard_state.clone());
                self.actions.push_back(Action::Append(Record { hard_state, ..record }));
                self.actions.push_back(Action::Sync { number: ready.number() });
                self.syncing = Some(ready.number());
            }
            let messages = ready.take_persisted_messages();
            match self.syncing {
                Some(number) if !messages.is_empty() => self.held.push_back((number, messages)),
                _ => self.send(messages),
            }
            let committed = ready.take_committed_entries();
            let confirmed = ready.take_read_states();
            self.raft.advance_append_async(ready);
            self.reads.confirmed(confirmed);
            self.note_role();
            self.apply(committed);
            self.answer_reads();
        }
    }

    fn send(&mut self, messages: Vec<Message>) {
        if !messages.is_empty() {
            self.actions.push_back(Action::Send(messages));
        }
    }

    fn note_role(&mut self) {
        let role = self.raft.raft.state;
        if role == self.role {
            return;
        }
        if self.role == StateRole::Leader {
            let leader = None;
            let waiting = self.waiting.drain(..).map(|(ticket, _)| (ticket, Refusal::NotLeader { leader }));
            let mut refused: Vec<_> = waiting.collect();
            let proposed = std::mem::take(&mut self.proposed);
            refused.extend(proposed.into_values().map(|ticket| (ticket, Refusal::Unknown)));
            refused.extend(self.reads.take_all().map(|ticket| (ticket, Refusal::Unknown)));
            self.actions.push_back(Action::Refuse(refused));
        }
        self.role = role;
    }

    /// Puts this node's own election timeout in the place of the one that Raft drew from a thread's generator.
    fn randomize_election(&mut self) {
        let raft = &self.raft.raft;
        let epoch = (raft.term, raft.state);
        if self.election.epoch != Some(epoch) {
            let least = self.settings.election_ticks;
            self.election = Election { epoch: Some(epoch), ticks: self.rng.random_range(least..least * 2) };
        }
        self.raft.raft.set_randomized_election_timeout(self.election.ticks);
    }

    fn consider_checkpoint(&mut self) {
        let grown = self.settings.checkpoint_log_bytes.max(self.state.snapshot().data_bytes());
        let due = self.log_bytes >= grown.max(self.checkpoint.retry_at);
        if self.halted || self.checkpoint.running || !(due || self.checkpoint.wanted) {
            return;
        }
        self.checkpoint =
            Checkpointing { running: true, wanted: false, begun_at: self.log_bytes, ..self.checkpoint };
        let image = Image {
            applied: self.state.applied(),
            conf_state: self.conf_state().clone(),
            sessions: self.state.sessions.clone(),
            snapshot: self.state.snapshot().clone(),
        };
        self.actions.push_back(Action::Checkpoint(Box::new(image)));
    }
}

#[cfg(test)]
mod tests;
