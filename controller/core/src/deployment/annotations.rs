//! The annotations by which a Deployment and its ReplicaSets remember revisions and sizes.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::object::annotation;

/// The number of the rollout that an object belongs to.
pub const REVISION: &str = "deployment.kubernetes.io/revision";
/// Earlier numbers of a ReplicaSet that became the newest again.
pub const REVISION_HISTORY: &str = "deployment.kubernetes.io/revision-history";
/// The Deployment's size when the ReplicaSet was last scaled.
pub const DESIRED_REPLICAS: &str = "deployment.kubernetes.io/desired-replicas";
/// That size plus the surge.
pub const MAX_REPLICAS: &str = "deployment.kubernetes.io/max-replicas";

/// Those of a Deployment that its ReplicaSets do not take over.
const NOT_COPIED: [&str; 6] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION,
    REVISION_HISTORY,
    DESIRED_REPLICAS,
    MAX_REPLICAS,
    "deprecated.deployment.rollback.to",
];

/// The revision as written.
pub fn revision_text(meta: &ObjectMeta) -> Option<&str> {
    annotation(meta, REVISION)
}

/// The revision as a number, 0 without one.
pub fn revision(annotations: &BTreeMap<String, String>) -> i64 {
    annotations.get(REVISION).and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// Copies what a ReplicaSet takes over from its Deployment.
pub fn copy(from: &ObjectMeta, to: &mut BTreeMap<String, String>) {
    for (key, value) in from.annotations.iter().flatten() {
        if !NOT_COPIED.contains(&key.as_str()) && to.get(key) != Some(value) {
            to.insert(key.clone(), value.clone());
        }
    }
}

/// Gives a ReplicaSet the revision of the newest, keeping the one that it had in its history.
pub fn raise_revision(annotations: &mut BTreeMap<String, String>, to: i64) {
    let old = annotations.get(REVISION).cloned().unwrap_or_default();
    if revision(annotations) >= to {
        return;
    }
    annotations.insert(REVISION.into(), to.to_string());
    if !old.is_empty() {
        let history = annotations.entry(REVISION_HISTORY.into()).or_default();
        if !history.split(',').any(|entry| entry == old) {
            if !history.is_empty() {
                history.push(',');
            }
            history.push_str(&old);
        }
    }
}

/// Notes the size that the ReplicaSet was scaled for.
pub fn note_sizes(annotations: &mut BTreeMap<String, String>, desired: i32, max: i32) {
    annotations.insert(DESIRED_REPLICAS.into(), desired.to_string());
    annotations.insert(MAX_REPLICAS.into(), max.to_string());
}

/// A size noted earlier.
pub fn noted(annotations: &BTreeMap<String, String>, key: &str) -> Option<i32> {
    annotations.get(key)?.parse().ok()
}
