//! Waits until no proxy sends requests to a pod that is going.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use client::Scope;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{self as core, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use nodeagent_core::pod;

use crate::hands::Node;

/// Annotation of a node's Lease: the revision of Services and EndpointSlices that its proxy has put into effect.
const OBSERVED: &str = "orlop.dev/proxy-observed";
const PACE: Duration = Duration::from_millis(25);

/// Returns when the proxies of all ready nodes have passed the pod's removal, or at once when no service selects it.
/// The machine does not wait for it longer than its drain time.
pub(crate) async fn wait(node: &Arc<Node>, of: &Pod) {
    if !has_service(node, of) {
        return;
    }
    let limit = node.config.drain;
    // Whoever has not let go by then is not waited for.
    let _ = tokio::time::timeout(limit, async {
        while !is_drained(node, of) {
            tokio::time::sleep(PACE).await;
        }
    })
    .await;
}

fn has_service(node: &Node, of: &Pod) -> bool {
    let none = BTreeMap::new();
    let labels = of.metadata.labels.as_ref().unwrap_or(&none);
    let store = node.informers.get::<Service>(Scope::all()).store();
    store.in_namespace(pod::namespace(of)).any(|service| {
        let selector = service.spec.as_ref().and_then(|spec| spec.selector.as_ref());
        selector.is_some_and(|selector| {
            !selector.is_empty() && selector.iter().all(|(key, value)| labels.get(key) == Some(value))
        })
    })
}

fn is_drained(node: &Node, of: &Pod) -> bool {
    let slices = node.informers.get::<EndpointSlice>(Scope::all());
    let leases = node.informers.get::<Lease>(Scope::namespace("kube-node-lease"));
    let nodes = node.informers.get::<core::Node>(Scope::all());
    if !(slices.is_synced() && leases.is_synced() && nodes.is_synced()) {
        return false;
    }
    let mut revision = 0;
    for slice in slices.store().in_namespace(pod::namespace(of)) {
        let mine = slice.endpoints.iter().flatten().any(|endpoint| {
            let same = endpoint.target_ref.as_ref().and_then(|it| it.uid.as_deref()) == Some(pod::uid(of));
            let ready = endpoint.conditions.as_ref().and_then(|it| it.ready).unwrap_or(true);
            same && ready
        });
        if mine {
            return false;
        }
        let at = slice.metadata.resource_version.as_deref().and_then(|it| it.parse::<u64>().ok());
        revision = revision.max(at.unwrap_or(0));
    }
    let leases = leases.store();
    nodes.store().iter().filter(|it| is_ready(it)).all(|it| {
        let name = it.metadata.name.as_deref().unwrap_or_default();
        let seen = leases
            .find("kube-node-lease", name)
            .and_then(|lease| lease.metadata.annotations.as_ref()?.get(OBSERVED)?.parse::<u64>().ok());
        // A node without a proxy does not hold anybody up.
        seen.is_none_or(|seen| seen >= revision)
    })
}

fn is_ready(node: &core::Node) -> bool {
    let conditions = node.status.iter().flat_map(|it| it.conditions.iter().flatten());
    conditions.into_iter().any(|it| it.type_ == "Ready" && it.status == "True")
}
