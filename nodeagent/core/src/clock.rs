//! Arithmetic on timestamps that cannot fail: it stops at the ends of time.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// The moment `duration` after `at`.
pub fn after(at: Timestamp, duration: Duration) -> Timestamp {
    let signed = SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX);
    at.checked_add(signed).unwrap_or(Timestamp::MAX)
}

/// How long it is from `from` to `to`; zero when `to` lies before.
pub fn between(from: Timestamp, to: Timestamp) -> Duration {
    Duration::try_from(to.duration_since(from)).unwrap_or(Duration::ZERO)
}

/// Whether a moment that nobody waits for longer than `longest` is still to come. One that lies further ahead was set by a clock
/// that has been set back since, and counts as past.
pub fn is_ahead(at: Timestamp, now: Timestamp, longest: Duration) -> bool {
    at > now && at <= after(now, longest)
}

/// As objects of the API carry it: whole seconds.
pub fn time(at: Timestamp) -> Time {
    Time(Timestamp::from_second(at.as_second()).unwrap_or(at))
}

/// The earlier of two moments, where `None` means never.
pub fn earliest(a: Option<Timestamp>, b: Option<Timestamp>) -> Option<Timestamp> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_further_ahead_than_anybody_waits_is_past() {
        let at = |second: i64| Timestamp::from_second(second).expect("in range");
        let longest = Duration::from_secs(60);
        let ahead: Vec<_> =
            [99, 100, 101, 160, 161].map(|until| is_ahead(at(until), at(100), longest)).into();
        assert_eq!(ahead, [false, false, true, true, false]);
    }
}
