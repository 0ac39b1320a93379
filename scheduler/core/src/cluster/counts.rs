//! Counts per node, kept as pods come and go: pods that a selector means, and pods that bear a term of their own.

use std::collections::BTreeMap;
use std::sync::Arc;

use client_core::object::ObjectKey;

use super::Placed;
use crate::pod::{PodInfo, Term};
use crate::selector::{Labels, PodMatch};

/// How many selectors are counted at most; the one that was needed longest ago goes first.
const LIMIT: usize = 1024;

/// All counts.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    /// By id of the selector.
    matching: BTreeMap<Arc<str>, Tally>,
    bearers: BTreeMap<(Arc<str>, Arc<str>, Bearing), Bearers>,
    clock: u64,
}

/// Pods that a selector means.
#[derive(Debug)]
struct Tally {
    pods: Arc<PodMatch>,
    per_slot: Vec<i32>,
    used: u64,
}

/// What a placed pod's term means for a pod to be placed that it selects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Bearing {
    /// It must not come near.
    Forbids,
    /// It is welcome (above zero) or unwelcome nearby.
    Weighs(i64),
}

/// Placed pods with equal terms.
#[derive(Debug)]
pub(crate) struct Bearers {
    pub(crate) term: Term,
    pub(crate) per_slot: Vec<i32>,
    total: i64,
}

// === impl Counts ===

impl Counts {
    /// A pod came to (1) or left (-1) a slot.
    pub(super) fn shift(&mut self, pod: &PodInfo, at: usize, by: i32, namespaces: &BTreeMap<String, Labels>) {
        for tally in self.matching.values_mut() {
            if tally.means(pod, namespaces) {
                bump(&mut tally.per_slot, at, by);
            }
        }
        let relations = &pod.relations;
        if !relations.has_terms() {
            return;
        }
        let forbids = relations.anti_affinity.iter().map(|term| (Bearing::Forbids, term));
        // A required affinity also counts as a wish of weight 1 in the other direction.
        let requires = relations.affinity.iter().map(|term| (Bearing::Weighs(1), term));
        let weighs = relations.preferred.iter().map(|(weight, term)| (Bearing::Weighs(*weight), term));
        for (bearing, term) in forbids.chain(requires).chain(weighs) {
            let id = (Arc::clone(&term.pods.id), Arc::clone(&term.topology), bearing);
            let bearers = self.bearers.entry(id.clone()).or_insert_with(|| Bearers {
                term: term.clone(),
                per_slot: Vec::new(),
                total: 0,
            });
            bump(&mut bearers.per_slot, at, by);
            bearers.total += i64::from(by);
            if bearers.total == 0 {
                self.bearers.remove(&id);
            }
        }
    }

    /// Starts to count the pods that a selector means, unless they are counted already.
    pub(super) fn ensure(
        &mut self,
        pods: &Arc<PodMatch>,
        placed: &BTreeMap<ObjectKey, Placed>,
        namespaces: &BTreeMap<String, Labels>,
    ) {
        self.clock += 1;
        if let Some(tally) = self.matching.get_mut(&pods.id) {
            tally.used = self.clock;
            return;
        }
        if self.matching.len() >= LIMIT {
            let oldest =
                self.matching.iter().min_by_key(|(_, tally)| tally.used).map(|(id, _)| Arc::clone(id));
            oldest.and_then(|id| self.matching.remove(&id));
        }
        let mut tally = Tally { pods: Arc::clone(pods), per_slot: Vec::new(), used: self.clock };
        for pod in placed.values() {
            if let Some(at) = pod.slot
                && tally.means(&pod.info, namespaces)
            {
                bump(&mut tally.per_slot, at, 1);
            }
        }
        self.matching.insert(Arc::clone(&pods.id), tally);
    }

    /// How many pods a selector means on each slot; slots beyond the end have none.
    pub(crate) fn of(&self, pods: &PodMatch) -> &[i32] {
        self.matching.get(&pods.id).map(|tally| tally.per_slot.as_slice()).unwrap_or_default()
    }

    /// Terms of placed pods.
    pub(crate) fn bearers(&self) -> impl Iterator<Item = (Bearing, &Bearers)> {
        self.bearers.iter().map(|((_, _, bearing), bearers)| (*bearing, bearers))
    }

    pub(super) fn bearer_topologies(&self) -> Vec<Arc<str>> {
        let mut keys: Vec<Arc<str>> = Vec::new();
        for (_, topology, _) in self.bearers.keys() {
            if !keys.contains(topology) {
                keys.push(Arc::clone(topology));
            }
        }
        keys
    }

    /// Labels of namespaces have changed: what depends on them is counted anew when it is next needed.
    pub(super) fn forget_namespace_selections(&mut self) {
        self.matching.retain(|_, tally| !tally.pods.selects_namespaces());
    }
}

// === impl Tally ===

impl Tally {
    fn means(&self, pod: &PodInfo, namespaces: &BTreeMap<String, Labels>) -> bool {
        !(self.pods.alive_only && pod.terminating)
            && self.pods.matches(&pod.key.namespace, &pod.labels, namespaces)
    }
}

fn bump(per_slot: &mut Vec<i32>, at: usize, by: i32) {
    if per_slot.len() <= at {
        per_slot.resize(at + 1, 0);
    }
    if let Some(count) = per_slot.get_mut(at) {
        *count += by;
    }
}
