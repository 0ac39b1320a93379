//! When a probe runs, and what its results mean once they repeat.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Probe;

use crate::{clock, pod};

/// What a probe is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// The container has come up; until then the other probes wait.
    Startup,
    /// The container is alive; if not it is restarted.
    Liveness,
    /// The container can take requests.
    Readiness,
}

/// What one run of a probe found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// As it should be.
    Success,
    /// Not as it should be, for this reason.
    Failure(String),
    /// The probe itself could not be carried out; counts for nothing.
    Unknown(String),
}

/// One probe of one container instance.
///
/// Waiting (`next_at` in the future) → due → in flight → waiting; its `verdict` changes when a result has repeated as
/// often as its threshold says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prober {
    kind: Kind,
    delay: Duration,
    period: Duration,
    timeout: Duration,
    success_threshold: u32,
    failure_threshold: u32,
    next_at: Timestamp,
    in_flight: bool,
    last: Option<bool>,
    streak: u32,
    verdict: Option<bool>,
}

// === impl Prober ===

impl Prober {
    /// A probe of a container that was started at `started`.
    pub fn new(kind: Kind, probe: &Probe, started: Timestamp) -> Self {
        let positive = |value: Option<i32>, default: u32| {
            value.and_then(|value| u32::try_from(value).ok()).filter(|value| *value > 0).unwrap_or(default)
        };
        let delay = pod::seconds(i64::from(probe.initial_delay_seconds.unwrap_or(0)));
        Self {
            kind,
            delay,
            period: Duration::from_secs(u64::from(positive(probe.period_seconds, 10))),
            timeout: Duration::from_secs(u64::from(positive(probe.timeout_seconds, 1))),
            success_threshold: positive(probe.success_threshold, 1),
            failure_threshold: positive(probe.failure_threshold, 3),
            next_at: clock::after(started, delay),
            in_flight: false,
            last: None,
            streak: 0,
            verdict: None,
        }
    }

    /// What it is for.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// How long one run may take.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// When it wants to run next; `None` while it runs.
    pub fn next_at(&self) -> Option<Timestamp> {
        (!self.in_flight).then_some(self.next_at)
    }

    /// Takes the run that is due, if one is.
    pub fn begin(&mut self, now: Timestamp) -> bool {
        if self.in_flight {
            return false;
        }
        // Also when the clock has been set back since: not earlier than it should be, and not much later.
        self.next_at = self.next_at.min(clock::after(now, self.period.max(self.delay)));
        if self.next_at > now {
            return false;
        }
        self.in_flight = true;
        self.next_at = clock::after(now, self.period);
        true
    }

    /// Takes in a result. Answers with the verdict when it is reached anew: also when a failure threshold is met again.
    pub fn report(&mut self, outcome: &Outcome, now: Timestamp) -> Option<bool> {
        if !self.in_flight {
            return None;
        }
        self.in_flight = false;
        self.next_at = self.next_at.max(now);
        let success = match outcome {
            Outcome::Success => true,
            Outcome::Failure(_) => false,
            Outcome::Unknown(_) => return None,
        };
        if self.last == Some(success) {
            self.streak = self.streak.saturating_add(1);
        } else {
            self.last = Some(success);
            self.streak = 1;
        }
        let threshold = if success { self.success_threshold } else { self.failure_threshold };
        if self.streak < threshold || self.verdict == Some(success) {
            return None;
        }
        self.verdict = Some(success);
        Some(success)
    }

    /// Takes over what an earlier agent found: the container had come up, and was or was not ready.
    pub fn resume(&mut self, ready: bool, now: Timestamp) {
        match self.kind {
            Kind::Startup => self.verdict = Some(true),
            Kind::Readiness => self.verdict = Some(ready),
            Kind::Liveness => {}
        }
        self.last = self.verdict;
        self.next_at = self.next_at.max(now);
    }

    /// The standing verdict: none before a threshold was met.
    pub fn verdict(&self) -> Option<bool> {
        self.verdict
    }
}

// === impl Kind ===

impl Kind {
    /// As events name it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Startup => "Startup",
            Self::Liveness => "Liveness",
            Self::Readiness => "Readiness",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("in range")
    }

    fn prober(kind: Kind, probe: Probe) -> Prober {
        Prober::new(kind, &probe, at(0))
    }

    /// Runs the probe at its own pace; `+` is a success, `-` a failure, `?` unknown. Gives seconds and verdicts.
    fn check(probe: Probe, results: &str, expected: &str) {
        let mut prober = prober(Kind::Readiness, probe);
        let mut seen = String::new();
        for result in results.chars() {
            let now = prober.next_at().expect("not in flight");
            assert!(prober.begin(now));
            assert!(!prober.begin(now), "one run at a time");
            let outcome = match result {
                '+' => Outcome::Success,
                '-' => Outcome::Failure(String::new()),
                _ => Outcome::Unknown(String::new()),
            };
            if let Some(verdict) = prober.report(&outcome, now) {
                seen.push_str(&format!("{}{} ", now.as_second(), if verdict { '+' } else { '-' }));
            }
        }
        assert_eq!(seen.trim(), expected);
    }

    #[test]
    fn thresholds() {
        let probe = Probe {
            initial_delay_seconds: Some(5),
            period_seconds: Some(2),
            success_threshold: Some(2),
            failure_threshold: Some(3),
            ..Probe::default()
        };
        check(probe.clone(), "++--+---+-++", "7+ 19- 27+");
        check(probe, "+?+", "9+");
        check(Probe::default(), "---+", "20- 30+");
    }

    #[test]
    fn a_clock_that_is_set_back_delays_a_probe_by_no_more_than_it_waits_anyway() {
        let probe = Probe { initial_delay_seconds: Some(30), ..Probe::default() };
        let mut prober = Prober::new(Kind::Liveness, &probe, at(5000));
        assert!(!prober.begin(at(1000)), "its container may have just started");
        assert_eq!(prober.next_at(), Some(at(1030)));
        assert!(prober.begin(at(1030)));
    }
}
