//! What must always hold: one file a checker, with the id under which `docs/invariants.md` describes it.

pub mod capacity;
pub mod convergence;
pub mod fences;
pub mod garbage;
pub mod linearizable;
pub mod pods;
pub mod replicas;
pub mod services;
pub mod watch;

use std::sync::Arc;

use store_core::{Change, Event, Snapshot};

use crate::kernel::Sim;

/// All checkers of a run that look at every event; those of the end are functions.
pub struct Checks {
    /// All members apply the same.
    pub replicas: replicas::Replicas,
    /// The store answers as if it were one.
    pub store: linearizable::Linearizable,
    /// Watches tell everything once.
    pub watch: watch::Watches,
    /// Pods are bound and started once.
    pub pods: pods::Pods,
    /// No node is given more than it has.
    pub capacity: capacity::Capacity,
    /// Nobody writes in the name of a term that is over.
    pub fences: fences::Fences,
    /// No address is given twice.
    pub services: services::Services,
}

// === impl Checks ===

impl Checks {
    /// Checkers that have seen nothing.
    pub fn new(sim: &Sim) -> Self {
        Self {
            replicas: replicas::Replicas::new(sim),
            store: linearizable::Linearizable::new(sim),
            watch: watch::Watches::new(sim),
            pods: pods::Pods::new(sim),
            capacity: capacity::Capacity::new(sim),
            fences: fences::Fences::new(sim),
            services: services::Services::new(sim),
        }
    }

    /// A member has published a batch.
    pub fn published(&self, member: u64, events: &[Arc<Event>], snapshot: &Snapshot) {
        let acknowledged = self.store.acknowledged();
        for event in events {
            if self.replicas.published(member, event, acknowledged) {
                self.applied(event);
            }
        }
        self.replicas.state(member, snapshot);
    }

    fn applied(&self, event: &Event) {
        let value = match &event.change {
            Change::Put { value, .. } => Some(value),
            Change::Delete { .. } => None,
        };
        self.fences.applied(&event.key, event.revision, value);
        match () {
            () if event.key.starts_with(b"/registers/") => self.store.applied(event),
            () if event.key.starts_with(b"/core/pods/") => {
                self.pods.applied(event);
                self.capacity.pod(event);
            }
            () if event.key.starts_with(b"/core/nodes/") => self.capacity.node(event),
            () if event.key.starts_with(b"/core/services/") => self.services.applied(event),
            () => {}
        }
    }
}
