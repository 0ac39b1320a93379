//! Several nodes on one machine: a host bridge, and for each node a network namespace connected to it.
//!
//! Everything made is written to a state file before it is made, so that what a killed process has left is found.

mod host_wide;

use std::fs::{self, File};
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use nix::sched::CloneFlags;
use serde::{Deserialize, Serialize};

use super::netlink::Netlink;
use super::{Ipv4Cidr, NetworkError};
use crate::netns;

/// Bridge names and networks, in the order in which they are tried.
const SUBNETS: [&str; 4] = ["10.89.0.0/24", "10.90.0.0/24", "172.29.89.0/24", "192.168.189.0/24"];

/// Metric of the route that claims the service network: any other route to it is better.
pub const CLAIM_METRIC: u32 = 4096;

/// Most nodes that fit into a subnet.
pub const MAX_NODES: usize = 240;

const STATE_FILE: &str = "fabric.json";

/// What the clusters of this machine keep while they run.
const RUN_DIR: &str = "/run/orlop";

/// Of the network namespace of whoever looks.
const FORWARDING: &str = "/proc/sys/net/ipv4/ip_forward";

/// What to build.
#[derive(Clone, Debug)]
pub struct FabricConfig {
    /// Name of the cluster; names the directory under `/run/orlop`.
    pub cluster: String,
    /// Names of the nodes.
    pub nodes: Vec<String>,
    /// Network of the service addresses.
    pub service_cidr: Ipv4Cidr,
    /// Where the state file is kept.
    pub state_dir: PathBuf,
}

/// What was built.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fabric {
    /// Name of the cluster.
    pub cluster: String,
    /// Name of the bridge.
    pub bridge: String,
    /// The host's address on it.
    pub bridge_ip: Ipv4Addr,
    /// Length of the subnet's mask.
    pub prefix: u8,
    /// The nodes.
    pub nodes: Vec<FabricNode>,
    /// Where the state file is.
    state_dir: PathBuf,
}

/// One node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FabricNode {
    /// Name of the node.
    pub name: String,
    /// Its network namespace.
    pub netns: PathBuf,
    /// Its address on the bridge.
    pub ip: Ipv4Addr,
    /// The host's side of its link.
    link: String,
}

/// Why the fabric could not be built or taken down.
#[derive(Debug, Clone, thiserror::Error)]
pub enum FabricError {
    /// More nodes than addresses.
    #[error("at most {MAX_NODES} nodes fit on one machine, {0} were asked for")]
    TooMany(usize),
    /// Every candidate is taken.
    #[error("no free network for the nodes: {0}; free one of them, or stop what uses it")]
    Occupied(String),
    /// The kernel refused.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// The disk failed.
    #[error("{what}: {detail}")]
    Io {
        /// What was being done.
        what: String,
        /// What the kernel said.
        detail: String,
    },
}

fn io_error(what: impl Into<String>) -> impl FnOnce(io::Error) -> FabricError {
    let what = what.into();
    move |error| FabricError::Io { what, detail: error.to_string() }
}

/// Builds the bridge and the nodes' namespaces. What was built is taken down again when something fails.
pub async fn up(config: &FabricConfig) -> Result<Fabric, FabricError> {
    if config.nodes.len() > MAX_NODES {
        return Err(FabricError::TooMany(config.nodes.len()));
    }
    cleanup_leftovers(&config.state_dir).await?;
    let host = Netlink::open(None)?;
    let (bridge, subnet) = choose(&host, config.service_cidr).await?;
    let fabric = plan(config, bridge, subnet)?;
    save(&fabric)?;
    match build(&host, &fabric, config.service_cidr).await {
        Ok(()) => Ok(fabric),
        Err(error) => {
            if let Err(second) = down(&fabric).await {
                tracing::warn!(error = %second, "cannot take down what was built");
            }
            Err(error)
        }
    }
}

/// Takes everything down.
pub async fn down(fabric: &Fabric) -> Result<(), FabricError> {
    let host = Netlink::open(None)?;
    let mut outcome = Ok(());
    let mut keep = |result: Result<(), FabricError>| {
        if outcome.is_ok() {
            outcome = result;
        }
    };
    for node in &fabric.nodes {
        keep(host.delete_link(&node.link).await.map_err(Into::into));
        keep(netns::unpin(&node.netns).map_err(io_error(format!("remove namespace of {}", node.name))));
    }
    keep(host.delete_link(&fabric.bridge).await.map_err(Into::into));
    keep(host_wide::release(&host, &fabric.cluster).await);
    for dir in [run_dir(&fabric.cluster).join("netns"), run_dir(&fabric.cluster), PathBuf::from(RUN_DIR)] {
        // Others may still use what is above.
        let _ = fs::remove_dir(dir);
    }
    if outcome.is_ok() {
        let _ = fs::remove_file(fabric.state_dir.join(STATE_FILE));
    }
    outcome
}

/// Brings a node's link up or down: down, the node is cut off from the others.
pub async fn set_link(node: &FabricNode, up: bool) -> Result<(), FabricError> {
    let host = Netlink::open(None)?;
    let index = host.index_of(&node.link).await?.unwrap_or(0);
    let set = if up { host.up(index).await } else { host.down(index).await };
    Ok(set?)
}

/// Takes down what an earlier process with this state directory has left.
pub async fn cleanup_leftovers(state_dir: &Path) -> Result<(), FabricError> {
    let path = state_dir.join(STATE_FILE);
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(io_error(path.display().to_string())(error)),
    };
    match serde_json::from_slice::<Fabric>(&bytes) {
        Ok(fabric) => down(&fabric).await,
        // Written by rename: a damaged file is none of ours.
        Err(_) => fs::remove_file(&path).map_err(io_error(path.display().to_string())),
    }
}

fn run_dir(cluster: &str) -> PathBuf {
    Path::new(RUN_DIR).join(cluster)
}

/// The first bridge name and subnet that nobody uses.
async fn choose(host: &Netlink, service: Ipv4Cidr) -> Result<(String, Ipv4Cidr), FabricError> {
    let links = host.links().await?;
    let mut taken: Vec<Ipv4Cidr> = host.networks().await?.into_iter().map(|(_, network)| network).collect();
    taken.extend(host.destinations().await?);
    taken.push(service);
    let free_name =
        (0..16).map(|i| format!("orlop{i}")).find(|name| !links.iter().any(|(used, _)| used == name));
    let subnets = SUBNETS.iter().filter_map(|subnet| subnet.parse::<Ipv4Cidr>().ok());
    let free =
        subnets.clone().find(|subnet| !taken.iter().any(|used| used.prefix() > 0 && used.overlaps(subnet)));
    match (free_name, free) {
        (Some(name), Some(subnet)) => Ok((name, subnet)),
        (None, _) => Err(FabricError::Occupied("the links orlop0 to orlop15 exist".to_owned())),
        (_, None) => Err(FabricError::Occupied(format!("{} are in use", SUBNETS.join(", ")))),
    }
}

fn plan(config: &FabricConfig, bridge: String, subnet: Ipv4Cidr) -> Result<Fabric, FabricError> {
    let address = |offset: u32| subnet.nth(offset).ok_or(FabricError::TooMany(config.nodes.len()));
    let serial = bridge.trim_start_matches("orlop").to_owned();
    let mut nodes = Vec::new();
    for (index, name) in config.nodes.iter().enumerate() {
        nodes.push(FabricNode {
            name: name.clone(),
            netns: run_dir(&config.cluster).join("netns").join(name),
            ip: address(11 + index as u32)?,
            link: format!("orl{serial}n{}", index + 1),
        });
    }
    Ok(Fabric {
        cluster: config.cluster.clone(),
        bridge_ip: address(1)?,
        prefix: subnet.prefix(),
        bridge,
        nodes,
        state_dir: config.state_dir.clone(),
    })
}

fn save(fabric: &Fabric) -> Result<(), FabricError> {
    let failed = || "write the state of the node network".to_owned();
    fs::create_dir_all(&fabric.state_dir).map_err(io_error(failed()))?;
    let path = fabric.state_dir.join(STATE_FILE);
    let bytes = serde_json::to_vec(fabric).map_err(|error| io_error(failed())(io::Error::other(error)))?;
    let temporary = path.with_extension("tmp");
    fs::write(&temporary, bytes).and_then(|()| fs::rename(&temporary, &path)).map_err(io_error(failed()))
}

async fn build(host: &Netlink, fabric: &Fabric, service: Ipv4Cidr) -> Result<(), FabricError> {
    host_wide::acquire(host, &fabric.cluster, service).await?;
    let [a, b, c, d] = fabric.bridge_ip.octets();
    let bridge = host.add_bridge(&fabric.bridge, [0x0a, 0x58, a, b, c, d]).await?;
    host.add_address(bridge, fabric.bridge_ip, fabric.prefix).await?;
    let dir = run_dir(&fabric.cluster).join("netns");
    fs::create_dir_all(&dir).map_err(io_error(dir.display().to_string()))?;
    let runtime = tokio::runtime::Handle::current();
    for node in &fabric.nodes {
        netns::unpin(&node.netns).map_err(io_error(format!("namespace of {}", node.name)))?;
        let inside = netns::create(&[(CloneFlags::CLONE_NEWNET, &node.netns)], || {
            // Nodes forward between their pods and the others.
            fs::write(FORWARDING, "1")?;
            Netlink::here(&runtime)
        })
        .map_err(io_error(format!("create namespace of {}", node.name)))?;
        let file = File::open(&node.netns).map_err(io_error(format!("namespace of {}", node.name)))?;
        host.add_veth(&node.link, Some(bridge), "eth0", file.as_raw_fd(), None).await?;
        let eth0 = inside.index_of("eth0").await?.unwrap_or(0);
        inside.up(1).await?;
        inside.add_address(eth0, node.ip, fabric.prefix).await?;
        inside.up(eth0).await?;
        inside.add_default_route(fabric.bridge_ip).await?;
        inside.claim(service, CLAIM_METRIC).await?;
    }
    Ok(())
}
