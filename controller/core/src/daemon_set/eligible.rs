//! Which nodes a DaemonSet is meant for.

use k8s_openapi::api::core::v1::{
    Affinity, Node, NodeAffinity, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, Pod, PodSpec,
    Toleration,
};

use crate::object::name;
use crate::pod::node_name;
use crate::tolerate::{node_matches, untolerated};

/// What a node means to a DaemonSet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Eligible {
    /// A pod belongs there.
    pub run: bool,
    /// A pod that is there already may stay.
    pub stay: bool,
}

/// Decides for one node. `tolerations` are the template's with the automatic ones.
pub fn eligible(spec: &PodSpec, tolerations: &[Toleration], node: &Node) -> Eligible {
    let elsewhere =
        spec.node_name.as_deref().is_some_and(|wanted| !wanted.is_empty() && wanted != name(node));
    if elsewhere || !node_matches(spec, node) {
        return Eligible { run: false, stay: false };
    }
    if untolerated(node, tolerations, &["NoSchedule", "NoExecute"]).is_some() {
        let stay = untolerated(node, tolerations, &["NoExecute"]).is_none();
        return Eligible { run: false, stay };
    }
    Eligible { run: true, stay: true }
}

/// The template's tolerations and those that every daemon pod has: it outlives an unwell node.
pub fn tolerations(spec: &PodSpec) -> Vec<Toleration> {
    let mut all = spec.tolerations.clone().unwrap_or_default();
    let mut automatic = vec![
        ("node.kubernetes.io/not-ready", "NoExecute"),
        ("node.kubernetes.io/unreachable", "NoExecute"),
        ("node.kubernetes.io/disk-pressure", "NoSchedule"),
        ("node.kubernetes.io/memory-pressure", "NoSchedule"),
        ("node.kubernetes.io/pid-pressure", "NoSchedule"),
        ("node.kubernetes.io/unschedulable", "NoSchedule"),
    ];
    if spec.host_network == Some(true) {
        automatic.push(("node.kubernetes.io/network-unavailable", "NoSchedule"));
    }
    for (key, effect) in automatic {
        let toleration = Toleration {
            key: Some(key.into()),
            operator: Some("Exists".into()),
            effect: Some(effect.into()),
            ..Toleration::default()
        };
        if !all.contains(&toleration) {
            all.push(toleration);
        }
    }
    all
}

/// Pins a pod to a node: required node terms are replaced, everything else of the affinity stays.
pub fn pin(spec: &mut PodSpec, node: &str) {
    let affinity = spec.affinity.get_or_insert_with(Affinity::default);
    let node_affinity = affinity.node_affinity.get_or_insert_with(NodeAffinity::default);
    let requirement = NodeSelectorRequirement {
        key: "metadata.name".into(),
        operator: "In".into(),
        values: Some(vec![node.to_owned()]),
    };
    let term = NodeSelectorTerm { match_fields: Some(vec![requirement]), match_expressions: None };
    node_affinity.required_during_scheduling_ignored_during_execution =
        Some(NodeSelector { node_selector_terms: vec![term] });
}

/// The node a daemon pod is on, or is pinned to while it waits for the scheduler.
pub fn pinned_node(pod: &Pod) -> Option<&str> {
    if let Some(bound) = node_name(pod) {
        return Some(bound);
    }
    let affinity = pod.spec.as_ref()?.affinity.as_ref()?.node_affinity.as_ref()?;
    let terms = &affinity.required_during_scheduling_ignored_during_execution.as_ref()?.node_selector_terms;
    terms.iter().flat_map(|term| term.match_fields.iter().flatten()).find_map(|field| {
        let pins = field.key == "metadata.name" && field.operator == "In";
        match field.values.as_deref() {
            Some([only]) if pins => Some(only.as_str()),
            _ => None,
        }
    })
}
