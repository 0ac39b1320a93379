//! Linearizable reads on any member: many readers share one confirmation by the group.
//!
//! A member asks the leader how far reads must see. The leader's answer counts once a majority is known to have followed no
//! newer leader when the question was put. The leader asks them by heartbeats (Raft's ReadIndex); but who puts the question
//! says in it which term it is in, and where leader and asker are a majority that is all there is to know.

use std::collections::BTreeMap;

use raft::ReadState;
use raft::eraftpb::{Message, MessageType};

use super::{Action, Node, Refusal};
use crate::crypt::le_u64;

/// After how many ticks a confirmation counts as lost.
const AGAIN_TICKS: u64 = 3;

/// Readers, by how far they have come.
#[derive(Debug, Default)]
pub(super) struct Reads {
    /// Not asked for yet.
    waiting: Vec<Reader>,
    /// Asked of the group.
    asked: Option<Asked>,
    /// Confirmed at an index that may not be applied yet.
    confirmed: BTreeMap<u64, Vec<Reader>>,
    next: u64,
    /// Who has answered this member's questions as a leader, the latest first.
    prompt: Vec<u64>,
}

/// What a member asks its leader, as the context of a message: by what number, in which run, who, and in which term.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Question {
    number: u64,
    boot: u64,
    member: u64,
    term: u64,
}

#[derive(Clone, Copy, Debug)]
struct Reader {
    ticket: u64,
    since: u64,
}

#[derive(Debug)]
struct Asked {
    question: Question,
    at: u64,
    readers: Vec<Reader>,
}

// === impl Reads ===

impl Reads {
    /// Whether there is something to ask: nothing is while another question is out.
    fn wants(&self) -> bool {
        self.asked.is_none() && !self.waiting.is_empty()
    }

    /// Takes those who wait into a question of which `question` gives the number.
    fn ask(&mut self, tick: u64, question: impl FnOnce(u64) -> Question) -> Question {
        self.next += 1;
        let question = question(self.next);
        self.asked = Some(Asked { question, at: tick, readers: std::mem::take(&mut self.waiting) });
        question
    }

    /// Gives up the confirmation that is out, if it was asked for before `tick`: its readers are asked for anew, under
    /// another number, so that an answer that comes late is not mistaken.
    pub(super) fn ask_again(&mut self, tick: u64) {
        if let Some(asked) = self.asked.take_if(|asked| asked.at < tick) {
            self.waiting.extend(asked.readers);
            self.prompt.clear();
        }
    }

    /// Notes who has answered a leader's question.
    fn answered(&mut self, member: u64) {
        if self.prompt.first() != Some(&member) {
            self.prompt.retain(|other| *other != member);
            self.prompt.insert(0, member);
        }
    }

    pub(super) fn lost(&mut self, tick: u64) {
        self.ask_again(tick.saturating_sub(AGAIN_TICKS));
    }

    pub(super) fn confirmed(&mut self, states: Vec<ReadState>) {
        for state in states {
            // The whole of it: a run before has given the same numbers.
            let question = Question::decode(&state.request_ctx);
            if let Some(asked) = self.asked.take_if(|asked| Some(asked.question) == question) {
                self.confirmed.entry(state.index).or_default().extend(asked.readers);
            }
        }
    }

    /// Takes out who waits since before `tick`.
    pub(super) fn take_late(&mut self, tick: u64) -> Vec<(u64, Refusal)> {
        let waiting = std::iter::once(&mut self.waiting);
        let asked = self.asked.iter_mut().map(|asked| &mut asked.readers);
        let lists = waiting.chain(asked).chain(self.confirmed.values_mut());
        let late = lists.flat_map(|readers| readers.extract_if(.., |reader| reader.since < tick));
        late.map(|reader| (reader.ticket, Refusal::Unknown)).collect()
    }

    fn applied(&mut self, index: u64) -> Vec<u64> {
        let later = self.confirmed.split_off(&(index + 1));
        let readers = std::mem::replace(&mut self.confirmed, later).into_values().flatten();
        readers.map(|reader| reader.ticket).collect()
    }
}

// === impl Question ===

impl Question {
    fn encode(self) -> Vec<u8> {
        [self.number, self.boot, self.member, self.term].map(u64::to_le_bytes).concat()
    }

    /// `None` for the question of a member of an earlier version, which does not tell its term.
    fn decode(context: &[u8]) -> Option<Self> {
        let words: &[u8; 32] = context.try_into().ok()?;
        let word = |place: usize| le_u64(&words[place * 8..]);
        Some(Self { number: word(0), boot: word(1), member: word(2), term: word(3) })
    }
}

// === impl Node ===

impl Node {
    pub(super) fn read(&mut self, ticket: u64) {
        if self.is_confirmed() {
            self.actions.push_back(Action::Confirm { tickets: vec![ticket] });
        } else {
            self.reads.waiting.push(Reader { ticket, since: self.tick });
        }
    }

    /// Asks the leader how far reads must see. The question names this run, so that no answer is mistaken.
    pub(super) fn ask_reads(&mut self) {
        if !self.reads.wants() {
            return;
        }
        let ready = match self.leader() {
            // Raft would forget what a leader asks before it has committed in its term.
            Some(_) => !self.leads() || self.raft.raft.commit_to_current_term(),
            None => false,
        };
        if !ready {
            return;
        }
        let (boot, member, term) = (self.boot, self.settings.member, self.term());
        let question = self.reads.ask(self.tick, |number| Question { number, boot, member, term });
        let others = self.raft.raft.msgs.len();
        self.raft.read_index(question.encode());
        if self.leads() {
            self.ask_the_prompt(others);
        }
    }

    /// Keeps of a question's heartbeats, which are the messages behind `others`, those that make up a majority with this
    /// member: who answered last is asked. Should they not answer, the next tick's heartbeats ask everybody.
    fn ask_the_prompt(&mut self, others: usize) {
        let voters = &self.conf_state().voters;
        let enough = voters.len() / 2;
        let prompt = self.reads.prompt.iter().copied().filter(|member| voters.contains(member));
        let asked: Vec<u64> = prompt.take(enough).collect();
        if asked.len() == enough && self.conf_state().voters_outgoing.is_empty() {
            let mut place = 0;
            self.raft.raft.msgs.retain(|message| {
                place += 1;
                place <= others || asked.contains(&message.to)
            });
        }
    }

    /// Notes whom a leader asks first next time.
    pub(super) fn note_answer(&mut self, message: &Message) {
        if message.get_msg_type() == MessageType::MsgHeartbeatResponse && !message.context.is_empty() {
            self.reads.answered(message.from);
        }
    }

    /// Answers a voter that makes up a majority together with this member, which leads; gives back any other message.
    ///
    /// A write that was acknowledged before the question was put is committed here. A newer leader could have acknowledged
    /// it only with a majority in its term, to which one of these two belongs: but then the asker was in this term, and now
    /// this member is, and terms only grow.
    pub(super) fn answer_voter(&mut self, message: Message) -> Option<Message> {
        let asks = message.get_msg_type() == MessageType::MsgReadIndex;
        if !asks || !self.leads() || !self.raft.raft.commit_to_current_term() {
            return Some(message);
        }
        let context = message.entries.first().map(|entry| entry.data.clone()).unwrap_or_default();
        let is_current = |asked: Question| asked.term == self.term() && asked.member == message.from;
        if !Question::decode(&context).is_some_and(is_current) || !self.is_majority_with(message.from) {
            return Some(message);
        }
        let mut answer = Message { to: message.from, entries: message.entries, ..Message::default() };
        answer.set_msg_type(MessageType::MsgReadIndexResp);
        (answer.from, answer.term) = (self.settings.member, self.term());
        answer.index = self.raft.raft.raft_log.committed;
        self.send_now(vec![answer]);
        None
    }

    /// Whether this member and another one are a majority of the voters.
    fn is_majority_with(&self, other: u64) -> bool {
        let members = self.conf_state();
        let votes = |member: u64| members.voters.contains(&member);
        members.voters_outgoing.is_empty()
            && members.voters.len() <= 3
            && other != self.settings.member
            && votes(other)
            && votes(self.settings.member)
    }

    pub(super) fn answer_reads(&mut self) {
        let tickets = self.reads.applied(self.state.applied().index);
        if !tickets.is_empty() {
            self.actions.push_back(Action::Confirm { tickets });
        }
    }
}

#[cfg(test)]
mod tests;
