//! What a leader puts into its log, and when: proposals of its own writers and of other members go together, and so does
//! what followers are told.
//!
//! A round (an append to each follower, a sync everywhere, an answer) costs the same for one entry as for a hundred. While
//! as many rounds are under way as help, what comes waits for the next.

use std::collections::VecDeque;

use bytes::Bytes;
use raft::ProgressState;
use raft::eraftpb::{Entry, EntryType, Message, MessageType};

use super::Node;
use crate::command::Body;

/// What waits, and what is under way.
#[derive(Debug, Default)]
pub(super) struct Gather {
    waiting: Vec<Entry>,
    bytes: usize,
    /// The last entry of each round whose entries are not all committed.
    rounds: VecDeque<u64>,
    /// Whether something that waits is to be told at once when it is committed: another member waits for it, or the
    /// group itself.
    urgent: bool,
    /// The last entry of which that is so.
    pub(super) urgent_index: u64,
    /// When entries were proposed last.
    proposed_at_ms: i64,
    /// Whether entries come so fast that the next ones tell of those before.
    pub(super) streams: bool,
    /// When followers are told how far the log is committed, if nothing else tells them before.
    tell_at_ms: Option<i64>,
}

// === impl Gather ===

impl Gather {
    fn push(&mut self, entries: impl IntoIterator<Item = Entry>) {
        for entry in entries {
            self.bytes += entry.data.len() + 64;
            self.waiting.push(entry);
        }
    }
}

/// Whether a message proposes nothing but commands: changes of the members have rules of their own.
fn is_plain(message: &Message) -> bool {
    message.get_msg_type() == MessageType::MsgPropose
        && message.entries.iter().all(|entry| entry.entry_type == EntryType::EntryNormal)
}

// === impl Node ===

impl Node {
    /// How many bytes wait that the log must have room for.
    pub(crate) fn gathered_bytes(&self) -> usize {
        self.gather.bytes
    }

    /// Proposes what this member's writers wait for, and as a leader what else has come together, unless it waits for the
    /// next round.
    pub(super) fn propose_waiting(&mut self) {
        if !self.may_propose() {
            return;
        }
        while self.leader().is_some()
            && let Some((sequence, data)) = self.flights.launch(self.tick)
        {
            self.propose(sequence, data);
        }
        self.propose_gathered();
    }

    pub(super) fn propose(&mut self, sequence: u64, data: Bytes) {
        if !self.propose_data(data) {
            self.flights.dropped(sequence);
        }
    }

    /// Proposes something that is not tried again.
    pub(super) fn propose_once(&mut self, bodies: Vec<Body>) {
        let (_, data) = self.flights.seal(bodies);
        self.propose_data(data);
        self.gather.urgent |= self.leads();
    }

    /// Proposes a command; `false`: nobody has seen it.
    pub(super) fn propose_data(&mut self, data: Bytes) -> bool {
        let entry = Entry { data, ..Entry::default() };
        if self.leads() {
            self.gather.push([entry]);
            return true;
        }
        let mut message = Message { from: self.settings.member, ..Message::default() };
        message.set_msg_type(MessageType::MsgPropose);
        message.set_entries(vec![entry].into());
        self.raft.step(message).is_ok()
    }

    /// Takes in what another member proposes to this one, which leads; gives back what is none.
    pub(super) fn gather_from(&mut self, mut message: Message) -> Option<Message> {
        if !self.leads() || !is_plain(&message) {
            return Some(message);
        }
        self.gather.push(message.take_entries());
        self.gather.urgent = true;
        None
    }

    /// Whether what waits may go: as a follower at once, as a leader when there is room for a round.
    fn may_propose(&mut self) -> bool {
        let raft = &self.raft.raft;
        let committed = raft.raft_log.committed;
        while self.gather.rounds.pop_front_if(|last| *last <= committed).is_some() {}
        // While the lead is handed over, Raft takes nothing.
        !self.leads() || (self.gather.rounds.len() < self.settings.rounds && raft.lead_transferee.is_none())
    }

    /// Puts what waits into the log.
    fn propose_gathered(&mut self) {
        if self.gather.waiting.is_empty() || !self.leads() {
            return;
        }
        let mut message = Message { from: self.settings.member, ..Message::default() };
        message.set_msg_type(MessageType::MsgPropose);
        message.set_entries(std::mem::take(&mut self.gather.waiting).into());
        self.gather.bytes = 0;
        // Refused only when this member does not belong to the group any more: then another one will lead.
        if self.raft.step(message).is_ok() {
            let last = self.raft.raft.raft_log.last_index();
            self.gather.rounds.push_back(last);
            if std::mem::take(&mut self.gather.urgent) {
                self.gather.urgent_index = last;
            }
            let gap_ms = self.now_ms - self.gather.proposed_at_ms;
            self.gather.streams = (0..=self.settings.tell_ms).contains(&gap_ms);
            self.gather.proposed_at_ms = self.now_ms;
        }
    }

    /// Tells followers how far the log is committed. While entries come one after the other, the next ones do: a moment is
    /// waited for them, unless somebody waits for this.
    pub(super) fn consider_telling(&mut self) {
        let raft = &self.raft.raft;
        let committed = raft.raft_log.committed;
        let told = &self.lead.told;
        let others = raft.prs().iter().filter(|(member, progress)| {
            let is_fed = progress.state == ProgressState::Replicate && !progress.is_paused();
            is_fed && **member != self.settings.member && self.leads()
        });
        let least = others.map(|(member, _)| told.get(member).copied().unwrap_or(0)).min();
        let Some(least) = least.filter(|least| *least < committed && !self.halted) else {
            self.gather.tell_at_ms = None;
            return;
        };
        let is_urgent = self.gather.urgent_index > least;
        let latest = self.now_ms + if self.gather.streams { self.settings.tell_ms } else { 0 };
        // A clock that was set back does not make it later.
        let at = latest.min(*self.gather.tell_at_ms.get_or_insert(latest));
        if is_urgent || self.now_ms >= at {
            self.gather.tell_at_ms = None;
            self.raft.raft.bcast_append();
        }
    }

    /// When followers are to be told.
    pub(super) fn tell_at_ms(&self) -> Option<i64> {
        self.gather.tell_at_ms
    }

    /// Forgets what waits: with another leader, whoever waits for it proposes it again.
    pub(super) fn forget_gathered(&mut self) {
        self.gather = Gather::default();
    }
}
