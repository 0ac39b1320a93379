//! What a leader does of its own accord: promotes who has caught up, marks the log, keeps entries for who is behind.

use std::collections::BTreeMap;

use raft::eraftpb::{ConfChangeType, Message, MessageType};

use super::Node;
use super::thrift::Thrift;
use crate::command::Body;
use crate::members::Note;

/// A learner that has within this many ticks all that was committed before them has caught up.
const ROUND_TICKS: u64 = 10;
/// After how many ticks this member tells the group its name and address again.
const DESCRIBE_TICKS: u64 = 40;

/// A leader that is slow twice within this many ticks hands the lead over: once is an accident.
const SLOW_WITHIN_TICKS: u64 = 200;
/// It does so no more often than this: where all disks are slow, another leader is no better.
const HAND_OVER_TICKS: u64 = 600;

/// When this member was slow, and what came of it.
#[derive(Debug, Default)]
pub(super) struct Slowness {
    seen: Option<u64>,
    handed_over: Option<u64>,
    /// To whom the lead is being handed over.
    pub(super) heir: Option<u64>,
    /// An heir that asks for votes because it was told to lead, and in which term.
    claim: Option<(u64, u64)>,
    /// How often an heir has come to lead.
    pub(super) hand_overs: u64,
}

/// What a leader knows; forgotten with every change of the lead.
#[derive(Debug, Default)]
pub(super) struct Lead {
    /// States that were sent, and the index that the member is at when it has them.
    pub(super) transfers: BTreeMap<u64, u64>,
    /// What was committed when a round began, and when, by learner.
    rounds: BTreeMap<u64, (u64, u64)>,
    /// When the last mark was made, and at which revision.
    mark: Option<(u64, u64)>,
    described: Option<u64>,
    /// How far each member was told that the log is committed.
    pub(super) told: BTreeMap<u64, u64>,
    pub(super) thrift: Thrift,
}

// === impl Node ===

impl Node {
    pub(super) fn pass_tick_as_leader(&mut self) {
        if self.leads() && !self.alone() {
            self.consider_promotion();
            self.consider_mark();
        }
    }

    fn consider_promotion(&mut self) {
        let learners = self.conf_state().learners.clone();
        self.lead.rounds.retain(|learner, _| learners.contains(learner));
        let raft = &self.raft.raft;
        let committed = raft.raft_log.committed;
        let mut ready = None;
        for learner in learners {
            let Some(progress) = raft.prs().get(learner) else { continue };
            let round = self.lead.rounds.entry(learner).or_insert((committed, self.tick));
            if self.tick < round.1 + ROUND_TICKS {
                continue;
            }
            if progress.matched >= round.0 {
                ready = Some(learner);
            }
            *round = (committed, self.tick);
        }
        if let Some(learner) = ready {
            self.propose_change(ConfChangeType::AddNode, learner, &Note::default());
        }
    }

    /// A leader whose disk is slow makes all writers wait. It gives the lead to a voter that keeps up, where there is one.
    pub(super) fn consider_handing_over(&mut self) {
        if !self.leads() || self.alone() {
            return;
        }
        let again = self.slowness.seen.is_some_and(|at| self.tick <= at + SLOW_WITHIN_TICKS);
        self.slowness.seen = Some(self.tick);
        let lately = self.slowness.handed_over.is_some_and(|at| self.tick < at + HAND_OVER_TICKS);
        let raft = &self.raft.raft;
        let keeps_up = |heir: &u64| {
            let progress = raft.prs().get(*heir);
            progress
                .is_some_and(|progress| progress.recent_active && progress.matched >= raft.raft_log.committed)
        };
        if again
            && !lately
            && let Some(heir) = self.successor().filter(keeps_up)
        {
            self.slowness.seen = None;
            self.slowness.handed_over = Some(self.tick);
            self.slowness.heir = Some(heir);
            self.raft.transfer_leader(heir);
        }
    }

    /// Hears the heir ask for votes. It says that it was told to lead, which a follower that has lost patience does not.
    pub(super) fn note_claim(&mut self, message: &Message) {
        let asks = message.get_msg_type() == MessageType::MsgRequestVote;
        if asks
            && message.context == raft::CAMPAIGN_TRANSFER
            && self.slowness.heir.take_if(|heir| *heir == message.from).is_some()
        {
            self.slowness.claim = Some((message.from, message.term));
        }
    }

    /// Counts the lead as handed over when the heir has it.
    pub(super) fn note_heir(&mut self) {
        let Some((heir, term)) = self.slowness.claim else { return };
        if self.term() > term || (self.term() == term && self.leader().is_some()) {
            self.slowness.claim = None;
            self.slowness.hand_overs += u64::from((self.leader(), self.term()) == (Some(heir), term));
        }
    }

    /// Has all members compare their states, when there is something new to compare.
    fn consider_mark(&mut self) {
        let revision = self.state.snapshot().revision();
        let (at, marked) = *self.lead.mark.get_or_insert((self.tick, 0));
        if self.tick >= at + self.settings.mark_ticks && revision != marked {
            self.lead.mark = Some((self.tick, revision));
            self.propose_once(vec![Body::Mark]);
        }
    }

    /// Tells the group this member's name and address, where it knows others.
    pub(super) fn consider_description(&mut self) {
        let Some(described) = &self.described else { return };
        let known = self.state.members().get(self.settings.member);
        let told = self.lead.described.is_some_and(|at| self.tick < at + DESCRIBE_TICKS);
        if told || self.leader().is_none() || known.is_none_or(|known| known == described) {
            return;
        }
        self.lead.described = Some(self.tick);
        self.propose_once(vec![Body::Describe(described.clone())]);
    }

    /// Forgets entries that nobody needs any more: peers that are slow find them, up to a bound, and peers that are
    /// being sent a state find what comes behind it, up to a larger one.
    pub(super) fn trim(&mut self, last: u64) {
        let prs = self.raft.raft.prs();
        self.lead
            .transfers
            .retain(|member, index| prs.get(*member).is_some_and(|progress| progress.matched < *index));
        let floor = self.lead.transfers.values().min().copied().unwrap_or(u64::MAX);
        let keep = if self.alone() { 0 } else { self.settings.catch_up_bytes };
        let most = self.settings.transfer_bytes;
        let log = self.raft.mut_store();
        log.trim(last.min(floor), keep);
        log.trim(last, most.max(keep));
    }
}
