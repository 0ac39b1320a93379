//! The endpoints behind a service, as the server itself reaches them.

use std::net::IpAddr;

use serde_json::Value;
use store_core::Snapshot;

use crate::ask::Endpoint;
use crate::object::{self, items};
use crate::{keys, scan};

/// An address that the server may connect to, or have a node connect to: neither itself by the loopback, nor what is on a
/// link only.
pub(crate) fn allowed(address: &str) -> Option<IpAddr> {
    let usable = |ip: &IpAddr| match ip {
        IpAddr::V4(ip) => {
            !(ip.is_loopback()
                || ip.is_link_local()
                || ip.is_multicast()
                || ip.is_broadcast()
                || ip.is_unspecified())
        }
        IpAddr::V6(ip) => {
            !(ip.is_loopback()
                || ip.is_unicast_link_local()
                || ip.is_multicast()
                || ip.is_unspecified()
                || ip.to_ipv4_mapped().is_some())
        }
    };
    address.parse().ok().filter(usable)
}

pub(crate) fn as_port(port: Option<u64>) -> Option<u16> {
    port.and_then(|port| u16::try_from(port).ok()).filter(|port| *port > 0)
}

/// The name of a service's port of that number; empty for a port without one.
pub(crate) fn port_name(service: &Value, number: u64) -> Option<&str> {
    let port = items(&service["spec"]["ports"]).iter().find(|port| port["port"].as_u64() == Some(number))?;
    Some(port["name"].as_str().unwrap_or_default())
}

/// The ready endpoints of a service's port.
///
/// An endpoint that names a pod counts only when the pod has its address: it is reached through the pod's node, and who may write
/// EndpointSlices may not choose where in a node's network the server connects to.
pub(crate) fn of_service(snapshot: &Snapshot, namespace: &str, name: &str, port: &str) -> Vec<Endpoint> {
    let prefix = keys::namespace_prefix("discovery.k8s.io", "endpointslices", namespace);
    let mut found = Vec::new();
    for (_, entry) in snapshot.prefix(prefix.as_bytes()) {
        let label = scan::text(&entry.value, &["metadata", "labels", "kubernetes.io/service-name"]);
        if label.as_deref() != Some(name) {
            continue;
        }
        let Some(slice) = object::parse(&entry.value) else { continue };
        let wanted = |it: &&Value| it["name"].as_str().unwrap_or_default() == port;
        let number = items(&slice["ports"]).iter().find(wanted).and_then(|it| as_port(it["port"].as_u64()));
        let Some(port) = number else { continue };
        let ready = items(&slice["endpoints"]).iter().filter(|it| it["conditions"]["ready"] != false);
        found.extend(ready.filter_map(|endpoint| {
            let (node, ip) = reached(snapshot, namespace, endpoint)?;
            Some(Endpoint { node, ip, port })
        }));
    }
    found
}

/// The address of an endpoint, and the node through which it is reached if it is a pod.
fn reached(snapshot: &Snapshot, namespace: &str, endpoint: &Value) -> Option<(Option<String>, IpAddr)> {
    let target = &endpoint["targetRef"];
    let address = endpoint["addresses"][0].as_str()?;
    if !target.is_object() {
        return Some((None, allowed(address)?));
    }
    if target["kind"] != "Pod" || target["namespace"].as_str().is_some_and(|it| it != namespace) {
        return None;
    }
    let key = keys::object("", "pods", namespace, target["name"].as_str()?);
    let pod = object::parse(&snapshot.get(&key)?.value)?;
    let own = pod["status"]["podIP"] == address
        || items(&pod["status"]["podIPs"]).iter().any(|ip| ip["ip"] == address);
    let node = pod["spec"]["nodeName"].as_str().filter(|node| own && !node.is_empty())?;
    Some((Some(node.to_owned()), allowed(address)?))
}
