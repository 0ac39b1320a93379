//! What a node does when time passes: ticks of Raft, expiries, and patience with who is silent.

use raft::eraftpb::{Message, MessageType};

use super::{Action, EXPIRE_BYTES, Node};
use crate::command::Body;

/// After how many ticks without a leader a learner makes itself heard.
const CALL_TICKS: usize = 20;

/// What a member is told that joined and that nobody called.
const UNCALLED: &str = "no server of the cluster calls this one, and it has no data yet: either the others cannot reach its \
                        address, or it was removed. Start it again to wait on, or remove its data directory and join anew";

// === impl Node ===

impl Node {
    /// When the node wants an [`Event::Tick`](super::Event::Tick) at the latest. A group of one without expiring keys never does.
    pub fn poll_timeout(&self) -> Option<i64> {
        let tick = self.ticks().then_some(self.next_tick_ms);
        let tell = self.tell_at_ms();
        let held = self.lead.thrift.until_ms;
        let expiry = self.state.next_expiry_ms().filter(|_| self.leads());
        let expiry = expiry.map(|at| at.max(self.next_expiry_ms));
        tick.into_iter().chain(expiry).chain(tell).chain(held).min()
    }

    /// Whether time has to pass: there are other members, or something must be tried again.
    fn ticks(&self) -> bool {
        !self.halted && (!self.alone() || !self.changes.is_empty() || !self.flights.is_empty())
    }

    pub(super) fn pass_time(&mut self, now_ms: i64) {
        // A clock that was set back does not stop the group's.
        let due = now_ms >= self.next_tick_ms || self.next_tick_ms > now_ms + self.settings.tick_ms;
        if due && self.ticks() {
            self.next_tick_ms = now_ms + self.settings.tick_ms;
            self.pass_tick();
        }
        if self.leads() && self.poll_expiry(now_ms) {
            self.next_expiry_ms = now_ms + self.settings.expiry_grain_ms;
            let keys = self.state.expired(now_ms, EXPIRE_BYTES);
            self.propose_once(vec![Body::Expire(keys)]);
        }
    }

    fn pass_tick(&mut self) {
        self.tick += 1;
        self.raft.tick();
        self.randomize_election();
        if self.leaving.is_some_and(|at| self.tick >= at) {
            self.end_removed();
            return;
        }
        if !self.has_begun() && self.raft.raft.election_elapsed >= self.settings.join_ticks {
            self.halt(UNCALLED.into());
            return;
        }
        if self.leader().is_some() {
            for (sequence, data) in self.flights.overdue(self.tick, self.leads()) {
                self.propose(sequence, data);
            }
        }
        self.call_as_learner();
        self.reads.lost(self.tick);
        let late = self.tick.saturating_sub(self.settings.patience_ticks);
        let mut refused = self.flights.take_late(late, self.leader());
        refused.extend(self.reads.take_late(late));
        self.refuse(refused);
        self.changes.pass_tick(self.tick, late, &mut self.actions);
        self.consider_description();
        self.pass_tick_as_leader();
    }

    /// A learner asks for no votes. If it was removed while it was away, nobody would tell it: it says a word to the
    /// voters, who refuse it then. To a leader the word means no more than that it is there.
    fn call_as_learner(&mut self) {
        let raft = &self.raft.raft;
        let silent = raft.election_elapsed;
        if raft.promotable() || silent == 0 || !silent.is_multiple_of(CALL_TICKS) {
            return;
        }
        let call = |to: &u64| {
            let mut call = Message { from: raft.id, to: *to, term: raft.term, ..Message::default() };
            call.set_msg_type(MessageType::MsgHeartbeatResponse);
            call
        };
        let calls = self.conf_state().voters.iter().map(call).collect();
        self.actions.push_back(Action::Send(calls));
    }

    fn poll_expiry(&self, now_ms: i64) -> bool {
        now_ms >= self.next_expiry_ms && self.state.next_expiry_ms().is_some_and(|at| at <= now_ms)
    }
}
