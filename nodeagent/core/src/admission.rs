//! Whether the node can take a pod that was bound to it.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Node, NodeSelectorRequirement, NodeSelectorTerm, Pod};

use crate::lifecycle::ResizeFailure;
use crate::{cgroup, pod};

/// Why a pod is refused: it becomes Failed with this reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// For example `OutOfcpu`.
    pub reason: String,
    /// For people.
    pub message: String,
}

/// Checks a new pod against the node and the pods that are there and have not ended.
///
/// # Errors
/// The first thing that speaks against it.
pub fn admit<'a>(
    pod: &Pod,
    node: &Node,
    allocatable: &BTreeMap<String, k8s_openapi::apimachinery::pkg::api::resource::Quantity>,
    others: impl Iterator<Item = &'a Pod> + Clone,
) -> Result<(), Rejection> {
    let count = i64::try_from(others.clone().count()).unwrap_or(i64::MAX);
    let list = Some(allocatable.clone());
    if let Some(most) = cgroup::amount(&list, "pods").map(|it| it.value())
        && count >= most
    {
        return Err(out_of("pods", 1, count, most));
    }
    for name in ["cpu", "memory", "ephemeral-storage"] {
        let wanted = request(pod, name);
        let Some(capacity) = cgroup::amount(&list, name) else { continue };
        let capacity = if name == "cpu" { capacity.milli_value() } else { capacity.value() };
        let used: i64 = others.clone().map(|it| request(it, name)).sum();
        if wanted > 0 && used.saturating_add(wanted) > capacity {
            return Err(out_of(name, wanted, used, capacity));
        }
    }
    if !matches_node(pod, node) {
        return Err(Rejection {
            reason: "NodeAffinity".into(),
            message: "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector"
                .into(),
        });
    }
    let spec = pod::spec(pod);
    let asked = spec.security_context.iter().flat_map(|context| context.sysctls.iter().flatten());
    for sysctl in asked {
        if crate::sysctls::path(&sysctl.name, spec.host_network == Some(true)).is_none() {
            let message = format!("forbidden sysctl: \"{}\" not allowlisted", sysctl.name);
            return Err(Rejection { reason: "SysctlForbidden".into(), message });
        }
    }
    let taken: Vec<_> = others.flat_map(host_ports).collect();
    if host_ports(pod).iter().any(|port| taken.iter().any(|it| conflict(it, port))) {
        return Err(Rejection {
            reason: "NodePorts".into(),
            message: "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports"
                .into(),
        });
    }
    Ok(())
}

/// Whether the node has what a pod that runs here asks for now. `others` are the pods beside it that have not ended.
///
/// # Errors
/// When it has not, now or ever.
pub fn fits<'a>(
    pod: &Pod,
    allocatable: &BTreeMap<String, k8s_openapi::apimachinery::pkg::api::resource::Quantity>,
    others: impl Iterator<Item = &'a Pod> + Clone,
) -> Result<(), ResizeFailure> {
    let list = Some(allocatable.clone());
    for name in ["cpu", "memory"] {
        let Some(capacity) = cgroup::amount(&list, name) else { continue };
        let capacity = if name == "cpu" { capacity.milli_value() } else { capacity.value() };
        let wanted = request(pod, name);
        if wanted > capacity {
            return Err(ResizeFailure::Infeasible(format!(
                "Node didn't have enough capacity: {name}, requested: {wanted}, capacity: {capacity}"
            )));
        }
        let used: i64 = others.clone().map(|it| request(it, name)).sum();
        if used.saturating_add(wanted) > capacity {
            return Err(ResizeFailure::Deferred(out_of(name, wanted, used, capacity).message));
        }
    }
    Ok(())
}

fn out_of(name: &str, wanted: i64, used: i64, capacity: i64) -> Rejection {
    Rejection {
        reason: format!("OutOf{name}"),
        message: format!(
            "Node didn't have enough resource: {name}, requested: {wanted}, used: {used}, capacity: {capacity}"
        ),
    }
}

/// What a pod asks for: thousandths of a core for `cpu`, else units.
pub fn request(pod: &Pod, name: &str) -> i64 {
    let of = |container: &Container| {
        let list = container.resources.as_ref().map_or(&None, |it| &it.requests);
        cgroup::amount(list, name).map_or(0, |it| if name == "cpu" { it.milli_value() } else { it.value() })
    };
    let mut sidecars = 0_i64;
    let mut peak = 0_i64;
    for container in pod::init_containers(pod) {
        if pod::is_sidecar(container) {
            sidecars = sidecars.saturating_add(of(container));
            peak = peak.max(sidecars);
        } else {
            peak = peak.max(sidecars.saturating_add(of(container)));
        }
    }
    let steady: i64 = pod::spec(pod).containers.iter().map(of).sum::<i64>().saturating_add(sidecars);
    let overhead = cgroup::amount(&pod::spec(pod).overhead, name)
        .map_or(0, |it| if name == "cpu" { it.milli_value() } else { it.value() });
    steady.max(peak).saturating_add(overhead)
}

type HostPort = (String, String, i32);

fn host_ports(pod: &Pod) -> Vec<HostPort> {
    pod::all_containers(pod)
        .flat_map(|container| container.ports.iter().flatten())
        .filter_map(|port| {
            let number = port.host_port.filter(|number| *number > 0)?;
            let ip = port.host_ip.clone().filter(|ip| !ip.is_empty()).unwrap_or_else(|| "0.0.0.0".into());
            Some((ip, port.protocol.clone().unwrap_or_else(|| "TCP".into()), number))
        })
        .collect()
}

fn conflict(a: &HostPort, b: &HostPort) -> bool {
    a.1 == b.1 && a.2 == b.2 && (a.0 == b.0 || a.0 == "0.0.0.0" || b.0 == "0.0.0.0")
}

fn matches_node(pod: &Pod, node: &Node) -> bool {
    let none = BTreeMap::new();
    let labels = node.metadata.labels.as_ref().unwrap_or(&none);
    let spec = pod::spec(pod);
    if !spec.node_selector.iter().flatten().all(|(key, value)| labels.get(key) == Some(value)) {
        return false;
    }
    let required = spec
        .affinity
        .as_ref()
        .and_then(|it| it.node_affinity.as_ref())
        .and_then(|it| it.required_during_scheduling_ignored_during_execution.as_ref());
    required.is_none_or(|selector| {
        selector.node_selector_terms.iter().any(|term| term_matches(term, node, labels))
    })
}

fn term_matches(term: &NodeSelectorTerm, node: &Node, labels: &BTreeMap<String, String>) -> bool {
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    if expressions.is_empty() && fields.is_empty() {
        return false;
    }
    let name = node.metadata.name.as_deref();
    expressions.iter().all(|it| requirement(it, labels.get(&it.key).map(String::as_str)))
        && fields.iter().all(|it| requirement(it, name.filter(|_| it.key == "metadata.name")))
}

fn requirement(requirement: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let values = requirement.values.as_deref().unwrap_or_default();
    let within = |value: &str| values.iter().any(|it| it == value);
    let compare = |greater: bool| {
        let (Some(have), Some(than)) = (value.and_then(|it| it.parse::<i64>().ok()), values.first()) else {
            return false;
        };
        than.parse::<i64>().is_ok_and(|than| if greater { have > than } else { have < than })
    };
    match requirement.operator.as_str() {
        "In" => value.is_some_and(within),
        "NotIn" => !value.is_some_and(within),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => compare(true),
        "Lt" => compare(false),
        _ => false,
    }
}
