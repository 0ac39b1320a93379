//! Checks Nodes.

use serde_json::Value;

use super::{Errors, Path, list, scheduling, text};

pub fn check(object: &Value, errors: &mut Errors) {
    let spec = Path::root("spec");
    scheduling::check_taints(&object["spec"]["taints"], &spec.field("taints"), errors);
    let networks = spec.field("podCIDRs");
    for (index, network) in list(&object["spec"]["podCIDRs"]).iter().enumerate() {
        let good = text(network).split_once('/').is_some_and(|(address, prefix)| {
            address.parse::<std::net::IpAddr>().is_ok_and(|address| {
                let longest = if address.is_ipv4() { 32 } else { 128 };
                prefix.parse::<u8>().is_ok_and(|prefix| prefix <= longest)
            })
        });
        if !good {
            errors.invalid(
                &networks.index(index),
                network.clone(),
                "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)",
            );
        }
    }
    let status = Path::root("status");
    for field in ["capacity", "allocatable"] {
        scheduling::check_amounts(&object["status"][field], &status.field(field), errors);
    }
}
