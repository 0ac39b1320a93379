//! What waits for one watcher, bounded: who does not keep up is cut off and resumes from its last revision.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::Waker,
};

use super::Batch;

/// More events than this may not wait for one watcher.
pub(super) const MAX_EVENTS: usize = 16 * 1024;
/// More bytes than this may not wait for one watcher (they are shared with the history and other watchers).
const MAX_BYTES: usize = 64 * 1024 * 1024;

/// What waits for one watcher.
#[derive(Default)]
pub(super) struct Mailbox(Mutex<Waiting>);

#[derive(Default)]
struct Waiting {
    batches: VecDeque<Arc<Batch>>,
    events: usize,
    bytes: usize,
    cut_off: bool,
    /// Nothing comes after this revision.
    closed: Option<u64>,
    waker: Option<Waker>,
}

/// What a watcher finds in its mailbox.
pub(super) enum Taken {
    Batch(Arc<Batch>),
    /// Nothing; the waker is called when there is.
    Empty,
    /// Nothing, and nothing more comes: everything up to this revision was there.
    Closed(u64),
    /// Too much had waited, or there is no way on from what was seen last; all that waited was dropped.
    CutOff,
}

// === impl Mailbox ===

impl Mailbox {
    /// Adds a batch and wakes the watcher.
    pub(super) fn put(&self, batch: &Arc<Batch>) {
        let waker = {
            let mut waiting = self.waiting();
            if waiting.cut_off || waiting.closed.is_some() {
                return;
            }
            waiting.events += batch.events.len();
            waiting.bytes += batch.bytes;
            if waiting.events > MAX_EVENTS || waiting.bytes > MAX_BYTES {
                waiting.cut_off();
            } else {
                waiting.batches.push_back(batch.clone());
            }
            waiting.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Takes nothing more; the watcher ends behind what waits.
    pub(super) fn close(&self, revision: u64) {
        let waker = {
            let mut waiting = self.waiting();
            waiting.closed.get_or_insert(revision);
            waiting.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Drops what waits; the watcher ends.
    pub(super) fn cut_off(&self) {
        let waker = {
            let mut waiting = self.waiting();
            waiting.cut_off();
            waiting.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Takes the oldest batch.
    pub(super) fn take(&self, waker: &Waker) -> Taken {
        let mut waiting = self.waiting();
        if waiting.cut_off {
            return Taken::CutOff;
        }
        match waiting.batches.pop_front() {
            Some(batch) => {
                waiting.events -= batch.events.len();
                waiting.bytes -= batch.bytes;
                Taken::Batch(batch)
            }
            None => {
                if let Some(revision) = waiting.closed {
                    return Taken::Closed(revision);
                }
                match &mut waiting.waker {
                    Some(known) => known.clone_from(waker),
                    none => *none = Some(waker.clone()),
                }
                Taken::Empty
            }
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Waiting ===

impl Waiting {
    fn cut_off(&mut self) {
        self.cut_off = true;
        self.batches = VecDeque::new();
    }
}
