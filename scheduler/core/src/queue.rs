//! The queue of pods that wait for a node: ready ones by priority and age, failed ones until something may have changed for them.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use client_core::backoff::exponential;
use client_core::clock::Moment;
use client_core::object::ObjectKey;

use crate::pod::PodInfo;
use crate::report::Causes;

/// How long a pod waits after its first failure, at least.
const BACKOFF_INITIAL: Duration = Duration::from_secs(1);
/// How long after its later failures, at most.
const BACKOFF_LIMIT: Duration = Duration::from_secs(10);
/// After this time an unschedulable pod is tried again even though nothing seems to have changed for it.
const FLUSH: Duration = Duration::from_secs(300);

/// Pods that wait.
#[derive(Debug, Default)]
pub struct Queue {
    entries: BTreeMap<ObjectKey, Entry>,
    ready: BTreeSet<(Reverse<i32>, u64, ObjectKey)>,
    backoff: BTreeSet<(Moment, ObjectKey)>,
    unschedulable: BTreeSet<(Moment, ObjectKey)>,
    arrivals: u64,
}

#[derive(Debug)]
struct Entry {
    pod: Arc<PodInfo>,
    /// Order of arrival.
    arrival: u64,
    failures: u32,
    /// Until then it waits even when it could be tried.
    not_before: Moment,
    /// Why it failed last.
    causes: Causes,
    state: State,
}

/// Where a pod stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// May be popped.
    Ready,
    /// Ready at its `not_before`.
    Backoff,
    /// Waits for a change, since this moment.
    Unschedulable(Moment),
    /// Popped: a decision is made or carried out.
    InFlight,
    /// Not to be scheduled yet.
    Gated,
}

// === impl Queue ===

impl Queue {
    /// Nothing waits.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes in a new or changed pod without a node. A change of what its placement depends on makes it ready again.
    pub fn set(&mut self, pod: Arc<PodInfo>, now: Moment) {
        let key = pod.key.clone();
        let gated = pod.gated;
        let Some(entry) = self.entries.get_mut(&key).filter(|entry| entry.pod.uid == pod.uid) else {
            self.remove(&key);
            self.arrivals += 1;
            let entry = Entry {
                pod,
                arrival: self.arrivals,
                failures: 0,
                not_before: now,
                causes: Causes::none(),
                state: State::Gated,
            };
            self.entries.insert(key.clone(), entry);
            if !gated {
                self.move_to(&key, State::Ready);
            }
            return;
        };
        let changed = may_matter(&entry.pod, &pod);
        let state = entry.state;
        if state == State::Ready && entry.pod.priority != pod.priority {
            self.move_to(&key, State::Gated);
            if let Some(entry) = self.entries.get_mut(&key) {
                entry.pod = pod;
            }
            self.move_to(&key, State::Ready);
            return;
        }
        entry.pod = pod;
        match state {
            State::Gated if !gated => self.move_to(&key, State::Ready),
            State::Unschedulable(_) if changed => self.wake(&key, now),
            _ => {}
        }
    }

    /// The pod is gone, or has a node.
    pub fn remove(&mut self, key: &ObjectKey) {
        self.move_to(key, State::InFlight);
        self.entries.remove(key);
    }

    /// Takes the next pod out. It is told with `bound`, `failed` or `unschedulable` how it went.
    pub fn pop(&mut self, now: Moment) -> Option<Arc<PodInfo>> {
        self.advance(now);
        let (_, _, key) = self.ready.first()?.clone();
        self.move_to(&key, State::InFlight);
        self.entries.get(&key).map(|entry| Arc::clone(&entry.pod))
    }

    /// The pod fits nowhere, for these causes: it waits until something changes that may help.
    pub fn unschedulable(&mut self, key: &ObjectKey, uid: &str, causes: Causes, now: Moment) {
        if let Some(entry) = self.in_flight(key, uid) {
            entry.fail(causes, now);
            self.move_to(key, State::Unschedulable(now));
        }
    }

    /// The decision could not be carried out: the pod is tried again after a while.
    pub fn failed(&mut self, key: &ObjectKey, uid: &str, now: Moment) {
        if let Some(entry) = self.in_flight(key, uid) {
            entry.fail(Causes::all(), now);
            self.move_to(key, State::Backoff);
        }
    }

    /// The pod got its node.
    pub fn bound(&mut self, key: &ObjectKey, uid: &str) {
        if self.in_flight(key, uid).is_some() {
            self.remove(key);
        }
    }

    /// Something has changed that may help against these causes: pods that failed for one of them, and for which
    /// `hopeful` agrees, are tried again as soon as their backoff is over. What stands in the way of the others now is
    /// something else than what they failed for: from here on they wait for anything that a node can change.
    pub fn wake_all(
        &mut self,
        helps: Causes,
        now: Moment,
        mut hopeful: impl FnMut(&PodInfo, Causes) -> bool,
    ) {
        if helps.is_empty() || self.unschedulable.is_empty() {
            return;
        }
        let mut woken = Vec::new();
        for (_, key) in &self.unschedulable {
            let Some(entry) = self.entries.get_mut(key).filter(|entry| entry.causes.meets(helps)) else {
                continue;
            };
            match entry.causes.meets(Causes::NO_NODES) || hopeful(&entry.pod, entry.causes) {
                true => woken.push(key.clone()),
                false => entry.causes = entry.causes.with(Causes::of_nodes()),
            }
        }
        for key in woken {
            self.wake(&key, now);
        }
    }

    /// When a waiting pod becomes ready by itself.
    pub fn poll_timeout(&self) -> Option<Moment> {
        let backoff = self.backoff.first().map(|(at, _)| *at);
        let flush = self.unschedulable.first().map(|(since, _)| since.saturating_add(FLUSH));
        [backoff, flush].into_iter().flatten().min()
    }

    /// How many pods are ready, in backoff, and unschedulable.
    pub fn depths(&self) -> (usize, usize, usize) {
        (self.ready.len(), self.backoff.len(), self.unschedulable.len())
    }

    /// Whether a pod may be popped now.
    pub fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    fn in_flight(&mut self, key: &ObjectKey, uid: &str) -> Option<&mut Entry> {
        self.entries.get_mut(key).filter(|entry| entry.state == State::InFlight && entry.pod.uid == uid)
    }

    fn advance(&mut self, now: Moment) {
        while let Some((_, key)) = self.backoff.first().filter(|(at, _)| *at <= now).cloned() {
            self.move_to(&key, State::Ready);
        }
        while let Some((_, key)) =
            self.unschedulable.first().filter(|(since, _)| since.saturating_add(FLUSH) <= now).cloned()
        {
            self.wake(&key, now);
        }
    }

    fn wake(&mut self, key: &ObjectKey, now: Moment) {
        let Some(entry) = self.entries.get(key) else { return };
        let state = if entry.not_before <= now { State::Ready } else { State::Backoff };
        self.move_to(key, state);
    }

    fn move_to(&mut self, key: &ObjectKey, state: State) {
        let Some(entry) = self.entries.get_mut(key) else { return };
        let order = (Reverse(entry.pod.priority), entry.arrival, key.clone());
        match entry.state {
            State::Ready => {
                self.ready.remove(&order);
            }
            State::Backoff => {
                self.backoff.remove(&(entry.not_before, key.clone()));
            }
            State::Unschedulable(since) => {
                self.unschedulable.remove(&(since, key.clone()));
            }
            State::InFlight | State::Gated => {}
        }
        entry.state = state;
        match state {
            State::Ready => {
                self.ready.insert(order);
            }
            State::Backoff => {
                self.backoff.insert((entry.not_before, key.clone()));
            }
            State::Unschedulable(since) => {
                self.unschedulable.insert((since, key.clone()));
            }
            State::InFlight | State::Gated => {}
        }
    }
}

// === impl Entry ===

impl Entry {
    fn fail(&mut self, causes: Causes, now: Moment) {
        self.causes = causes;
        let delay = exponential(BACKOFF_INITIAL, BACKOFF_LIMIT, self.failures);
        self.failures = self.failures.saturating_add(1);
        self.not_before = now.saturating_add(delay);
    }
}

/// Whether a change of the pod may make it fit: its status and most of its metadata do not matter.
fn may_matter(old: &PodInfo, new: &PodInfo) -> bool {
    old.labels != new.labels
        || old.shape.id != new.shape.id
        || old.requests != new.requests
        || old.ports != new.ports
}

#[cfg(test)]
mod tests;
