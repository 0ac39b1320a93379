//! The process's clocks, for the cores that are given their time.

use std::sync::OnceLock;
use std::time::Instant;

use client_core::clock::{Moment, Now};

/// Monotonic time since the process first asked.
pub fn moment() -> Moment {
    static ORIGIN: OnceLock<Instant> = OnceLock::new();
    ORIGIN.get_or_init(Instant::now).elapsed()
}

/// Both clocks.
pub fn now() -> Now {
    Now { moment: moment(), wall: jiff::Timestamp::now() }
}

/// Sleeps until the moment; without one, for ever.
pub async fn sleep_until(at: Option<Moment>) {
    match at {
        Some(at) => tokio::time::sleep(at.saturating_sub(moment())).await,
        None => std::future::pending().await,
    }
}
