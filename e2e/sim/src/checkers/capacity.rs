//! `node-not-overcommitted`: the pods that a scheduler binds to a node ask for no more than the node has.

use std::cell::RefCell;
use std::collections::BTreeMap;

use bytes::Bytes;
use serde_json::Value;
use store_core::{Change, Event};

use crate::kernel::Sim;

/// The checker.
pub struct Capacity {
    sim: Sim,
    nodes: RefCell<BTreeMap<String, i64>>,
    /// What each pod takes of which node.
    placed: RefCell<BTreeMap<Bytes, (String, i64)>>,
}

// === impl Capacity ===

impl Capacity {
    /// No node is known.
    pub fn new(sim: &Sim) -> Self {
        Self { sim: sim.clone(), nodes: RefCell::default(), placed: RefCell::default() }
    }

    /// A node was written.
    pub fn node(&self, event: &Event) {
        if let Change::Put { value, .. } = &event.change {
            let node: Value = serde_json::from_slice(value).unwrap_or_default();
            let name = node["metadata"]["name"].as_str().unwrap_or_default().to_owned();
            let cpu = node["status"]["allocatable"]["cpu"].as_str().map_or(i64::MAX, milli);
            self.nodes.borrow_mut().insert(name, cpu);
        }
    }

    /// A pod was written.
    pub fn pod(&self, event: &Event) {
        let mut placed = self.placed.borrow_mut();
        let Change::Put { value, .. } = &event.change else {
            placed.remove(&event.key);
            return;
        };
        let pod: Value = serde_json::from_slice(value).unwrap_or_default();
        let ended = matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
        let Some(node) = pod["spec"]["nodeName"].as_str().filter(|_| !ended) else {
            placed.remove(&event.key);
            return;
        };
        let containers = pod["spec"]["containers"].as_array().into_iter().flatten();
        let asked = containers.map(|it| it["resources"]["requests"]["cpu"].as_str().map_or(0, milli)).sum();
        let before = placed.insert(event.key.clone(), (node.to_owned(), asked));
        if before.is_some() {
            return;
        }
        let used: i64 = placed.values().filter(|(on, _)| on == node).map(|(_, cpu)| cpu).sum();
        let room = self.nodes.borrow().get(node).copied().unwrap_or(i64::MAX);
        if used > room {
            let key = String::from_utf8_lossy(&event.key);
            let message = format!("{key} is bound to {node}, whose pods then ask for {used}m of {room}m");
            self.sim.violated("node-not-overcommitted", message);
        }
    }
}

/// Thousandths of a core.
pub fn milli(text: &str) -> i64 {
    match text.strip_suffix('m') {
        Some(number) => number.parse().unwrap_or(0),
        None => text.parse::<i64>().unwrap_or(0) * 1000,
    }
}
