//! What must always hold: one file a checker, with the id under which `docs/invariants.md` describes it.

pub mod linearizable;
pub mod replicas;

use std::sync::Arc;

use store_core::{Event, Snapshot};

use crate::kernel::Sim;

/// All checkers of a run.
pub struct Checks {
    /// All members apply the same.
    pub replicas: replicas::Replicas,
    /// The store answers as if it were one.
    pub store: linearizable::Linearizable,
}

// === impl Checks ===

impl Checks {
    /// Checkers that have seen nothing.
    pub fn new(sim: &Sim) -> Self {
        Self { replicas: replicas::Replicas::new(sim), store: linearizable::Linearizable::new(sim) }
    }

    /// A member has published a batch.
    pub fn published(&self, member: u64, events: &[Arc<Event>], snapshot: &Snapshot) {
        let acknowledged = self.store.acknowledged();
        for event in events {
            if self.replicas.published(member, event, acknowledged) {
                self.store.applied(event);
            }
        }
        self.replicas.state(member, snapshot);
    }
}
