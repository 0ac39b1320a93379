//! What a Service keeps over an update that does not speak of it: addresses and node ports that were allocated.

use serde_json::Value;

use super::Object;

fn text<'a>(spec: &'a Object, name: &str) -> &'a str {
    spec.get(name).and_then(Value::as_str).unwrap_or_default()
}

fn needs_cluster_ip(spec: &Object) -> bool {
    text(spec, "type") != "ExternalName"
}

fn needs_node_port(spec: &Object) -> bool {
    match text(spec, "type") {
        "NodePort" => true,
        "LoadBalancer" => spec.get("allocateLoadBalancerNodePorts") != Some(&Value::Bool(false)),
        _ => false,
    }
}

/// Copies what was allocated before and is still needed.
pub(super) fn keep_allocated(map: &mut Object, before: &Object) {
    let Some(old) = before.get("spec").and_then(Value::as_object) else { return };
    let Some(Value::Object(new)) = map.get_mut("spec") else { return };
    if needs_cluster_ip(new) && needs_cluster_ip(old) {
        if text(new, "clusterIP").is_empty() {
            let unsaid = !new.contains_key("clusterIPs");
            copy(new, old, "clusterIP");
            if unsaid || text(new, "clusterIP").is_empty() {
                copy(new, old, "clusterIPs");
            }
        } else if !new.contains_key("clusterIPs") && text(new, "clusterIP") == text(old, "clusterIP") {
            copy(new, old, "clusterIPs");
        }
        for name in ["ipFamilies", "ipFamilyPolicy"] {
            if !new.contains_key(name) {
                copy(new, old, name);
            }
        }
    }
    if needs_node_port(new) && needs_node_port(old) {
        keep_node_ports(new, old);
    }
    let health = |spec: &Object| {
        text(spec, "type") == "LoadBalancer" && text(spec, "externalTrafficPolicy") == "Local"
    };
    if health(new) && health(old) && !new.contains_key("healthCheckNodePort") {
        copy(new, old, "healthCheckNodePort");
    }
    release(new, old);
}

fn copy(new: &mut Object, old: &Object, name: &str) {
    if let Some(value) = old.get(name) {
        new.insert(name.to_owned(), value.clone());
    }
}

fn node_port(port: &Value) -> i64 {
    port.get("nodePort").and_then(Value::as_i64).unwrap_or_default()
}

fn keep_node_ports(new: &mut Object, old: &Object) {
    let Some(Value::Array(old_ports)) = old.get("ports") else { return };
    let Some(Value::Array(ports)) = new.get_mut("ports") else { return };
    let mut used: Vec<i64> = ports.iter().map(node_port).filter(|port| *port != 0).collect();
    for port in ports.iter_mut().filter(|port| node_port(port) == 0) {
        let same = |other: &&Value| {
            other.get("protocol") == port.get("protocol") && other.get("port") == port.get("port")
        };
        let Some(kept) = old_ports.iter().find(same).map(node_port) else { continue };
        if kept != 0 && !used.contains(&kept) {
            used.push(kept);
            if let Value::Object(port) = port {
                port.insert("nodePort".to_owned(), kept.into());
            }
        }
    }
}

/// Drops what a changed type no longer has, where the caller only repeats what was allocated.
fn release(new: &mut Object, old: &Object) {
    if text(new, "type") == text(old, "type") {
        return;
    }
    if needs_cluster_ip(old) && !needs_cluster_ip(new) && new.get("clusterIP") == old.get("clusterIP") {
        for name in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
            new.remove(name);
        }
    }
    if needs_node_port(old) && !needs_node_port(new) {
        let before: Vec<i64> =
            old.get("ports").and_then(Value::as_array).into_iter().flatten().map(node_port).collect();
        if let Some(Value::Array(ports)) = new.get_mut("ports") {
            for port in ports.iter_mut().filter(|port| before.contains(&node_port(port))) {
                if let Value::Object(port) = port {
                    port.remove("nodePort");
                }
            }
        }
        if text(new, "type") == "ClusterIP" {
            new.remove("externalTrafficPolicy");
        }
    }
}
