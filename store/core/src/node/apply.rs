//! Applying committed entries, and telling who waited.

use protobuf::Message as _;
use raft::eraftpb::{ConfChange, ConfChangeV2, ConfState, Entry, EntryType};

use super::{Action, Node, Published, Refusal};
use crate::command;
use crate::state::Applied;

// === impl Node ===

impl Node {
    /// Applies committed entries, in order, and publishes them as one batch.
    pub(super) fn apply(&mut self, committed: Vec<Entry>) {
        let Some(last) = committed.last().map(|entry| entry.index) else { return };
        let (mut events, mut answers) = (Vec::new(), Vec::new());
        for entry in committed {
            let applied = Applied { index: entry.index, term: entry.term };
            let done = match entry.entry_type {
                EntryType::EntryNormal if entry.data.is_empty() => Ok(()),
                EntryType::EntryNormal => self.apply_commands(&entry, &mut events, &mut answers),
                EntryType::EntryConfChange | EntryType::EntryConfChangeV2 => self.apply_members(&entry),
            };
            if let Err(reason) = done {
                let reason = format!("entry {} of the log cannot be applied: {reason}", entry.index);
                self.actions.push_back(Action::Halt { reason });
                self.halted = true;
                return;
            }
            self.state.advance(applied);
        }
        self.raft.advance_apply_to(last);
        let keep = if self.alone() { 0 } else { self.settings.catch_up_bytes };
        self.raft.mut_store().trim(last, keep);
        if !events.is_empty() || !answers.is_empty() {
            let snapshot = self.state.snapshot().clone();
            self.actions.push_back(Action::Publish(Published { snapshot, events, answers }));
        }
    }

    fn apply_commands(
        &mut self,
        entry: &Entry,
        events: &mut Vec<std::sync::Arc<crate::Event>>,
        answers: &mut Vec<(u64, crate::Outcome)>,
    ) -> Result<(), String> {
        let commands = command::decode(&entry.data).map_err(|error| error.to_string())?;
        for command in &commands {
            let outcome = self.state.apply(command, events);
            let origin = command.origin;
            if origin.member != self.settings.member {
                continue;
            }
            match (self.proposed.remove(&(origin.boot, origin.sequence)), outcome) {
                (Some(ticket), Some(outcome)) => answers.push((ticket, outcome)),
                (Some(ticket), None) => self.outdated(ticket),
                (None, _) => {}
            }
        }
        Ok(())
    }

    /// A command of this run was not admitted: an earlier run had a larger number, as the clock was set back in
    /// between, and what it had proposed was applied meanwhile. From here on this run has a number above that one's.
    fn outdated(&mut self, ticket: u64) {
        self.boot = self.boot.max(self.state.next_boot(self.settings.member));
        self.actions.push_back(Action::Refuse(vec![(ticket, Refusal::Unknown)]));
    }

    fn apply_members(&mut self, entry: &Entry) -> Result<(), String> {
        let changed: raft::Result<ConfState> = if entry.entry_type == EntryType::EntryConfChange {
            let mut change = ConfChange::default();
            change.merge_from_bytes(&entry.data).map_err(|error| error.to_string())?;
            self.raft.apply_conf_change(&change)
        } else {
            let mut change = ConfChangeV2::default();
            change.merge_from_bytes(&entry.data).map_err(|error| error.to_string())?;
            self.raft.apply_conf_change(&change)
        };
        self.raft.mut_store().conf_state = changed.map_err(|error| error.to_string())?;
        Ok(())
    }
}
