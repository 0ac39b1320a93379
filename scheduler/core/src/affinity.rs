//! Affinity between pods: which domains a pod must be in, must not be in, or likes.

use std::collections::BTreeMap;

use crate::cluster::{Bearing, Cluster, NO_DOMAIN, Topology, domain_of};
use crate::pod::PodInfo;
use crate::report::Reason;

/// What the placed pods mean for one pod to be placed, by domain.
pub(crate) struct Near<'a> {
    /// For each affinity term the number of pods that fulfil all of them.
    wanted: Vec<(&'a Topology, Vec<i64>)>,
    /// No such pod exists, and this one is of the kind that it looks for: it may be the first.
    first: bool,
    unwanted: Vec<(&'a Topology, Vec<i64>)>,
    /// Domains of placed pods that do not want this one.
    closed: BTreeMap<&'a str, (&'a Topology, Vec<bool>)>,
    weights: BTreeMap<&'a str, (&'a Topology, Vec<i64>)>,
}

// === impl Near ===

impl<'a> Near<'a> {
    /// Sums up what matters for this pod.
    pub(crate) fn of(cluster: &'a Cluster, pod: &'a PodInfo) -> Self {
        let relations = &pod.relations;
        let topology = |key: &str| cluster.topologies.get(key);
        let together = relations.affinity_all.as_ref().map(|all| cluster.counts.of(all)).unwrap_or_default();
        let wanted: Vec<(&Topology, Vec<i64>)> = relations
            .affinity
            .iter()
            .filter_map(|term| topology(&term.topology).map(|topology| (topology, topology.sum(together))))
            .collect();
        let unwanted = relations
            .anti_affinity
            .iter()
            .filter_map(|term| {
                topology(&term.topology)
                    .map(|topology| (topology, topology.sum(cluster.counts.of(&term.pods))))
            })
            .collect();
        let nobody = wanted.iter().all(|(_, counts)| counts.iter().all(|count| *count == 0));
        let first = nobody
            && relations
                .affinity_all
                .as_ref()
                .is_some_and(|all| all.matches(&pod.key.namespace, &pod.labels, &cluster.namespaces));
        let mut near = Self { wanted, first, unwanted, closed: BTreeMap::new(), weights: BTreeMap::new() };
        for (weight, term) in &relations.preferred {
            if let Some(topology) = topology(&term.topology) {
                near.weigh(&term.topology, topology, cluster.counts.of(&term.pods), *weight);
            }
        }
        near.add_bearers(cluster, pod);
        near
    }

    fn add_bearers(&mut self, cluster: &'a Cluster, pod: &PodInfo) {
        for (bearing, bearers) in cluster.counts.bearers() {
            let term = &bearers.term;
            if !term.pods.matches(&pod.key.namespace, &pod.labels, &cluster.namespaces) {
                continue;
            }
            let Some(topology) = cluster.topologies.get(&term.topology) else { continue };
            match bearing {
                Bearing::Weighs(weight) => self.weigh(&term.topology, topology, &bearers.per_slot, weight),
                Bearing::Forbids => {
                    let (_, closed) = self
                        .closed
                        .entry(&term.topology)
                        .or_insert_with(|| (topology, vec![false; topology.size()]));
                    for (at, _) in bearers.per_slot.iter().enumerate().filter(|(_, count)| **count > 0) {
                        if let Some(closed) = domain_of(closed, topology.domain(at)) {
                            *closed = true;
                        }
                    }
                }
            }
        }
    }

    fn weigh(&mut self, key: &'a str, topology: &'a Topology, per_slot: &[i32], weight: i64) {
        let (_, weights) = self.weights.entry(key).or_insert_with(|| (topology, vec![0; topology.size()]));
        for (at, count) in per_slot.iter().enumerate().filter(|(_, count)| **count != 0) {
            if let Some(sum) = domain_of(weights, topology.domain(at)) {
                *sum += i64::from(*count) * weight;
            }
        }
    }

    /// Why the pod must not go to the node in this slot.
    pub(crate) fn reason(&self, at: usize) -> Option<Reason> {
        for (topology, counts) in &self.wanted {
            let domain = topology.domain(at);
            if domain == NO_DOMAIN || (!self.first && value(counts, domain) <= 0) {
                return Some(Reason::Affinity);
            }
        }
        if self.unwanted.iter().any(|(topology, counts)| value(counts, topology.domain(at)) > 0) {
            return Some(Reason::AntiAffinity);
        }
        let closed = self.closed.values().any(|(topology, closed)| value(closed, topology.domain(at)));
        closed.then_some(Reason::ExistingAntiAffinity)
    }

    /// Whether the wishes of anyone matter.
    pub(crate) fn has_wishes(&self) -> bool {
        !self.weights.is_empty()
    }

    /// How welcome the pod is on the node in this slot.
    pub(crate) fn score(&self, at: usize) -> i64 {
        self.weights.values().map(|(topology, weights)| value(weights, topology.domain(at))).sum()
    }
}

fn value<T: Copy + Default>(values: &[T], domain: u32) -> T {
    usize::try_from(domain).ok().and_then(|domain| values.get(domain)).copied().unwrap_or_default()
}
