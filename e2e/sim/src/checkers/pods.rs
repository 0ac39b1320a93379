//! `pod-bound-once`: a pod that has a node keeps it. `pod-runs-once`: no container of a pod runs twice at a time, and a
//! pod never starts on a second node.

use std::cell::RefCell;
use std::collections::BTreeMap;

use serde_json::Value;
use store_core::{Change, Event};

use crate::kernel::Sim;

/// The checker.
pub struct Pods {
    sim: Sim,
    /// The node on which each pod has been started, by uid.
    started: RefCell<BTreeMap<String, String>>,
    /// The node that each pod has been bound to, by uid.
    bound: RefCell<BTreeMap<String, String>>,
}

// === impl Pods ===

impl Pods {
    /// No pod is known.
    pub fn new(sim: &Sim) -> Self {
        Self { sim: sim.clone(), started: RefCell::default(), bound: RefCell::default() }
    }

    /// A container was started; so many of its name now run for the pod.
    pub fn started(&self, node: &str, uid: &str, container: &str, count: usize) {
        if count > 1 {
            let message = format!("{count} containers {container} of the pod {uid} run on {node}");
            self.sim.violated("pod-runs-once", message);
        }
        let mut started = self.started.borrow_mut();
        let first = started.entry(uid.to_owned()).or_insert_with(|| node.to_owned());
        if first != node {
            let message = format!("the pod {uid} was started on {first} and is started on {node}");
            self.sim.violated("pod-runs-once", message);
        }
    }

    /// An event was applied.
    pub fn applied(&self, event: &Event) {
        let Change::Put { value, .. } = &event.change else { return };
        let pod: Value = serde_json::from_slice(value).unwrap_or_default();
        let (Some(uid), Some(node)) = (pod["metadata"]["uid"].as_str(), pod["spec"]["nodeName"].as_str())
        else {
            return;
        };
        let mut bound = self.bound.borrow_mut();
        let first = bound.entry(uid.to_owned()).or_insert_with(|| node.to_owned());
        if first != node {
            let key = String::from_utf8_lossy(&event.key);
            self.sim
                .violated("pod-bound-once", format!("{key} ({uid}) was bound to {first}, and is on {node}"));
        }
    }
}
