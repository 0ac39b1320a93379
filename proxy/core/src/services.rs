//! Turns a Service and its EndpointSlices into what the data plane needs: frontends and the backends behind each.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use k8s_openapi::api::core::v1::{Service, ServicePort};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};

/// Transport of a frontend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Protocol {
    /// Its number in IP headers.
    pub fn number(self) -> u8 {
        match self {
            Protocol::Tcp => 6,
            Protocol::Udp => 17,
            Protocol::Sctp => 132,
        }
    }

    pub(crate) fn parse(name: Option<&str>) -> Option<Protocol> {
        match name.unwrap_or("TCP") {
            "TCP" => Some(Protocol::Tcp),
            "UDP" => Some(Protocol::Udp),
            "SCTP" => Some(Protocol::Sctp),
            _ => None,
        }
    }
}

/// Where clients connect to. A node port has the address 0.0.0.0: every address of the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Frontend {
    /// Service IP, external IP, or 0.0.0.0.
    pub address: Ipv4Addr,
    /// Transport.
    pub protocol: Protocol,
    /// Port in host byte order.
    pub port: u16,
}

/// Where connections go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Backend {
    /// A pod's address.
    pub address: Ipv4Addr,
    /// Port in host byte order.
    pub port: u16,
}

/// How a connection finds its backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Selection {
    /// Each connection anew.
    Random,
    /// By a hash of the client's address (`sessionAffinity: ClientIP`): the same client reaches the same backend for as
    /// long as the backends stay the same.
    ClientHash,
}

/// The backends of one frontend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    /// Each once. Empty: connections are refused.
    pub backends: Vec<Backend>,
    /// How a connection finds its backend.
    pub selection: Selection,
    /// The backend sees the node's address, so that its answers come back through the node that translated.
    pub masquerade: bool,
}

/// All frontends of one Service on one node.
pub type ServiceRules = BTreeMap<Frontend, Pool>;

/// Plans the frontends of a Service on the node `node_name`.
///
/// Follows <https://kubernetes.io/docs/reference/networking/virtual-ips/>: ready endpoints serve; when there is none,
/// serving endpoints that terminate do. Policies `Local` keep to endpoints of the own node.
pub fn plan<'a>(
    service: &Service,
    slices: impl Iterator<Item = &'a EndpointSlice> + Clone,
    node_name: &str,
) -> ServiceRules {
    let mut rules = ServiceRules::new();
    let Some(spec) = &service.spec else { return rules };
    if spec.type_.as_deref() == Some("ExternalName") {
        return rules;
    }
    let selection = match spec.session_affinity.as_deref() {
        Some("ClientIP") => Selection::ClientHash,
        _ => Selection::Random,
    };
    let internal_local = spec.internal_traffic_policy.as_deref() == Some("Local");
    let external_local = spec.external_traffic_policy.as_deref() == Some("Local");
    let inner: BTreeSet<Ipv4Addr> = addresses(spec.cluster_ips.iter().flatten().chain(&spec.cluster_ip));
    let outer: BTreeSet<Ipv4Addr> =
        addresses(spec.external_ips.iter().flatten().chain(&ingress_addresses(service)));
    for port in spec.ports.iter().flatten() {
        let (Some(protocol), Some(number)) = (Protocol::parse(port.protocol.as_deref()), number(port.port))
        else {
            continue;
        };
        let pool = |local: bool, masquerade: bool| {
            let backends = backends(port, slices.clone(), local.then_some(node_name));
            Pool { backends, selection, masquerade }
        };
        for address in &inner {
            rules.insert(Frontend { address: *address, protocol, port: number }, pool(internal_local, false));
        }
        for address in &outer {
            rules.insert(
                Frontend { address: *address, protocol, port: number },
                pool(external_local, !external_local),
            );
        }
        if let Some(node_port) = port.node_port.and_then(self::number) {
            let frontend = Frontend { address: Ipv4Addr::UNSPECIFIED, protocol, port: node_port };
            rules.insert(frontend, pool(external_local, !external_local));
        }
    }
    rules
}

fn addresses<'a>(texts: impl Iterator<Item = &'a String>) -> BTreeSet<Ipv4Addr> {
    // "None", "" and IPv6 addresses are not addresses of this data plane.
    texts.filter_map(|text| text.parse().ok()).collect()
}

fn ingress_addresses(service: &Service) -> Vec<String> {
    let status = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    let ingress = status.and_then(|balancer| balancer.ingress.as_ref());
    ingress.into_iter().flatten().filter_map(|one| one.ip.clone()).collect()
}

pub(crate) fn number(port: i32) -> Option<u16> {
    u16::try_from(port).ok().filter(|port| *port > 0)
}

fn backends<'a>(
    port: &ServicePort,
    slices: impl Iterator<Item = &'a EndpointSlice> + Clone,
    only_node: Option<&str>,
) -> Vec<Backend> {
    let chosen = |wanted: fn(&Endpoint) -> bool| -> BTreeSet<Backend> {
        let mut found = BTreeSet::new();
        for slice in slices.clone().filter(|slice| slice.address_type == "IPv4") {
            let Some(number) = target_port(port, slice) else { continue };
            let endpoints = slice.endpoints.iter().flatten().filter(|endpoint| wanted(endpoint));
            let endpoints = endpoints
                .filter(|endpoint| only_node.is_none_or(|node| endpoint.node_name.as_deref() == Some(node)));
            let addresses = endpoints.flat_map(|endpoint| &endpoint.addresses);
            found.extend(
                addresses.filter_map(|text| Some(Backend { address: text.parse().ok()?, port: number })),
            );
        }
        found
    };
    let ready = chosen(is_ready);
    let chosen = if ready.is_empty() { chosen(is_serving_while_terminating) } else { ready };
    chosen.into_iter().collect()
}

fn target_port(port: &ServicePort, slice: &EndpointSlice) -> Option<u16> {
    let wanted = port.name.as_deref().unwrap_or_default();
    let ports = slice.ports.iter().flatten();
    let found =
        ports.filter(|one| one.name.as_deref().unwrap_or_default() == wanted).find_map(|one| one.port);
    found.and_then(number)
}

fn is_ready(endpoint: &Endpoint) -> bool {
    // An unset `ready` is to be read as true.
    endpoint.conditions.as_ref().and_then(|conditions| conditions.ready).unwrap_or(true)
}

fn is_serving_while_terminating(endpoint: &Endpoint) -> bool {
    let Some(conditions) = &endpoint.conditions else { return false };
    conditions.serving.unwrap_or(false) && conditions.terminating.unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(spec: &str) -> Service {
        serde_json::from_str(&format!(
            r#"{{"metadata":{{"name":"web","namespace":"default"}},"spec":{spec}}}"#
        ))
        .unwrap()
    }

    /// `address node condition`, one a line; condition is ready, unready, serving (terminating) or gone.
    fn slice(text: &str) -> EndpointSlice {
        let endpoints: Vec<String> = text
            .lines()
            .map(|line| {
                let words: Vec<&str> = line.split_whitespace().collect();
                let (ready, serving, terminating) = match words[2] {
                    "ready" => (true, true, false),
                    "unready" => (false, false, false),
                    "serving" => (false, true, true),
                    _ => (false, false, true),
                };
                format!(
                    r#"{{"addresses":["{}"],"nodeName":"{}","conditions":{{"ready":{ready},"serving":{serving},"terminating":{terminating}}}}}"#,
                    words[0], words[1]
                )
            })
            .collect();
        let text = format!(
            r#"{{"metadata":{{"name":"web-1"}},"addressType":"IPv4","ports":[{{"name":"http","port":8080,"protocol":"TCP"}}],"endpoints":[{}]}}"#,
            endpoints.join(",")
        );
        serde_json::from_str(&text).unwrap()
    }

    fn check(spec: &str, endpoints: &str, expected: &[&str]) {
        let slices = [slice(endpoints)];
        let rules = plan(&service(spec), slices.iter(), "a");
        let shown: Vec<String> = rules
            .iter()
            .map(|(frontend, pool)| {
                let backends: Vec<String> =
                    pool.backends.iter().map(|one| format!("{}:{}", one.address, one.port)).collect();
                let masquerade = if pool.masquerade { " masquerade" } else { "" };
                let hash = if pool.selection == Selection::ClientHash { " hash" } else { "" };
                format!("{}:{} -> {}{masquerade}{hash}", frontend.address, frontend.port, backends.join(","))
            })
            .collect();
        assert_eq!(shown, expected);
    }

    const PORTS: &str = r#""clusterIP":"10.96.0.7","ports":[{"name":"http","port":80,"protocol":"TCP"}]"#;

    #[test]
    fn ready_endpoints_serve() {
        let endpoints = "10.244.0.3 b ready\n10.244.0.2 a ready\n10.244.0.4 a unready\n10.244.0.5 a serving";
        check(&format!("{{{PORTS}}}"), endpoints, &["10.96.0.7:80 -> 10.244.0.2:8080,10.244.0.3:8080"]);
    }

    #[test]
    fn terminating_endpoints_serve_when_nothing_else_does() {
        let endpoints = "10.244.0.5 a serving\n10.244.0.6 a gone";
        check(&format!("{{{PORTS}}}"), endpoints, &["10.96.0.7:80 -> 10.244.0.5:8080"]);
    }

    #[test]
    fn no_endpoint_leaves_an_empty_pool() {
        check(&format!("{{{PORTS}}}"), "10.244.0.4 a unready", &["10.96.0.7:80 -> "]);
    }

    #[test]
    fn node_ports_masquerade_unless_traffic_is_local() {
        let endpoints = "10.244.0.2 a ready\n10.244.0.3 b ready";
        let ports = r#""clusterIP":"10.96.0.7","type":"NodePort","ports":[{"name":"http","port":80,"nodePort":30080}]"#;
        check(
            &format!("{{{ports}}}"),
            endpoints,
            &[
                "0.0.0.0:30080 -> 10.244.0.2:8080,10.244.0.3:8080 masquerade",
                "10.96.0.7:80 -> 10.244.0.2:8080,10.244.0.3:8080",
            ],
        );
        check(
            &format!(r#"{{{ports},"externalTrafficPolicy":"Local"}}"#),
            endpoints,
            &["0.0.0.0:30080 -> 10.244.0.2:8080", "10.96.0.7:80 -> 10.244.0.2:8080,10.244.0.3:8080"],
        );
    }

    #[test]
    fn affinity_and_local_policy() {
        let endpoints = "10.244.0.2 a ready\n10.244.0.3 b ready";
        let spec = format!(r#"{{{PORTS},"sessionAffinity":"ClientIP","internalTrafficPolicy":"Local"}}"#);
        check(&spec, endpoints, &["10.96.0.7:80 -> 10.244.0.2:8080 hash"]);
    }

    #[test]
    fn headless_and_external_names_have_no_frontend() {
        check(r#"{"clusterIP":"None","ports":[{"name":"http","port":80}]}"#, "10.244.0.2 a ready", &[]);
        check(r#"{"type":"ExternalName","externalName":"example.org"}"#, "", &[]);
    }
}
