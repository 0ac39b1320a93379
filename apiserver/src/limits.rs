//! How much one user may have under way at once.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Requests (not watches and streams) that one user may have under way; further ones wait.
pub(crate) const MAX_IN_FLIGHT: usize = 512;
/// How long a request waits for others of its user.
const WAIT: Duration = Duration::from_secs(10);
/// More users than this are looked through for idle ones.
const MANY_USERS: usize = 1024;

/// The requests that each user has under way.
#[derive(Default)]
pub(crate) struct Limiter(Mutex<HashMap<Box<str>, Slot>>);

/// One user's places.
#[derive(Clone)]
pub(crate) struct Slot(Arc<Semaphore>);

// === impl Limiter ===

impl Limiter {
    /// The places of a user.
    pub(crate) fn slot(&self, user: &str) -> Slot {
        let mut slots = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = slots.get(user) {
            return slot.clone();
        }
        if slots.len() >= MANY_USERS {
            slots.retain(|_, slot| Arc::strong_count(&slot.0) > 1);
        }
        let slot = Slot(Arc::new(Semaphore::new(MAX_IN_FLIGHT)));
        slots.insert(user.into(), slot.clone());
        slot
    }
}

// === impl Slot ===

impl Slot {
    /// Takes a place, free again when the permit is dropped; `None` when none became free in time.
    pub(crate) async fn enter(&self) -> Option<OwnedSemaphorePermit> {
        if let Ok(permit) = self.0.clone().try_acquire_owned() {
            return Some(permit);
        }
        tokio::time::timeout(WAIT, self.0.clone().acquire_owned()).await.ok()?.ok()
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn one_user_is_bounded_and_others_are_not_affected() {
        let limiter = Limiter::default();
        let mut held = Vec::new();
        for _ in 0..MAX_IN_FLIGHT {
            held.push(limiter.slot("greedy").enter().await.expect("a place"));
        }
        let slot = limiter.slot("greedy");
        let mut waiting = Box::pin(slot.enter());
        assert!((&mut waiting).now_or_never().is_none(), "no place is left");
        assert!(limiter.slot("modest").enter().await.is_some());
        held.pop();
        assert!(waiting.await.is_some(), "a place became free");
    }
}
