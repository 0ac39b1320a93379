//! Turns the `hostPort`s of a pod into frontends of its node: the same data plane serves them as node ports.

use std::net::Ipv4Addr;

use k8s_openapi::api::core::v1::Pod;

use crate::services::{Backend, Frontend, Pool, Protocol, Selection, ServiceRules, number};

/// Plans the frontends of a pod on its node. A pod on the node's own network has its ports there already; one that has
/// ended, or has no address yet, has none.
pub fn plan(pod: &Pod) -> ServiceRules {
    let mut rules = ServiceRules::new();
    let (Some(spec), Some(status)) = (&pod.spec, &pod.status) else { return rules };
    let ended = matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"));
    let address = status.pod_ip.as_deref().and_then(|ip| ip.parse::<Ipv4Addr>().ok());
    let Some(address) = address.filter(|_| !ended && spec.host_network != Some(true)) else { return rules };
    for port in spec.containers.iter().flat_map(|container| container.ports.iter().flatten()) {
        let asked = (port.host_port.and_then(number), number(port.container_port));
        let (Some(host), Some(inside)) = asked else { continue };
        let Some(protocol) = Protocol::parse(port.protocol.as_deref()) else { continue };
        // Without an address of its own it is open on all of the node's.
        let on = port.host_ip.as_deref().and_then(|ip| ip.parse().ok()).unwrap_or(Ipv4Addr::UNSPECIFIED);
        let backends = vec![Backend { address, port: inside }];
        let pool = Pool { backends, selection: Selection::Random, masquerade: false };
        rules.insert(Frontend { address: on, protocol, port: host }, pool);
    }
    rules
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(spec: &str, status: &str, expected: &[&str]) {
        let pod: Pod = serde_json::from_str(&format!(r#"{{"spec":{spec},"status":{status}}}"#)).unwrap();
        let shown: Vec<String> = plan(&pod)
            .iter()
            .map(|(frontend, pool)| {
                let backend = pool.backends[0];
                format!("{}:{} -> {}:{}", frontend.address, frontend.port, backend.address, backend.port)
            })
            .collect();
        assert_eq!(shown, expected);
    }

    const PORTS: &str =
        r#""containers":[{"name":"c","ports":[{"containerPort":80,"hostPort":8080},{"containerPort":81}]}]"#;
    const RUNNING: &str = r#"{"phase":"Running","podIP":"10.244.0.2"}"#;

    #[test]
    fn a_host_port_leads_to_its_pod() {
        check(&format!("{{{PORTS}}}"), RUNNING, &["0.0.0.0:8080 -> 10.244.0.2:80"]);
        let one = r#"{"containers":[{"name":"c","ports":[{"containerPort":80,"hostPort":80,"hostIP":"10.89.0.11"}]}]}"#;
        check(one, RUNNING, &["10.89.0.11:80 -> 10.244.0.2:80"]);
    }

    #[test]
    fn none_for_who_has_no_address_or_needs_none() {
        check(&format!("{{{PORTS}}}"), r#"{"phase":"Pending"}"#, &[]);
        check(&format!("{{{PORTS}}}"), r#"{"phase":"Failed","podIP":"10.244.0.2"}"#, &[]);
        check(&format!(r#"{{"hostNetwork":true,{PORTS}}}"#), RUNNING, &[]);
    }
}
