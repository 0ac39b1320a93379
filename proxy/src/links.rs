//! The device that claims the service addresses on a node, and answers for the cluster's DNS.
//!
//! A connection from the node itself is routed before it is translated, so the service network needs a route; without one
//! it would leave by the default route.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use futures::TryStreamExt;
use rtnetlink::{Handle, LinkBridge, LinkUnspec, RouteMessageBuilder};

use crate::netns;
use crate::nftables::Network;

/// Name of the device: a bridge without ports, because every host that runs pods can make one.
const DEVICE: &str = "orlop-services";

/// Opens route netlink inside the namespace at `path`. The connection runs until the handle is dropped.
pub fn open(path: Option<&Path>) -> io::Result<Handle> {
    let runtime = tokio::runtime::Handle::current();
    let (connection, handle, _) = netns::within(path, move || {
        let _entered = runtime.enter();
        rtnetlink::new_connection()
    })?;
    tokio::spawn(connection);
    Ok(handle)
}

/// Makes the device with the address `dns` and leads `services` to it; connections of the node itself come from `node`.
pub async fn claim(
    handle: &Handle,
    services: Network,
    dns: Ipv4Addr,
    node: Option<Ipv4Addr>,
) -> Result<(), rtnetlink::Error> {
    let index = match index(handle).await? {
        Some(index) => index,
        None => {
            handle.link().add(LinkBridge::new(DEVICE).build()).execute().await?;
            index(handle).await?.unwrap_or_default()
        }
    };
    handle.link().set(LinkUnspec::new_with_index(index).up().build()).execute().await?;
    handle.address().add(index, IpAddr::V4(dns), 32).replace().execute().await?;
    let mut route = RouteMessageBuilder::<Ipv4Addr>::new()
        .destination_prefix(services.address, services.prefix)
        .output_interface(index);
    if let Some(node) = node {
        route = route.pref_source(node);
    }
    handle.route().add(route.build()).replace().execute().await
}

/// Removes the device with its routes.
pub async fn release(handle: &Handle) -> Result<(), rtnetlink::Error> {
    match index(handle).await? {
        Some(index) => handle.link().del(index).execute().await,
        None => Ok(()),
    }
}

async fn index(handle: &Handle) -> Result<Option<u32>, rtnetlink::Error> {
    let mut found = handle.link().get().match_name(DEVICE.to_owned()).execute();
    match found.try_next().await {
        Ok(link) => Ok(link.map(|link| link.header.index)),
        Err(rtnetlink::Error::NetlinkError(message)) if message.raw_code() == -libc::ENODEV => Ok(None),
        Err(error) => Err(error),
    }
}
