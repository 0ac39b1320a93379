//! Requests to the kernel's routing tables, in one network namespace.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::RawFd;
use std::path::Path;

use futures::TryStreamExt;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::address::AddressAttribute;
use rtnetlink::packet_route::link::{InfoData, InfoVeth, LinkAttribute};
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteType,
};
use rtnetlink::{
    Handle, LinkBridge, LinkBridgePort, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder,
};

use super::{Ipv4Cidr, NetworkError, PodRoute};

/// A socket in one namespace, with the task that serves it.
pub struct Netlink {
    handle: Handle,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Netlink {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn has_code(error: &rtnetlink::Error, code: i32) -> bool {
    matches!(error, rtnetlink::Error::NetlinkError(message) if message.raw_code() == -code)
}

// === impl Netlink ===

impl Netlink {
    /// Opens a socket in a namespace (`None`: the present one).
    pub fn open(netns: Option<&Path>) -> Result<Netlink, NetworkError> {
        let runtime = tokio::runtime::Handle::current();
        let opened = crate::netns::run_in(netns, || Self::here(&runtime));
        opened.and_then(|inner| inner).map_err(NetworkError::kernel("open a netlink socket"))
    }

    /// Opens a socket in the namespace of this thread.
    pub fn here(runtime: &tokio::runtime::Handle) -> io::Result<Netlink> {
        let _context = runtime.enter();
        let (connection, handle, _) = rtnetlink::new_connection()?;
        Ok(Netlink { handle, task: runtime.spawn(connection) })
    }

    /// Names and indices of all links.
    pub async fn links(&self) -> Result<Vec<(String, u32)>, NetworkError> {
        let messages: Vec<_> = self
            .handle
            .link()
            .get()
            .execute()
            .try_collect()
            .await
            .map_err(NetworkError::kernel("list links"))?;
        let name = |attributes: &[LinkAttribute]| {
            attributes.iter().find_map(|attribute| match attribute {
                LinkAttribute::IfName(name) => Some(name.clone()),
                _ => None,
            })
        };
        Ok(messages.iter().filter_map(|m| Some((name(&m.attributes)?, m.header.index))).collect())
    }

    /// The index of a link, if there is one of that name.
    pub async fn index_of(&self, name: &str) -> Result<Option<u32>, NetworkError> {
        let mut found = self.handle.link().get().match_name(name).execute();
        match found.try_next().await {
            Ok(message) => Ok(message.map(|message| message.header.index)),
            Err(error) if has_code(&error, libc::ENODEV) => Ok(None),
            Err(error) => Err(NetworkError::kernel(format!("look for {name}"))(error)),
        }
    }

    /// Makes a bridge unless it exists.
    pub async fn ensure_bridge(&self, name: &str, mac: [u8; 6]) -> Result<u32, NetworkError> {
        if let Some(index) = self.index_of(name).await? {
            return Ok(index);
        }
        self.add_bridge(name, mac).await
    }

    /// Makes a bridge that must not exist.
    pub async fn add_bridge(&self, name: &str, mac: [u8; 6]) -> Result<u32, NetworkError> {
        let bridge = LinkBridge::new(name).address(mac.to_vec()).up().build();
        let failed = || format!("create bridge {name}");
        self.handle.link().add(bridge).execute().await.map_err(NetworkError::kernel(failed()))?;
        let index = self.index_of(name).await?;
        index.ok_or_else(|| NetworkError::Kernel { what: failed(), detail: "it has gone".to_owned() })
    }

    /// Makes a pod's veth pair: one side on the bridge, the other as `eth0` in the pod's namespace.
    pub async fn add_pod_link(
        &self,
        name: &str,
        bridge: u32,
        pod: RawFd,
        mac: [u8; 6],
    ) -> Result<(), NetworkError> {
        self.add_veth(name, Some(bridge), "eth0", pod, Some(mac)).await?;
        let index = self.index_of(name).await?.unwrap_or(0);
        // A pod that reaches itself through a service needs its own frames back.
        let port = LinkBridgePort::new(index).hairpin(true).build();
        self.handle.link().set_port(port).execute().await.map_err(NetworkError::kernel("set hairpin mode"))
    }

    /// Makes a veth pair with its far side in another namespace.
    pub async fn add_veth(
        &self,
        name: &str,
        bridge: Option<u32>,
        peer: &str,
        netns: RawFd,
        mac: Option<[u8; 6]>,
    ) -> Result<(), NetworkError> {
        let mut far = LinkMessageBuilder::<LinkUnspec>::new().name(peer.to_owned()).setns_by_fd(netns);
        if let Some(mac) = mac {
            far = far.address(mac.to_vec());
        }
        let mut near =
            LinkVeth::new(name, peer).set_info_data(InfoData::Veth(InfoVeth::Peer(far.build()))).up();
        if let Some(bridge) = bridge {
            near = near.controller(bridge);
        }
        let request = self.handle.link().add(near.build());
        request.execute().await.map_err(NetworkError::kernel(format!("create {name}")))
    }

    /// Brings a link up.
    pub async fn up(&self, index: u32) -> Result<(), NetworkError> {
        let message = LinkUnspec::new_with_index(index).up().build();
        self.handle.link().set(message).execute().await.map_err(NetworkError::kernel("bring a link up"))
    }

    /// Brings a link down.
    pub async fn down(&self, index: u32) -> Result<(), NetworkError> {
        let message = LinkUnspec::new_with_index(index).down().build();
        self.handle.link().set(message).execute().await.map_err(NetworkError::kernel("bring a link down"))
    }

    /// Removes a link; one that is not there is no error.
    pub async fn delete_link(&self, name: &str) -> Result<(), NetworkError> {
        let Some(index) = self.index_of(name).await? else { return Ok(()) };
        match self.handle.link().del(index).execute().await {
            Err(error) if !has_code(&error, libc::ENODEV) => {
                Err(NetworkError::kernel(format!("remove {name}"))(error))
            }
            _ => Ok(()),
        }
    }

    /// Gives a link an address.
    pub async fn add_address(&self, index: u32, ip: Ipv4Addr, prefix: u8) -> Result<(), NetworkError> {
        match self.handle.address().add(index, IpAddr::V4(ip), prefix).execute().await {
            Err(error) if !has_code(&error, libc::EEXIST) => {
                Err(NetworkError::kernel(format!("set address {ip}"))(error))
            }
            _ => Ok(()),
        }
    }

    /// All IPv4 networks of this namespace's links.
    pub async fn networks(&self) -> Result<Vec<(u32, Ipv4Cidr)>, NetworkError> {
        let failed = NetworkError::kernel::<rtnetlink::Error>("list addresses");
        let messages: Vec<_> = self.handle.address().get().execute().try_collect().await.map_err(failed)?;
        let network = |attributes: &[AddressAttribute], prefix: u8| {
            attributes.iter().find_map(|attribute| match attribute {
                AddressAttribute::Address(IpAddr::V4(ip)) => Ipv4Cidr::containing(*ip, prefix),
                _ => None,
            })
        };
        Ok(messages
            .iter()
            .filter_map(|m| Some((m.header.index, network(&m.attributes, m.header.prefix_len)?)))
            .collect())
    }

    /// Makes this the only IPv4 address of a link.
    pub async fn set_only_address(&self, index: u32, ip: Ipv4Addr, prefix: u8) -> Result<(), NetworkError> {
        let failed = || NetworkError::kernel::<rtnetlink::Error>(format!("set address {ip}"));
        let present: Vec<_> = self
            .handle
            .address()
            .get()
            .set_link_index_filter(index)
            .execute()
            .try_collect()
            .await
            .map_err(failed())?;
        for message in present.into_iter().filter(|message| message.header.family == AddressFamily::Inet) {
            let wanted = AddressAttribute::Address(IpAddr::V4(ip));
            if !(message.attributes.contains(&wanted) && message.header.prefix_len == prefix) {
                self.handle.address().del(message).execute().await.map_err(failed())?;
            }
        }
        self.add_address(index, ip, prefix).await
    }

    /// Routes everything else through a gateway.
    pub async fn add_default_route(&self, gateway: Ipv4Addr) -> Result<(), NetworkError> {
        let route = RouteMessageBuilder::<Ipv4Addr>::new().gateway(gateway).build();
        self.add(route, "default route").await.map(|_| ())
    }

    /// Claims a network: without a better route its addresses are unreachable instead of leaving by the default route.
    /// Returns whether the route is new.
    pub async fn claim(&self, cidr: Ipv4Cidr, metric: u32) -> Result<bool, NetworkError> {
        self.add(unreachable(cidr, metric), "claim the service network").await
    }

    /// Undoes [`Netlink::claim`].
    pub async fn release(&self, cidr: Ipv4Cidr, metric: u32) -> Result<(), NetworkError> {
        self.remove(unreachable(cidr, metric)).await
    }

    /// Routes another node's pods through it.
    pub async fn add_route(&self, route: PodRoute, protocol: u8) -> Result<(), NetworkError> {
        self.add(pod_route(route, protocol), &format!("route to {}", route.cidr)).await.map(|_| ())
    }

    /// Removes such a route.
    pub async fn delete_route(&self, route: PodRoute, protocol: u8) -> Result<(), NetworkError> {
        self.remove(pod_route(route, protocol)).await
    }

    /// Routes of our protocol with a gateway.
    pub async fn routes(&self, protocol: u8) -> Result<BTreeSet<PodRoute>, NetworkError> {
        let filter = RouteMessageBuilder::<Ipv4Addr>::new().build();
        let failed = NetworkError::kernel::<rtnetlink::Error>("list routes");
        let messages: Vec<RouteMessage> =
            self.handle.route().get(filter).execute().try_collect().await.map_err(failed)?;
        let ours = messages.iter().filter(|m| m.header.protocol == RouteProtocol::from(protocol));
        Ok(ours
            .filter_map(|message| {
                let (mut to, mut via) = (None, None);
                for attribute in &message.attributes {
                    match attribute {
                        RouteAttribute::Destination(RouteAddress::Inet(ip)) => to = Some(*ip),
                        RouteAttribute::Gateway(RouteAddress::Inet(ip)) => via = Some(*ip),
                        _ => {}
                    }
                }
                let cidr = Ipv4Cidr::containing(to?, message.header.destination_prefix_length)?;
                Some(PodRoute { cidr, via: via? })
            })
            .collect())
    }

    /// All IPv4 destinations that this namespace has a route for, without the default.
    pub async fn destinations(&self) -> Result<Vec<Ipv4Cidr>, NetworkError> {
        let filter = RouteMessageBuilder::<Ipv4Addr>::new().build();
        let failed = NetworkError::kernel::<rtnetlink::Error>("list routes");
        let messages: Vec<RouteMessage> =
            self.handle.route().get(filter).execute().try_collect().await.map_err(failed)?;
        let main = messages.iter().filter(|message| message.header.table == RouteHeader::RT_TABLE_MAIN);
        Ok(main
            .filter_map(|message| {
                message.attributes.iter().find_map(|attribute| match attribute {
                    RouteAttribute::Destination(RouteAddress::Inet(ip)) => {
                        Ipv4Cidr::containing(*ip, message.header.destination_prefix_length)
                    }
                    _ => None,
                })
            })
            .collect())
    }

    async fn add(&self, route: RouteMessage, what: &str) -> Result<bool, NetworkError> {
        match self.handle.route().add(route).execute().await {
            Ok(()) => Ok(true),
            Err(error) if has_code(&error, libc::EEXIST) => Ok(false),
            Err(error) => Err(NetworkError::kernel(what)(error)),
        }
    }

    async fn remove(&self, route: RouteMessage) -> Result<(), NetworkError> {
        match self.handle.route().del(route).execute().await {
            Err(error) if !has_code(&error, libc::ESRCH) => {
                Err(NetworkError::kernel("remove a route")(error))
            }
            _ => Ok(()),
        }
    }
}

fn pod_route(route: PodRoute, protocol: u8) -> RouteMessage {
    RouteMessageBuilder::<Ipv4Addr>::new()
        .destination_prefix(route.cidr.network(), route.cidr.prefix())
        .gateway(route.via)
        .protocol(RouteProtocol::from(protocol))
        .build()
}

fn unreachable(cidr: Ipv4Cidr, metric: u32) -> RouteMessage {
    RouteMessageBuilder::<Ipv4Addr>::new()
        .destination_prefix(cidr.network(), cidr.prefix())
        .kind(RouteType::Unreachable)
        .priority(metric)
        .build()
}
