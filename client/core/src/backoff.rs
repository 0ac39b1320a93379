//! Exponential delays with jitter: how long to wait before trying again.

use std::time::Duration;

use rand::Rng;

/// A growing delay. Each failure doubles it up to a limit; a success starts it over.
#[derive(Clone, Debug)]
pub struct Backoff {
    initial: Duration,
    limit: Duration,
    /// Share of the delay that chance may add, 0.0 to 1.0.
    jitter: f64,
    failures: u32,
}

// === impl Backoff ===

impl Backoff {
    /// A backoff that starts at `initial` and never exceeds `limit` (before jitter).
    pub fn new(initial: Duration, limit: Duration) -> Self {
        Self { initial, limit, jitter: 0.0, failures: 0 }
    }

    /// Lets chance add up to this share of each delay, so that many clients do not return at once.
    #[must_use]
    pub fn with_jitter(mut self, jitter: f64) -> Self {
        self.jitter = jitter.clamp(0.0, 1.0);
        self
    }

    /// How often it failed in a row.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// Counts a failure and tells how long to wait.
    pub fn fail(&mut self, rng: &mut impl Rng) -> Duration {
        let delay = exponential(self.initial, self.limit, self.failures);
        self.failures = self.failures.saturating_add(1);
        if self.jitter > 0.0 { delay.mul_f64(1.0 + rng.random::<f64>() * self.jitter) } else { delay }
    }

    /// Forgets all failures.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

/// `initial * 2^failures`, at most `limit`.
pub fn exponential(initial: Duration, limit: Duration, failures: u32) -> Duration {
    let factor = 1_u32.checked_shl(failures.min(31)).unwrap_or(u32::MAX);
    initial.checked_mul(factor).map_or(limit, |delay| delay.min(limit))
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    use super::*;

    #[test]
    fn doubles_up_to_the_limit_and_starts_over() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
        let delays: Vec<u128> = (0..6).map(|_| backoff.fail(&mut rng).as_millis()).collect();
        assert_eq!(delays, [100, 200, 400, 800, 1000, 1000]);
        backoff.reset();
        assert_eq!(backoff.fail(&mut rng).as_millis(), 100);
        assert_eq!(
            exponential(Duration::from_secs(1), Duration::from_secs(10), u32::MAX),
            Duration::from_secs(10)
        );
    }

    #[test]
    fn jitter_only_adds() {
        let mut rng = ChaCha8Rng::seed_from_u64(7);
        for _ in 0..100 {
            let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(1)).with_jitter(0.5);
            let delay = backoff.fail(&mut rng);
            assert!((Duration::from_secs(1)..=Duration::from_millis(1500)).contains(&delay), "{delay:?}");
        }
    }
}
