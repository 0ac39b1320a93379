//! The Node object: what the machine has, what pods can get of it, and how it is.

use std::collections::BTreeMap;
use std::net::IpAddr;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerImage, NodeAddress, NodeCondition, NodeStatus, NodeSystemInfo};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::clock;
use crate::runtime::Image;

/// What was found on the machine, and how the agent is set up.
#[derive(Clone, Debug, Default)]
pub struct Machine {
    /// Name of the node.
    pub name: String,
    /// Thousandths of a core.
    pub cpu_milli: i64,
    /// Bytes of memory.
    pub memory_bytes: i64,
    /// Bytes of disk for pods.
    pub disk_bytes: i64,
    /// The most pods.
    pub max_pods: i64,
    /// Thousandths of a core kept for the system.
    pub reserved_cpu_milli: i64,
    /// Bytes of memory kept for the system.
    pub reserved_memory_bytes: i64,
    /// The node's addresses.
    pub addresses: Vec<IpAddr>,
    /// Kernel, operating system and the like.
    pub info: NodeSystemInfo,
}

/// How the node is right now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// Memory is nearly used up.
    pub memory_pressure: bool,
    /// The disk is nearly full.
    pub disk_pressure: bool,
    /// Process numbers are nearly used up.
    pub pid_pressure: bool,
    /// Why the node cannot run pods; `None` when it can.
    pub not_ready: Option<String>,
}

/// Labels that every node has.
pub fn labels(name: &str, arch: &str) -> BTreeMap<String, String> {
    [
        ("kubernetes.io/hostname", name),
        ("kubernetes.io/os", "linux"),
        ("kubernetes.io/arch", arch),
        ("beta.kubernetes.io/os", "linux"),
        ("beta.kubernetes.io/arch", arch),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .into()
}

/// The architecture as Go names it.
pub fn go_arch(rust: &str) -> &str {
    match rust {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        other => other,
    }
}

fn list(cpu_milli: i64, memory: i64, disk: i64, pods: i64) -> BTreeMap<String, Quantity> {
    let cpu = if cpu_milli % 1000 == 0 { (cpu_milli / 1000).to_string() } else { format!("{cpu_milli}m") };
    [
        ("cpu", cpu),
        ("memory", format!("{}Ki", memory / 1024)),
        ("ephemeral-storage", format!("{}Ki", disk / 1024)),
        ("pods", pods.to_string()),
        ("hugepages-1Gi", "0".to_owned()),
        ("hugepages-2Mi", "0".to_owned()),
    ]
    .map(|(name, amount)| (name.to_owned(), Quantity(amount)))
    .into()
}

/// `status.capacity`.
pub fn capacity(machine: &Machine) -> BTreeMap<String, Quantity> {
    list(machine.cpu_milli, machine.memory_bytes, machine.disk_bytes, machine.max_pods)
}

/// `status.allocatable`.
pub fn allocatable(machine: &Machine) -> BTreeMap<String, Quantity> {
    list(
        (machine.cpu_milli - machine.reserved_cpu_milli).max(0),
        (machine.memory_bytes - machine.reserved_memory_bytes).max(0),
        machine.disk_bytes / 10 * 9,
        machine.max_pods,
    )
}

/// The whole status. Transition times of conditions that did not change are taken from `old`.
pub fn status(
    machine: &Machine,
    health: &Health,
    images: &[Image],
    old: Option<&NodeStatus>,
    now: Timestamp,
) -> NodeStatus {
    let conditions = conditions(health, old.and_then(|it| it.conditions.as_deref()).unwrap_or_default(), now);
    let mut addresses: Vec<_> = machine
        .addresses
        .iter()
        .map(|ip| NodeAddress { address: ip.to_string(), type_: "InternalIP".into() })
        .collect();
    addresses.push(NodeAddress { address: machine.name.clone(), type_: "Hostname".into() });
    NodeStatus {
        addresses: Some(addresses),
        allocatable: Some(allocatable(machine)),
        capacity: Some(capacity(machine)),
        conditions: Some(conditions),
        images: Some(image_list(images)),
        node_info: Some(machine.info.clone()),
        ..NodeStatus::default()
    }
}

/// The biggest images first, at most 50, at most 5 names each.
fn image_list(images: &[Image]) -> Vec<ContainerImage> {
    let mut sorted: Vec<_> = images.iter().collect();
    sorted.sort_by(|a, b| b.size_bytes.cmp(&a.size_bytes).then_with(|| a.id.cmp(&b.id)));
    sorted
        .into_iter()
        .take(50)
        .map(|image| ContainerImage {
            names: Some(image.digests.iter().chain(&image.tags).take(5).cloned().collect()),
            size_bytes: i64::try_from(image.size_bytes).ok(),
        })
        .collect()
}

fn conditions(health: &Health, old: &[NodeCondition], now: Timestamp) -> Vec<NodeCondition> {
    let make = |kind: &str, on: bool, reason: &str, message: &str| {
        let status = if on { "True" } else { "False" };
        let since = old
            .iter()
            .find(|it| it.type_ == kind && it.status == status)
            .and_then(|it| it.last_transition_time.clone());
        NodeCondition {
            last_heartbeat_time: Some(clock::time(now)),
            last_transition_time: since.or_else(|| Some(clock::time(now))),
            message: Some(message.to_owned()),
            reason: Some(reason.to_owned()),
            status: status.to_owned(),
            type_: kind.to_owned(),
        }
    };
    let pressure = |kind: &str, on: bool, has: (&str, &str), none: (&str, &str)| {
        let (reason, message) = if on { has } else { none };
        make(kind, on, reason, message)
    };
    vec![
        pressure(
            "MemoryPressure",
            health.memory_pressure,
            ("KubeletHasInsufficientMemory", "kubelet has insufficient memory available"),
            ("KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
        ),
        pressure(
            "DiskPressure",
            health.disk_pressure,
            ("KubeletHasDiskPressure", "kubelet has disk pressure"),
            ("KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
        ),
        pressure(
            "PIDPressure",
            health.pid_pressure,
            ("KubeletHasInsufficientPID", "kubelet has insufficient PID available"),
            ("KubeletHasSufficientPID", "kubelet has sufficient PID available"),
        ),
        match &health.not_ready {
            None => make("Ready", true, "KubeletReady", "kubelet is posting ready status"),
            Some(why) => make("Ready", false, "KubeletNotReady", why),
        },
    ]
}

/// Whether two statuses differ in more than their heartbeat times.
pub fn differs(a: &NodeStatus, b: &NodeStatus) -> bool {
    let still = |status: &NodeStatus| {
        let mut status = status.clone();
        for condition in status.conditions.iter_mut().flatten() {
            condition.last_heartbeat_time = None;
        }
        status
    };
    still(a) != still(b)
}
