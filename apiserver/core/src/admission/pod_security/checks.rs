//! The table of checks: which level each belongs to, and since which version of Kubernetes it is as it is.
//!
//! What is demanded, and in which words a violation is told: <https://kubernetes.io/docs/concepts/security/pod-security-standards/>.

use std::collections::BTreeSet;

use serde_json::Value;

use super::policy::{Level, Standard, Version};
use super::{baseline, restricted};
use crate::object::items;

/// A pod, or a template of one.
pub(super) struct Pod<'a> {
    pub annotations: &'a Value,
    pub spec: &'a Value,
}

/// What is against a standard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Violation {
    /// What it is about.
    pub reason: &'static str,
    /// Where it is, and what would be right.
    pub detail: String,
}

/// Looks at a pod.
type Look = fn(&Pod<'_>) -> Option<Violation>;

/// A check in its revisions, each with the minor version of Kubernetes that it begins with.
struct Check {
    level: Level,
    revisions: &'static [(u32, Look)],
    /// The minor version since when, for restricted pods, a stricter check takes its place.
    replaced_since: Option<u32>,
}

const fn baseline(revisions: &'static [(u32, Look)]) -> Check {
    Check { level: Level::Baseline, revisions, replaced_since: None }
}

const fn replaced(since: u32, revisions: &'static [(u32, Look)]) -> Check {
    Check { level: Level::Baseline, revisions, replaced_since: Some(since) }
}

const fn restricted(revisions: &'static [(u32, Look)]) -> Check {
    Check { level: Level::Restricted, revisions, replaced_since: None }
}

/// All checks, in the order in which violations are told.
const CHECKS: &[Check] = &[
    baseline(&[(0, baseline::app_armor)]),
    replaced(22, &[(0, baseline::capabilities)]),
    baseline(&[(0, baseline::host_namespaces)]),
    replaced(0, &[(0, baseline::host_path)]),
    baseline(&[(0, baseline::host_ports)]),
    baseline(&[(34, baseline::probe_hosts)]),
    baseline(&[(0, baseline::privileged)]),
    replaced(35, &[(0, baseline::proc_mount), (35, baseline::proc_mount_1_35)]),
    baseline(&[(0, baseline::se_linux), (31, baseline::se_linux_1_31)]),
    replaced(19, &[(0, baseline::seccomp_annotations), (19, baseline::seccomp)]),
    baseline(&[
        (0, baseline::sysctls),
        (27, baseline::sysctls_1_27),
        (29, baseline::sysctls_1_29),
        (32, baseline::sysctls_1_32),
    ]),
    baseline(&[(0, baseline::host_process)]),
    restricted(&[(8, restricted::escalation), (25, restricted::escalation_1_25)]),
    restricted(&[(22, restricted::capabilities), (25, restricted::capabilities_1_25)]),
    restricted(&[(35, baseline::proc_mount)]),
    restricted(&[(0, restricted::volumes)]),
    restricted(&[(0, restricted::non_root), (35, restricted::non_root_1_35)]),
    restricted(&[(23, restricted::user), (35, restricted::user_1_35)]),
    restricted(&[(19, restricted::seccomp), (25, restricted::seccomp_1_25)]),
];

/// What of a pod is against a standard.
pub(super) fn violations(standard: Standard, pod: &Pod<'_>) -> Vec<Violation> {
    let minor = match standard.version {
        Version::Latest => u32::MAX,
        Version::Minor(minor) => minor,
    };
    CHECKS
        .iter()
        .filter(|check| check.level <= standard.level)
        .filter(|check| {
            standard.level != Level::Restricted || check.replaced_since.is_none_or(|since| minor < since)
        })
        .filter_map(|check| check.revisions.iter().rev().find(|(since, _)| *since <= minor))
        .filter_map(|(_, look)| look(pod))
        .collect()
}

// === impl Pod ===

impl<'a> Pod<'a> {
    /// All containers, in the order in which they start.
    pub fn containers(&self) -> impl Iterator<Item = &'a Value> {
        let lists = ["initContainers", "containers", "ephemeralContainers"];
        let spec = self.spec;
        lists.into_iter().flat_map(move |list| items(&spec[list]))
    }

    /// The names of the containers for which `is_bad` holds.
    pub fn containers_where(&self, is_bad: impl FnMut(&&'a Value) -> bool) -> Vec<&'a str> {
        self.containers().filter(is_bad).map(name).collect()
    }

    pub fn security(&self) -> &'a Value {
        &self.spec["securityContext"]
    }

    /// Whether the pod's users are not those of its node.
    pub fn has_own_users(&self) -> bool {
        self.spec["hostUsers"] == false
    }

    pub fn is_windows(&self) -> bool {
        self.spec["os"]["name"] == "windows"
    }

    /// Who sets something bad: the pod itself, and these containers. `None` when nobody does.
    pub fn setters(&self, pod: bool, containers: &[&str]) -> Option<String> {
        let mut setters: Vec<String> = pod.then(|| "pod".to_owned()).into_iter().collect();
        if !containers.is_empty() {
            setters.push(counted("container", containers));
        }
        (!setters.is_empty()).then(|| setters.join(" and "))
    }
}

/// The name of a container or volume.
pub(super) fn name(object: &Value) -> &str {
    object["name"].as_str().unwrap_or_default()
}

/// A violation.
pub(super) fn violation(reason: &'static str, detail: impl Into<String>) -> Option<Violation> {
    Some(Violation { reason, detail: detail.into() })
}

/// `container "a"`, `containers "a", "b"`.
pub(super) fn counted(word: &str, names: &[&str]) -> String {
    let plural = if names.len() == 1 { "" } else { "s" };
    format!("{word}{plural} {}", quoted(names.iter().copied()))
}

/// The word for one, or that for several.
pub(super) fn number<'w>(one: &'w str, several: &'w str, count: usize) -> &'w str {
    if count == 1 { one } else { several }
}

/// Names in quotes.
pub(super) fn quoted<'n>(names: impl IntoIterator<Item = &'n str>) -> String {
    names.into_iter().map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(", ")
}

/// The texts of a list.
pub(super) fn texts(value: &Value) -> impl Iterator<Item = &str> {
    items(value).iter().filter_map(Value::as_str)
}

/// Gathers what is bad of the pod's own security context and of those of its containers: whether the pod is bad, which
/// containers are, and the bad values.
pub(super) fn bad_values<'a>(
    pod: &Pod<'a>,
    mut bad: impl FnMut(&'a Value) -> Option<&'a str>,
) -> (bool, Vec<&'a str>, BTreeSet<&'a str>) {
    let mut values = BTreeSet::new();
    let own = bad(pod.security()).map(|value| values.insert(value)).is_some();
    let containers = pod.containers_where(|container| {
        bad(&container["securityContext"]).map(|value| values.insert(value)).is_some()
    });
    (own, containers, values)
}
