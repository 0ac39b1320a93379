//! Topology spread: equal pods are kept evenly over the domains of a topology.

use crate::cluster::{Cluster, NO_DOMAIN, Topology, domain_of};
use crate::pod::{PodInfo, Spread};
use crate::report::Reason;
use crate::verdict::Verdict;

/// One constraint with the counts of its domains.
struct Counted<'a> {
    spread: &'a Spread,
    topology: &'a Topology,
    counts: Vec<i64>,
    /// Domains with a node that counts.
    present: Vec<bool>,
}

/// The constraints that must hold.
pub(crate) struct Rules<'a> {
    counted: Vec<(Counted<'a>, i64)>,
}

/// The constraints that are wishes.
pub(crate) struct Wishes<'a> {
    counted: Vec<(Counted<'a>, f64)>,
}

// === impl Counted ===

/// Counts the pods of each constraint over the nodes that count for it.
fn count<'a>(
    cluster: &'a Cluster,
    pod: &'a PodInfo,
    verdicts: &[Verdict],
    required: bool,
) -> Vec<Counted<'a>> {
    let chosen = pod.relations.spread.iter().filter(|spread| spread.required == required);
    let mut counted: Vec<Counted<'a>> = chosen
        .filter_map(|spread| {
            let topology = cluster.topologies.get(&spread.term.topology)?;
            let size = topology.size();
            Some(Counted { spread, topology, counts: vec![0; size], present: vec![false; size] })
        })
        .collect();
    if counted.is_empty() {
        return counted;
    }
    let complete: Vec<bool> = (0..cluster.slots.len())
        .map(|at| counted.iter().all(|one| one.topology.domain(at) != NO_DOMAIN))
        .collect();
    for one in &mut counted {
        let pods = cluster.counts.of(&one.spread.term.pods);
        for (at, (slot, verdict)) in cluster.slots.iter().zip(verdicts).enumerate() {
            let counts = slot.live
                && complete.get(at).copied().unwrap_or(false)
                && (verdict.wanted || !one.spread.honor_affinity)
                && (verdict.tolerated || !one.spread.honor_taints);
            if !counts {
                continue;
            }
            let domain = one.topology.domain(at);
            if let Some(present) = domain_of(&mut one.present, domain) {
                *present = true;
            }
            if let (Some(sum), Some(count)) = (domain_of(&mut one.counts, domain), pods.get(at)) {
                *sum += i64::from(*count);
            }
        }
    }
    counted
}

impl Counted<'_> {
    fn at(&self, at: usize) -> i64 {
        let domain = usize::try_from(self.topology.domain(at)).unwrap_or(usize::MAX);
        self.counts.get(domain).copied().unwrap_or(0)
    }
}

// === impl Rules ===

impl<'a> Rules<'a> {
    /// The constraints of this pod that must hold.
    pub(crate) fn of(cluster: &'a Cluster, pod: &'a PodInfo, verdicts: &[Verdict]) -> Self {
        let counted = count(cluster, pod, verdicts, true).into_iter().map(|one| {
            let present = one.present.iter().zip(&one.counts).filter(|(present, _)| **present);
            let domains = i64::try_from(present.clone().count()).unwrap_or(i64::MAX);
            let least = present.map(|(_, count)| *count).min().unwrap_or(0);
            let few = one.spread.min_domains.is_some_and(|min| domains < min);
            (one, if few { 0 } else { least })
        });
        Self { counted: counted.collect() }
    }

    /// Why the pod must not go to the node in this slot.
    pub(crate) fn reason(&self, at: usize) -> Option<Reason> {
        for (one, least) in &self.counted {
            if one.topology.domain(at) == NO_DOMAIN {
                return Some(Reason::SpreadMissingLabel);
            }
            if one.at(at) + i64::from(one.spread.counts_itself) - least > one.spread.max_skew {
                return Some(Reason::Spread);
            }
        }
        None
    }
}

// === impl Wishes ===

impl<'a> Wishes<'a> {
    /// The constraints of this pod that are wishes, weighed by how many domains the nodes that fit have.
    pub(crate) fn of(
        cluster: &'a Cluster,
        pod: &'a PodInfo,
        verdicts: &[Verdict],
        feasible: &[usize],
    ) -> Self {
        let counted = count(cluster, pod, verdicts, false);
        let weigh = |one: Counted<'a>| {
            let mut seen = vec![false; one.topology.size()];
            for at in feasible {
                if let Some(seen) = domain_of(&mut seen, one.topology.domain(*at)) {
                    *seen = true;
                }
            }
            let domains = u32::try_from(seen.iter().filter(|seen| **seen).count()).unwrap_or(u32::MAX);
            (one, (f64::from(domains) + 2.0).ln())
        };
        Self { counted: counted.into_iter().map(weigh).collect() }
    }

    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.counted.is_empty()
    }

    /// Scores from 0 to 100, one for each node that fits: the emptier its domains the higher.
    pub(crate) fn scores(&self, feasible: &[usize]) -> Vec<i64> {
        let raw: Vec<Option<i64>> = feasible.iter().map(|at| self.raw(*at)).collect();
        let least = raw.iter().flatten().min().copied().unwrap_or(0);
        let most = raw.iter().flatten().max().copied().unwrap_or(0);
        raw.into_iter()
            .map(|score| match score {
                None => 0,
                Some(_) if most == 0 => 100,
                Some(score) => 100 * (most + least - score) / most,
            })
            .collect()
    }

    /// How full the node's domains are; `None` when it lacks a label.
    fn raw(&self, at: usize) -> Option<i64> {
        let mut sum = 0.0;
        for (one, weight) in &self.counted {
            if one.topology.domain(at) == NO_DOMAIN {
                return None;
            }
            let count = i32::try_from(one.at(at)).unwrap_or(i32::MAX);
            let skew = i32::try_from(one.spread.max_skew - 1).unwrap_or(i32::MAX);
            sum += f64::from(count) * weight + f64::from(skew);
        }
        // A count of pods is far below what an i64 holds.
        #[allow(clippy::cast_possible_truncation)]
        Some(sum.round() as i64)
    }
}
