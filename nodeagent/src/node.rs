//! The node in the API: registered once, its Lease renewed every 10 s, its status sent when it changes.

use std::sync::Arc;
use std::time::Duration;

use client::core::cache::Change;
use client::core::object::Object;
use client::core::plan::PatchKind;
use client::params::Patch;
use client::{Client, Scope};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{self as core, NodeSpec, NodeSystemInfo};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use nodeagent_core::disk::Disk;
use nodeagent_core::lifecycle::strategic_list;
use nodeagent_core::node::{self, Health, Machine};
use nodeagent_core::runtime::Image;
use serde_json::{Value, json};

use crate::agent::Config;
use crate::hands::Node;

const LEASE_NAMESPACE: &str = "kube-node-lease";
const RENEW: Duration = Duration::from_secs(10);
const LEASE_SECONDS: i64 = 40;
/// Every so many renewals the machine is looked at.
const LOOK: u32 = 3;
/// The status is sent at least this often.
const HEARTBEAT: Duration = Duration::from_secs(300);
const RETRY: Duration = Duration::from_millis(500);
/// A node that cannot run pods looks this often whether it can, rarer and rarer.
const MEND_PAUSE: Duration = Duration::from_millis(20);
const MEND_PAUSE_MAX: Duration = Duration::from_secs(1);

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

/// What the machine is made of.
pub(crate) fn machine(config: &Config, runtime_version: &str) -> Machine {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let memory = meminfo("MemTotal:").unwrap_or(0);
    let bytes = disk(config).map_or(0, |disk| disk.capacity);
    let release = read("/etc/os-release");
    let name = release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    let uname = nix::sys::utsname::uname().ok();
    let kernel = uname.as_ref().map(|it| it.release().to_string_lossy().into_owned());
    Machine {
        name: config.node_name.clone(),
        cpu_milli: config.cpu_milli.unwrap_or_else(|| i64::try_from(cores).unwrap_or(1) * 1000),
        memory_bytes: config.memory_bytes.unwrap_or(memory),
        disk_bytes: i64::try_from(bytes).unwrap_or(i64::MAX),
        max_pods: config.max_pods,
        reserved_cpu_milli: 0,
        reserved_memory_bytes: 100 << 20,
        addresses: config.addresses.clone(),
        info: NodeSystemInfo {
            architecture: node::go_arch(std::env::consts::ARCH).to_owned(),
            boot_id: read("/proc/sys/kernel/random/boot_id"),
            container_runtime_version: runtime_version.to_owned(),
            kernel_version: kernel.unwrap_or_default(),
            kube_proxy_version: String::new(),
            kubelet_version: format!("v1.37.0+orlop.{}", env!("CARGO_PKG_VERSION")),
            machine_id: read("/etc/machine-id"),
            operating_system: "linux".to_owned(),
            os_image: name.unwrap_or("Linux").trim_matches('"').to_owned(),
            system_uuid: read("/sys/class/dmi/id/product_uuid"),
            ..NodeSystemInfo::default()
        },
    }
}

fn meminfo(field: &str) -> Option<i64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(field))?;
    line.trim().trim_end_matches("kB").trim().parse::<i64>().ok().map(|kib| kib * 1024)
}

/// Keeps the node registered until the task is dropped.
pub(crate) async fn keep(node: Arc<Node>) {
    let images = || async { node.runtime.list_images().await.unwrap_or_default() };
    let mut health = health(&node.config);
    health.not_ready = node.runtime.problem().await;
    let mut known = images().await;
    let mut registered = register(&node.client, &node.machine, &node.config, &health, &known).await;
    // Nothing was sent about a node that was known before and is not ready yet.
    let mut sent_at = health.not_ready.is_none().then(tokio::time::Instant::now);
    let mut renewals: u32 = 0;
    let mut changes = node.informers.get::<core::Node>(Scope::all()).subscribe();
    loop {
        renew_lease(&node.client, &node.config.node_name, registered.metadata.uid.as_deref(), renewals == 0)
            .await;
        if let Some(contradicted) =
            contradiction(&node, &registered, &mut changes, health.not_ready.is_some()).await
        {
            registered.status = contradicted.status.clone();
        }
        renewals = renewals.wrapping_add(1).max(1);
        if renewals.is_multiple_of(LOOK) {
            health = self::health(&node.config);
            known = images().await;
        }
        health.not_ready = node.runtime.problem().await;
        let status =
            node::status(&node.machine, &health, &known, registered.status.as_ref(), Timestamp::now());
        let changed = registered.status.as_ref().is_none_or(|old| node::differs(old, &status));
        if (changed || sent_at.is_none_or(|at| at.elapsed() >= HEARTBEAT))
            && let Some(now) = send_status(&node.client, &node.config.node_name, &status).await
        {
            registered.status = Some(now);
            sent_at = Some(tokio::time::Instant::now());
        }
    }
}

/// Waits until the runtime can run pods; for ever if it can already.
async fn mended(node: &Node, unwell: bool) {
    if !unwell {
        return std::future::pending().await;
    }
    let mut pause = MEND_PAUSE;
    while node.runtime.problem().await.is_some() {
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(MEND_PAUSE_MAX);
    }
}

/// Waits until the next renewal is due, until the node has become able to run pods, or until somebody else says of this node what is not true: after a silence the
/// cluster takes a node for lost, and learns only from the node itself that it is not.
async fn contradiction(
    node: &Node,
    said: &core::Node,
    changes: &mut client::Changes<core::Node>,
    unwell: bool,
) -> Option<Arc<core::Node>> {
    let name = &node.config.node_name;
    let (due, mended) = (tokio::time::sleep(RENEW), mended(node, unwell));
    tokio::pin!(due, mended);
    loop {
        tokio::select! {
            () = &mut due => return None,
            () = &mut mended => return None,
            change = changes.next() => match change {
                Some(Change::Applied { new, .. }) if new.name() == *name && readiness(&new) != readiness(said) => {
                    return Some(new);
                }
                Some(_) => {}
                // The caches have ended: only time counts.
                None => {
                    due.await;
                    return None;
                }
            },
        }
    }
}

fn readiness(node: &core::Node) -> Option<&str> {
    let conditions = node.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().find(|one| one.type_ == "Ready").map(|one| one.status.as_str())
}

fn health(config: &Config) -> Health {
    let memory = meminfo("MemAvailable:").is_some_and(|bytes| bytes < 100 << 20);
    let number = |path: &str| read(path).parse::<u64>().ok();
    let used = read("/proc/loadavg")
        .split_whitespace()
        .nth(3)
        .and_then(|it| it.split('/').nth(1)?.parse::<u64>().ok());
    let pids = match (used, number("/proc/sys/kernel/pid_max")) {
        (Some(used), Some(most)) => used.saturating_mul(100) > most.saturating_mul(95),
        _ => false,
    };
    let disk = disk(config).is_some_and(Disk::is_pressed);
    Health { memory_pressure: memory, disk_pressure: disk, pid_pressure: pids, not_ready: None }
}

/// How full the disk of the node's data is; `None` when the system does not say.
pub(crate) fn disk(config: &Config) -> Option<Disk> {
    let found = nix::sys::statvfs::statvfs(&config.data_dir).ok()?;
    let bytes = |blocks: u64| blocks.saturating_mul(found.fragment_size());
    Some(Disk { capacity: bytes(found.blocks()), available: bytes(found.blocks_available()) })
}

/// Creates the Node, or brings the one of before up to date. Does not return before the API has it.
pub(crate) async fn register(
    client: &Client,
    machine: &Machine,
    config: &Config,
    health: &Health,
    images: &[Image],
) -> core::Node {
    let mut pause = RETRY;
    loop {
        match try_register(client, machine, config, health, images).await {
            Ok(node) => return node,
            Err(error) => {
                tracing::warn!(node = config.node_name, %error, "the node is not registered yet");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(Duration::from_secs(7));
            }
        }
    }
}

async fn try_register(
    client: &Client,
    machine: &Machine,
    config: &Config,
    health: &Health,
    images: &[Image],
) -> Result<core::Node, client::Error> {
    let mut labels = node::labels(&config.node_name, &machine.info.architecture);
    labels.extend(config.labels.clone());
    let wanted = core::Node {
        metadata: ObjectMeta {
            name: Some(config.node_name.clone()),
            labels: Some(labels.clone()),
            ..ObjectMeta::default()
        },
        spec: Some(NodeSpec {
            taints: (!config.taints.is_empty()).then(|| config.taints.clone()),
            ..NodeSpec::default()
        }),
        status: Some(node::status(machine, health, images, None, Timestamp::now())),
    };
    let mut node = match client.create(&wanted).await {
        Ok(node) => node,
        Err(error) if error.is_already_exists() => {
            let old = client.get::<core::Node>(None, &config.node_name).await?;
            let stale = old
                .metadata
                .labels
                .as_ref()
                .is_none_or(|has| labels.iter().any(|(key, value)| has.get(key) != Some(value)));
            if stale {
                let patch = Patch::new(PatchKind::Strategic, json!({"metadata": {"labels": labels}}));
                client.patch::<core::Node>(None, &config.node_name, &patch).await?;
            }
            if health.not_ready.is_some() {
                // An agent that starts anew is not ready for a moment, while its pods run on: they must not lose their
                // traffic for that. If it lasts, the next renewal says so.
                return Ok(old);
            }
            old
        }
        Err(error) => return Err(error),
    };
    let status = node::status(machine, health, images, node.status.as_ref(), Timestamp::now());
    if let Some(sent) = send_status(client, &config.node_name, &status).await {
        node.status = Some(sent);
    }
    Ok(node)
}

async fn send_status(client: &Client, name: &str, status: &core::NodeStatus) -> Option<core::NodeStatus> {
    let mut body = serde_json::to_value(status).ok()?;
    if let Some(list) = body.get_mut("addresses").and_then(Value::as_array_mut) {
        let items = std::mem::take(list);
        *list = strategic_list(items, true).as_array_mut().map(std::mem::take).unwrap_or_default();
    }
    let patch = Patch::new(PatchKind::Strategic, json!({ "status": body })).of("status");
    match client.patch::<core::Node>(None, name, &patch).await {
        Ok(node) => node.status.or_else(|| Some(status.clone())),
        Err(error) => {
            tracing::warn!(node = name, %error, "the node's status was not accepted");
            None
        }
    }
}

/// Renews the node's Lease; makes it when there is none.
pub(crate) async fn renew_lease(client: &Client, name: &str, uid: Option<&str>, first: bool) {
    let now = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string();
    let spec = json!({"holderIdentity": name, "leaseDurationSeconds": LEASE_SECONDS, "renewTime": now});
    let patch = Patch::new(PatchKind::Merge, json!({ "spec": spec }));
    use k8s_openapi::api::coordination::v1::Lease;
    for attempt in 0..3 {
        if !(first && attempt == 0) {
            match client.patch::<Lease>(Some(LEASE_NAMESPACE), name, &patch).await {
                Ok(_) => return,
                Err(error) if error.is_not_found() => {}
                Err(error) => {
                    tracing::debug!(node = name, %error, "the lease was not renewed");
                    tokio::time::sleep(RETRY).await;
                    continue;
                }
            }
        }
        let owner = uid.map(|uid| json!([{"apiVersion": "v1", "kind": "Node", "name": name, "uid": uid}]));
        let document = json!({
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": name, "namespace": LEASE_NAMESPACE, "ownerReferences": owner},
            "spec": spec,
        });
        let Ok(lease) = serde_json::from_value::<Lease>(document) else { return };
        match client.create(&lease).await {
            Ok(_) => return,
            Err(error) if error.is_already_exists() => {}
            Err(error) => {
                tracing::debug!(node = name, %error, "the lease was not made");
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}
