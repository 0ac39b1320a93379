//! The Endpoints object of a Service.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{EndpointAddress, EndpointPort, EndpointSubset, Endpoints, Pod, Service};
use serde_json::json;

use super::LegacyView;
use super::address::{
    HEADLESS, Port, address_of_family, families, hostname, is_headless, is_published, ports,
    publishes_unready, target_ref,
};
use crate::merge::{diff, to_json};
use crate::object::{is_terminating, name, namespace};
use crate::plan::{EventNote, Plan, Report, Subject, create, merge_exact};
use crate::pod::{is_ready, node_name};

/// The most addresses that one object holds.
const CAPACITY: usize = 1000;
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";
const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";

/// Plans the Endpoints of a Service.
pub fn plan(view: &LegacyView) -> (Plan, Report) {
    let service = view.service;
    let mut plan = Plan::default();
    if is_terminating(service) {
        return (plan, Report::default());
    }
    let (subsets, truncated) = truncate(subsets(service, &view.pods));
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.remove(HEADLESS);
    if is_headless(service) {
        labels.insert(HEADLESS.into(), String::new());
    }
    labels.insert(MANAGED_BY.into(), "endpoint-controller".into());
    let subsets = Some(subsets).filter(|subsets| !subsets.is_empty());
    let Some(current) = view.endpoints.as_deref() else {
        let mut annotations = BTreeMap::new();
        if truncated {
            annotations.insert(OVER_CAPACITY, "truncated");
        }
        let document = json!({
            "metadata": {
                "name": name(service),
                "namespace": namespace(service),
                "labels": labels,
                "annotations": annotations,
            },
            "subsets": to_json(&subsets),
        });
        let subject = Subject::of(service);
        let message =
            format!("Failed to create endpoint for service {}/{}: ", namespace(service), name(service));
        let failed = EventNote::warning(&subject, "FailedToCreateEndpoint", message);
        plan.one(create::<Endpoints>(Some(namespace(service)), document).otherwise(failed));
        return (plan, Report::default());
    };
    let mut next = current.clone();
    next.subsets = subsets;
    next.metadata.labels = Some(labels);
    if truncated {
        next.metadata.annotations.get_or_insert_default().insert(OVER_CAPACITY.into(), "truncated".into());
    } else if let Some(annotations) = &mut next.metadata.annotations {
        annotations.remove(OVER_CAPACITY);
    }
    if next != *current
        && let Some(body) = diff(&to_json(current), &to_json(&next))
    {
        plan.one(merge_exact::<Endpoints>(&current.metadata, None, body));
    }
    (plan, Report::default())
}

/// Addresses by themselves and their pod.
type Addresses = BTreeMap<String, EndpointAddress>;

/// Addresses grouped by the ports they serve, all in a fixed order.
fn subsets(service: &Service, pods: &[std::sync::Arc<Pod>]) -> Vec<EndpointSubset> {
    let unready_too = publishes_unready(service);
    let family = families(service).into_iter().next().unwrap_or_else(|| "IPv4".into());
    let mut by_ports: BTreeMap<Vec<Port>, (Addresses, Addresses)> = BTreeMap::new();
    for pod in pods.iter().filter(|pod| is_published(pod) && (unready_too || !is_terminating(&***pod))) {
        let Some(ip) = address_of_family(pod, &family) else { continue };
        let mut served = ports(service, pod);
        served.sort();
        if served.is_empty() && !(is_headless(service) && has_no_ports(service)) {
            continue;
        }
        let address = EndpointAddress {
            ip: ip.to_owned(),
            hostname: hostname(pod, service),
            node_name: node_name(pod).map(str::to_owned),
            target_ref: Some(target_ref(pod)),
        };
        let (ready, unready) = by_ports.entry(served).or_default();
        let group = if unready_too || is_ready(pod) { ready } else { unready };
        group.insert(format!("{ip}/{}", name(&**pod)), address);
    }
    let list = |addresses: BTreeMap<String, EndpointAddress>| {
        Some(addresses.into_values().collect::<Vec<_>>()).filter(|list| !list.is_empty())
    };
    by_ports
        .into_iter()
        .map(|(served, (ready, unready))| EndpointSubset {
            addresses: list(ready),
            not_ready_addresses: list(unready),
            ports: Some(served.into_iter().map(endpoint_port).collect::<Vec<_>>())
                .filter(|list| !list.is_empty()),
        })
        .collect()
}

fn has_no_ports(service: &Service) -> bool {
    service.spec.as_ref().and_then(|spec| spec.ports.as_ref()).is_none_or(Vec::is_empty)
}

fn endpoint_port(port: Port) -> EndpointPort {
    EndpointPort {
        name: Some(port.name).filter(|name| !name.is_empty()),
        port: port.number,
        protocol: Some(port.protocol),
        app_protocol: port.app_protocol,
    }
}

/// Keeps at most the capacity, ready addresses before others.
fn truncate(mut subsets: Vec<EndpointSubset>) -> (Vec<EndpointSubset>, bool) {
    let count = |list: &Option<Vec<EndpointAddress>>| list.as_ref().map_or(0, Vec::len);
    let total: usize =
        subsets.iter().map(|subset| count(&subset.addresses) + count(&subset.not_ready_addresses)).sum();
    if total <= CAPACITY {
        return (subsets, false);
    }
    let mut room = CAPACITY;
    let mut cut = |list: &mut Option<Vec<EndpointAddress>>| {
        if let Some(addresses) = list {
            addresses.truncate(room);
            room -= addresses.len();
        }
        *list = list.take().filter(|list| !list.is_empty());
    };
    subsets.iter_mut().for_each(|subset| cut(&mut subset.addresses));
    subsets.iter_mut().for_each(|subset| cut(&mut subset.not_ready_addresses));
    subsets.retain(|subset| subset.addresses.is_some() || subset.not_ready_addresses.is_some());
    (subsets, true)
}

/// Whether the object was made here.
pub fn is_ours(endpoints: &Endpoints) -> bool {
    crate::object::label(&endpoints.metadata, MANAGED_BY) == Some("endpoint-controller")
}
