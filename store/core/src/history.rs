//! The recent past: events for watches and consistent paged lists, bounded by bytes and age.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::event::Event;

/// How much past is kept. What goes beyond either bound is forgotten, oldest first.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The bytes that events may hold.
    pub bytes: usize,
    /// The age that an event may reach, in milliseconds.
    pub age_ms: i64,
}

/// The events of the recent past, one per revision.
#[derive(Debug)]
pub struct History {
    events: VecDeque<(i64, Arc<Event>)>,
    floor: u64,
    bytes: usize,
    limits: Limits,
}

/// What was asked for lies before the kept past.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("revision {requested} was compacted; the oldest that is kept is {oldest}")]
pub struct Compacted {
    /// The revision that was asked for.
    pub requested: u64,
    /// The oldest revision that can still be asked for.
    pub oldest: u64,
}

// === impl History ===

impl Default for Limits {
    fn default() -> Self {
        Self { bytes: 32 << 20, age_ms: 10 * 60 * 1000 }
    }
}

impl History {
    /// A history that begins behind `revision`.
    pub fn new(revision: u64, limits: Limits) -> Self {
        Self { events: VecDeque::new(), floor: revision, bytes: 0, limits }
    }

    /// Events up to and with this revision are forgotten.
    pub fn compacted_revision(&self) -> u64 {
        self.floor
    }

    /// Bytes that the events hold.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Begins anew behind `revision`: no events lead there.
    pub fn restart(&mut self, revision: u64) {
        *self = Self::new(revision, self.limits);
    }

    /// Takes in the events of a batch and forgets what has become too much or too old.
    pub fn push(&mut self, events: &[Arc<Event>], now_ms: i64) {
        for event in events {
            self.bytes += event.size();
            self.events.push_back((now_ms, event.clone()));
        }
        self.trim(now_ms);
    }

    /// Forgets what has become too much or too old.
    pub fn trim(&mut self, now_ms: i64) {
        while let Some((at, event)) = self.events.front() {
            if self.bytes <= self.limits.bytes && now_ms.saturating_sub(*at) <= self.limits.age_ms {
                break;
            }
            self.bytes -= event.size();
            self.floor = event.revision;
            self.events.pop_front();
        }
    }

    /// The events behind `revision`, oldest first.
    pub fn after(&self, revision: u64) -> Result<Vec<Arc<Event>>, Compacted> {
        let skip = self.offset(revision)?;
        Ok(self.events.iter().skip(skip).map(|(_, event)| event.clone()).collect())
    }

    /// What takes a state at revision `from` back to `to`: the events between them, oldest first.
    pub fn between(&self, to: u64, from: u64) -> Result<Vec<Arc<Event>>, Compacted> {
        let (first, end) = (self.offset(to)?, self.offset(from)?);
        Ok(self.events.range(first.min(end)..end).map(|(_, event)| event.clone()).collect())
    }

    fn offset(&self, revision: u64) -> Result<usize, Compacted> {
        let behind =
            revision.checked_sub(self.floor).ok_or(Compacted { requested: revision, oldest: self.floor })?;
        Ok(usize::try_from(behind).unwrap_or(usize::MAX).min(self.events.len()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::StateMachine;
    use crate::txn::Txn;

    fn sizes(history: &History) -> (u64, usize) {
        (history.compacted_revision(), history.events.len())
    }

    #[test]
    fn is_bounded_by_bytes_and_age() {
        let mut state = StateMachine::new();
        let mut history = History::new(1, Limits { bytes: 1000, age_ms: 50 });
        for now in 0..10 {
            let (_, events) = state.commit(&Txn::put("k", "v"));
            history.push(&events, now * 10);
        }
        let (floor, kept) = sizes(&history);
        assert!(history.bytes() <= 1000 && kept > 1);
        assert_eq!(floor + kept as u64, state.snapshot().revision());
        assert_eq!(history.after(floor).unwrap().len(), kept);
        assert_eq!(history.after(floor - 1), Err(Compacted { requested: floor - 1, oldest: floor }));
        history.trim(1000);
        assert_eq!(sizes(&history), (state.snapshot().revision(), 0));
        assert_eq!(history.bytes(), 0);
    }

    #[test]
    fn a_rewound_snapshot_equals_the_one_of_then() {
        let mut state = StateMachine::new();
        let mut history = History::new(1, Limits::default());
        let mut then = vec![state.snapshot().clone()];
        for txn in [
            Txn::put("a", "1"),
            Txn::put("b", "2"),
            Txn::put("a", "3"),
            Txn::delete("b"),
            Txn::put("b", "4"),
            Txn::delete("a"),
        ] {
            let (_, events) = state.commit(&txn);
            history.push(&events, 0);
            then.push(state.snapshot().clone());
        }
        for expected in then {
            let events = history.between(expected.revision(), state.snapshot().revision()).unwrap();
            let back = state.snapshot().rewound(&events);
            assert!(back.objects == expected.objects && back.hash() == expected.hash());
            assert_eq!((back.revision(), back.data_bytes()), (expected.revision(), expected.data_bytes()));
        }
    }
}
