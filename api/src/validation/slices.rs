//! Checks Endpoints and EndpointSlices.

use std::net::{IpAddr, Ipv4Addr};

use serde_json::Value;

use super::{Errors, Path, list, pod, text};
use crate::name;

const ENDPOINTS_MAX: usize = 1000;
const ADDRESSES_MAX: usize = 100;

pub fn check_endpoints(object: &Value, errors: &mut Errors) {
    let subsets = Path::root("subsets");
    for (index, subset) in list(&object["subsets"]).iter().enumerate() {
        let place = subsets.index(index);
        if list(&subset["addresses"]).is_empty() && list(&subset["notReadyAddresses"]).is_empty() {
            errors.required(&place, "must specify `addresses` or `notReadyAddresses`");
        }
        for field in ["addresses", "notReadyAddresses"] {
            let place = place.field(field);
            for (index, address) in list(&subset[field]).iter().enumerate() {
                let place = place.index(index);
                pod::check_ip(&address["ip"], &place.field("ip"), errors);
                check_special(&address["ip"], &place.field("ip"), errors);
            }
        }
        check_ports(subset, &place.field("ports"), errors);
    }
}

pub fn check(object: &Value, errors: &mut Errors) {
    let kind = &object["addressType"];
    errors.one_of(&Path::root("addressType"), kind, &["FQDN", "IPv4", "IPv6"]);
    let root = Path::root("endpoints");
    let endpoints = list(&object["endpoints"]);
    if endpoints.len() > ENDPOINTS_MAX {
        let mut error = crate::field::FieldError::invalid(
            "endpoints",
            endpoints.len(),
            format!("must have at most {ENDPOINTS_MAX} items"),
        );
        error.kind = crate::field::ErrorKind::TooMany;
        errors.add(error);
    }
    for (index, endpoint) in endpoints.iter().enumerate() {
        let place = root.index(index);
        let addresses = list(&endpoint["addresses"]);
        let field = place.field("addresses");
        if addresses.is_empty() {
            errors.required(&field, "must contain at least 1 address");
        } else if addresses.len() > ADDRESSES_MAX {
            errors.invalid(&field, addresses.len(), format!("must have at most {ADDRESSES_MAX} items"));
        }
        for (index, address) in addresses.iter().enumerate() {
            let place = field.index(index);
            match text(kind) {
                "FQDN" => errors.reasons(&place, text(address), name::dns1123_subdomain(text(address))),
                "IPv4" if text(address).parse::<Ipv4Addr>().is_err() => {
                    errors.invalid(&place, address.clone(), "must be a valid IPv4 address");
                }
                _ => {
                    pod::check_ip(address, &place, errors);
                    check_special(address, &place, errors);
                }
            }
        }
    }
    check_ports(object, &Path::root("ports"), errors);
}

fn check_ports(object: &Value, path: &Path<'_>, errors: &mut Errors) {
    for (index, port) in list(&object["ports"]).iter().enumerate() {
        let place = path.index(index);
        errors.port(&place.field("port"), &port["port"]);
        errors.one_of(&place.field("protocol"), &port["protocol"], &["SCTP", "TCP", "UDP"]);
        let name = text(&port["name"]);
        if !name.is_empty() {
            errors.reasons(&place.field("name"), name, name::dns1123_label(name));
        }
    }
}

/// Addresses at which no pod can be: traffic to them would reach the node or leave the cluster's rules.
fn check_special(address: &Value, path: &Path<'_>, errors: &mut Errors) {
    let Ok(ip) = text(address).parse::<IpAddr>() else { return };
    let link_local = matches!(ip, IpAddr::V4(ip) if ip.is_link_local());
    for (special, detail) in [
        (ip.is_unspecified(), "may not be unspecified (0.0.0.0 or ::)"),
        (ip.is_loopback(), "may not be in the loopback range (127.0.0.0/8, ::1/128)"),
        (link_local, "may not be in the link-local range (169.254.0.0/16, fe80::/10)"),
        (ip.is_multicast(), "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)"),
    ] {
        if special {
            errors.invalid(path, address.clone(), detail);
        }
    }
}
