//! A service.

use serde_json::Value;

use super::text::{Text, number, pairs, plain};
use crate::verbs::session::text_at;

/// So many endpoints are named.
const SHOWN: usize = 3;

/// Writes a service; `slices` are its endpoint slices.
pub fn write(text: &mut Text, service: &Value, slices: &[Value]) {
    text.head(service);
    text.pairs(0, "Labels", service.pointer("/metadata/labels"));
    text.annotations(0, service.pointer("/metadata/annotations"));
    text.field_or_none(0, "Selector", &pairs(service.pointer("/spec/selector"), "=").join(","));
    text.field(0, "Type", text_at(service, "/spec/type"));
    let words = |pointer: &str| {
        let list = service.pointer(pointer).and_then(Value::as_array);
        let words: Vec<String> = list.into_iter().flatten().map(plain).collect();
        words.join(",")
    };
    if let policy @ [_, ..] = text_at(service, "/spec/ipFamilyPolicy").as_bytes() {
        text.field(0, "IP Family Policy", String::from_utf8_lossy(policy));
    }
    text.field_or_none(0, "IP Families", &words("/spec/ipFamilies"));
    text.field(0, "IP", text_at(service, "/spec/clusterIP"));
    text.field_or_none(0, "IPs", &words("/spec/clusterIPs"));
    for (title, pointer) in
        [("External Name", "/spec/externalName"), ("Desired LoadBalancer IP", "/spec/loadBalancerIP")]
    {
        if let value @ [_, ..] = text_at(service, pointer).as_bytes() {
            text.field(0, title, String::from_utf8_lossy(value));
        }
    }
    for port in service.pointer("/spec/ports").and_then(Value::as_array).into_iter().flatten() {
        port_lines(text, port, slices);
    }
    text.field(0, "Session Affinity", text_at(service, "/spec/sessionAffinity"));
    if let policy @ [_, ..] = text_at(service, "/spec/externalTrafficPolicy").as_bytes() {
        text.field(0, "External Traffic Policy", String::from_utf8_lossy(policy));
    }
    if let policy @ [_, ..] = text_at(service, "/spec/internalTrafficPolicy").as_bytes() {
        text.field(0, "Internal Traffic Policy", String::from_utf8_lossy(policy));
    }
}

fn port_lines(text: &mut Text, port: &Value, slices: &[Value]) {
    let name = text_at(port, "/name");
    let protocol = text_at(port, "/protocol");
    let shown = if name.is_empty() { "<unset>" } else { name };
    text.line(0, format!("Port:\t{shown}\t{}/{protocol}", number(port, "/port")));
    let target = port.get("targetPort").map(plain).filter(|target| target != "0");
    text.line(
        0,
        format!("TargetPort:\t{}/{protocol}", target.unwrap_or_else(|| number(port, "/port").to_string())),
    );
    if let node_port @ 1.. = number(port, "/nodePort") {
        text.line(0, format!("NodePort:\t{shown}\t{node_port}/{protocol}"));
    }
    text.field(0, "Endpoints", endpoints(name, slices));
}

/// The addresses behind a port that are ready.
fn endpoints(port_name: &str, slices: &[Value]) -> String {
    let mut found = Vec::new();
    for slice in slices {
        let ports = slice.get("ports").and_then(Value::as_array).into_iter().flatten();
        let Some(port) =
            ports.filter(|port| text_at(port, "/name") == port_name).find_map(|port| port.get("port"))
        else {
            continue;
        };
        for endpoint in slice.get("endpoints").and_then(Value::as_array).into_iter().flatten() {
            let ready = endpoint.pointer("/conditions/ready").and_then(Value::as_bool).unwrap_or(true);
            for address in endpoint.get("addresses").and_then(Value::as_array).into_iter().flatten() {
                if ready {
                    found.push(format!("{}:{}", plain(address), plain(port)));
                }
            }
        }
    }
    let more = found.len().saturating_sub(SHOWN);
    found.truncate(SHOWN);
    match more {
        0 => found.join(","),
        more => format!("{} + {more} more...", found.join(",")),
    }
}
