//! One decision: filters out the nodes that do not fit, and takes the best of the others.

use std::sync::Arc;

use rand::Rng;

use crate::affinity::Near;
use crate::cluster::{Cluster, Slot};
use crate::pod::PodInfo;
use crate::report::{Causes, Reason, Report};
use crate::spread::Rules;
use crate::{score, verdict};

/// What is to become of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It goes to this node.
    Bind {
        /// The node's name.
        node: Arc<str>,
    },
    /// It fits nowhere; the report says why.
    Unschedulable,
}

// === impl Cluster ===

impl Cluster {
    /// Decides where a pod goes. Changes nothing but what is remembered for later decisions: the caller says with
    /// [`Cluster::assume`] that the decision stands.
    pub fn schedule(&mut self, pod: &PodInfo, rng: &mut impl Rng) -> (Decision, Report) {
        self.prepare(pod);
        let mut report = Report { nodes: self.node_count(), ..Report::default() };
        let verdicts = self.verdicts.of(&pod.shape);
        let rules = Rules::of(self, pod, verdicts);
        let near = Near::of(self, pod);
        let mut feasible = Vec::with_capacity(self.slots.len());
        for (at, (slot, verdict)) in self.slots.iter().zip(verdicts).enumerate() {
            if !slot.live {
                continue;
            }
            if let Some(reason) = &verdict.reason {
                report.count(reason);
                continue;
            }
            if pod.node.as_ref().is_some_and(|named| *named != slot.info.name) {
                report.count(&Reason::NodeName);
                continue;
            }
            if !has_room(slot, pod, |reason| report.count(&reason)) {
                continue;
            }
            match rules.reason(at).or_else(|| near.reason(at)) {
                Some(reason) => report.count(&reason),
                None => feasible.push(at),
            }
        }
        report.feasible = feasible.len();
        let chosen = match feasible.as_slice() {
            [] => None,
            [only] => Some(*only),
            _ => score::best(self, pod, verdicts, &near, &feasible, rng).map(|(at, score)| {
                report.score = Some(score);
                at
            }),
        };
        match chosen.and_then(|at| self.slots.get(at)) {
            Some(slot) => (Decision::Bind { node: Arc::clone(&slot.info.name) }, report),
            None => (Decision::Unschedulable, report),
        }
    }

    /// Whether a change of this node can be what a pod waits for that failed for these causes: a quick check of the
    /// node alone.
    pub fn may_admit(&self, node: &str, pod: &PodInfo, failed: Causes) -> bool {
        let slot = self.names.get(node).and_then(|at| self.slots.get(*at));
        let Some(slot) = slot else {
            // The node is gone: that can only help the balance between domains.
            return failed.meets(Causes::SPREAD.with(Causes::POD_AFFINITY));
        };
        failed.meets(Causes::SPREAD.with(Causes::POD_AFFINITY))
            || (verdict::reason(&pod.shape, &slot.info).is_none() && has_room(slot, pod, |_| {}))
    }
}

/// Whether ports, resources and the number of pods leave room. Tells each reason that speaks against it.
fn has_room(slot: &Slot, pod: &PodInfo, mut against: impl FnMut(Reason)) -> bool {
    let taken = |port| slot.ports.iter().any(|taken| taken.conflicts(port));
    if pod.ports.iter().any(taken) {
        against(Reason::Ports);
        return false;
    }
    let mut fits = true;
    let mut short = |reason: Reason| {
        fits = false;
        against(reason);
    };
    if slot.pods + 1 > slot.info.max_pods {
        short(Reason::TooManyPods);
    }
    let (asked, used, offered) = (&pod.requests.exact, &slot.used, &slot.info.allocatable);
    if asked.cpu > 0 && asked.cpu > offered.cpu - used.cpu {
        short(Reason::Insufficient(Arc::from("cpu")));
    }
    if asked.memory > 0 && asked.memory > offered.memory - used.memory {
        short(Reason::Insufficient(Arc::from("memory")));
    }
    if asked.storage > 0 && asked.storage > offered.storage - used.storage {
        short(Reason::Insufficient(Arc::from("ephemeral-storage")));
    }
    for (name, amount) in asked.extended.iter().filter(|(_, amount)| **amount > 0) {
        let left =
            offered.extended.get(name).copied().unwrap_or(0) - used.extended.get(name).copied().unwrap_or(0);
        if *amount > left {
            short(Reason::Insufficient(Arc::clone(name)));
        }
    }
    fits
}
