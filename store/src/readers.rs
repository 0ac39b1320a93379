//! Where readers wait until the group is asked how far they must see.
//!
//! One question is out at a time, and whoever comes meanwhile waits for the next. Those do not call the store's thread, which
//! would have nothing to do for them: it looks here by itself when the answer has come.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use crate::ReadError;

/// How a reader is answered.
pub(crate) type Reader = oneshot::Sender<Result<(), ReadError>>;

/// The readers' end.
#[derive(Clone, Default)]
pub(crate) struct Readers(Arc<Mutex<Queue>>);

/// The store's end. When it is dropped, nobody is let in any more.
pub(crate) struct ReadersInside(Readers);

#[derive(Default)]
struct Queue {
    waiting: Vec<Reader>,
    /// The store's thread was called, or looks by itself.
    awaited: bool,
    closed: bool,
}

// === impl Readers ===

impl Readers {
    /// Lets a reader in. With it comes whether the store's thread has to be called.
    pub(crate) fn enter(&self) -> Result<(oneshot::Receiver<Result<(), ReadError>>, bool), ReadError> {
        let mut queue = self.queue();
        if queue.closed {
            return Err(ReadError::Closed);
        }
        let (answer, answered) = oneshot::channel();
        queue.waiting.push(answer);
        Ok((answered, !std::mem::replace(&mut queue.awaited, true)))
    }

    /// The store's end.
    pub(crate) fn inside(&self) -> ReadersInside {
        ReadersInside(self.clone())
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl ReadersInside ===

impl ReadersInside {
    /// Takes all who wait. When there is nobody, the next one calls; else the thread has to look again.
    pub(crate) fn take(&self) -> Vec<Reader> {
        let mut queue = self.0.queue();
        queue.awaited = !queue.waiting.is_empty();
        std::mem::take(&mut queue.waiting)
    }
}

impl Drop for ReadersInside {
    fn drop(&mut self) {
        let mut queue = self.0.queue();
        queue.closed = true;
        // Dropped answers say that the store is closed.
        queue.waiting.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_is_not_awaited_calls() {
        let readers = Readers::default();
        let inside = readers.inside();
        let calls = |count: usize| (0..count).map(|_| readers.enter().unwrap().1).collect::<Vec<_>>();
        assert_eq!(calls(3), [true, false, false]);
        assert_eq!(inside.take().len(), 3);
        assert_eq!(calls(2), [false, false], "the thread looks again");
        assert_eq!(inside.take().len(), 2);
        assert!(inside.take().is_empty());
        assert_eq!(calls(1), [true]);
    }

    #[test]
    fn nobody_waits_for_a_store_that_is_gone() {
        let readers = Readers::default();
        let inside = readers.inside();
        let (mut answered, _) = readers.enter().unwrap();
        drop(inside);
        assert!(answered.try_recv().is_err());
        assert!(matches!(readers.enter(), Err(ReadError::Closed)));
    }
}
