//! The recent past: events for watches and consistent paged lists, bounded by bytes and age.
//!
//! What is written again and again, as the status of a pod or a lease, would be in here many times. Therefore the newest value
//! of a key is that of the live state. An event tells what it replaced as a difference from what it wrote, and the event that
//! had written that holds it no more: it is made again, from the newest event back, when someone looks so far.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;

use crate::delta::Delta;
use crate::event::{Before, Change, Event};
use crate::snapshot::Snapshot;

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
    /// Each with the time at which it came.
    events: VecDeque<(i64, Kept)>,
    floor: u64,
    bytes: usize,
    limits: Limits,
}

/// Events that are looked at, and those behind them from which their values are made. Cheap to take: what costs is
/// [`Past::events`].
#[derive(Debug)]
pub struct Past {
    /// The revision of the first.
    first: u64,
    kept: Vec<Kept>,
    /// How many of them are looked at.
    wanted: usize,
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

/// An event as it is kept.
#[derive(Clone, Debug)]
enum Kept {
    /// It made a key, whose value of so many bytes is still the live one.
    Made { key: Bytes, length: u32 },
    /// It made a key, and what it wrote is what a later event replaced.
    MadeBefore { key: Bytes },
    /// It changed a key, and what it replaced is told as a difference.
    Packed(Arc<Packed>),
    /// As it came: what it replaced is nothing like what it wrote.
    Whole(Arc<Event>),
}

#[derive(Clone, Debug)]
struct Packed {
    key: Bytes,
    written: Written,
    before: Before,
    /// What was replaced, from what was written.
    delta: Delta,
    is_deletion: bool,
}

/// What an event wrote; of a deletion the last value, with its own revision.
#[derive(Clone, Debug)]
enum Written {
    /// The value.
    Here(Bytes),
    /// What a later event replaced.
    Replaced,
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
            let kept = Kept::of(event);
            if let Some(before) = event.before {
                self.let_go(before.revision);
            }
            self.bytes += kept.size();
            self.events.push_back((now_ms, kept));
        }
        self.trim(now_ms);
    }

    /// Forgets what has become too much or too old.
    pub fn trim(&mut self, now_ms: i64) {
        while let Some((at, kept)) = self.events.front() {
            if self.bytes <= self.limits.bytes && now_ms.saturating_sub(*at) <= self.limits.age_ms {
                break;
            }
            self.bytes -= kept.size();
            self.floor += 1;
            self.events.pop_front();
        }
    }

    /// The events behind `revision`.
    pub fn after(&self, revision: u64) -> Result<Past, Compacted> {
        let first = self.offset(revision)?;
        Ok(self.past(first, self.events.len()))
    }

    /// What takes a state at revision `from` back to `to`: the events between them.
    pub fn between(&self, to: u64, from: u64) -> Result<Past, Compacted> {
        let (first, end) = (self.offset(to)?, self.offset(from)?);
        Ok(self.past(first.min(end), end))
    }

    fn past(&self, first: usize, end: usize) -> Past {
        Past {
            first: self.floor + 1 + first as u64,
            kept: self.events.range(first..).map(|(_, kept)| kept.clone()).collect(),
            wanted: end - first,
        }
    }

    fn offset(&self, revision: u64) -> Result<usize, Compacted> {
        let behind =
            revision.checked_sub(self.floor).ok_or(Compacted { requested: revision, oldest: self.floor })?;
        Ok(usize::try_from(behind).unwrap_or(usize::MAX).min(self.events.len()))
    }

    /// Lets go of the value that the event of `revision` wrote: it is what the newest event replaced.
    fn let_go(&mut self, revision: u64) {
        let Some(at) = revision.checked_sub(self.floor + 1).and_then(|at| usize::try_from(at).ok()) else {
            return;
        };
        let Some((_, kept)) = self.events.get_mut(at) else { return };
        self.bytes -= kept.size();
        kept.let_go();
        self.bytes += kept.size();
    }
}

// === impl Past ===

impl Past {
    /// The events, oldest first. `live` is the state to which the newest event of the history led when this was taken.
    pub fn events(self, live: &Snapshot) -> Vec<Arc<Event>> {
        if self.wanted == 0 {
            return Vec::new();
        }
        // What the events of these revisions wrote, as later ones tell it.
        let mut replaced: BTreeMap<u64, Bytes> = BTreeMap::new();
        let mut events = Vec::with_capacity(self.wanted);
        for (at, kept) in self.kept.iter().enumerate().rev() {
            let told = kept.replaces().filter(|revision| *revision >= self.first);
            if at >= self.wanted && told.is_none() {
                continue;
            }
            let event = kept.event(self.first + at as u64, live, &mut replaced);
            if let (Some(revision), Some(previous)) = (told, event.previous()) {
                replaced.insert(revision, previous.clone());
            }
            if at < self.wanted {
                events.push(event);
            }
        }
        events.reverse();
        events
    }
}

// === impl Kept ===

impl Kept {
    fn of(event: &Arc<Event>) -> Self {
        let (written, previous, is_deletion) = match &event.change {
            Change::Put { value, previous: Some(previous) } => (value, previous, false),
            Change::Delete { last, previous } => (last, previous, true),
            Change::Put { value, previous: None } => {
                let length = u32::try_from(value.len()).unwrap_or(u32::MAX);
                return Self::Made { key: event.key.clone(), length };
            }
        };
        match event.before.zip(Delta::of(previous, written)) {
            None => Self::Whole(event.clone()),
            Some((before, delta)) => Self::Packed(Arc::new(Packed {
                key: event.key.clone(),
                written: Written::Here(written.clone()),
                before,
                delta,
                is_deletion,
            })),
        }
    }

    /// The revision of the event that wrote what this one replaced.
    fn replaces(&self) -> Option<u64> {
        match self {
            Self::Made { .. } | Self::MadeBefore { .. } => None,
            Self::Packed(packed) => Some(packed.before.revision),
            Self::Whole(event) => Some(event.before?.revision),
        }
    }

    /// The bytes for which it counts. What is shared with the live state counts too: it may go from there.
    fn size(&self) -> usize {
        match self {
            Self::Made { key, length } => *length as usize + key.len() + Event::OVERHEAD,
            Self::MadeBefore { key } => key.len() + Event::OVERHEAD,
            Self::Packed(packed) => {
                let written = match &packed.written {
                    Written::Here(value) => value.len(),
                    Written::Replaced => 0,
                };
                written + packed.delta.size() + packed.key.len() + Event::OVERHEAD
            }
            Self::Whole(event) => event.size(),
        }
    }

    /// Lets go of what was written, for a later event replaced it. One that holds two whole values stays as it is.
    fn let_go(&mut self) {
        match self {
            Self::Made { key, .. } => *self = Self::MadeBefore { key: key.clone() },
            Self::MadeBefore { .. } | Self::Whole(_) => {}
            Self::Packed(packed) => Arc::make_mut(packed).written = Written::Replaced,
        }
    }

    /// The event as it was. `replaced` has what later events replaced; what is found in there is taken out.
    fn event(&self, revision: u64, live: &Snapshot, replaced: &mut BTreeMap<u64, Bytes>) -> Arc<Event> {
        // Nothing is ever missing: a live value that goes leaves an event that has it, and events leave at the old end only.
        let mut taken = || replaced.remove(&revision).unwrap_or_default();
        let (key, change, before) = match self {
            Self::Made { key, .. } => {
                let value = live.get(key).map(|entry| entry.value.clone()).unwrap_or_default();
                (key, Change::Put { value, previous: None }, None)
            }
            Self::MadeBefore { key } => (key, Change::Put { value: taken(), previous: None }, None),
            Self::Packed(packed) => {
                let written = match &packed.written {
                    Written::Here(value) => value.clone(),
                    Written::Replaced => taken(),
                };
                let previous = packed.delta.apply(&written).unwrap_or_default();
                let change = match packed.is_deletion {
                    true => Change::Delete { last: written, previous },
                    false => Change::Put { value: written, previous: Some(previous) },
                };
                (&packed.key, change, Some(packed.before))
            }
            Self::Whole(event) => return event.clone(),
        };
        Arc::new(Event { revision, key: key.clone(), change, before })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

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
        assert_eq!(history.after(floor).unwrap().events(state.snapshot()).len(), kept);
        let forgotten = Compacted { requested: floor - 1, oldest: floor };
        assert_eq!(history.after(floor - 1).unwrap_err(), forgotten);
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
            let back = state.snapshot().rewound(&events.events(state.snapshot()));
            assert!(back.objects == expected.objects && back.hash() == expected.hash());
            assert_eq!((back.revision(), back.data_bytes()), (expected.revision(), expected.data_bytes()));
        }
    }

    /// A document of the usual size, of which little changes from one version to the next.
    fn document(key: u8, version: u32) -> String {
        let lines = (0..30).map(|line| format!("\"field-{line}\":\"of {key}\","));
        format!("{{{}\"version\":{version}}}", lines.collect::<String>())
    }

    #[test]
    fn what_is_written_again_and_again_is_held_once() {
        let (mut state, mut history) = (StateMachine::new(), History::new(1, Limits::default()));
        for version in 0..1000 {
            let (_, events) = state.commit(&Txn::put("k", document(1, version)));
            history.push(&events, 0);
        }
        let each = history.bytes() / 1000;
        assert!(each < Event::OVERHEAD + 40 && document(1, 0).len() > 500, "{each} bytes");
    }

    proptest! {
        #[test]
        fn events_come_back_as_they_were(
            steps in proptest::collection::vec((0..3_u8, 0..6_u8), 1..60),
            trims in proptest::collection::vec(any::<bool>(), 60),
        ) {
            let (mut state, mut history) = (StateMachine::new(), History::new(1, Limits { bytes: 12_000, age_ms: 50 }));
            let mut told: Vec<Arc<Event>> = Vec::new();
            let mut now = 0;
            for (at, (key, what)) in (0_u32..).zip(steps) {
                let name = format!("k{key}");
                let txn = match what {
                    0 => Txn::delete(name),
                    1 => Txn::put(name, "short"),
                    _ => Txn::put(name, document(key, at)),
                };
                let (_, events) = state.commit(&txn);
                now += if trims[at as usize] { 2 } else { 0 };
                history.push(&events, now);
                told.extend(events);
            }
            let floor = history.compacted_revision();
            let kept: Vec<_> = told.iter().filter(|event| event.revision > floor).cloned().collect();
            for from in floor..=state.snapshot().revision() {
                let behind: Vec<_> = kept.iter().filter(|event| event.revision > from).cloned().collect();
                prop_assert_eq!(history.after(from).unwrap().events(state.snapshot()), behind);
                for to in floor..=from {
                    let between = |event: &&Arc<Event>| event.revision > to && event.revision <= from;
                    let between: Vec<_> = kept.iter().filter(between).cloned().collect();
                    prop_assert_eq!(history.between(to, from).unwrap().events(state.snapshot()), between);
                }
            }
            history.trim(i64::MAX);
            prop_assert_eq!(history.bytes(), 0);
        }
    }
}
