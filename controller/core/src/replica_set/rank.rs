//! Which pods go first when a ReplicaSet shrinks.

use std::cmp::{Ordering, Reverse};
use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;

use crate::object::{annotation, created, uid};
use crate::pod::{is_active, is_ready, max_restarts, node_name, phase, ready_since};

const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// The `count` pods whose loss hurts least, worst first.
///
/// Ages are compared by the power of two they fall in, so that among pods of about the same age the choice
/// is arbitrary (by uid) rather than always the newest. The order is total: where buckets tie, restarts
/// decide, and the uid last.
pub fn worst(pods: &[Arc<Pod>], related: &[Arc<Pod>], count: usize, now: Timestamp) -> Vec<Arc<Pod>> {
    let mut chosen: Vec<Arc<Pod>> = pods.to_vec();
    if count < pods.len() {
        let crowd = crowd_by_node(related);
        chosen.sort_by_cached_key(|pod| Rank::of(pod, &crowd, now));
        chosen.truncate(count);
    }
    chosen
}

/// Fields in the order in which they decide; smaller goes first.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    assigned: bool,
    phase: u8,
    ready: bool,
    deletion_cost: i32,
    crowd: Reverse<usize>,
    ready_age: Age,
    restarts: Reverse<i32>,
    age: Age,
    uid: String,
}

/// The logarithm of an age: unknown first, then young before old.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Age(Option<i32>);

impl Rank {
    fn of(pod: &Pod, crowd: &BTreeMap<String, usize>, now: Timestamp) -> Rank {
        let ready = is_ready(pod);
        Rank {
            assigned: node_name(pod).is_some(),
            phase: match phase(pod) {
                "Pending" => 0,
                "Running" => 2,
                _ => 1,
            },
            ready,
            deletion_cost: annotation(&pod.metadata, DELETION_COST)
                .and_then(|cost| cost.parse().ok())
                .unwrap_or(0),
            crowd: Reverse(node_name(pod).and_then(|node| crowd.get(node)).copied().unwrap_or(0)),
            ready_age: Age(if ready { ready_since(pod).map(|since| bucket(since, now)) } else { None }),
            restarts: Reverse(max_restarts(pod)),
            age: Age(Some(bucket(created(pod), now))),
            uid: uid(pod).to_owned(),
        }
    }
}

fn bucket(since: Timestamp, now: Timestamp) -> i32 {
    let nanoseconds = now.duration_since(since).as_nanos();
    match nanoseconds.cmp(&0) {
        Ordering::Greater => i32::try_from(nanoseconds.ilog2()).unwrap_or(i32::MAX),
        _ => -1,
    }
}

fn crowd_by_node(related: &[Arc<Pod>]) -> BTreeMap<String, usize> {
    let mut crowd = BTreeMap::new();
    for node in related.iter().filter(|pod| is_active(pod)).filter_map(|pod| node_name(pod)) {
        match crowd.get_mut(node) {
            Some(count) => *count += 1,
            None => {
                crowd.insert(node.to_owned(), 1);
            }
        }
    }
    crowd
}
