//! A node: its conditions, what it has, what its pods ask for.

use api::quantity::Quantity;
use jiff::Timestamp;
use serde_json::Value;

use super::Around;
use super::text::{Text, age_of, long_time, pairs};
use crate::verbs::session::text_at;

/// What pods ask of one resource of a node.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Asked {
    /// The sum of requests.
    pub requests: Quantity,
    /// The sum of limits.
    pub limits: Quantity,
}

/// Writes a node.
pub(super) fn write(text: &mut Text, node: &Value, around: &Around, now: Timestamp) {
    text.field(0, "Name", text_at(node, "/metadata/name"));
    text.field_or_none(0, "Roles", &roles(node).join(","));
    text.pairs(0, "Labels", node.pointer("/metadata/labels"));
    text.annotations(0, node.pointer("/metadata/annotations"));
    text.field(0, "CreationTimestamp", long_time(text_at(node, "/metadata/creationTimestamp")));
    let taints = node.pointer("/spec/taints").and_then(Value::as_array);
    let taints: Vec<String> = taints.into_iter().flatten().map(taint_text).collect();
    text.lines(0, "Taints", &taints);
    text.field(
        0,
        "Unschedulable",
        node.pointer("/spec/unschedulable").and_then(Value::as_bool).unwrap_or(false),
    );
    lease(text, around.lease.as_ref());
    let conditions = node.pointer("/status/conditions").and_then(Value::as_array);
    if let Some(conditions) = conditions.filter(|conditions| !conditions.is_empty()) {
        text.line(0, "Conditions:");
        text.line(1, "Type\tStatus\tLastHeartbeatTime\tLastTransitionTime\tReason\tMessage");
        text.line(1, "----\t------\t-----------------\t------------------\t------\t-------");
        for condition in conditions {
            text.line(
                1,
                format!(
                    "{} \t{} \t{} \t{} \t{} \t{}",
                    text_at(condition, "/type"),
                    text_at(condition, "/status"),
                    long_time(text_at(condition, "/lastHeartbeatTime")),
                    long_time(text_at(condition, "/lastTransitionTime")),
                    text_at(condition, "/reason"),
                    text_at(condition, "/message")
                ),
            );
        }
    }
    text.line(0, "Addresses:");
    for address in node.pointer("/status/addresses").and_then(Value::as_array).into_iter().flatten() {
        text.field(1, text_at(address, "/type"), text_at(address, "/address"));
    }
    for (title, pointer) in [("Capacity", "/status/capacity"), ("Allocatable", "/status/allocatable")] {
        text.line(0, format!("{title}:"));
        pairs(node.pointer(pointer), ":\t").iter().for_each(|amount| text.line(1, amount));
    }
    system(text, node);
    for (title, pointer) in [("PodCIDR", "/spec/podCIDR"), ("ProviderID", "/spec/providerID")] {
        if let value @ [_, ..] = text_at(node, pointer).as_bytes() {
            text.field(0, title, String::from_utf8_lossy(value));
        }
    }
    if let Some(cidrs) = node.pointer("/spec/podCIDRs").and_then(Value::as_array) {
        let cidrs: Vec<&str> = cidrs.iter().filter_map(Value::as_str).collect();
        text.field(0, "PodCIDRs", cidrs.join(","));
    }
    pods(text, node, &around.related, now);
}

fn lease(text: &mut Text, lease: Option<&Value>) {
    text.line(0, "Lease:");
    let Some(lease) = lease else { return text.line(1, "Failed to get lease") };
    let or_unset = |value: &str| if value.is_empty() { "<unset>".to_owned() } else { value.to_owned() };
    text.field(1, "HolderIdentity", or_unset(text_at(lease, "/spec/holderIdentity")));
    text.field(1, "AcquireTime", long_time(text_at(lease, "/spec/acquireTime")));
    text.field(1, "RenewTime", long_time(text_at(lease, "/spec/renewTime")));
}

/// The roles that labels give a node.
pub fn roles(node: &Value) -> Vec<String> {
    let labels = node.pointer("/metadata/labels").and_then(Value::as_object);
    let mut roles: Vec<String> = labels
        .into_iter()
        .flatten()
        .filter_map(|(label, value)| match label.strip_prefix("node-role.kubernetes.io/") {
            Some(role) => Some(role.to_owned()),
            None if label == "kubernetes.io/role" => value.as_str().map(str::to_owned),
            None => None,
        })
        .collect();
    roles.sort();
    roles
}

/// `key=value:Effect`.
pub fn taint_text(taint: &Value) -> String {
    let value = match text_at(taint, "/value") {
        "" => String::new(),
        value => format!("={value}"),
    };
    format!("{}{value}:{}", text_at(taint, "/key"), text_at(taint, "/effect"))
}

fn system(text: &mut Text, node: &Value) {
    text.line(0, "System Info:");
    for (title, name) in [
        ("Machine ID", "machineID"),
        ("System UUID", "systemUUID"),
        ("Boot ID", "bootID"),
        ("Kernel Version", "kernelVersion"),
        ("OS Image", "osImage"),
        ("Operating System", "operatingSystem"),
        ("Architecture", "architecture"),
        ("Container Runtime Version", "containerRuntimeVersion"),
        ("Kubelet Version", "kubeletVersion"),
        ("Kube-Proxy Version", "kubeProxyVersion"),
    ] {
        text.field(1, title, text_at(node, &format!("/status/nodeInfo/{name}")));
    }
}

fn pods(text: &mut Text, node: &Value, pods: &[Value], now: Timestamp) {
    text.line(0, format!("Non-terminated Pods:\t({} in total)", pods.len()));
    text.line(1, "Namespace\tName\t\tCPU Requests\tCPU Limits\tMemory Requests\tMemory Limits\tAge");
    text.line(1, "---------\t----\t\t------------\t----------\t---------------\t-------------\t---");
    let allocatable =
        |resource: &str| quantity(node.pointer("/status/allocatable").and_then(|all| all.get(resource)));
    let share = |amount: Quantity, resource: &str| {
        let whole = allocatable(resource).as_f64();
        let percent = if whole > 0.0 { (amount.as_f64() / whole * 100.0) as i64 } else { 0 };
        format!("{amount} ({percent}%)")
    };
    for pod in pods {
        let (cpu, memory) = (asked(pod, "cpu"), asked(pod, "memory"));
        text.line(
            1,
            format!(
                "{}\t{}\t\t{}\t{}\t{}\t{}\t{}",
                text_at(pod, "/metadata/namespace"),
                text_at(pod, "/metadata/name"),
                share(cpu.requests, "cpu"),
                share(cpu.limits, "cpu"),
                share(memory.requests, "memory"),
                share(memory.limits, "memory"),
                age_of(text_at(pod, "/metadata/creationTimestamp"), now)
            ),
        );
    }
    text.line(0, "Allocated resources:");
    text.line(1, "(Total limits may be over 100 percent, i.e., overcommitted.)");
    text.line(1, "Resource\tRequests\tLimits");
    text.line(1, "--------\t--------\t------");
    const FIRST: [&str; 3] = ["cpu", "memory", "ephemeral-storage"];
    let allocatable_names = node.pointer("/status/allocatable").and_then(Value::as_object);
    let others = allocatable_names.into_iter().flatten().map(|(name, _)| name.as_str());
    let others = others.filter(|name| *name != "pods" && !FIRST.contains(name));
    for resource in FIRST.into_iter().chain(others) {
        let total = sum(pods.iter().map(|pod| asked(pod, resource)));
        text.line(
            1,
            format!("{resource}\t{}\t{}", share(total.requests, resource), share(total.limits, resource)),
        );
    }
}

fn quantity(value: Option<&Value>) -> Quantity {
    value.and_then(Value::as_str).and_then(|text| text.parse().ok()).unwrap_or(Quantity::ZERO)
}

/// What a pod asks of a resource: its containers together, or its largest init container.
pub fn asked(pod: &Value, resource: &str) -> Asked {
    let of = |container: &Value| {
        let amount = |kind: &str| {
            quantity(container.pointer(&format!("/resources/{kind}")).and_then(|all| all.get(resource)))
        };
        Asked { requests: amount("requests"), limits: amount("limits") }
    };
    let list = |name: &str| pod.pointer(name).and_then(Value::as_array).into_iter().flatten();
    let stays = |container: &&Value| text_at(container, "/restartPolicy") == "Always";
    let mut total = sum(list("/spec/containers").map(of));
    total = sum([total].into_iter().chain(list("/spec/initContainers").filter(stays).map(of)));
    for init in list("/spec/initContainers").filter(|container| !stays(container)).map(of) {
        total.requests = total.requests.max(init.requests);
        total.limits = total.limits.max(init.limits);
    }
    total
}

/// The sum of what several ask.
pub fn sum(all: impl Iterator<Item = Asked>) -> Asked {
    all.fold(Asked { requests: Quantity::ZERO, limits: Quantity::ZERO }, |total, one| Asked {
        requests: total.requests + one.requests,
        limits: total.limits + one.limits,
    })
}
