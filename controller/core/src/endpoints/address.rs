//! What a pod contributes to a Service: addresses, conditions, ports.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::{ObjectReference, Pod, Service, ServicePort};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::object::{is_terminating, name, namespace};
use crate::pod::{is_ready, is_terminal, node_name};

/// The annotation with the moment of the change that a publication answers.
pub const TRIGGER_TIME: &str = "endpoints.kubernetes.io/last-change-trigger-time";
/// The label of publications of a Service without an address of its own.
pub const HEADLESS: &str = "service.kubernetes.io/headless";

/// A resolved port: name, number, protocol, application protocol.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Port {
    /// Name, empty for the only port.
    pub name: String,
    /// `TCP`, `UDP`, `SCTP`.
    pub protocol: String,
    /// The pod's port.
    pub number: i32,
    /// The protocol above.
    pub app_protocol: Option<String>,
}

/// Whether the Service has no address of its own.
pub fn is_headless(service: &Service) -> bool {
    service.spec.as_ref().and_then(|spec| spec.cluster_ip.as_deref()) == Some("None")
}

/// Whether pods are published before they are ready.
pub fn publishes_unready(service: &Service) -> bool {
    service.spec.as_ref().and_then(|spec| spec.publish_not_ready_addresses).unwrap_or(false)
}

/// Every address of the pod, the primary one first.
pub fn addresses(pod: &Pod) -> Vec<&str> {
    let Some(status) = pod.status.as_ref() else { return Vec::new() };
    let mut all: Vec<&str> = status.pod_ips.iter().flatten().map(|ip| ip.ip.as_str()).collect();
    if all.is_empty() {
        all.extend(status.pod_ip.as_deref());
    }
    all.retain(|ip| !ip.is_empty());
    all
}

/// The pod's address of a family (`IPv4`, `IPv6`).
pub fn address_of_family<'a>(pod: &'a Pod, family: &str) -> Option<&'a str> {
    addresses(pod).into_iter().find(|text| match text.parse::<IpAddr>() {
        Ok(IpAddr::V4(_)) => family == "IPv4",
        Ok(IpAddr::V6(_)) => family == "IPv6",
        Err(_) => false,
    })
}

/// The address families that the Service is published for.
pub fn families(service: &Service) -> Vec<String> {
    let spec = service.spec.as_ref();
    let listed = spec.and_then(|spec| spec.ip_families.clone()).unwrap_or_default();
    if !listed.is_empty() {
        return listed;
    }
    let address = spec.and_then(|spec| spec.cluster_ip.as_deref()).unwrap_or_default();
    vec![if address.contains(':') { "IPv6".into() } else { "IPv4".into() }]
}

/// Whether the pod is published at all: it has an address and has not ended.
pub fn is_published(pod: &Pod) -> bool {
    !is_terminal(pod) && !addresses(pod).is_empty()
}

/// The ports of the Service as this pod serves them. A named port that the pod does not have is left out.
pub fn ports(service: &Service, pod: &Pod) -> Vec<Port> {
    let declared = service.spec.as_ref().and_then(|spec| spec.ports.as_deref()).unwrap_or_default();
    let resolve = |port: &ServicePort| {
        Some(Port {
            name: port.name.clone().unwrap_or_default(),
            protocol: protocol(port).to_owned(),
            number: number(port, pod)?,
            app_protocol: port.app_protocol.clone(),
        })
    };
    declared.iter().filter_map(resolve).collect()
}

fn protocol(port: &ServicePort) -> &str {
    port.protocol.as_deref().unwrap_or("TCP")
}

fn number(port: &ServicePort, pod: &Pod) -> Option<i32> {
    match port.target_port.as_ref() {
        None => Some(port.port),
        Some(IntOrString::Int(0)) => Some(port.port),
        Some(IntOrString::Int(number)) => Some(*number),
        Some(IntOrString::String(wanted)) => {
            let spec = pod.spec.as_ref()?;
            let sidecars = spec
                .init_containers
                .iter()
                .flatten()
                .filter(|container| container.restart_policy.as_deref() == Some("Always"));
            let containers = spec.containers.iter().chain(sidecars);
            containers
                .flat_map(|container| container.ports.iter().flatten())
                .find(|each| {
                    each.name.as_deref() == Some(wanted)
                        && each.protocol.as_deref().unwrap_or("TCP") == protocol(port)
                })
                .map(|each| each.container_port)
        }
    }
}

/// The reference from an address to its pod.
pub fn target_ref(pod: &Pod) -> ObjectReference {
    ObjectReference {
        kind: Some("Pod".into()),
        namespace: pod.metadata.namespace.clone(),
        name: pod.metadata.name.clone(),
        uid: pod.metadata.uid.clone(),
        ..ObjectReference::default()
    }
}

/// The hostname by which DNS knows the pod within the Service.
pub fn hostname(pod: &Pod, service: &Service) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    let wanted = spec.hostname.as_deref().filter(|hostname| !hostname.is_empty())?;
    let within = spec.subdomain.as_deref() == Some(name(service)) && namespace(pod) == namespace(service);
    within.then(|| wanted.to_owned())
}

/// Whether a change of a pod can change what is published of it.
pub fn is_relevant_change(old: &Pod, new: &Pod) -> bool {
    is_ready(old) != is_ready(new)
        || is_terminating(old) != is_terminating(new)
        || is_terminal(old) != is_terminal(new)
        || node_name(old) != node_name(new)
        || addresses(old) != addresses(new)
        || old.metadata.labels != new.metadata.labels
        || old.metadata.uid != new.metadata.uid
        || {
            let names =
                |pod: &Pod| pod.spec.as_ref().map(|spec| (spec.hostname.clone(), spec.subdomain.clone()));
            names(old) != names(new)
        }
}
