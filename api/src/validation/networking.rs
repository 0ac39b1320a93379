//! Checks what leads traffic into the cluster and within it.

use std::net::IpAddr;

use serde_json::Value;

use super::{Errors, Path, given, labels, list, text};
use crate::field::FieldError;
use crate::name;

pub fn check_ingress(object: &Value, errors: &mut Errors) {
    let root = Path::root("spec");
    let spec = &object["spec"];
    let rules = list(&spec["rules"]);
    if rules.is_empty() && spec["defaultBackend"].is_null() {
        let detail = "either `defaultBackend` or `rules` must be specified";
        errors.invalid(&root, spec["rules"].clone(), detail);
    }
    if !spec["defaultBackend"].is_null() {
        check_backend(&spec["defaultBackend"], &root.field("defaultBackend"), errors);
    }
    let class = text(&spec["ingressClassName"]);
    if !class.is_empty() {
        errors.reasons(&root.field("ingressClassName"), class, name::dns1123_subdomain(class));
    }
    let place = root.field("rules");
    for (at, rule) in rules.iter().enumerate() {
        let place = place.index(at);
        check_host(text(&rule["host"]), &place.field("host"), errors);
        if rule["http"].is_null() {
            continue;
        }
        let (http, paths) = (place.field("http"), list(&rule["http"]["paths"]));
        let place = http.field("paths");
        if paths.is_empty() {
            errors.required(&place, "");
        }
        for (at, path) in paths.iter().enumerate() {
            check_path(path, &place.index(at), errors);
        }
    }
    let place = root.field("tls");
    for (at, tls) in list(&spec["tls"]).iter().enumerate() {
        let (place, hosts) = (place.index(at), list(&tls["hosts"]));
        let place = place.field("hosts");
        for (at, host) in hosts.iter().enumerate() {
            let host = text(host);
            errors.reasons(&place.index(at), host, host_reasons(host));
        }
    }
}

fn host_reasons(host: &str) -> Vec<String> {
    match host.strip_prefix("*.") {
        Some(rest) if !rest.is_empty() => name::dns1123_subdomain(rest),
        _ => name::dns1123_subdomain(host),
    }
}

fn check_host(host: &str, path: &Path<'_>, errors: &mut Errors) {
    if host.is_empty() {
        return;
    }
    if host.parse::<IpAddr>().is_ok() {
        errors.invalid(path, host, "must be a DNS name, not an IP address");
    }
    errors.reasons(path, host, host_reasons(host));
}

fn check_path(path: &Value, place: &Path<'_>, errors: &mut Errors) {
    let types = ["Exact", "ImplementationSpecific", "Prefix"];
    let at = place.field("pathType");
    match text(&path["pathType"]) {
        "" => errors.required(&at, "pathType must be specified"),
        "Exact" | "Prefix" => {
            let (at, value) = (place.field("path"), text(&path["path"]));
            if !value.starts_with('/') {
                errors.invalid(&at, value, "must be an absolute path");
            }
            for part in ["//", "/./", "/../", "%2f", "%2F"] {
                if value.contains(part) {
                    errors.invalid(&at, value, format!("must not contain '{part}'"));
                }
            }
            for end in ["/..", "/."] {
                if value.ends_with(end) {
                    errors.invalid(&at, value, format!("cannot end with '{end}'"));
                }
            }
        }
        "ImplementationSpecific" => {
            let value = text(&path["path"]);
            if !value.is_empty() && !value.starts_with('/') {
                errors.invalid(&place.field("path"), value, "must be an absolute path");
            }
        }
        other => errors.add(FieldError::not_supported(at.to_string(), other, &types)),
    }
    check_backend(&path["backend"], &place.field("backend"), errors);
}

fn check_backend(backend: &Value, path: &Path<'_>, errors: &mut Errors) {
    match (backend["resource"].is_object(), backend["service"].is_object()) {
        (true, true) => errors.invalid(path, "", "cannot set both resource and service backends"),
        (true, false) => {
            for field in ["kind", "name"] {
                if text(&backend["resource"][field]).is_empty() {
                    errors.required(&path.field("resource").field(field), "");
                }
            }
        }
        (false, true) => {
            let (service, place) = (&backend["service"], path.field("service"));
            match text(&service["name"]) {
                "" => errors.required(&place.field("name"), ""),
                value => errors.reasons(&place.field("name"), value, name::dns1035_label(value)),
            }
            let (port, place) = (&service["port"], place.field("port"));
            match (text(&port["name"]), port["number"].as_i64().unwrap_or(0)) {
                ("", 0) => errors.required(&place, "port name or number is required"),
                ("", _) => errors.port(&place.field("number"), &port["number"]),
                (value, 0) => errors.reasons(&place.field("name"), value, name::port_name(value)),
                _ => errors.invalid(&place, "", "cannot set both port name & port number"),
            }
        }
        (false, false) => errors.required(path, "must specify a service or resource backend"),
    }
}

pub fn check_ingress_class(object: &Value, errors: &mut Errors) {
    const CONTROLLER_MAX: usize = 250;
    let root = Path::root("spec");
    let controller = text(&object["spec"]["controller"]);
    let place = root.field("controller");
    if controller.len() > CONTROLLER_MAX {
        errors.add(FieldError::too_long(place.to_string(), CONTROLLER_MAX));
    }
    match controller.split_once('/') {
        _ if controller.is_empty() => errors.required(&place, ""),
        Some((domain, path)) if !path.is_empty() && name::is_dns1123_subdomain(domain) => {}
        _ => {
            let detail = "must be a domain-prefixed path (such as \"acme.io/foo\")";
            errors.invalid(&place, controller, detail);
        }
    }
    let (parameters, place) = (&object["spec"]["parameters"], root.field("parameters"));
    if parameters.is_null() {
        return;
    }
    for field in ["kind", "name"] {
        if text(&parameters[field]).is_empty() {
            errors.required(&place.field(field), &format!("{field} is required"));
        }
    }
    errors.one_of(&place.field("scope"), &parameters["scope"], &["Cluster", "Namespace"]);
    let namespace = text(&parameters["namespace"]);
    match (text(&parameters["scope"]), namespace) {
        ("Namespace", "") => {
            let detail = "`parameters.scope` is set to 'Namespace'";
            errors.required(&place.field("namespace"), detail);
        }
        ("Cluster", namespace) if !namespace.is_empty() => {
            let detail = "`parameters.scope` is set to 'Cluster'";
            errors.forbidden(&place.field("namespace"), detail);
        }
        _ => {}
    }
}

pub fn check_network_policy(object: &Value, errors: &mut Errors) {
    let root = Path::root("spec");
    let spec = &object["spec"];
    labels::check_selector(&spec["podSelector"], &root.field("podSelector"), errors);
    for (direction, peers) in [("ingress", "from"), ("egress", "to")] {
        let place = root.field(direction);
        for (at, rule) in list(&spec[direction]).iter().enumerate() {
            let place = place.index(at);
            let ports = place.field("ports");
            for (at, port) in list(&rule["ports"]).iter().enumerate() {
                check_policy_port(port, &ports.index(at), errors);
            }
            let place = place.field(peers);
            for (at, peer) in list(&rule[peers]).iter().enumerate() {
                check_peer(peer, &place.index(at), errors);
            }
        }
    }
    let types = list(&spec["policyTypes"]);
    let place = root.field("policyTypes");
    if types.len() > 2 {
        let detail = "may not specify more than two policyTypes";
        errors.invalid(&place, spec["policyTypes"].clone(), detail);
        return;
    }
    for (at, kind) in types.iter().enumerate() {
        errors.one_of(&place.index(at), kind, &["Egress", "Ingress"]);
    }
}

fn check_policy_port(port: &Value, path: &Path<'_>, errors: &mut Errors) {
    errors.one_of(&path.field("protocol"), &port["protocol"], &["SCTP", "TCP", "UDP"]);
    if !port["port"].is_null() {
        errors.port_or_name(&path.field("port"), &port["port"]);
    }
    let Some(end) = port["endPort"].as_i64() else { return };
    let place = path.field("endPort");
    match &port["port"] {
        Value::Null => errors.required(&path.field("port"), "must be specified when `endPort` is specified"),
        Value::Number(first) if first.as_i64().is_some_and(|first| end < first) => {
            errors.invalid(&place, end, "must be greater than or equal to `port`");
        }
        Value::String(_) => {
            errors.invalid(&place, end, "may not be specified when `port` is non-numeric");
        }
        _ => errors.port(&place, &port["endPort"]),
    }
}

fn check_peer(peer: &Value, path: &Path<'_>, errors: &mut Errors) {
    let selectors = ["podSelector", "namespaceSelector"];
    for field in selectors {
        labels::check_selector(&peer[field], &path.field(field), errors);
    }
    let chosen = selectors.iter().any(|field| !peer[*field].is_null());
    let block = &peer["ipBlock"];
    if block.is_null() {
        if !chosen {
            errors.required(path, "must specify a peer");
        }
        return;
    }
    if chosen {
        errors.forbidden(path, "may not specify both ipBlock and another peer");
    }
    let place = path.field("ipBlock");
    let whole = text(&block["cidr"]);
    if whole.is_empty() {
        errors.required(&place.field("cidr"), "");
        return;
    }
    let Some(net) = network(whole) else {
        errors.invalid(&place.field("cidr"), whole, NOT_A_CIDR);
        return;
    };
    let place = place.field("except");
    for (at, except) in list(&block["except"]).iter().enumerate() {
        let except = text(except);
        match network(except) {
            None => errors.invalid(&place.index(at), except, NOT_A_CIDR),
            Some(inner) if !inner.is_within(&net) => {
                errors.invalid(&place.index(at), except, "must be a strict subset of `cidr`");
            }
            Some(_) => {}
        }
    }
}

const NOT_A_CIDR: &str = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";

/// A network: the address as bits, how many of them it has, and how many count.
struct Network {
    bits: u128,
    width: u32,
    prefix: u32,
}

impl Network {
    fn is_within(&self, outer: &Network) -> bool {
        let shift = outer.width - outer.prefix;
        let high = |bits: u128| if shift >= 128 { 0 } else { bits >> shift };
        self.width == outer.width && self.prefix > outer.prefix && high(self.bits) == high(outer.bits)
    }
}

fn network(text: &str) -> Option<Network> {
    let (address, prefix) = text.split_once('/')?;
    let prefix: u32 = prefix.parse().ok()?;
    let (bits, width) = match address.parse().ok()? {
        IpAddr::V4(address) => (u128::from(u32::from(address)), 32),
        IpAddr::V6(address) => (u128::from(address), 128),
    };
    (prefix <= width).then_some(Network { bits, width, prefix })
}

pub fn check_ip_address(object: &Value, errors: &mut Errors) {
    let own = text(&object["metadata"]["name"]);
    let canonical = own.parse::<IpAddr>().map(|address| address.to_string());
    match canonical {
        Err(_) => {
            let detail = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
            errors.invalid(&Path::root("metadata.name"), own, detail);
        }
        Ok(canonical) if canonical != own => {
            let detail = format!("must be in canonical form ({canonical:?})");
            errors.invalid(&Path::root("metadata.name"), own, detail);
        }
        Ok(_) => {}
    }
    let root = Path::root("spec");
    let (parent, place) = (&object["spec"]["parentRef"], root.field("parentRef"));
    if parent.is_null() {
        errors.required(&place, "");
        return;
    }
    for field in ["resource", "name"] {
        if text(&parent[field]).is_empty() {
            errors.required(&place.field(field), "");
        }
    }
}

pub fn check_service_cidr(object: &Value, errors: &mut Errors) {
    let root = Path::root("spec");
    let place = root.field("cidrs");
    let cidrs = list(&object["spec"]["cidrs"]);
    if cidrs.is_empty() {
        errors.required(&place, "at least one CIDR required");
    }
    if cidrs.len() > 2 {
        let shown = object["spec"]["cidrs"].clone();
        errors.invalid(&place, shown, "may only hold up to 2 values");
    }
    let mut widths = Vec::new();
    for (at, cidr) in cidrs.iter().enumerate() {
        match network(text(cidr)) {
            None => errors.invalid(&place.index(at), cidr.clone(), NOT_A_CIDR),
            Some(net) => widths.push(net.width),
        }
    }
    if let [first, second] = widths.as_slice()
        && first == second
    {
        let detail =
            "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64";
        errors.invalid(&place, object["spec"]["cidrs"].clone(), detail);
    }
}

pub fn check_runtime_class(object: &Value, errors: &mut Errors) {
    let handler = text(&object["handler"]);
    let place = Path::root("handler");
    match handler {
        "" => errors.required(&place, ""),
        handler => errors.reasons(&place, handler, name::dns1123_label(handler)),
    }
    let scheduling = Path::root("scheduling");
    labels::check(&object["scheduling"]["nodeSelector"], &scheduling.field("nodeSelector"), errors);
    if given(&object["overhead"]) && !given(&object["overhead"]["podFixed"]) {
        errors.required(&Path::root("overhead").field("podFixed"), "");
    }
}
