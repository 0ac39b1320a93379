//! What the store's thread publishes and everyone may read: the newest snapshot, the recent past, observers.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use store_core::history::{Compacted, History};
use store_core::{Event, Snapshot};
use tokio::sync::watch;

const REWOUND: usize = 16;

/// Sees every applied batch, in order, on the store's thread, before the writers get their answers.
pub trait Observer: Send {
    /// The events of a batch (never empty), and the snapshot that holds them. Must not wait for the store.
    fn applied(&self, events: &[Arc<Event>], snapshot: &Arc<Snapshot>);

    /// The whole state was replaced by one that the leader sent, because this member was too far behind: there are no
    /// events that lead to it. Whoever follows must start over from `snapshot`; the kept past begins with it. Must not
    /// wait for the store.
    fn replaced(&self, snapshot: &Arc<Snapshot>);
}

/// What the store's thread publishes.
pub(crate) struct Published {
    current: ArcSwap<Snapshot>,
    history: Mutex<History>,
    observers: Mutex<Vec<Box<dyn Observer>>>,
    rewound: Mutex<VecDeque<Arc<Snapshot>>>,
    revision: watch::Sender<u64>,
    /// Whether what is published is known to be the newest state: true in a group of one.
    confirmed: AtomicBool,
}

// === impl Published ===

impl Published {
    pub(crate) fn new(snapshot: Snapshot, history: History) -> Self {
        let snapshot = Arc::new(snapshot.with_compacted_revision(history.compacted_revision()));
        let revision = watch::Sender::new(snapshot.revision());
        Self {
            current: ArcSwap::new(snapshot),
            history: Mutex::new(history),
            observers: Mutex::default(),
            rewound: Mutex::default(),
            revision,
            confirmed: AtomicBool::new(false),
        }
    }

    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        self.current.load_full()
    }

    pub(crate) fn revisions(&self) -> watch::Receiver<u64> {
        self.revision.subscribe()
    }

    pub(crate) fn confirmed(&self) -> bool {
        self.confirmed.load(Ordering::Acquire)
    }

    pub(crate) fn confirm(&self, confirmed: bool) {
        self.confirmed.store(confirmed, Ordering::Release);
    }

    pub(crate) fn events_after(&self, revision: u64) -> Result<Vec<Arc<Event>>, Compacted> {
        let (past, live) = {
            let history = lock(&self.history);
            (history.after(revision)?, self.snapshot())
        };
        Ok(past.events(&live))
    }

    pub(crate) fn observe(&self, observer: Box<dyn Observer>) -> Arc<Snapshot> {
        let mut observers = lock(&self.observers);
        observers.push(observer);
        self.snapshot()
    }

    /// The snapshot at `revision`: the newest one, or one taken back to it. The latest such ones are kept, as a
    /// list is read page by page.
    pub(crate) fn at(&self, revision: u64) -> Result<Arc<Snapshot>, Compacted> {
        let current = self.snapshot();
        let floor = lock(&self.history).compacted_revision();
        if revision < floor {
            return Err(Compacted { requested: revision, oldest: floor });
        }
        if revision >= current.revision() {
            return Ok(current);
        }
        let nearest = {
            let mut rewound = lock(&self.rewound);
            rewound.retain(|snapshot| snapshot.revision() >= floor);
            let newer = rewound.iter().filter(|snapshot| snapshot.revision() >= revision);
            newer.min_by_key(|snapshot| snapshot.revision()).unwrap_or(&current).clone()
        };
        if nearest.revision() == revision {
            return Ok(nearest);
        }
        // Only what they are made from is taken under the lock: the store's thread must not wait for the rest.
        let (past, live) = {
            let history = lock(&self.history);
            (history.between(revision, nearest.revision())?, self.snapshot())
        };
        let events = past.events(&live);
        let snapshot = Arc::new(nearest.rewound(&events));
        let mut rewound = lock(&self.rewound);
        if rewound.len() >= REWOUND {
            rewound.pop_front();
        }
        rewound.push_back(snapshot.clone());
        Ok(snapshot)
    }

    /// Puts another state in the place of the published one, with nothing behind it.
    pub(crate) fn replace(&self, snapshot: Snapshot) {
        let observers = lock(&self.observers);
        let snapshot = {
            let mut history = lock(&self.history);
            history.restart(snapshot.revision());
            let snapshot = Arc::new(snapshot.with_compacted_revision(history.compacted_revision()));
            self.current.store(snapshot.clone());
            snapshot
        };
        lock(&self.rewound).clear();
        for observer in observers.iter() {
            observer.replaced(&snapshot);
        }
        drop(observers);
        self.revision.send_replace(snapshot.revision());
    }

    /// Publishes a batch: snapshot and past together, then the observers, then those who wait for a revision.
    pub(crate) fn publish(&self, snapshot: Snapshot, events: &[Arc<Event>], now_ms: i64) {
        let observers = lock(&self.observers);
        let snapshot = {
            let mut history = lock(&self.history);
            history.push(events, now_ms);
            let snapshot = Arc::new(snapshot.with_compacted_revision(history.compacted_revision()));
            self.current.store(snapshot.clone());
            snapshot
        };
        if events.is_empty() {
            return;
        }
        for observer in observers.iter() {
            observer.applied(events, &snapshot);
        }
        drop(observers);
        self.revision.send_replace(snapshot.revision());
    }
}

fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
