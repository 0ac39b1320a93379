//! Topologies: the values of a node label, numbered, and which node is in which domain.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Slot;
use crate::selector::Labels;

/// The node does not have the label.
pub(crate) const NO_DOMAIN: u32 = u32::MAX;

/// All topologies that anyone asked for.
#[derive(Debug, Default)]
pub(crate) struct Topologies {
    known: BTreeMap<Arc<str>, Topology>,
}

/// The domains of one node label.
#[derive(Debug, Default)]
pub(crate) struct Topology {
    key: Arc<str>,
    values: BTreeMap<String, u32>,
    by_slot: Vec<u32>,
}

// === impl Topologies ===

impl Topologies {
    pub(super) fn ensure(&mut self, key: &Arc<str>, slots: &[Slot]) {
        if self.known.contains_key(key) {
            return;
        }
        let mut topology = Topology { key: Arc::clone(key), ..Topology::default() };
        for (at, slot) in slots.iter().enumerate() {
            topology.set(at, slot.live.then_some(&slot.info.labels));
        }
        self.known.insert(Arc::clone(key), topology);
    }

    /// The node in a slot has other labels, or is gone.
    pub(super) fn set(&mut self, at: usize, labels: Option<&Labels>) {
        // Domains are never renumbered; where most have been left behind the topology is built anew when it is next needed.
        self.known.retain(|_, topology| topology.values.len() <= 2 * topology.by_slot.len() + 64);
        for topology in self.known.values_mut() {
            topology.set(at, labels);
        }
    }

    pub(crate) fn get(&self, key: &str) -> Option<&Topology> {
        self.known.get(key)
    }
}

// === impl Topology ===

impl Topology {
    /// The domain of the node in this slot, or [`NO_DOMAIN`].
    pub(crate) fn domain(&self, at: usize) -> u32 {
        self.by_slot.get(at).copied().unwrap_or(NO_DOMAIN)
    }

    /// How many domain numbers were ever given.
    pub(crate) fn size(&self) -> usize {
        self.values.len()
    }

    /// Sums a count per slot up to one per domain.
    pub(crate) fn sum(&self, per_slot: &[i32]) -> Vec<i64> {
        let mut sums = vec![0; self.size()];
        for (domain, count) in self.by_slot.iter().zip(per_slot) {
            if *count != 0
                && let Some(sum) = domain_of(&mut sums, *domain)
            {
                *sum += i64::from(*count);
            }
        }
        sums
    }

    fn set(&mut self, at: usize, labels: Option<&Labels>) {
        if self.by_slot.len() <= at {
            self.by_slot.resize(at + 1, NO_DOMAIN);
        }
        let domain = match labels.and_then(|labels| labels.get(&*self.key)) {
            None => NO_DOMAIN,
            Some(value) => match self.values.get(value) {
                Some(domain) => *domain,
                None => {
                    let next = u32::try_from(self.values.len()).unwrap_or(NO_DOMAIN);
                    self.values.insert(value.clone(), next);
                    next
                }
            },
        };
        if let Some(known) = self.by_slot.get_mut(at) {
            *known = domain;
        }
    }
}

/// The value that belongs to a domain.
pub(crate) fn domain_of<T>(values: &mut [T], domain: u32) -> Option<&mut T> {
    usize::try_from(domain).ok().and_then(|domain| values.get_mut(domain))
}
