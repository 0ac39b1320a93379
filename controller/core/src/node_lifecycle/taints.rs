//! The taints that follow from a node's conditions.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Taint};
use serde_json::json;

use super::condition;
use super::monitor::{Monitor, Permission};
use crate::merge::to_json;
use crate::object::stamp;
use crate::plan::{Plan, merge_exact};
use crate::tolerate::taints;

const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";
const PRESSURES: [(&str, &str); 4] = [
    ("MemoryPressure", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "node.kubernetes.io/disk-pressure"),
    ("PIDPressure", "node.kubernetes.io/pid-pressure"),
    ("NetworkUnavailable", "node.kubernetes.io/network-unavailable"),
];

/// The taints a node should have, of those that are kept here.
pub struct Wanted {
    no_schedule: Vec<&'static str>,
    no_execute: Option<&'static str>,
}

/// Derives the taints. A node never heard of keeps the not-ready taints that it registered with.
pub fn wanted(node: &Node, ready: &str, unheard: bool, silent: bool) -> Wanted {
    let unwell = match ready {
        "True" => None,
        _ if unheard => Some(NOT_READY),
        "False" => Some(NOT_READY),
        _ => Some(UNREACHABLE),
    };
    let mut no_schedule: Vec<&'static str> = unwell.into_iter().collect();
    for (kind, key) in PRESSURES {
        let vouched = !silent || kind == "NetworkUnavailable";
        if vouched && condition(node, kind).is_some_and(|condition| condition.status == "True") {
            no_schedule.push(key);
        }
    }
    if node.spec.as_ref().and_then(|spec| spec.unschedulable) == Some(true) {
        no_schedule.push(UNSCHEDULABLE);
    }
    Wanted { no_schedule, no_execute: unwell.filter(|_| !unheard) }
}

/// Writes the node's taints if they differ, evicting no faster than the monitor permits.
pub fn plan(node: &Node, wanted: Wanted, monitor: &mut Monitor, now: Timestamp, plan: &mut Plan) {
    let current = taints(node);
    let has =
        |key: &str, effect: &str| current.iter().any(|taint| taint.key == key && taint.effect == effect);
    let mut no_execute = wanted.no_execute;
    if let Some(key) = no_execute {
        let evicting = has(NOT_READY, "NoExecute") || has(UNREACHABLE, "NoExecute");
        if !evicting || monitor.is_everything_down() {
            no_execute = match monitor.may_evict(node, now) {
                Permission::Granted => Some(key),
                Permission::NotBefore(at) => {
                    plan.look_again(at);
                    None
                }
                Permission::Refused => {
                    plan.look_again(monitor.retry_at(now));
                    None
                }
            };
        }
    }
    let keep = |taint: &&Taint| match taint.effect.as_str() {
        "NoExecute" if taint.key == NOT_READY || taint.key == UNREACHABLE => {
            no_execute == Some(taint.key.as_str())
        }
        "NoSchedule" if is_ours(&taint.key) => wanted.no_schedule.contains(&taint.key.as_str()),
        _ => true,
    };
    let mut next: Vec<Taint> = current.iter().filter(keep).cloned().collect();
    let missing = wanted.no_schedule.iter().map(|key| (*key, "NoSchedule"));
    for (key, effect) in missing.chain(no_execute.map(|key| (key, "NoExecute"))) {
        if !has(key, effect) {
            next.push(Taint {
                key: key.into(),
                effect: effect.into(),
                value: None,
                time_added: Some(stamp(now)),
            });
        }
    }
    if next != current {
        plan.one(merge_exact::<Node>(&node.metadata, None, json!({"spec": {"taints": to_json(&next)}})));
    }
}

fn is_ours(key: &str) -> bool {
    [NOT_READY, UNREACHABLE, UNSCHEDULABLE].contains(&key) || PRESSURES.iter().any(|(_, ours)| *ours == key)
}
