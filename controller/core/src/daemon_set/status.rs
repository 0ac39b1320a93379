//! The status of a DaemonSet.

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{DaemonSet, DaemonSetStatus};

use super::nodes::{ByNode, judged};
use super::{REVISION_HASH, View};
use crate::merge::diff_field;
use crate::object::{label, name};
use crate::plan::{Plan, merge_exact};
use crate::pod::{is_available, is_ready};

/// Writes the status that fits what was seen, if it changed.
pub fn write(view: &View, by_node: &ByNode, hash: &str, now: Timestamp, plan: &mut Plan) {
    let set = view.daemon_set;
    let min_ready = set.spec.min_ready_seconds.unwrap_or(0);
    let (mut desired, mut current, mut misscheduled, mut ready, mut available, mut updated) =
        (0, 0, 0, 0, 0, 0);
    for (node, eligible) in judged(view) {
        let pods = by_node.get(name(&**node)).map(Vec::as_slice).unwrap_or_default();
        if !eligible.run {
            misscheduled += i32::from(!pods.is_empty());
            continue;
        }
        desired += 1;
        let Some(oldest) = pods.first() else { continue };
        current += 1;
        if pods.iter().any(|pod| is_ready(pod)) {
            ready += 1;
            available += i32::from(pods.iter().any(|pod| is_available(pod, min_ready, now)));
        }
        // While new pods surge beside old ones, the node counts as updated by its newest pod.
        let newest = pods.last().unwrap_or(oldest);
        updated += i32::from(label(&newest.metadata, REVISION_HASH) == Some(hash));
    }
    let mut next: DaemonSetStatus = set.status.clone().unwrap_or_default();
    next.observed_generation = set.metadata.generation.filter(|generation| *generation != 0);
    next.desired_number_scheduled = desired;
    next.current_number_scheduled = current;
    next.number_misscheduled = misscheduled;
    next.number_ready = ready;
    next.updated_number_scheduled = positive(updated);
    next.number_available = positive(available);
    next.number_unavailable = positive(desired - available);
    store(set, next, plan);
}

/// Counts a collision of revision names: the next hash will differ.
pub fn collide(set: &DaemonSet, plan: &mut Plan) {
    let mut next = set.status.clone().unwrap_or_default();
    next.collision_count = Some(next.collision_count.unwrap_or(0) + 1);
    store(set, next, plan);
}

fn store(set: &DaemonSet, next: DaemonSetStatus, plan: &mut Plan) {
    if let Some(body) = diff_field("status", &set.status, &Some(next)) {
        plan.always(merge_exact::<DaemonSet>(&set.metadata, Some("status"), body));
    }
}

/// Zero is absent in the stored form.
fn positive(number: i32) -> Option<i32> {
    Some(number).filter(|number| *number != 0)
}
