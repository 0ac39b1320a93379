//! Something that is asked for, answered, and tried again when it fails.

use std::time::Duration;

use jiff::Timestamp;

use crate::clock;

/// The longest that a step waits for its next try.
const LONGEST: Duration = Duration::from_secs(60);

/// Fresh → busy → done, or back to waiting for another try.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Step {
    phase: Phase,
    failures: u32,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    Fresh,
    Busy,
    Done,
    Again(Timestamp),
}

// === impl Step ===

impl Step {
    /// Never asked for.
    pub(super) fn is_fresh(&self) -> bool {
        self.phase == Phase::Fresh
    }

    /// Asked for, not answered.
    pub(super) fn is_busy(&self) -> bool {
        self.phase == Phase::Busy
    }

    /// Answered well.
    pub(super) fn is_done(&self) -> bool {
        self.phase == Phase::Done
    }

    /// Whether it may be asked for now; if so it counts as asked for. Else `wake` learns when.
    pub(super) fn take(&mut self, wake: &mut Option<Timestamp>, now: Timestamp) -> bool {
        match self.phase {
            Phase::Busy | Phase::Done => return false,
            Phase::Again(at) if clock::is_ahead(at, now, LONGEST) => {
                *wake = clock::earliest(*wake, Some(at));
                return false;
            }
            Phase::Fresh | Phase::Again(_) => self.phase = Phase::Busy,
        }
        true
    }

    /// An answer has come: done, or to be tried again after 0.5 s doubling to 60 s.
    pub(super) fn answer(&mut self, ok: bool, now: Timestamp) {
        if ok {
            *self = Self { phase: Phase::Done, failures: 0 };
            return;
        }
        let delay = Duration::from_millis(500_u64 << self.failures.min(7)).min(LONGEST);
        self.phase = Phase::Again(clock::after(now, delay));
        self.failures = self.failures.saturating_add(1);
    }

    /// Asked for again as if for the first time.
    pub(super) fn reset(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a time")
    }

    #[test]
    fn a_clock_that_is_set_back_does_not_keep_a_step_waiting() {
        let (mut step, mut wake) = (Step::default(), None);
        assert!(step.take(&mut wake, at(5000)));
        for _ in 0..10 {
            step.answer(false, at(5000));
        }
        assert!(!step.take(&mut wake, at(5000)), "a minute is waited for");
        assert_eq!(wake, Some(at(5060)));
        assert!(step.take(&mut wake, at(1000)));
        assert!(step.is_busy());
    }
}
