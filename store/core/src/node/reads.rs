//! Linearizable reads: many readers share one confirmation by the group.

use std::collections::BTreeMap;

use raft::ReadState;

use super::{Action, Node};

/// Readers, by how far they have come.
#[derive(Debug, Default)]
pub(super) struct Reads {
    /// Asked of the group, by the context's number.
    asked: BTreeMap<u64, Vec<u64>>,
    /// Confirmed at an index that may not be applied yet.
    confirmed: BTreeMap<u64, Vec<u64>>,
    next: u64,
}

// === impl Reads ===

impl Reads {
    pub(super) fn confirmed(&mut self, states: Vec<ReadState>) {
        for state in states {
            let number = crate::crypt::le_u64(&state.request_ctx);
            if let Some(tickets) = self.asked.remove(&number) {
                self.confirmed.entry(state.index).or_default().extend(tickets);
            }
        }
    }

    pub(super) fn take_all(&mut self) -> impl Iterator<Item = u64> + use<> {
        let asked = std::mem::take(&mut self.asked);
        let confirmed = std::mem::take(&mut self.confirmed);
        asked.into_values().chain(confirmed.into_values()).flatten()
    }

    fn applied(&mut self, index: u64) -> Vec<u64> {
        let later = self.confirmed.split_off(&(index + 1));
        std::mem::replace(&mut self.confirmed, later).into_values().flatten().collect()
    }
}

// === impl Node ===

impl Node {
    /// Asks the group to confirm the commit index. The context names this run, so that no answer is mistaken.
    pub(super) fn read(&mut self, ticket: u64) {
        if self.is_confirmed() {
            self.actions.push_back(Action::Confirm { tickets: vec![ticket] });
            return;
        }
        if !self.leads() || !self.raft.raft.commit_to_current_term() {
            self.refuse_as_follower(ticket);
            return;
        }
        self.reads.next += 1;
        let number = self.reads.next;
        self.reads.asked.insert(number, vec![ticket]);
        let context = [number, self.boot, self.settings.member].map(u64::to_le_bytes).concat();
        self.raft.read_index(context);
    }

    pub(super) fn answer_reads(&mut self) {
        let tickets = self.reads.applied(self.state.applied().index);
        if !tickets.is_empty() {
            self.actions.push_back(Action::Confirm { tickets });
        }
    }
}
