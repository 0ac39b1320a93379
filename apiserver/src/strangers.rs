//! Connections that have proved nothing yet: there are so many at once, and the oldest gives way to the next.
//!
//! Anybody who reaches the port can open connections and leave them. Were they only counted, they would keep out those who
//! could prove who they are; so they keep out each other.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// All connections that have proved nothing yet.
#[derive(Clone)]
pub(crate) struct Strangers(Arc<Shared>);

struct Shared {
    most: usize,
    present: Mutex<Present>,
}

#[derive(Default)]
struct Present {
    next: u64,
    /// By the order in which they came.
    waiting: BTreeMap<u64, CancellationToken>,
}

/// One such connection. Dropping it takes it off the list.
pub(crate) struct Stranger {
    strangers: Strangers,
    number: u64,
    sent_away: CancellationToken,
}

// === impl Strangers ===

impl Strangers {
    /// A list that holds `most` connections.
    pub(crate) fn new(most: usize) -> Strangers {
        Strangers(Arc::new(Shared { most, present: Mutex::default() }))
    }

    /// Puts a connection on the list. When it is full, the one that has been on it longest is sent away.
    pub(crate) fn enter(&self) -> Stranger {
        let sent_away = CancellationToken::new();
        let (number, oldest) = {
            let mut present = self.present();
            let number = present.next;
            present.next += 1;
            let oldest = match present.waiting.len() >= self.0.most {
                true => present.waiting.pop_first(),
                false => None,
            };
            present.waiting.insert(number, sent_away.clone());
            (number, oldest)
        };
        if let Some((_, oldest)) = oldest {
            oldest.cancel();
        }
        Stranger { strangers: self.clone(), number, sent_away }
    }

    fn present(&self) -> MutexGuard<'_, Present> {
        self.0.present.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Stranger ===

impl Stranger {
    /// The connection has proved who is at its other end: it is on the list no longer.
    pub(crate) fn is_known(&self) {
        self.strangers.present().waiting.remove(&self.number);
    }

    /// Ends when the connection must go; never for one that has proved itself before.
    pub(crate) fn sent_away(&self) -> WaitForCancellationFutureOwned {
        self.sent_away.clone().cancelled_owned()
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        self.is_known();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_gives_way_and_who_is_known_stays() {
        let strangers = Strangers::new(2);
        let known = strangers.enter();
        known.is_known();
        let all: Vec<Stranger> = (0..4).map(|_| strangers.enter()).collect();
        let gone = |stranger: &Stranger| stranger.sent_away.is_cancelled();
        assert_eq!(all.iter().map(gone).collect::<Vec<_>>(), [true, true, false, false]);
        assert!(!gone(&known));
        drop(all);
        assert!(strangers.present().waiting.is_empty());
    }
}
