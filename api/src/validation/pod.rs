//! Checks what a pod is to be.

use std::net::IpAddr;

use serde_json::Value;

use super::{Errors, Path, containers, given, list, scheduling, text, volumes};
use crate::name;

/// The longest that a host name may be.
const HOSTNAME_BYTES_MAX: usize = 63;
const NAMESERVERS_MAX: usize = 3;
const SEARCH_PATHS_MAX: usize = 32;

pub fn check_spec(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    let names = volumes::check(&spec["volumes"], &path.field("volumes"), errors);
    containers::check(spec, path, &names, errors);
    errors.one_of(&path.field("restartPolicy"), &spec["restartPolicy"], &["Always", "OnFailure", "Never"]);
    errors.one_of(
        &path.field("dnsPolicy"),
        &spec["dnsPolicy"],
        &["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"],
    );
    check_dns(spec, path, errors);
    errors.not_negative(&path.field("terminationGracePeriodSeconds"), &spec["terminationGracePeriodSeconds"]);
    if let Some(seconds) = spec["activeDeadlineSeconds"].as_i64()
        && seconds < 1
    {
        let detail = "must be between 1 and 2147483647, inclusive";
        errors.invalid(&path.field("activeDeadlineSeconds"), seconds, detail);
    }
    for field in ["hostname", "subdomain"] {
        let value = text(&spec[field]);
        if !value.is_empty() {
            errors.reasons(&path.field(field), value, name::dns1123_label(value));
        }
    }
    for (field, check) in [
        ("serviceAccountName", name::dns1123_subdomain as fn(&str) -> Vec<String>),
        ("nodeName", name::dns1123_subdomain),
        ("priorityClassName", name::dns1123_subdomain),
    ] {
        let value = text(&spec[field]);
        if !value.is_empty() {
            errors.reasons(&path.field(field), value, check(value));
        }
    }
    check_security(spec, path, errors);
    check_host_aliases(spec, path, errors);
    scheduling::check(spec, path, errors);
}

/// A pod template: labels, annotations and the spec.
pub fn check_template(template: &Value, path: &Path<'_>, errors: &mut Errors) {
    let metadata = path.field("metadata");
    super::labels::check(&template["metadata"]["labels"], &metadata.field("labels"), errors);
    check_spec(&template["spec"], &path.field("spec"), errors);
}

fn check_dns(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    let place = path.field("dnsConfig");
    let config = &spec["dnsConfig"];
    let servers = list(&config["nameservers"]);
    if text(&spec["dnsPolicy"]) == "None" && servers.is_empty() {
        let detail = "must provide at least one DNS nameserver when `dnsPolicy` is None";
        errors.required(&place.field("nameservers"), detail);
    }
    if servers.len() > NAMESERVERS_MAX {
        let detail = format!("must not have more than {NAMESERVERS_MAX} nameservers");
        errors.invalid(&place.field("nameservers"), config["nameservers"].clone(), detail);
    }
    let field = place.field("nameservers");
    for (index, server) in servers.iter().enumerate() {
        check_ip(server, &field.index(index), errors);
    }
    if list(&config["searches"]).len() > SEARCH_PATHS_MAX {
        let detail = format!("must not have more than {SEARCH_PATHS_MAX} search paths");
        errors.invalid(&place.field("searches"), config["searches"].clone(), detail);
    }
}

pub fn check_ip(value: &Value, path: &Path<'_>, errors: &mut Errors) {
    if text(value).parse::<IpAddr>().is_err() {
        errors.invalid(path, value.clone(), "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)");
    }
}

fn check_security(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    let place = path.field("securityContext");
    let context = &spec["securityContext"];
    for field in ["runAsUser", "runAsGroup", "fsGroup"] {
        containers::check_id(&context[field], &place.field(field), errors);
    }
    let groups = place.field("supplementalGroups");
    for (index, group) in list(&context["supplementalGroups"]).iter().enumerate() {
        containers::check_id(group, &groups.index(index), errors);
    }
    containers::check_seccomp(&context["seccompProfile"], &place.field("seccompProfile"), errors);
    if spec["hostPID"] == true && spec["shareProcessNamespace"] == true {
        let detail = "ShareProcessNamespace and HostPID cannot both be enabled";
        errors.invalid(&path.field("shareProcessNamespace"), true, detail);
    }
    if text(&spec["hostname"]).len() > HOSTNAME_BYTES_MAX {
        errors.invalid(&path.field("hostname"), spec["hostname"].clone(), name::too_long(HOSTNAME_BYTES_MAX));
    }
}

fn check_host_aliases(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    let aliases = path.field("hostAliases");
    for (index, alias) in list(&spec["hostAliases"]).iter().enumerate() {
        let place = aliases.index(index);
        check_ip(&alias["ip"], &place.field("ip"), errors);
        let names = place.field("hostnames");
        for (index, host) in list(&alias["hostnames"]).iter().enumerate() {
            errors.reasons(&names.index(index), text(host), name::dns1123_subdomain(text(host)));
        }
    }
    let secrets = path.field("imagePullSecrets");
    for (index, secret) in list(&spec["imagePullSecrets"]).iter().enumerate() {
        if !given(&secret["name"]) {
            errors.required(&secrets.index(index).field("name"), "");
        }
    }
}
