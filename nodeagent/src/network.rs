//! The pod network of one node: a bridge, a veth pair for each pod, addresses, and routes to the other nodes' pods.

pub mod cidr;
pub mod fabric;
mod netlink;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use tokio::sync::{Mutex, RwLock};

pub use cidr::Ipv4Cidr;
use netlink::Netlink;

/// Name of the bridge that a node's pods are connected to.
pub const BRIDGE: &str = "orlop-pods";

/// Routing protocol number that marks our routes.
const PROTOCOL: u8 = 79;

/// Why the pod network could not be changed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum NetworkError {
    /// The node has no pod CIDR yet.
    #[error("network is not ready: the node has no pod CIDR yet")]
    NoPodCidr,
    /// No address is left.
    #[error("no addresses left in pod CIDR {0}")]
    Exhausted(Ipv4Cidr),
    /// The kernel refused.
    #[error("{what}: {detail}")]
    Kernel {
        /// What was being done.
        what: String,
        /// What the kernel said.
        detail: String,
    },
}

impl NetworkError {
    pub(crate) fn kernel<E: std::fmt::Display>(what: impl Into<String>) -> impl FnOnce(E) -> NetworkError {
        let what = what.into();
        move |error| NetworkError::Kernel { what, detail: error.to_string() }
    }
}

/// The pods of another node are reached through it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PodRoute {
    /// The other node's pod CIDR.
    pub cidr: Ipv4Cidr,
    /// The other node's address.
    pub via: Ipv4Addr,
}

/// The pod network of one node.
pub struct PodNetwork {
    netns: Option<PathBuf>,
    netlink: Netlink,
    bridge: RwLock<Option<Bridge>>,
    addresses: std::sync::Mutex<Addresses>,
    routes: Mutex<()>,
}

#[derive(Clone, Copy)]
struct Bridge {
    cidr: Ipv4Cidr,
    index: u32,
}

/// Addresses in use, by sandbox.
#[derive(Default)]
struct Addresses {
    used: BTreeMap<Ipv4Addr, String>,
    last: Option<Ipv4Addr>,
}

// === impl Addresses ===

impl Addresses {
    /// The next free address after the last one given out: an address rests as long as possible before it is used again.
    fn take(&mut self, cidr: Ipv4Cidr, sandbox: &str) -> Option<Ipv4Addr> {
        // The network, the bridge, and the broadcast address are not for pods.
        let count = cidr.size().checked_sub(3).filter(|count| *count > 0)?;
        let start = self.last.and_then(|last| cidr.offset(last)).map_or(0, |offset| offset.saturating_sub(1));
        let free = (0..count).map(|step| (start + step) % count + 2).find_map(|offset| {
            let ip = cidr.nth(offset)?;
            (!self.used.contains_key(&ip)).then_some(ip)
        })?;
        self.used.insert(free, sandbox.to_owned());
        self.last = Some(free);
        Some(free)
    }
}

// === impl PodNetwork ===

impl PodNetwork {
    /// Opens the network of a node that lives in `netns` (`None`: the present namespace). `known` are the addresses of
    /// sandboxes that exist.
    pub async fn open(
        netns: Option<&Path>,
        known: impl IntoIterator<Item = (Ipv4Addr, String)>,
    ) -> Result<PodNetwork, NetworkError> {
        let netlink = Netlink::open(netns)?;
        let used: BTreeMap<_, _> = known.into_iter().collect();
        let last = used.keys().next_back().copied();
        Ok(PodNetwork {
            netns: netns.map(Path::to_owned),
            netlink,
            bridge: RwLock::new(None),
            addresses: std::sync::Mutex::new(Addresses { used, last }),
            routes: Mutex::new(()),
        })
    }

    /// Makes the bridge, once the node's part of the pod network is known. Idempotent.
    pub async fn set_pod_cidr(&self, cidr: Ipv4Cidr) -> Result<(), NetworkError> {
        let mut bridge = self.bridge.write().await;
        if bridge.is_some_and(|bridge| bridge.cidr == cidr) {
            return Ok(());
        }
        let gateway = cidr.nth(1).ok_or(NetworkError::Exhausted(cidr))?;
        crate::netns::run_in(self.netns.as_deref(), || {
            for (file, needed) in
                [("net/ipv4/ip_forward", true), ("net/bridge/bridge-nf-call-iptables", false)]
            {
                let path = Path::new("/proc/sys").join(file);
                match std::fs::write(&path, "1") {
                    Err(error) if needed => return Err(error),
                    // Without the bridge netfilter module, service addresses do not reach pods of the same node.
                    _ => {}
                }
            }
            Ok(())
        })
        .and_then(|outcome| outcome)
        .map_err(NetworkError::kernel("enable forwarding"))?;
        let index = self.netlink.ensure_bridge(BRIDGE, mac(gateway)).await?;
        self.netlink.set_only_address(index, gateway, cidr.prefix()).await?;
        self.netlink.up(index).await?;
        *bridge = Some(Bridge { cidr, index });
        Ok(())
    }

    /// The node's part of the pod network.
    pub async fn pod_cidr(&self) -> Option<Ipv4Cidr> {
        self.bridge.read().await.map(|bridge| bridge.cidr)
    }

    /// Chooses an address for a sandbox.
    pub async fn reserve(&self, sandbox: &str) -> Result<Ipv4Addr, NetworkError> {
        let cidr = self.pod_cidr().await.ok_or(NetworkError::NoPodCidr)?;
        let mut addresses = self.addresses.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        addresses.take(cidr, sandbox).ok_or(NetworkError::Exhausted(cidr))
    }

    /// Connects a pod's namespace. `inside` speaks to the kernel from within it.
    pub async fn attach(
        &self,
        sandbox: &str,
        netns: &Path,
        inside: &PodSocket,
        ip: Ipv4Addr,
    ) -> Result<(), NetworkError> {
        let bridge = (*self.bridge.read().await).ok_or(NetworkError::NoPodCidr)?;
        let gateway = bridge.cidr.nth(1).ok_or(NetworkError::Exhausted(bridge.cidr))?;
        let file = File::open(netns).map_err(NetworkError::kernel("open the pod's network namespace"))?;
        let link = link_name(sandbox);
        self.netlink.add_pod_link(&link, bridge.index, file.as_raw_fd(), mac(ip)).await?;
        let eth0 = inside.0.index_of("eth0").await?;
        let eth0 = eth0.ok_or_else(|| NetworkError::Kernel {
            what: "connect the pod".to_owned(),
            detail: "its interface has gone".to_owned(),
        })?;
        inside.0.add_address(eth0, ip, bridge.cidr.prefix()).await?;
        inside.0.up(1).await?;
        inside.0.up(eth0).await?;
        inside.0.add_default_route(gateway).await
    }

    /// Disconnects a pod and frees its addresses.
    pub async fn detach(&self, sandbox: &str) -> Result<(), NetworkError> {
        let outcome = self.netlink.delete_link(&link_name(sandbox)).await;
        let mut addresses = self.addresses.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        addresses.used.retain(|_, owner| owner != sandbox);
        outcome
    }

    /// Makes the routes to other nodes' pods exactly these.
    pub async fn set_routes(&self, wanted: &[PodRoute]) -> Result<(), NetworkError> {
        let _one_at_a_time = self.routes.lock().await;
        let wanted: BTreeSet<PodRoute> = wanted.iter().copied().collect();
        let present = self.netlink.routes(PROTOCOL).await?;
        let mut outcome = Ok(());
        for route in present.difference(&wanted) {
            outcome = outcome.and(self.netlink.delete_route(*route, PROTOCOL).await);
        }
        for route in wanted.difference(&present) {
            outcome = outcome.and(self.netlink.add_route(*route, PROTOCOL).await);
        }
        outcome
    }

    /// Takes the bridge and the routes away.
    pub async fn close(&self) -> Result<(), NetworkError> {
        self.set_routes(&[]).await?;
        *self.bridge.write().await = None;
        self.netlink.delete_link(BRIDGE).await
    }
}

/// Speaks to the kernel from within a pod's network namespace.
pub struct PodSocket(Netlink);

impl PodSocket {
    /// To be called on a thread inside the namespace, with the runtime that will serve the socket.
    pub fn open(runtime: &tokio::runtime::Handle) -> std::io::Result<PodSocket> {
        Netlink::here(runtime).map(PodSocket)
    }

    /// Brings the loopback interface up.
    pub async fn loopback_up(&self) -> Result<(), NetworkError> {
        self.0.up(1).await
    }
}

/// Removes what a node's agent has left in a namespace that outlives it.
pub async fn remove_leftovers(netns: Option<&Path>) -> Result<(), NetworkError> {
    let netlink = Netlink::open(netns)?;
    for route in netlink.routes(PROTOCOL).await? {
        netlink.delete_route(route, PROTOCOL).await?;
    }
    for (name, _) in netlink.links().await? {
        if name == BRIDGE || is_pod_link(&name) {
            netlink.delete_link(&name).await?;
        }
    }
    Ok(())
}

const LINK_PREFIX: &str = "orp";

/// The node's side of a pod's veth pair. Interface names have at most 15 characters.
fn link_name(sandbox: &str) -> String {
    format!("{LINK_PREFIX}{}", sandbox.get(..12).unwrap_or(sandbox))
}

fn is_pod_link(name: &str) -> bool {
    name.strip_prefix(LINK_PREFIX)
        .is_some_and(|id| id.len() == 12 && id.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// A locally administered address made from an IP: the same pod IP never has two, so no neighbour entry is stale.
fn mac(ip: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = ip.octets();
    [0x0a, 0x58, a, b, c, d]
}

/// All addresses of a pod in plural form: dual stack adds to the list.
pub fn ips(ip: Option<Ipv4Addr>) -> Vec<IpAddr> {
    ip.into_iter().map(IpAddr::V4).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_rest_before_they_are_used_again() {
        let cidr: Ipv4Cidr = "10.244.1.0/29".parse().unwrap();
        let mut addresses = Addresses::default();
        let taken: Vec<_> = (0..5).map(|i| addresses.take(cidr, &i.to_string()).unwrap()).collect();
        let expected: Vec<Ipv4Addr> = (2..=6).map(|d| Ipv4Addr::new(10, 244, 1, d)).collect();
        assert_eq!(taken, expected);
        assert_eq!(addresses.take(cidr, "x"), None);
        addresses.used.retain(|_, owner| owner != "0" && owner != "3");
        assert_eq!(addresses.take(cidr, "a"), Some(expected[0]));
        assert_eq!(addresses.take(cidr, "b"), Some(expected[3]));
    }

    #[test]
    fn link_names_fit_and_are_recognised() {
        let name = link_name("0123456789abcdef0123456789abcdef");
        assert_eq!(name, "orp0123456789ab");
        assert!(name.len() <= 15 && is_pod_link(&name));
        assert!(!is_pod_link("orphan0") && !is_pod_link("eth0"));
    }
}
