//! Watches over the nodes' signs of life: a silent node is marked, tainted, and its pods counted as not ready.

mod monitor;
mod taints;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, NodeCondition, Pod};
use serde_json::json;

pub use self::monitor::{Monitor, Options};
use crate::merge::to_json;
use crate::object::{created, name, stamp};
use crate::plan::{Action, EventNote, Plan, Report, Subject, patch_same};
use crate::pod::is_ready;
use crate::write::PatchKind;

/// The conditions that nobody can vouch for once a node is silent.
const VOUCHED: [&str; 4] = ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"];

/// What the planner looks at.
pub struct View<'a> {
    /// The node.
    pub node: &'a Node,
    /// The pods bound to it.
    pub pods: Vec<Arc<Pod>>,
}

/// A condition of a node.
pub fn condition<'a>(node: &'a Node, kind: &str) -> Option<&'a NodeCondition> {
    node.status.as_ref()?.conditions.as_ref()?.iter().find(|condition| condition.type_ == kind)
}

/// Whether the node says that it is ready.
pub fn is_node_ready(node: &Node) -> bool {
    condition(node, "Ready").is_some_and(|ready| ready.status == "True")
}

/// Plans conditions, taints and the readiness of the pods of one node.
pub fn plan(view: &View, monitor: &mut Monitor, now: Timestamp) -> (Plan, Report) {
    let node = view.node;
    let mut plan = Plan::default();
    let mut report = Report::default();
    let deadline = monitor.deadline(node);
    let silent = now >= deadline;
    if silent {
        report
            .why
            .push(format!("node {} has given no sign of life since the grace period ended", name(node)));
    } else {
        plan.look_again(deadline);
    }
    let stated = condition(node, "Ready").map_or("Unknown", |ready| ready.status.as_str());
    let unheard = condition(node, "Ready").is_none() && !silent;
    let ready = if silent { "Unknown" } else { stated };
    if monitor.turned_unready(node, ready == "True") {
        let message = format!("Node {} status is now: NodeNotReady", name(node));
        report.events.push(EventNote::normal(&Subject::of(node), "NodeNotReady", message));
    }
    // Taints first: their patch holds for the very revision that was looked at.
    taints::plan(node, taints::wanted(node, ready, unheard, silent), monitor, now, &mut plan);
    if silent {
        plan.together(silence(node, now).into_iter().collect());
    }
    if ready != "True" && !unheard {
        plan.together(
            view.pods.iter().filter(|pod| is_ready(pod)).map(|pod| mark_unready(pod, now)).collect(),
        );
    }
    (plan, report)
}

/// The patch by which a silent node's conditions become Unknown.
fn silence(node: &Node, now: Timestamp) -> Option<Action> {
    let changed: Vec<NodeCondition> = VOUCHED
        .into_iter()
        .filter_map(|kind| match condition(node, kind) {
            Some(current) if current.status == "Unknown" => None,
            Some(current) => Some(NodeCondition {
                status: "Unknown".into(),
                reason: Some("NodeStatusUnknown".into()),
                message: Some("Kubelet stopped posting node status.".into()),
                last_transition_time: Some(stamp(now)),
                ..current.clone()
            }),
            None => Some(NodeCondition {
                type_: kind.into(),
                status: "Unknown".into(),
                reason: Some("NodeStatusNeverUpdated".into()),
                message: Some("Kubelet never posted node status.".into()),
                last_heartbeat_time: Some(stamp(created(node))),
                last_transition_time: Some(stamp(now)),
            }),
        })
        .collect();
    if changed.is_empty() {
        return None;
    }
    let body = json!({"status": {"conditions": to_json(&changed)}});
    Some(patch_same::<Node>(&node.metadata, Some("status"), PatchKind::Strategic, body))
}

fn mark_unready(pod: &Pod, now: Timestamp) -> Action {
    let change = json!({"type": "Ready", "status": "False", "lastTransitionTime": to_json(&stamp(now))});
    let body = json!({"status": {"conditions": [change]}});
    let note = EventNote::warning(&Subject::of(pod), "NodeNotReady", "Node is not ready");
    patch_same::<Pod>(&pod.metadata, Some("status"), PatchKind::Strategic, body).then(note).tolerant()
}
