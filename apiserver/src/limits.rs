//! How much one user may have under way at once, so that one noisy client starves nobody.
//!
//! Kubernetes' priority levels share out a server's places by FlowSchemas; here every user has the same number of places.
//! Watches and streams take none: they are bounded by connections. Administrators are exempt, as in Kubernetes: whoever has to
//! mend a cluster must not wait behind what broke it.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use apiserver_core::User;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Requests (not watches and streams) that one user may have under way; further ones wait.
pub(crate) const MAX_IN_FLIGHT: usize = 512;
/// Requests of one user that may wait; further ones are refused at once.
const MAX_WAITING: usize = 2 * MAX_IN_FLIGHT;
/// How long a request waits for others of its user.
const WAIT: Duration = Duration::from_secs(10);
/// More users than this are looked through for idle ones.
const MANY_USERS: usize = 1024;
/// The group whose members are not bounded.
const EXEMPT: &str = "system:masters";

/// The requests that each user has under way.
#[derive(Default)]
pub(crate) struct Limiter(Mutex<HashMap<Box<str>, Arc<Places>>>);

/// One user's places; none for a user who is not bounded.
#[derive(Clone)]
pub(crate) struct Slot(Option<Arc<Places>>);

struct Places {
    free: Arc<Semaphore>,
    waiting: AtomicUsize,
}

/// A place that is held; free again when it is dropped.
pub(crate) struct Place(#[allow(dead_code)] Option<OwnedSemaphorePermit>);

/// One who waits is counted for as long as it does.
struct Waiting<'p>(&'p AtomicUsize);

// === impl Limiter ===

impl Limiter {
    /// The places of a user.
    pub(crate) fn slot(&self, user: &User) -> Slot {
        if user.groups.iter().any(|group| group == EXEMPT) {
            return Slot(None);
        }
        let mut users = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(places) = users.get(user.name.as_str()) {
            return Slot(Some(places.clone()));
        }
        if users.len() >= MANY_USERS {
            users.retain(|_, places| Arc::strong_count(places) > 1 || places.are_held());
        }
        let free = Arc::new(Semaphore::new(MAX_IN_FLIGHT));
        let places = Arc::new(Places { free, waiting: AtomicUsize::new(0) });
        users.insert(user.name.as_str().into(), places.clone());
        Slot(Some(places))
    }
}

// === impl Slot ===

impl Slot {
    /// Takes a place; `None` when none became free in time, or too many wait already.
    pub(crate) async fn enter(&self) -> Option<Place> {
        let Some(places) = &self.0 else { return Some(Place(None)) };
        if let Ok(permit) = places.free.clone().try_acquire_owned() {
            return Some(Place(Some(permit)));
        }
        if places.waiting.fetch_add(1, Ordering::Relaxed) >= MAX_WAITING {
            places.waiting.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        let _waiting = Waiting(&places.waiting);
        let permit = tokio::time::timeout(WAIT, places.free.clone().acquire_owned()).await.ok()?.ok()?;
        Some(Place(Some(permit)))
    }
}

impl Places {
    fn are_held(&self) -> bool {
        self.free.available_permits() < MAX_IN_FLIGHT
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    fn user(name: &str) -> User {
        User::authenticated(name, &[])
    }

    async fn fill(slot: &Slot) -> Vec<Place> {
        let mut held = Vec::new();
        for _ in 0..MAX_IN_FLIGHT {
            held.push(slot.enter().await.expect("a place"));
        }
        held
    }

    #[tokio::test]
    async fn one_user_is_bounded_and_others_are_not_affected() {
        let limiter = Limiter::default();
        let greedy = limiter.slot(&user("greedy"));
        let mut held = fill(&greedy).await;
        let mut waiting = Box::pin(greedy.enter());
        assert!((&mut waiting).now_or_never().is_none(), "no place is left");
        assert!(limiter.slot(&user("modest")).enter().await.is_some());
        held.pop();
        assert!(waiting.await.is_some(), "a place became free");
    }

    #[tokio::test]
    async fn who_would_wait_in_too_long_a_queue_is_refused_at_once() {
        let limiter = Limiter::default();
        let greedy = limiter.slot(&user("greedy"));
        let _held = fill(&greedy).await;
        let mut queue: Vec<_> = (0..MAX_WAITING).map(|_| Box::pin(greedy.enter())).collect();
        assert!(queue.iter_mut().all(|waiting| waiting.now_or_never().is_none()));
        let refused = greedy.enter().now_or_never().expect("not asked to wait");
        assert!(refused.is_none());
        // Those who have given up wait no more.
        drop(queue);
        assert!(greedy.enter().now_or_never().is_none(), "it waits");
    }

    #[tokio::test]
    async fn administrators_are_not_bounded() {
        let limiter = Limiter::default();
        let admin = limiter.slot(&User::authenticated("admin", &[EXEMPT.to_owned()]));
        let held = fill(&admin).await;
        assert!(admin.enter().await.is_some());
        drop(held);
    }
}
