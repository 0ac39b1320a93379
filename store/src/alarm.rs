//! When the store's thread wakes at the latest.
//!
//! A timer that is set earlier than all before wakes its own runtime by a call of the kernel, and so does any timer that is
//! new. One that stands and rings a little early costs less than a new one for every batch.

use std::pin::Pin;
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep};

/// Longer than anybody waits.
const NEVER: Duration = Duration::from_secs(86_400);

/// A timer that stands.
pub(crate) struct Alarm(Pin<Box<Sleep>>);

impl Alarm {
    /// Rings not yet. Must be made on the runtime that waits for it.
    pub(crate) fn new() -> Self {
        Self(Box::pin(sleep(NEVER)))
    }

    /// Has it ring within this time. It may ring earlier: it is not set back.
    pub(crate) fn set(&mut self, within: Duration) {
        let at = Instant::now() + within;
        if self.0.is_elapsed() || at < self.0.deadline() {
            self.0.as_mut().reset(at);
        }
    }

    /// Waits until it rings.
    pub(crate) async fn rings(&mut self) {
        self.0.as_mut().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn it_rings_at_the_earliest_of_the_times_it_was_set_to() {
        let (mut alarm, begun) = (Alarm::new(), Instant::now());
        alarm.set(3 * MINUTE);
        alarm.set(MINUTE);
        let at = alarm.0.deadline();
        assert!(at < begun + 2 * MINUTE, "earlier than it was set to at first");
        alarm.set(4 * MINUTE);
        assert_eq!(alarm.0.deadline(), at, "not later");
        alarm.set(Duration::ZERO);
        alarm.rings().await;
        alarm.set(4 * MINUTE);
        assert!(alarm.0.deadline() > begun + 3 * MINUTE, "set anew once it has rung");
    }
}
