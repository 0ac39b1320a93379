//! To whom entries go first: to those who make up a majority with the leader. The others get theirs a moment later and
//! together.
//!
//! While one entry follows the other, a member that is sent each by itself wakes, writes and answers for each by itself, and
//! nobody waits for its answer as long as a majority answers without it. Raft allows any delay of messages; this one ends with
//! the first word that the member has to hear at once, or after [`Settings::tell_ms`](super::Settings::tell_ms). Who of the
//! others comes first is measured: when those who are asked first are slow, the rest gets its entries meanwhile, is ahead of
//! them then, and is asked first from there on. (Also known from Paxos: "thrifty" in Moraru, Andersen, Kaminsky: There Is More
//! Consensus in Egalitarian Parliaments, 2013.)

use std::cmp::Reverse;

use raft::ProgressState;
use raft::eraftpb::{Message, MessageType};

use super::{Action, Node};

/// Messages of no more are made one.
const JOINED_ENTRIES: usize = 64;
const JOINED_BYTES: usize = 256 << 10;

/// What a leader holds back.
#[derive(Debug, Default)]
pub(super) struct Thrift {
    held: Vec<Message>,
    /// Until when.
    pub(super) until_ms: Option<i64>,
    /// Who was sent entries at once the last time.
    first: Vec<u64>,
}

/// Puts a message behind those that wait, as one with that before it where one can be made of both.
fn hold(held: &mut Vec<Message>, message: Message) {
    let before = held.iter_mut().rfind(|before| before.to == message.to);
    match before {
        Some(before) if continues(before, &message) => {
            before.entries.extend(message.entries);
            before.commit = before.commit.max(message.commit);
        }
        _ => held.push(message),
    }
}

/// Whether a message's entries follow those of another one, and both are not too much together.
fn continues(before: &Message, message: &Message) -> bool {
    let bytes = |message: &Message| message.entries.iter().map(|entry| entry.data.len()).sum::<usize>();
    let ends = before.entries.last().map(|last| (last.index, last.term));
    before.term == message.term
        && ends == Some((message.index, message.log_term))
        && before.entries.len() < JOINED_ENTRIES
        && bytes(before) + bytes(message) <= JOINED_BYTES
}

// === impl Node ===

impl Node {
    /// Keeps what may wait, and returns the rest.
    pub(super) fn hold_back(&mut self, mut messages: Vec<Message>) -> Vec<Message> {
        let urgent = self.gather.urgent_index;
        let may_wait = |message: &Message| {
            message.get_msg_type() == MessageType::MsgAppend
                && message.entries.first().is_some_and(|first| first.index > urgent)
        };
        if !self.leads() || !self.gather.streams || !messages.iter().any(may_wait) || !self.choose_first() {
            return messages;
        }
        let Thrift { held, until_ms, first } = &mut self.lead.thrift;
        for message in messages.extract_if(.., |message| may_wait(message) && !first.contains(&message.to)) {
            hold(held, message);
        }
        if !held.is_empty() {
            until_ms.get_or_insert(self.now_ms + self.settings.tell_ms);
        }
        messages
    }

    /// Sends messages, and before them what their receivers have not been sent yet.
    pub(super) fn send_now(&mut self, messages: Vec<Message>) {
        if messages.is_empty() {
            return;
        }
        let is_called = |held: &mut Message| messages.iter().any(|message| message.to == held.to);
        let mut all: Vec<_> = self.lead.thrift.held.extract_if(.., is_called).collect();
        all.extend(messages);
        self.actions.push_back(Action::Send(all));
    }

    /// Sends what was held back for long enough.
    pub(super) fn send_overdue(&mut self) {
        let (now_ms, longest) = (self.now_ms, self.settings.tell_ms);
        // A clock that was set back does not make it later.
        let is_due = |until: &mut i64| *until <= now_ms || *until > now_ms + longest;
        if self.lead.thrift.until_ms.take_if(is_due).is_some() && !self.lead.thrift.held.is_empty() {
            let held = std::mem::take(&mut self.lead.thrift.held);
            self.actions.push_back(Action::Send(held));
        }
    }

    /// Chooses who is sent entries at once: the voters that are furthest, of those that were it before the same ones. `false`:
    /// there are not enough that could be.
    fn choose_first(&mut self) -> bool {
        let members = self.conf_state();
        let enough = members.voters.len() / 2;
        let simple = members.voters_outgoing.is_empty() && members.voters.contains(&self.settings.member);
        let mut able: Vec<(u64, u64)> = Vec::new();
        for (id, progress) in self.raft.raft.prs().iter() {
            let is_fed = progress.state == ProgressState::Replicate && progress.recent_active;
            if *id != self.settings.member && is_fed && members.voters.contains(id) {
                able.push((*id, progress.matched));
            }
        }
        let first = &self.lead.thrift.first;
        able.sort_unstable_by_key(|(id, matched)| (Reverse(*matched), !first.contains(id), *id));
        able.truncate(enough);
        let fits = simple && able.len() == enough;
        self.lead.thrift.first = able.into_iter().map(|(id, _)| id).collect();
        fits
    }
}

#[cfg(test)]
mod tests;
