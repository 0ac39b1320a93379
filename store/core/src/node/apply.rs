//! Applying committed entries, and telling who waited.

use std::sync::Arc;

use raft::eraftpb::{Entry, EntryType};

use super::{Action, Node, Published};
use crate::audit::Verdict;
use crate::command::{self, Body, Command};
use crate::event::Event;
use crate::state::Applied;
use crate::txn::Outcome;

/// What came of a batch of entries.
#[derive(Default)]
struct Batch {
    events: Vec<Arc<Event>>,
    answers: Vec<(u64, Outcome)>,
    /// What this member tells of marks.
    reports: Vec<Body>,
}

// === impl Node ===

impl Node {
    /// Applies committed entries, in order, and publishes them as one batch.
    pub(super) fn apply(&mut self, committed: Vec<Entry>) {
        let Some(last) = committed.last().map(|entry| entry.index) else { return };
        let mut batch = Batch::default();
        self.raft.mut_store().changing();
        for entry in committed {
            let applied = Applied { index: entry.index, term: entry.term };
            let done = match entry.entry_type {
                EntryType::EntryNormal if entry.data.is_empty() => Ok(()),
                EntryType::EntryNormal => self.apply_commands(&entry, &mut batch),
                EntryType::EntryConfChange => self.apply_change(&entry),
                EntryType::EntryConfChangeV2 => Err("joint changes of members are not known".into()),
            };
            if let Err(reason) = done {
                self.halt(format!("entry {} of the log cannot be applied: {reason}", entry.index));
                return;
            }
            self.state.advance(applied);
        }
        let applied = self.state.applied();
        self.raft.mut_store().applied(applied);
        self.raft.advance_apply_to(last);
        self.trim(last);
        self.check_boot();
        let Batch { events, answers, reports } = batch;
        if !events.is_empty() || !answers.is_empty() {
            let snapshot = self.state.snapshot().clone();
            self.actions.push_back(Action::Publish(Published { snapshot, events, answers }));
        }
        // Without a leader this is a log that is read again after a start: it was told before.
        if !reports.is_empty() && self.leader().is_some() {
            self.propose_once(reports);
        }
    }

    fn apply_commands(&mut self, entry: &Entry, batch: &mut Batch) -> Result<(), String> {
        let commands = command::decode(&entry.data).map_err(|error| error.to_string())?;
        for command in &commands {
            // An outcome is missing when the command was applied before: then it was answered, or cannot be.
            let Some(outcomes) = self.state.apply(command, entry.index, &mut batch.events) else { continue };
            batch.answers.extend(self.flights.landed(command.origin).into_iter().zip(outcomes));
            self.compare(command, entry.index, batch)?;
        }
        Ok(())
    }

    /// Looks at marks and at what members tell of them.
    fn compare(&mut self, command: &Command, index: u64, batch: &mut Batch) -> Result<(), String> {
        for body in &command.bodies {
            match body {
                Body::Mark => {
                    let hash = self.state.audit().own(index).unwrap_or_default();
                    batch.reports.push(Body::Report { mark: index, hash });
                }
                Body::Report { mark, .. } => {
                    match self.state.audit().verdict(*mark, &self.conf_state().voters) {
                        Verdict::Open | Verdict::Sound => {}
                        Verdict::Differs => {
                            return Err(format!(
                                "the state of this member at entry {mark} differs from that of the majority. Remove \
                                 the member from the cluster, remove its data directory and join anew"
                            ));
                        }
                        Verdict::Split => {
                            return Err(format!(
                                "the members disagree about the state at entry {mark}, and none has a majority: \
                                 restore a backup"
                            ));
                        }
                    }
                }
                Body::Txn(_) | Body::Expire(_) | Body::Describe(_) => {}
            }
        }
        Ok(())
    }
}
