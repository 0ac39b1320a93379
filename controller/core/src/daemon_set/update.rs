//! The rolling update of a DaemonSet: old pods go a few at a time, or new ones surge beside them.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::nodes::{ByNode, Wants, judged};
use super::{REVISION_HASH, View};
use crate::object::{is_terminating, label, name};
use crate::pod::{is_available, is_ready};
use crate::scaled::{Round, scaled};

fn limit(view: &View, surge: bool, total: i32) -> i32 {
    let strategy = view.daemon_set.spec.update_strategy.as_ref();
    let rolling = strategy.and_then(|strategy| strategy.rolling_update.as_ref());
    let value =
        rolling.and_then(
            |rolling| {
                if surge { rolling.max_surge.as_ref() } else { rolling.max_unavailable.as_ref() }
            },
        );
    let default = IntOrString::Int(if surge { 0 } else { 1 });
    scaled(value.unwrap_or(&default), total, Round::Up).max(0)
}

/// Whether new pods may run beside old ones.
pub fn surges(view: &View) -> bool {
    let strategy = view.daemon_set.spec.update_strategy.as_ref();
    strategy.and_then(|strategy| strategy.type_.as_deref()) != Some("OnDelete") && limit(view, true, 100) > 0
}

/// What one node has: the living pod of the new template and the one of an old template.
struct Found<'a> {
    new: Option<&'a Arc<Pod>>,
    old: Option<&'a Arc<Pod>>,
    /// Several of a kind: to be tidied up before it can be judged.
    crowded: bool,
}

/// Looks at the pods of a node as if those in `doomed` were going already.
fn find<'a>(pods: &'a [Arc<Pod>], doomed: &[Arc<Pod>], hash: &str) -> Found<'a> {
    let mut found = Found { new: None, old: None, crowded: false };
    for pod in pods.iter().filter(|pod| !doomed.iter().any(|each| Arc::ptr_eq(each, pod))) {
        let is_new = label(&pod.metadata, REVISION_HASH) == Some(hash);
        let slot = if is_new { &mut found.new } else { &mut found.old };
        if is_terminating(&**pod) {
            continue;
        }
        found.crowded |= slot.is_some();
        slot.get_or_insert(pod);
    }
    found
}

/// Chooses the pods that are replaced now.
pub fn rolling(view: &View, by_node: &ByNode, hash: &str, now: Timestamp, wants: &mut Wants) {
    let desired: Vec<&str> =
        judged(view).filter(|(_, eligible)| eligible.run).map(|(node, _)| name(&**node)).collect();
    let total = i32::try_from(desired.len()).unwrap_or(i32::MAX);
    let (surge, unavailable) = (limit(view, true, total), limit(view, false, total));
    if surge > 0 {
        beside(view, &desired, by_node, hash, surge, now, wants);
    } else {
        in_place(view, &desired, by_node, hash, unavailable.max(1), now, wants);
    }
}

fn in_place(
    view: &View,
    nodes: &[&str],
    by_node: &ByNode,
    hash: &str,
    limit: i32,
    now: Timestamp,
    wants: &mut Wants,
) {
    let min_ready = view.daemon_set.spec.min_ready_seconds.unwrap_or(0);
    let mut missing = 0;
    let mut candidates = Vec::new();
    let doomed = wants.delete.clone();
    for node in nodes {
        let pods = by_node.get(*node).map(Vec::as_slice).unwrap_or_default();
        let found = find(pods, &doomed, hash);
        match (found.new, found.old) {
            _ if found.crowded => missing += 1,
            (None, None) => missing += 1,
            (Some(new), _) => missing += i32::from(!is_available(new, min_ready, now)),
            (None, Some(old)) if is_available(old, min_ready, now) => candidates.push(old),
            (None, Some(old)) => {
                // It serves nobody: replacing it costs nothing.
                missing += 1;
                wants.delete.push(Arc::clone(old));
            }
        }
    }
    let room = usize::try_from(limit - missing).unwrap_or(0);
    wants.delete.extend(candidates.into_iter().take(room).cloned());
}

fn beside(
    view: &View,
    nodes: &[&str],
    by_node: &ByNode,
    hash: &str,
    limit: i32,
    now: Timestamp,
    wants: &mut Wants,
) {
    let min_ready = view.daemon_set.spec.min_ready_seconds.unwrap_or(0);
    let mut surging = 0;
    let mut candidates = Vec::new();
    let doomed = wants.delete.clone();
    for (node, pods) in nodes.iter().filter_map(|node| Some((*node, by_node.get(*node)?))) {
        let found = find(pods, &doomed, hash);
        match (found.new, found.old) {
            _ if found.crowded => surging += 1,
            (_, None) => {}
            (None, Some(old)) if is_available(old, min_ready, now) => candidates.push(node),
            (None, Some(old)) => {
                wants.create.push(node.to_owned());
                if !is_ready(old) {
                    wants.delete.push(Arc::clone(old));
                }
            }
            (Some(new), Some(old)) if is_available(new, min_ready, now) => wants.delete.push(Arc::clone(old)),
            (Some(_), Some(_)) => surging += 1,
        }
    }
    let room = usize::try_from(limit - surging).unwrap_or(0);
    wants.create.extend(candidates.into_iter().take(room).map(str::to_owned));
}
