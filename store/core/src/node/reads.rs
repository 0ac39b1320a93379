//! Linearizable reads on any member: many readers share one confirmation by the group.

use std::collections::BTreeMap;

use raft::ReadState;

use super::{Action, Node, Refusal};

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
}

#[derive(Clone, Copy, Debug)]
struct Reader {
    ticket: u64,
    since: u64,
}

#[derive(Debug)]
struct Asked {
    number: u64,
    at: u64,
    readers: Vec<Reader>,
}

// === impl Reads ===

impl Reads {
    /// The number under which those who wait are asked for; none is given while another is out.
    fn ask(&mut self, tick: u64) -> Option<u64> {
        if self.asked.is_some() || self.waiting.is_empty() {
            return None;
        }
        self.next += 1;
        self.asked = Some(Asked { number: self.next, at: tick, readers: std::mem::take(&mut self.waiting) });
        Some(self.next)
    }

    /// Gives up the confirmation that is out, if it was asked for before `tick`: its readers are asked for anew, under
    /// another number, so that an answer that comes late is not mistaken.
    pub(super) fn ask_again(&mut self, tick: u64) {
        if let Some(asked) = self.asked.take_if(|asked| asked.at < tick) {
            self.waiting.extend(asked.readers);
        }
    }

    pub(super) fn lost(&mut self, tick: u64) {
        self.ask_again(tick.saturating_sub(AGAIN_TICKS));
    }

    pub(super) fn confirmed(&mut self, states: Vec<ReadState>) {
        for state in states {
            let number = crate::crypt::le_u64(&state.request_ctx);
            if let Some(asked) = self.asked.take_if(|asked| asked.number == number) {
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

// === impl Node ===

impl Node {
    pub(super) fn read(&mut self, ticket: u64) {
        if self.is_confirmed() {
            self.actions.push_back(Action::Confirm { tickets: vec![ticket] });
        } else {
            self.reads.waiting.push(Reader { ticket, since: self.tick });
        }
    }

    /// Asks the group to confirm the commit index. The context names this run, so that no answer is mistaken.
    pub(super) fn ask_reads(&mut self) {
        let ready = match self.leader() {
            // Raft would forget what a leader asks before it has committed in its term.
            Some(_) => !self.leads() || self.raft.raft.commit_to_current_term(),
            None => false,
        };
        if !ready {
            return;
        }
        if let Some(number) = self.reads.ask(self.tick) {
            let context = [number, self.boot, self.settings.member].map(u64::to_le_bytes).concat();
            self.raft.read_index(context);
        }
    }

    pub(super) fn answer_reads(&mut self) {
        let tickets = self.reads.applied(self.state.applied().index);
        if !tickets.is_empty() {
            self.actions.push_back(Action::Confirm { tickets });
        }
    }
}
