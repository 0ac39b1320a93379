//! One APIService for each group and version that the server serves itself: built-in ones, measures, and those of custom
//! resources, which come and go with their definitions.
//!
//! As kube-aggregator keeps them: by a label an object says that it was made so. Those without it belong to others.

use api::catalogue::{Catalogue, Group};
use serde_json::{Value, json};

/// The label of objects that were made by the server: `onstart` of what it always serves, `true` of what comes and goes.
pub(super) const LABEL: &str = "kube-aggregator.kubernetes.io/automanaged";
/// What the label says of groups and versions that come and go.
pub(super) const PASSING: &str = "true";

/// The group that announces the others, and has no announcement itself.
const OWN_GROUP: &str = "apiregistration.k8s.io";

/// Priorities of a group and of its versions as clients see them in `kubectl api-resources`: the higher, the earlier.
const PRIORITIES: &[(&str, u32)] = &[
    ("", 18000),
    ("apps", 17800),
    ("events.k8s.io", 17750),
    ("authentication.k8s.io", 17700),
    ("authorization.k8s.io", 17600),
    ("autoscaling", 17500),
    ("batch", 17400),
    ("certificates.k8s.io", 17300),
    ("networking.k8s.io", 17200),
    ("policy", 17100),
    ("rbac.authorization.k8s.io", 17000),
    ("storage.k8s.io", 16800),
    ("admissionregistration.k8s.io", 16700),
    ("apiextensions.k8s.io", 16700),
    ("scheduling.k8s.io", 16600),
    ("coordination.k8s.io", 16500),
    ("node.k8s.io", 16300),
    ("discovery.k8s.io", 16200),
    ("flowcontrol.apiserver.k8s.io", 16100),
    ("resource.k8s.io", 15900),
    ("storagemigration.k8s.io", 15800),
];
/// Priority of the groups of custom resources, and of all their versions.
const CUSTOM: (u32, u32) = (1000, 100);
/// Priority of measures, as metrics-server registers itself.
const MEASURES: (u32, u32) = (100, 100);

/// The APIServices of these groups.
pub(super) fn wanted(groups: &[Group]) -> Vec<Value> {
    let served = groups.iter().filter(|group| group.name != OWN_GROUP);
    served.flat_map(|group| group.versions.iter().map(|version| registration(&group.name, version))).collect()
}

fn registration(group: &str, version: &str) -> Value {
    let builtin = Catalogue::builtin().groups().iter().find(|known| known.name == group);
    let is_builtin = builtin.is_some_and(|known| known.versions.iter().any(|known| known == version));
    let is_measures = group == crate::metrics::GROUP;
    let of_group = PRIORITIES.iter().find(|(known, _)| *known == group);
    let (of_group, of_version) = match of_group {
        // The core group has but one version.
        Some((_, priority)) if is_builtin => (*priority, of_version(group, version)),
        _ if is_measures => MEASURES,
        _ => CUSTOM,
    };
    let label = if is_builtin || is_measures { "onstart" } else { PASSING };
    let mut spec =
        json!({"version": version, "groupPriorityMinimum": of_group, "versionPriority": of_version});
    if !group.is_empty() {
        spec["group"] = group.into();
    }
    json!({"metadata": {"name": format!("{version}.{group}"), "labels": {LABEL: label}}, "spec": spec})
}

fn of_version(group: &str, version: &str) -> u32 {
    match (group, version) {
        ("", _) => 1,
        ("autoscaling", "v2") => 30,
        ("flowcontrol.apiserver.k8s.io", "v1") => 21,
        _ => 15,
    }
}
