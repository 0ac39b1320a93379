//! Prints services and what is behind them.

use jiff::Timestamp;
use serde_json::Value;

use super::{AGE, NAME, Printer, cell, text, wide};

pub const SERVICE: Printer = Printer {
    columns: &[
        NAME,
        text("Type"),
        text("Cluster-IP"),
        text("External-IP"),
        text("Port(s)"),
        AGE,
        wide("Selector"),
    ],
    cells: service,
};

pub const ENDPOINTS: Printer = Printer { columns: &[NAME, text("Endpoints"), AGE], cells: endpoints };

pub const ENDPOINT_SLICE: Printer = Printer {
    columns: &[NAME, text("AddressType"), text("Ports"), text("Endpoints"), AGE],
    cells: endpoint_slice,
};

/// So many endpoints are shown; the others are counted.
const SHOWN_MAX: usize = 3;

fn service(object: &Value, now: Timestamp) -> Vec<Value> {
    let spec = &object["spec"];
    let cluster_ip = cell::list(&spec["clusterIPs"]).first().map_or(cell::str(&spec["clusterIP"]), cell::str);
    vec![
        cell::name(object),
        cell::str(&spec["type"]).into(),
        cell::or_none(cluster_ip),
        external(object).into(),
        service_ports(&spec["ports"]).into(),
        cell::age(object, now),
        cell::pairs(&spec["selector"]),
    ]
}

fn external(object: &Value) -> String {
    let spec = &object["spec"];
    let given = cell::joined(cell::list(&spec["externalIPs"]).iter().map(cell::str));
    let or = |text: String, other: &str| if text.is_empty() { other.to_owned() } else { text };
    match cell::str(&spec["type"]) {
        "ExternalName" => cell::str(&spec["externalName"]).to_owned(),
        "LoadBalancer" => {
            let ingress = cell::list(&object["status"]["loadBalancer"]["ingress"]).iter();
            let balancer =
                cell::joined(ingress.map(|one| one["ip"].as_str().unwrap_or(cell::str(&one["hostname"]))));
            match (balancer.is_empty(), given.is_empty()) {
                (false, false) => format!("{balancer},{given}"),
                (false, true) => balancer,
                _ => or(given, "<pending>"),
            }
        }
        _ => or(given, "<none>"),
    }
}

fn service_ports(ports: &Value) -> String {
    let shown = cell::list(ports).iter().map(|port| {
        let protocol = port["protocol"].as_str().unwrap_or("TCP");
        match port["nodePort"].as_i64().unwrap_or(0) {
            0 => format!("{}/{protocol}", port["port"]),
            node_port => format!("{}:{node_port}/{protocol}", port["port"]),
        }
    });
    let shown = shown.collect::<Vec<_>>().join(",");
    if shown.is_empty() { "<none>".to_owned() } else { shown }
}

/// The first few, and how many more there are.
fn shortened(all: &[String], none: &str) -> Value {
    let shown = all.iter().take(SHOWN_MAX).cloned().collect::<Vec<_>>().join(",");
    match all.len() {
        0 => none.into(),
        count if count > SHOWN_MAX => format!("{shown} + {} more...", count - SHOWN_MAX).into(),
        _ => shown.into(),
    }
}

fn endpoints(object: &Value, now: Timestamp) -> Vec<Value> {
    let mut all = Vec::new();
    for subset in cell::list(&object["subsets"]) {
        let addresses = cell::list(&subset["addresses"]).iter().map(|address| cell::str(&address["ip"]));
        let ports = cell::list(&subset["ports"]);
        for address in addresses {
            if ports.is_empty() {
                all.push(address.to_owned());
            }
            all.extend(ports.iter().map(|port| format!("{address}:{}", port["port"])));
        }
    }
    vec![cell::name(object), shortened(&all, "<none>"), cell::age(object, now)]
}

fn endpoint_slice(object: &Value, now: Timestamp) -> Vec<Value> {
    let ports: Vec<String> =
        cell::list(&object["ports"]).iter().map(|port| port["port"].to_string()).collect();
    let addresses =
        cell::list(&object["endpoints"]).iter().flat_map(|endpoint| cell::list(&endpoint["addresses"]));
    let addresses: Vec<String> = addresses.map(|address| cell::str(address).to_owned()).collect();
    vec![
        cell::name(object),
        cell::str(&object["addressType"]).into(),
        shortened(&ports, "<unset>"),
        shortened(&addresses, "<unset>"),
        cell::age(object, now),
    ]
}
