//! Waiting for what must come, with a limit.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// How long most things may take, on a slow machine under load.
pub const PATIENCE: Duration = Duration::from_secs(60);
const INTERVAL: Duration = Duration::from_millis(100);

/// Tries again until `attempt` succeeds; its last error is the answer when [`PATIENCE`] ends.
///
/// # Errors
/// The last error of `attempt`.
pub fn eventually<T>(what: &str, attempt: impl FnMut() -> Result<T>) -> Result<T> {
    eventually_within(PATIENCE, what, attempt)
}

/// As [`eventually`], with another limit.
///
/// # Errors
/// The last error of `attempt`.
pub fn eventually_within<T>(
    limit: Duration,
    what: &str,
    mut attempt: impl FnMut() -> Result<T>,
) -> Result<T> {
    let deadline = Instant::now() + limit;
    loop {
        match attempt() {
            Ok(found) => return Ok(found),
            Err(error) if Instant::now() > deadline => {
                return Err(error).with_context(|| format!("{what}: not within {} s", limit.as_secs()));
            }
            Err(_) => std::thread::sleep(INTERVAL),
        }
    }
}
