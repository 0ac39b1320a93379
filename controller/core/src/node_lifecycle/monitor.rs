//! What is remembered of the nodes: when each last gave a sign of life, by our own clock, and how many of a
//! zone are well.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Node;

use super::{condition, is_node_ready};
use crate::object::{after, created, label, name};

/// How patient the monitor is.
#[derive(Clone, Debug)]
pub struct Options {
    /// A node silent for this long is Unknown.
    pub grace: SignedDuration,
    /// A new node may be silent for this long.
    pub startup_grace: SignedDuration,
    /// Time between two evicted nodes of a zone.
    pub eviction_interval: SignedDuration,
    /// The same while most of the zone is unwell.
    pub slow_eviction_interval: SignedDuration,
    /// Zones up to this size do not evict at all while most of them is unwell.
    pub small_zone: usize,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            grace: SignedDuration::from_secs(40),
            startup_grace: SignedDuration::from_secs(60),
            eviction_interval: SignedDuration::from_secs(10),
            slow_eviction_interval: SignedDuration::from_secs(100),
            small_zone: 50,
        }
    }
}

#[derive(Default)]
struct Health {
    last_sign: Option<Timestamp>,
    renewed: Option<Timestamp>,
    heartbeat: Option<Timestamp>,
    zone: String,
    ready: bool,
    was_ready: bool,
}

#[derive(Default)]
struct Zone {
    ready: usize,
    unready: usize,
    next_eviction: Option<Timestamp>,
    /// The node last permitted: it may ask again until its taint is written.
    granted: String,
}

/// The memory of the node lifecycle.
pub struct Monitor {
    options: Options,
    nodes: BTreeMap<String, Health>,
    zones: BTreeMap<String, Zone>,
}

/// Whether a node may be evicted now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Permission {
    /// Yes.
    Granted,
    /// Not before this moment.
    NotBefore(Timestamp),
    /// Not while so many are unwell: the fault is more likely ours than theirs.
    Refused,
}

// === impl Monitor ===

impl Monitor {
    /// Knows no node yet.
    pub fn new(options: Options) -> Self {
        Monitor { options, nodes: BTreeMap::new(), zones: BTreeMap::new() }
    }

    /// A node's lease was seen. Only a renewal is a sign of life, whatever the node's clock says.
    pub fn observe_lease(&mut self, lease: &Lease, now: Timestamp) {
        let renewed = lease.spec.as_ref().and_then(|spec| spec.renew_time.as_ref()).map(|time| time.0);
        let health = self.nodes.entry(name(lease).to_owned()).or_default();
        if renewed.is_some() && health.renewed != renewed {
            health.renewed = renewed;
            health.last_sign = Some(now);
        }
    }

    /// A node was seen. A new heartbeat of its status is a sign of life. Returns whether this was the last
    /// node to become unready: then evictions under way are called off.
    ///
    /// When the first node is well again after all were not, the fault was most likely ours, and every node
    /// gets its whole grace period anew.
    pub fn observe_node(&mut self, node: &Node, now: Timestamp) -> bool {
        let was_down = !self.zones.is_empty() && self.is_everything_down();
        self.take_in(node, now);
        let is_down = self.is_everything_down();
        if was_down && !is_down {
            self.nodes.values_mut().filter(|health| health.last_sign.is_some()).for_each(|health| {
                health.last_sign = Some(now);
            });
        }
        is_down && !was_down
    }

    fn take_in(&mut self, node: &Node, now: Timestamp) {
        let heartbeat =
            condition(node, "Ready").and_then(|ready| ready.last_heartbeat_time.as_ref()).map(|time| time.0);
        let zone = zone_of(node);
        let ready = is_node_ready(node);
        let known = self.nodes.contains_key(name(node));
        let health = self.nodes.entry(name(node).to_owned()).or_default();
        let counted = known && !health.zone.is_empty();
        if heartbeat.is_some() && health.heartbeat != heartbeat {
            health.heartbeat = heartbeat;
            health.last_sign = Some(now);
        }
        let before = counted.then(|| (std::mem::take(&mut health.zone), health.ready));
        health.zone.clone_from(&zone);
        health.ready = ready;
        if let Some((old_zone, was_ready)) = before {
            self.count(&old_zone, was_ready, false);
        }
        self.count(&zone, ready, true);
    }

    /// A node is gone.
    pub fn forget(&mut self, node: &str) {
        if let Some(health) = self.nodes.remove(node).filter(|health| !health.zone.is_empty()) {
            self.count(&health.zone, health.ready, false);
        }
    }

    fn count(&mut self, zone: &str, ready: bool, add: bool) {
        let counts = self.zones.entry(zone.to_owned()).or_default();
        let slot = if ready { &mut counts.ready } else { &mut counts.unready };
        *slot = if add { *slot + 1 } else { slot.saturating_sub(1) };
        if counts.ready + counts.unready == 0 {
            self.zones.remove(zone);
        }
    }

    /// When the node counts as silent unless it gives another sign.
    pub fn deadline(&self, node: &Node) -> Timestamp {
        let sign = self.nodes.get(name(node)).and_then(|health| health.last_sign);
        let never = || created(node).saturating_add(self.options.startup_grace).unwrap_or(Timestamp::MAX);
        sign.map_or_else(never, |sign| sign.saturating_add(self.options.grace).unwrap_or(Timestamp::MAX))
    }

    /// Notes whether the node is ready; true when it was and is no more.
    pub fn turned_unready(&mut self, node: &Node, ready: bool) -> bool {
        let health = self.nodes.entry(name(node).to_owned()).or_default();
        let turned = health.was_ready && !ready;
        health.was_ready = ready;
        turned
    }

    /// Asks to evict the pods of a node; a granted permission is used up.
    pub fn may_evict(&mut self, node: &Node, now: Timestamp) -> Permission {
        if self.is_everything_down() || !self.nodes.values().any(|health| self.is_well(health, now)) {
            return Permission::Refused;
        }
        let key = zone_of(node);
        let small = self.options.small_zone;
        let (normal, slow) = (self.options.eviction_interval, self.options.slow_eviction_interval);
        let Some(zone) = self.zones.get_mut(&key) else { return Permission::Granted };
        let total = zone.ready + zone.unready;
        // More than two, and at least 55 of 100.
        let mostly_unwell = zone.ready > 0 && zone.unready > 2 && zone.unready * 100 >= total * 55;
        if mostly_unwell && total <= small {
            return Permission::Refused;
        }
        match zone.next_eviction {
            Some(at) if now < at && zone.granted != name(node) => Permission::NotBefore(at),
            _ => {
                name(node).clone_into(&mut zone.granted);
                let interval = if mostly_unwell { slow } else { normal };
                zone.next_eviction = Some(now.saturating_add(interval).unwrap_or(Timestamp::MAX));
                Permission::Granted
            }
        }
    }

    /// Ready, and not silent either, although nobody may have said so yet.
    fn is_well(&self, health: &Health, now: Timestamp) -> bool {
        let until = |sign: Timestamp| sign.saturating_add(self.options.grace).unwrap_or(Timestamp::MAX);
        health.ready && health.last_sign.is_some_and(|sign| now < until(sign))
    }

    /// Whether no node of the cluster is well.
    pub fn is_everything_down(&self) -> bool {
        self.zones.values().all(|zone| zone.ready == 0)
    }

    /// When a refused eviction is worth another question.
    pub fn retry_at(&self, now: Timestamp) -> Timestamp {
        after(now, 5)
    }
}

/// Region and zone of a node; never empty.
fn zone_of(node: &Node) -> String {
    let part = |key: &str| label(&node.metadata, key).unwrap_or_default();
    format!("{}:{}", part("topology.kubernetes.io/region"), part("topology.kubernetes.io/zone"))
}
