//! Keeps a node's pod network in step with the Node objects: its own range, and the ways to the others'.

use std::sync::Arc;

use client::Informer;
use client_core::object::Object;
use k8s_openapi::api::core::v1::Node;
use nodeagent::embedded::EmbeddedRuntime;
use nodeagent::network::{Ipv4Cidr, PodRoute};
use tracing::warn;

/// Follows the Nodes until the cache ends.
pub async fn follow(own: String, nodes: Informer<Node>, runtime: Arc<EmbeddedRuntime>) {
    let mut changes = nodes.subscribe();
    let mut applied = (None, Vec::new());
    while changes.next().await.is_some() {
        while changes.try_next().is_some() {}
        let wanted = plan(&own, nodes.store().iter().map(AsRef::as_ref));
        if wanted == applied {
            continue;
        }
        if let Some(range) = wanted.0
            && let Err(error) = runtime.set_pod_cidr(range).await
        {
            warn!(%error, "the pod network was not made");
            continue;
        }
        match runtime.set_routes(&wanted.1).await {
            Ok(()) => applied = wanted,
            Err(error) => warn!(%error, "the routes to other nodes' pods were not set"),
        }
    }
}

/// The node's own range, and a route to each other node's.
fn plan<'a>(own: &str, nodes: impl Iterator<Item = &'a Node>) -> (Option<Ipv4Cidr>, Vec<PodRoute>) {
    let mut range = None;
    let mut routes = Vec::new();
    for node in nodes {
        let cidr =
            node.spec.as_ref().and_then(|spec| spec.pod_cidr.as_ref()).and_then(|text| text.parse().ok());
        let Some(cidr) = cidr else { continue };
        if node.name() == own {
            range = Some(cidr);
        } else if let Some(via) = address(node) {
            routes.push(PodRoute { cidr, via });
        }
    }
    (range, routes)
}

fn address(node: &Node) -> Option<std::net::Ipv4Addr> {
    let addresses = node.status.as_ref()?.addresses.as_ref()?;
    addresses.iter().find(|address| address.type_ == "InternalIP")?.address.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, cidr: &str, address: &str) -> Node {
        let text = format!(
            r#"{{"metadata":{{"name":"{name}"}},"spec":{{"podCIDR":"{cidr}"}},"status":{{"addresses":[{{"type":"InternalIP","address":"{address}"}}]}}}}"#
        );
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn other_nodes_are_reached_by_their_addresses() {
        let nodes = [
            node("a", "10.244.0.0/24", "10.89.0.11"),
            node("b", "10.244.1.0/24", "10.89.0.12"),
            Node::default(),
        ];
        let (own, routes) = plan("a", nodes.iter());
        assert_eq!(own, "10.244.0.0/24".parse().ok());
        let route = PodRoute { cidr: "10.244.1.0/24".parse().unwrap(), via: "10.89.0.12".parse().unwrap() };
        assert_eq!(routes, [route]);
    }
}
