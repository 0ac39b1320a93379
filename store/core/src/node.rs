//! One member of the group, as a machine: events in, actions out; it owns consensus and state, and does no I/O.
//!
//! The host hands in events with the time, then takes actions until there are none, and carries them out in the
//! order in which they come. [`Action`] says what each may assume.

mod apply;
mod changes;
mod flight;
mod gather;
mod interface;
mod lead;
mod pump;
mod raft_log;
mod reads;
mod thrift;
mod time;

use std::collections::{BTreeMap, VecDeque};

use raft::eraftpb::{ConfState, Message, MessageType};
use raft::{Config, RawNode, SnapshotStatus, StateRole};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha20Rng;

use crate::checkpoint::{Image, Received};
use crate::members::Member;
use crate::recovery::Recovered;
use crate::state::StateMachine;

pub use interface::{Action, Change, ChangeRefusal, Event, Published, Refusal, Settings};

use changes::Changes;
use flight::Flights;
use gather::Gather;
use lead::{Lead, Slowness};
use raft_log::RaftLog;
use reads::Reads;

/// The most that the node writes at a tick.
pub const EXPIRE_BYTES: usize = 256 << 10;

/// How many numbers a run may have that begins at a given time.
const RUNS: u64 = 1 << 20;

/// What a member is told that the group has removed.
const REMOVED: &str = "this member was removed from the cluster: remove its data directory and join anew";

/// One member of the group.
pub struct Node {
    raft: RawNode<RaftLog>,
    state: StateMachine,
    settings: Settings,
    boot: u64,
    flights: Flights,
    gather: Gather,
    reads: Reads,
    changes: Changes,
    lead: Lead,
    actions: VecDeque<Action>,
    held: VecDeque<(u64, Vec<Message>)>,
    syncing: Option<u64>,
    /// A state that came and that Raft has not looked at yet.
    incoming: Option<Received>,
    /// The index of a state that was installed, and the sync after which Raft may count on it.
    installed: Option<(u64, u64)>,
    followed: (u64, u64),
    /// What was acknowledged last: term, index, and when.
    acknowledged: (u64, u64, u64),
    election: Election,
    rng: ChaCha20Rng,
    tick: u64,
    now_ms: i64,
    next_tick_ms: i64,
    next_expiry_ms: i64,
    log_bytes: u64,
    checkpoint: Checkpointing,
    slowness: Slowness,
    described: Option<Member>,
    /// The tick at which a member that was removed ends.
    leaving: Option<u64>,
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

// === impl Node ===

impl Node {
    /// A node that continues from what was recovered. A group of one elects itself at once.
    ///
    /// `boot` goes into the number of this run; it should be larger than that of any run before, as the time is.
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
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let raft = RawNode::new(&config(&settings, applied.index), storage, &logger)?;
        let state = image.into_state();
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        let least = boot.saturating_mul(RUNS).max(state.next_boot(settings.member));
        let boot = name_run(least, &mut rng);
        let mut node = Self {
            raft,
            state,
            settings,
            boot,
            flights: Flights::new(settings.member, boot, settings.under_way),
            gather: Gather::default(),
            reads: Reads::default(),
            changes: Changes::default(),
            lead: Lead::default(),
            actions: VecDeque::new(),
            held: VecDeque::new(),
            syncing: None,
            incoming: None,
            installed: None,
            followed: (0, 0),
            acknowledged: (0, 0, 0),
            election: Election::default(),
            rng,
            tick: 0,
            now_ms,
            next_tick_ms: now_ms + settings.tick_ms,
            next_expiry_ms: now_ms,
            log_bytes,
            checkpoint: Checkpointing::default(),
            slowness: Slowness::default(),
            described: None,
            leaving: None,
            halted: false,
        };
        if node.state.members().was_removed(settings.member) {
            node.halt(REMOVED.into());
            return Ok(node);
        }
        node.randomize_election();
        if node.alone() {
            node.raft.campaign()?;
            node.randomize_election();
        }
        node.pump();
        Ok(node)
    }

    /// Has the group know this member by another name or address, once it can be told.
    pub fn describe(&mut self, member: Member) {
        self.described = Some(member);
        self.consider_description();
    }

    /// Takes in one event. `now_ms` is the time, in milliseconds of the Unix epoch.
    pub fn handle(&mut self, event: Event, now_ms: i64) {
        self.now_ms = now_ms;
        match event {
            Event::Commit { ticket, txn } => self.flights.wait(ticket, txn, self.tick),
            Event::Read { ticket } => self.read(ticket),
            Event::Change { ticket, change } => self.changes.ask(ticket, change, self.tick),
            Event::Persisted { number } => self.persisted(number),
            Event::Message(message) => self.step(*message),
            Event::Install { message, received } => self.install(*message, received),
            Event::StateSent { member, ok } => self.state_sent(member, ok),
            Event::Unreachable { member } => self.unreachable(member),
            Event::Removed => self.end_removed(),
            Event::Slow => self.consider_handing_over(),
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
        self.advance();
        if self.actions.is_empty() {
            // Also what came up on the way goes now.
            self.advance();
        }
        self.consider_checkpoint();
        self.actions.pop_front()
    }

    fn advance(&mut self) {
        if self.leads() && self.followed == (self.settings.member, self.term()) {
            // Before what is committed is applied: that may end this member, and others must not learn of it later only.
            self.propose_waiting();
            self.consider_telling();
        }
        self.pump();
        self.propose_waiting();
        self.ask_reads();
        self.pursue_changes();
        self.pump();
        self.consider_telling();
        self.pump();
        self.send_overdue();
    }

    /// Whether this member leads.
    pub fn leads(&self) -> bool {
        self.raft.raft.state == StateRole::Leader
    }

    /// Who leads, as far as this member knows.
    pub fn leader(&self) -> Option<u64> {
        Some(self.raft.raft.leader_id).filter(|leader| *leader != raft::INVALID_ID)
    }

    /// The term of the consensus.
    pub fn term(&self) -> u64 {
        self.raft.raft.term
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

    /// How often in this run this member was slow, handed the lead over, and saw the heir lead.
    pub fn hand_overs(&self) -> u64 {
        self.slowness.hand_overs
    }

    /// The applied state.
    pub fn state(&self) -> &StateMachine {
        &self.state
    }

    /// The group's voters and learners.
    pub fn conf_state(&self) -> &ConfState {
        &self.raft.store().conf_state
    }

    /// How much of the log the members are known to have; empty where this member does not lead.
    pub fn matched(&self) -> BTreeMap<u64, u64> {
        let progress = self.raft.raft.prs().iter().filter(|_| self.leads());
        progress.map(|(member, progress)| (*member, progress.matched)).collect()
    }

    /// The voter that could lead in this one's place: the one that has most of the log.
    pub fn successor(&self) -> Option<u64> {
        let matched = self.matched();
        let others = self.conf_state().voters.iter().filter(|voter| **voter != self.settings.member);
        others.copied().max_by_key(|voter| matched.get(voter).copied().unwrap_or(0))
    }

    /// Whether this member ever had a state of its group. One that joins knows none of the others before: if it was removed
    /// meanwhile, it can ask nobody.
    pub fn has_begun(&self) -> bool {
        self.state.applied().index > 0
    }

    fn alone(&self) -> bool {
        let members = self.conf_state();
        members.voters == [self.settings.member]
            && members.voters_outgoing.is_empty()
            && members.learners.is_empty()
            && members.learners_next.is_empty()
    }

    fn halt(&mut self, reason: String) {
        self.actions.push_back(Action::Halt { reason });
        self.halted = true;
    }

    fn end_removed(&mut self) {
        self.changes.removed(self.settings.member, &mut self.actions);
        self.halt(REMOVED.into());
    }

    fn step(&mut self, message: Message) {
        if self.state.members().was_removed(message.from) {
            return;
        }
        match message.get_msg_type() {
            // A state comes with its message, never without.
            MessageType::MsgSnapshot => return,
            MessageType::MsgHeartbeat if message.commit > self.raft.raft.raft_log.last_index() => {
                if message.term >= self.term() {
                    let (last, commit) = (self.raft.raft.raft_log.last_index(), message.commit);
                    self.halt(format!(
                        "the cluster counts on this member to have entry {commit}, but its log ends at {last}: its \
                         data was lost. Remove it from the cluster, remove its data directory and join anew"
                    ));
                }
                return;
            }
            _ => {}
        }
        self.note_claim(&message);
        let (from, responds) = (message.from, message.get_msg_type() == MessageType::MsgAppendResponse);
        let Some(message) = self.gather_from(message).and_then(|message| self.answer_voter(message)) else {
            return;
        };
        if responds && message.reject {
            self.send_before_going_back();
        }
        self.note_answer(&message);
        // An error means that Raft has no use for the message.
        drop(self.raft.step(message));
        if responds && let Some(progress) = self.raft.raft.mut_prs().get_mut(from) {
            // An old rejection must not take the leader back behind what the member has acknowledged.
            progress.next_idx = progress.next_idx.max(progress.matched + 1);
        }
        self.randomize_election();
    }

    /// A leader is about to go back in what it sends to a member. Raft would put those entries into any message to it that waits
    /// to be sent and has none, also into one that speaks of a later index than theirs.
    fn send_before_going_back(&mut self) {
        if self.leads() {
            self.pump();
        }
    }

    fn state_sent(&mut self, member: u64, ok: bool) {
        self.send_before_going_back();
        let status = if ok { SnapshotStatus::Finish } else { SnapshotStatus::Failure };
        self.raft.report_snapshot(member, status);
        if !ok {
            self.lead.transfers.remove(&member);
        }
    }

    /// A member that leads and cannot be reached is probably gone: its followers do not wait for their whole timeout.
    /// It costs nothing where that is wrong, for a vote is first asked for without a new term.
    fn unreachable(&mut self, member: u64) {
        self.send_before_going_back();
        self.raft.report_unreachable(member);
        if self.leader() == Some(member) && !self.leads() {
            let least = self.settings.election_ticks;
            self.raft.raft.election_elapsed = self.raft.raft.election_elapsed.max(least);
            self.election.ticks = least + self.rng.random_range(1..=3);
            self.randomize_election();
        }
    }

    /// A run of this member that had a larger number, because the clock was ahead then, would hide what this one
    /// writes: this one takes a larger number still.
    fn check_boot(&mut self) {
        let next = self.state.next_boot(self.settings.member);
        if next > self.boot + 1 {
            self.boot = name_run(next, &mut self.rng);
            let refused = self.flights.restart(self.boot);
            self.refuse(refused);
        }
    }

    fn refuse(&mut self, refused: Vec<(u64, Refusal)>) {
        if !refused.is_empty() {
            self.actions.push_back(Action::Refuse(refused));
        }
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
        let nothing = self.state.applied().index == 0;
        if self.halted || nothing || self.checkpoint.running || !(due || self.checkpoint.wanted) {
            return;
        }
        self.checkpoint =
            Checkpointing { running: true, wanted: false, begun_at: self.log_bytes, ..self.checkpoint };
        self.actions.push_back(Action::Checkpoint(Box::new(self.image())));
    }

    /// What a checkpoint made now holds. Cheap.
    pub fn image(&self) -> Image {
        Image {
            applied: self.state.applied(),
            conf_state: self.conf_state().clone(),
            sessions: self.state.sessions.clone(),
            members: self.state.members().clone(),
            received: false,
            snapshot: self.state.snapshot().clone(),
        }
    }
}

/// The number of a run, not less than `least`. Chance tells it from a run before of which nothing was applied yet when this
/// one began, and whose clock showed the same: what that one has sent would be taken for what this one sends.
fn name_run(least: u64, rng: &mut ChaCha20Rng) -> u64 {
    least.saturating_add(rng.random_range(0..RUNS))
}

fn config(settings: &Settings, applied: u64) -> Config {
    Config {
        id: settings.member,
        applied,
        election_tick: settings.election_ticks,
        heartbeat_tick: 1,
        min_election_tick: settings.election_ticks,
        max_election_tick: settings.election_ticks * 2,
        check_quorum: true,
        pre_vote: true,
        max_size_per_msg: 1 << 20,
        max_inflight_msgs: 64,
        // What is proposed at once goes in one message, and is acknowledged once. See `send_before_going_back`.
        batch_append: true,
        // The node tells followers itself.
        skip_bcast_commit: true,
        max_committed_size_per_ready: 8 << 20,
        ..Config::default()
    }
}

#[cfg(test)]
mod tests;
