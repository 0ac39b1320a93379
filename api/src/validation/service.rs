//! Checks Services.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{Errors, Path, given, labels, list, pod, text};
use crate::name;

const TYPES: [&str; 4] = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
const AFFINITY_SECONDS_MAX: i64 = 86_400;

pub fn check(object: &Value, errors: &mut Errors) {
    let root = Path::root("spec");
    let spec = &object["spec"];
    errors.one_of(&root.field("type"), &spec["type"], &TYPES);
    errors.one_of(&root.field("sessionAffinity"), &spec["sessionAffinity"], &["ClientIP", "None"]);
    check_affinity(spec, &root, errors);
    labels::check(&spec["selector"], &root.field("selector"), errors);
    let external = text(&spec["type"]) == "ExternalName";
    let headless = text(&spec["clusterIP"]) == "None";
    if external {
        let name = text(&spec["externalName"]).trim_end_matches('.');
        match name {
            "" => errors.required(&root.field("externalName"), ""),
            name => errors.reasons(&root.field("externalName"), name, name::dns1123_subdomain(name)),
        }
        if given(&spec["clusterIP"]) {
            errors.forbidden(&root.field("clusterIPs"), "may not be set when `type` is 'ExternalName'");
        }
    } else if list(&spec["ports"]).is_empty() && !headless {
        errors.required(&root.field("ports"), "");
    }
    if headless && matches!(text(&spec["type"]), "NodePort" | "LoadBalancer") {
        let detail = format!("may not be set to 'None' for {} services", text(&spec["type"]));
        errors.invalid(&root.field("clusterIPs").index(0), "None", detail);
    }
    let ips = root.field("clusterIPs");
    for (index, ip) in list(&spec["clusterIPs"]).iter().enumerate().filter(|(_, ip)| text(ip) != "None") {
        pod::check_ip(ip, &ips.index(index), errors);
    }
    let ips = root.field("externalIPs");
    for (index, ip) in list(&spec["externalIPs"]).iter().enumerate() {
        pod::check_ip(ip, &ips.index(index), errors);
    }
    check_ports(spec, &root, errors);
    for (field, of) in
        [("externalTrafficPolicy", ["Cluster", "Local"]), ("internalTrafficPolicy", ["Cluster", "Local"])]
    {
        errors.optional_one_of(&root.field(field), &spec[field], &of);
    }
}

fn check_affinity(spec: &Value, root: &Path<'_>, errors: &mut Errors) {
    let config = &spec["sessionAffinityConfig"];
    let place = root.field("sessionAffinityConfig");
    if text(&spec["sessionAffinity"]) == "None" {
        if !config.is_null() {
            errors.forbidden(&place, "must not be set when session affinity is None");
        }
        return;
    }
    if let Some(seconds) = config["clientIP"]["timeoutSeconds"].as_i64()
        && !(1..=AFFINITY_SECONDS_MAX).contains(&seconds)
    {
        let detail = format!("must be greater than 0 and less than {AFFINITY_SECONDS_MAX}");
        errors.invalid(&place.field("clientIP").field("timeoutSeconds"), seconds, detail);
    }
}

fn check_ports(spec: &Value, root: &Path<'_>, errors: &mut Errors) {
    let ports = list(&spec["ports"]);
    let place = root.field("ports");
    let (mut names, mut numbers, mut node_ports) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for (index, port) in ports.iter().enumerate() {
        let place = place.index(index);
        let name = text(&port["name"]);
        if name.is_empty() {
            if ports.len() > 1 {
                errors.required(&place.field("name"), "");
            }
        } else {
            errors.reasons(&place.field("name"), name, name::dns1123_label(name));
            if !names.insert(name) {
                errors.duplicate(&place.field("name"), name);
            }
        }
        errors.port(&place.field("port"), &port["port"]);
        errors.one_of(&place.field("protocol"), &port["protocol"], &["SCTP", "TCP", "UDP"]);
        if given(&port["targetPort"]) {
            errors.port_or_name(&place.field("targetPort"), &port["targetPort"]);
        }
        let protocol = text(&port["protocol"]);
        if !numbers.insert((protocol, port["port"].as_i64())) {
            errors.duplicate(&place, serde_json::json!({"port": port["port"], "protocol": protocol}));
        }
        let node_port = port["nodePort"].as_i64().unwrap_or(0);
        if node_port != 0 {
            if matches!(text(&spec["type"]), "ClusterIP" | "ExternalName") {
                let detail = format!("may not be used when `type` is '{}'", text(&spec["type"]));
                errors.forbidden(&place.field("nodePort"), detail);
            }
            if !node_ports.insert((protocol, node_port)) {
                errors.duplicate(&place.field("nodePort"), node_port);
            }
        }
    }
}
