//! A work queue of keys: each is handled by one worker at a time, at most once per burst of changes, and again later when it failed.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use crate::backoff::exponential;
use crate::clock::Moment;

/// Keys that wait to be handled.
///
/// A key is in one of these states: *absent*; *ready* (in order of arrival); *delayed* (ready at a moment); *processing*;
/// *processing and dirty* (came again meanwhile: ready as soon as it is done). Delay and failures are independent of these.
#[derive(Clone, Debug)]
pub struct WorkQueue<K> {
    ready: VecDeque<K>,
    /// All keys in `ready`, and those that came again while processing.
    dirty: BTreeSet<K>,
    processing: BTreeSet<K>,
    delayed: BTreeSet<(Moment, K)>,
    delays: BTreeMap<K, Moment>,
    failures: BTreeMap<K, u32>,
    initial: Duration,
    limit: Duration,
}

// === impl WorkQueue ===

impl<K: Ord + Clone> Default for WorkQueue<K> {
    /// With client-go's limits: 5 ms doubling up to 1,000 s.
    fn default() -> Self {
        Self::new(Duration::from_millis(5), Duration::from_secs(1000))
    }
}

impl<K: Ord + Clone> WorkQueue<K> {
    /// A queue whose failed keys come again after `initial`, doubling up to `limit`.
    pub fn new(initial: Duration, limit: Duration) -> Self {
        Self {
            ready: VecDeque::new(),
            dirty: BTreeSet::new(),
            processing: BTreeSet::new(),
            delayed: BTreeSet::new(),
            delays: BTreeMap::new(),
            failures: BTreeMap::new(),
            initial,
            limit,
        }
    }

    /// Makes a key ready, unless it is already.
    pub fn add(&mut self, key: K) {
        if !self.dirty.insert(key.clone()) {
            return;
        }
        if !self.processing.contains(&key) {
            self.ready.push_back(key);
        }
    }

    /// Makes a key ready at a moment. Of several moments the earliest counts.
    pub fn add_at(&mut self, key: K, at: Moment) {
        match self.delays.get(&key) {
            Some(&earlier) if earlier <= at => return,
            Some(&later) => {
                self.delayed.remove(&(later, key.clone()));
            }
            None => {}
        }
        self.delays.insert(key.clone(), at);
        self.delayed.insert((at, key));
    }

    /// Makes a key ready after a delay.
    pub fn add_after(&mut self, key: K, delay: Duration, now: Moment) {
        if delay.is_zero() { self.add(key) } else { self.add_at(key, now.saturating_add(delay)) }
    }

    /// Counts a failure of the key and makes it ready after its backoff, which is returned.
    pub fn add_failed(&mut self, key: K, now: Moment) -> Duration {
        let failures = self.failures.entry(key.clone()).or_insert(0);
        let delay = exponential(self.initial, self.limit, *failures);
        *failures = failures.saturating_add(1);
        self.add_after(key, delay, now);
        delay
    }

    /// Forgets the failures of a key: it was handled well.
    pub fn forget(&mut self, key: &K) {
        self.failures.remove(key);
    }

    /// How often the key failed in a row.
    pub fn failures(&self, key: &K) -> u32 {
        self.failures.get(key).copied().unwrap_or(0)
    }

    /// Takes the next ready key. It must be given back with [`WorkQueue::done`].
    pub fn pop(&mut self, now: Moment) -> Option<K> {
        self.wake(now);
        let key = self.ready.pop_front()?;
        self.dirty.remove(&key);
        self.processing.insert(key.clone());
        Some(key)
    }

    /// Gives a key back. It is ready again if it came meanwhile.
    pub fn done(&mut self, key: &K) {
        if self.processing.remove(key) && self.dirty.contains(key) {
            self.ready.push_back(key.clone());
        }
    }

    /// When the next delayed key becomes ready.
    pub fn poll_timeout(&self) -> Option<Moment> {
        self.delayed.first().map(|(at, _)| *at)
    }

    /// How many keys are ready.
    pub fn len(&self) -> usize {
        self.ready.len()
    }

    /// Whether no key is ready (some may be delayed or processing).
    pub fn is_empty(&self) -> bool {
        self.ready.is_empty()
    }

    /// Whether nothing is ready, delayed or processing.
    pub fn is_idle(&self) -> bool {
        self.ready.is_empty() && self.delayed.is_empty() && self.processing.is_empty()
    }

    fn wake(&mut self, now: Moment) {
        while self.delayed.first().is_some_and(|(at, _)| *at <= now) {
            if let Some((_, key)) = self.delayed.pop_first() {
                self.delays.remove(&key);
                self.add(key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_key_is_queued_once_and_again_when_it_came_while_processing() {
        let mut queue = WorkQueue::default();
        queue.add("a");
        queue.add("b");
        queue.add("a");
        assert_eq!(queue.pop(Moment::ZERO), Some("a"));
        queue.add("a");
        queue.add("a");
        assert_eq!(queue.pop(Moment::ZERO), Some("b"));
        assert_eq!(queue.pop(Moment::ZERO), None, "a is being processed");
        queue.done(&"a");
        assert_eq!(queue.pop(Moment::ZERO), Some("a"));
        queue.done(&"a");
        queue.done(&"b");
        assert!(queue.is_idle());
    }

    #[test]
    fn the_earliest_delay_counts() {
        let mut queue = WorkQueue::default();
        queue.add_after("a", 50 * MS, Moment::ZERO);
        queue.add_after("a", 20 * MS, Moment::ZERO);
        queue.add_after("a", 80 * MS, Moment::ZERO);
        assert_eq!(queue.poll_timeout(), Some(20 * MS));
        assert_eq!(queue.pop(19 * MS), None);
        assert_eq!(queue.pop(20 * MS), Some("a"));
        queue.done(&"a");
        assert_eq!(queue.pop(Duration::from_secs(9)), None);
    }

    #[test]
    fn failures_back_off_per_key_until_forgotten() {
        let mut queue = WorkQueue::new(10 * MS, 35 * MS);
        let delays: Vec<Duration> = (0..4).map(|_| queue.add_failed("a", Moment::ZERO)).collect();
        assert_eq!(delays, [10 * MS, 20 * MS, 35 * MS, 35 * MS]);
        assert_eq!(queue.add_failed("b", Moment::ZERO), 10 * MS);
        queue.forget(&"a");
        assert_eq!(queue.add_failed("a", Moment::ZERO), 10 * MS);
    }
}
