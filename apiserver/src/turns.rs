//! Writers of what many write at the same time take turns, so that they do not make each other plan again.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use tokio::sync::OwnedMutexGuard;

/// More keys than this are looked through for those that nobody waits for.
const MANY_KEYS: usize = 256;

/// Who may write what is contended, key by key.
#[derive(Default)]
pub(crate) struct Turns(Mutex<HashMap<Bytes, Arc<tokio::sync::Mutex<()>>>>);

// === impl Turns ===

impl Turns {
    /// Waits for the turn to write a key; it is over when what is returned is dropped.
    pub(crate) async fn take(&self, key: &Bytes) -> OwnedMutexGuard<()> {
        let turn = {
            let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if turns.len() >= MANY_KEYS {
                turns.retain(|_, turn| Arc::strong_count(turn) > 1);
            }
            turns.entry(key.clone()).or_default().clone()
        };
        turn.lock_owned().await
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn one_writer_at_a_time_has_its_turn() {
        let turns = Turns::default();
        let (one, other) = (Bytes::from("a"), Bytes::from("b"));
        let first = turns.take(&one).await;
        let mut second = Box::pin(turns.take(&one));
        assert!((&mut second).now_or_never().is_none());
        assert!(turns.take(&other).now_or_never().is_some(), "another key is not waited for");
        drop(first);
        assert!(second.now_or_never().is_some());
    }
}
