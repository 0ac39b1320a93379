//! What Raft has ready, turned into actions; and states that come and go as a whole.

use raft::SnapshotStatus;
use raft::eraftpb::{Entry, EntryType, Message, MessageType};

use super::{Action, Event, Node};
use crate::checkpoint::Received;
use crate::log::Record;
use crate::state::Applied;

/// After how many ticks the same is acknowledged again.
const ACKNOWLEDGE_TICKS: u64 = 2;

// === impl Node ===

impl Node {
    /// Takes from Raft what is ready, and turns it into actions.
    pub(super) fn pump(&mut self) {
        while !self.halted && self.raft.has_ready() {
            let mut ready = self.raft.ready();
            self.send(ready.take_messages());
            let snapshot = ready.snapshot().get_metadata();
            let restored = Applied { index: snapshot.index, term: snapshot.term };
            let replaced = restored.index > 0;
            if replaced && !self.replace(restored, ready.number()) {
                return;
            }
            let record = Record { hard_state: ready.hs().cloned(), entries: ready.take_entries() };
            let storage = self.raft.mut_store();
            if let Some(hard_state) = &record.hard_state {
                storage.hard_state = hard_state.clone();
            }
            storage.append(&record.entries);
            // A new commit index alone is not worth a write: it comes with the next record. But members that forget who
            // belongs to the group count votes by the group before: of two that grew to three, none might then be lost.
            if ready.must_sync() || ready.committed_entries().iter().any(changes_group) {
                self.log_bytes += record.entries.iter().map(|entry| entry.data.len() as u64).sum::<u64>();
                let hard_state = Some(self.raft.store().hard_state.clone());
                self.actions.push_back(Action::Append(Record { hard_state, ..record }));
                self.actions.push_back(Action::Sync { number: ready.number() });
                self.syncing = Some(ready.number());
            }
            if replaced {
                self.actions.push_back(Action::Replace(self.state.snapshot().clone()));
                self.actions.push_back(Action::Release { index: restored.index });
            }
            let mut messages = ready.take_persisted_messages();
            messages.retain(|message| self.is_news(message));
            if let Some(number) = self.syncing {
                let promises: Vec<_> = messages.extract_if(.., |message| promises(message)).collect();
                if !promises.is_empty() {
                    self.held.push_back((number, promises));
                }
            }
            self.send(messages);
            let committed = ready.take_committed_entries();
            let confirmed = ready.take_read_states();
            self.raft.advance_append_async(ready);
            self.reads.confirmed(confirmed);
            self.note_leader();
            self.apply(committed);
            self.answer_reads();
        }
    }

    pub(super) fn persisted(&mut self, number: u64) {
        self.raft.on_persist_ready(number);
        if let Some((_, index)) = self.installed.take_if(|(sync, _)| *sync <= number) {
            self.raft.advance_apply_to(index);
        }
        if self.syncing.is_some_and(|newest| newest <= number) {
            self.syncing = None;
        }
        while let Some((_, messages)) = self.held.pop_front_if(|(sync, _)| *sync <= number) {
            self.actions.push_back(Action::Send(messages));
        }
    }

    /// Shows Raft a state that came with a message. What Raft has no use for is removed.
    pub(super) fn install(&mut self, message: Message, received: Received) {
        let about = message.get_snapshot().get_metadata();
        let applied = Applied { index: about.index, term: about.term };
        let file = received.file.clone();
        let fits = message.get_msg_type() == MessageType::MsgSnapshot && received.image.applied == applied;
        if fits && !self.state.members().was_removed(message.from) && !self.halted {
            self.pump();
            self.incoming = Some(received);
            // An error means that Raft has no use for the message.
            drop(self.raft.step(message));
            self.randomize_election();
            self.pump();
            if self.incoming.take().is_none() {
                return;
            }
        }
        self.actions.push_back(Action::Discard { file });
    }

    /// Puts the state that came in the place of the own one.
    fn replace(&mut self, restored: Applied, number: u64) -> bool {
        let Some(Received { file, image }) = self.incoming.take().filter(|it| it.image.applied == restored)
        else {
            self.halt(format!("the state at entry {} did not come with its message", restored.index));
            return false;
        };
        self.raft.mut_store().restore(restored, image.conf_state.clone());
        self.state = image.into_state();
        self.installed = Some((number, restored.index));
        self.log_bytes = 0;
        self.checkpoint.begun_at = 0;
        self.checkpoint.retry_at = 0;
        self.actions.push_back(Action::Install { file, index: restored.index });
        // What was applied on the way to this state was applied unseen.
        let state = &self.state;
        let refused = self.flights.take_settled(|origin| state.is_settled(origin));
        self.refuse(refused);
        self.check_boot();
        true
    }

    /// Whether a message says what was not said a moment ago: a leader that tells how far it has committed needs no
    /// second acknowledgement of the same entries. It is given again later, for the first may have been lost.
    fn is_news(&mut self, message: &Message) -> bool {
        if message.get_msg_type() != MessageType::MsgAppendResponse || message.reject {
            return true;
        }
        let (term, index, at) = self.acknowledged;
        if (term, index) == (message.term, message.index) && self.tick < at + ACKNOWLEDGE_TICKS {
            return false;
        }
        self.acknowledged = (message.term, message.index, self.tick);
        true
    }

    fn send(&mut self, messages: Vec<Message>) {
        if messages.is_empty() {
            return;
        }
        let is_state = |message: &Message| message.get_msg_type() == MessageType::MsgSnapshot;
        let (states, messages): (Vec<_>, Vec<_>) = messages.into_iter().partition(is_state);
        let appends = messages.iter().filter(|message| message.get_msg_type() == MessageType::MsgAppend);
        self.lead.told.extend(appends.map(|message| (message.to, message.commit)));
        let messages = self.hold_back(messages);
        self.send_now(messages);
        for message in states {
            let index = message.get_snapshot().get_metadata().index;
            if index == self.state.applied().index {
                self.lead.transfers.insert(message.to, index);
                let image = Box::new(self.image());
                self.actions.push_back(Action::SendState { message: Box::new(message), image });
            } else {
                self.raft.report_snapshot(message.to, SnapshotStatus::Failure);
            }
        }
    }

    /// Looks who leads. A new leader is told all that is under way: the one before may not have passed it on.
    fn note_leader(&mut self) {
        let now = (self.leader().unwrap_or(raft::INVALID_ID), self.term());
        if now == self.followed {
            return;
        }
        self.followed = now;
        self.note_heir();
        self.lead = super::Lead::default();
        self.forget_gathered();
        self.reads.ask_again(u64::MAX);
        self.changes.ask_again();
        if self.leader().is_some() {
            for (sequence, data) in self.flights.again(self.tick) {
                self.propose(sequence, data);
            }
        }
    }
}

/// Whether an entry says who belongs to the group.
fn changes_group(entry: &Entry) -> bool {
    entry.get_entry_type() != EntryType::EntryNormal
}

/// Whether a message says something that must be durable first. What is only asked of the leader does not.
fn promises(message: &Message) -> bool {
    !matches!(message.get_msg_type(), MessageType::MsgPropose | MessageType::MsgReadIndex)
}

// === impl Event ===

impl Event {
    /// How many bytes the event may add to the log of a member that leads.
    pub(crate) fn log_bytes(&self) -> usize {
        match self {
            Self::Message(message) if message.get_msg_type() == MessageType::MsgPropose => {
                message.entries.iter().map(|entry| entry.data.len() + 64).sum()
            }
            _ => 0,
        }
    }
}
