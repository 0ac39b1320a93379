//! Delays between attempts, as the node applies them to crashing containers and failing pulls: 10 s doubling to 300 s.

use std::time::Duration;

use jiff::Timestamp;

use crate::clock;

const INITIAL: Duration = Duration::from_secs(10);
/// The longest delay.
pub(crate) const LIMIT: Duration = Duration::from_secs(300);
/// A container that ran this long starts again from the shortest delay.
const FORGET: Duration = Duration::from_secs(600);

/// The back-off of one container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CrashBackoff {
    entry: Option<(Duration, Timestamp)>,
}

// === impl CrashBackoff ===

impl CrashBackoff {
    /// Until when a container that ended at `finished` must wait; `None` when it may start at once.
    pub fn waits_until(&self, finished: Timestamp, now: Timestamp) -> Option<Timestamp> {
        let (delay, updated) = self.entry?;
        if clock::between(updated, finished) > FORGET {
            return None;
        }
        let until = clock::after(finished, delay);
        clock::is_ahead(until, now, LIMIT).then_some(until)
    }

    /// The delay in force, for messages.
    pub fn delay(&self) -> Duration {
        self.entry.map_or(Duration::ZERO, |(delay, _)| delay)
    }

    /// Notes that a container that ended at `finished` is started again.
    pub fn restarted(&mut self, finished: Timestamp, now: Timestamp) {
        let delay = match self.entry {
            Some((delay, updated)) if clock::between(updated, finished) <= FORGET => (delay * 2).min(LIMIT),
            _ => INITIAL,
        };
        self.entry = Some((delay, now));
    }
}

/// The delay after the `failures`-th failed pull in a row (from 1).
pub fn pull_delay(failures: u32) -> Duration {
    INITIAL.saturating_mul(1_u32 << failures.saturating_sub(1).min(6)).min(LIMIT)
}

/// A duration as Go prints it: `10s`, `1m20s`, `5m0s`.
pub fn go_duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    if seconds >= 3600 {
        format!("{}h{}m{}s", seconds / 3600, seconds / 60 % 60, seconds % 60)
    } else if seconds >= 60 {
        format!("{}m{}s", seconds / 60, seconds % 60)
    } else if duration.subsec_millis() == 0 || seconds >= 10 {
        format!("{seconds}s")
    } else if seconds == 0 {
        format!("{}ms", duration.as_millis())
    } else {
        let text = format!("{}.{:03}", seconds, duration.subsec_millis());
        format!("{}s", text.trim_end_matches('0').trim_end_matches('.'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("in range")
    }

    #[test]
    fn doubles_to_the_limit_and_forgets() {
        let mut backoff = CrashBackoff::default();
        assert_eq!(backoff.waits_until(at(100), at(100)), None, "the first restart is immediate");
        let mut now = 100;
        let mut delays = Vec::new();
        for _ in 0..7 {
            backoff.restarted(at(now), at(now));
            let until = backoff.waits_until(at(now + 1), at(now + 1)).expect("waits");
            delays.push(until.as_second() - now - 1);
            now = until.as_second();
        }
        assert_eq!(delays, [10, 20, 40, 80, 160, 300, 300]);
        let later = now + 601;
        assert_eq!(backoff.waits_until(at(later), at(later)), None);
        backoff.restarted(at(later), at(later));
        assert_eq!(backoff.delay(), INITIAL);
    }

    #[test]
    fn a_clock_that_is_set_back_lets_a_container_start() {
        let mut backoff = CrashBackoff::default();
        backoff.restarted(at(5000), at(5000));
        assert_eq!(backoff.waits_until(at(5001), at(5002)), Some(at(5011)));
        assert_eq!(backoff.waits_until(at(5001), at(1000)), None);
    }

    #[test]
    fn go_durations() {
        let text: Vec<_> =
            [10_000, 80_000, 300_000, 1_500, 250].map(|ms| go_duration(Duration::from_millis(ms))).into();
        assert_eq!(text, ["10s", "1m20s", "5m0s", "1.5s", "250ms"]);
    }
}
