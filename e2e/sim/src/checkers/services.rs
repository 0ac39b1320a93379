//! `service-address-unique`: no two services have the same cluster IP or node port.

use std::cell::RefCell;
use std::collections::BTreeMap;

use bytes::Bytes;
use serde_json::Value;
use store_core::{Change, Event};

use crate::kernel::Sim;

/// The checker.
pub struct Services {
    sim: Sim,
    /// What each service has.
    held: RefCell<BTreeMap<Bytes, Vec<String>>>,
}

// === impl Services ===

impl Services {
    /// No service is known.
    pub fn new(sim: &Sim) -> Self {
        Self { sim: sim.clone(), held: RefCell::default() }
    }

    /// A service was written.
    pub fn applied(&self, event: &Event) {
        let mut held = self.held.borrow_mut();
        let Change::Put { value, .. } = &event.change else {
            held.remove(&event.key);
            return;
        };
        let service: Value = serde_json::from_slice(value).unwrap_or_default();
        let addresses = service["spec"]["clusterIPs"].as_array().into_iter().flatten();
        let addresses = addresses.filter_map(Value::as_str).filter(|it| *it != "None").map(str::to_owned);
        let ports = service["spec"]["ports"].as_array().into_iter().flatten();
        let ports =
            ports.filter_map(|port| port["nodePort"].as_u64()).map(|port| format!("node port {port}"));
        let own: Vec<String> = addresses.chain(ports).collect();
        for (other, theirs) in held.iter().filter(|(other, _)| **other != event.key) {
            if let Some(both) = own.iter().find(|it| theirs.contains(it)) {
                let names = [&event.key, other].map(|key| String::from_utf8_lossy(key).into_owned());
                let message = format!("{} and {} both have {both}", names[0], names[1]);
                self.sim.violated("service-address-unique", message);
            }
        }
        held.insert(event.key.clone(), own);
    }
}
