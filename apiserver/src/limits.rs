//! How much one user may have under way at once.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

/// Requests (not watches and streams) that one user may have under way.
pub(crate) const MAX_IN_FLIGHT: usize = 512;
/// More users than this are looked through for idle ones.
const MANY_USERS: usize = 1024;

/// The requests that each user has under way.
#[derive(Default)]
pub(crate) struct Limiter(Mutex<HashMap<Box<str>, Slot>>);

/// One user's count.
#[derive(Clone, Default)]
pub(crate) struct Slot(Arc<AtomicUsize>);

/// One request under way.
pub(crate) struct Permit(Arc<AtomicUsize>);

// === impl Limiter ===

impl Limiter {
    /// The count of a user.
    pub(crate) fn slot(&self, user: &str) -> Slot {
        let mut slots = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = slots.get(user) {
            return slot.clone();
        }
        if slots.len() >= MANY_USERS {
            slots.retain(|_, slot| Arc::strong_count(&slot.0) > 1);
        }
        slots.entry(user.into()).or_default().clone()
    }
}

// === impl Slot ===

impl Slot {
    /// Takes a place; `None` when the user has too many requests under way.
    pub(crate) fn enter(&self) -> Option<Permit> {
        let permit = Permit(self.0.clone());
        (self.0.fetch_add(1, Ordering::Relaxed) < MAX_IN_FLIGHT).then_some(permit)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_user_is_bounded_and_others_are_not_affected() {
        let limiter = Limiter::default();
        let held: Vec<_> = (0..MAX_IN_FLIGHT).map(|_| limiter.slot("greedy").enter()).collect();
        assert!(held.iter().all(Option::is_some));
        assert!(limiter.slot("greedy").enter().is_none());
        assert!(limiter.slot("modest").enter().is_some());
        drop(held);
        assert!(limiter.slot("greedy").enter().is_some());
    }
}
