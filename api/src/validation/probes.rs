//! Checks probes and hooks.

use serde_json::Value;

use super::{Errors, Path, given, list, text};

pub fn check(kind: &str, probe: &Value, path: &Path<'_>, errors: &mut Errors) {
    check_handler(probe, path, &["exec", "httpGet", "tcpSocket", "grpc"], errors);
    for field in
        ["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"]
    {
        errors.not_negative(&path.field(field), &probe[field]);
    }
    if kind != "readinessProbe" && probe["successThreshold"].as_i64().is_some_and(|threshold| threshold != 1)
    {
        errors.invalid(&path.field("successThreshold"), probe["successThreshold"].clone(), "must be 1");
    }
    if let Some(seconds) = probe["terminationGracePeriodSeconds"].as_i64() {
        let place = path.field("terminationGracePeriodSeconds");
        if kind == "readinessProbe" {
            errors.invalid(&place, seconds, "must not be set for readinessProbes");
        } else if seconds < 1 {
            errors.invalid(&place, seconds, "must be greater than 0");
        }
    }
}

pub fn check_hooks(lifecycle: &Value, path: &Path<'_>, errors: &mut Errors) {
    for field in ["postStart", "preStop"] {
        if !lifecycle[field].is_null() {
            check_handler(
                &lifecycle[field],
                &path.field(field),
                &["exec", "httpGet", "tcpSocket", "sleep"],
                errors,
            );
        }
    }
}

fn check_handler(handler: &Value, path: &Path<'_>, kinds: &[&str], errors: &mut Errors) {
    let chosen: Vec<&&str> = kinds.iter().filter(|kind| !handler[**kind].is_null()).collect();
    if let [_, others @ ..] = chosen.as_slice() {
        for other in others {
            errors.forbidden(&path.field(other), "may not specify more than 1 handler type");
        }
    } else {
        errors.required(path, "must specify a handler type");
    }
    let exec = &handler["exec"];
    if !exec.is_null() && list(&exec["command"]).is_empty() {
        errors.required(&path.field("exec").field("command"), "");
    }
    let http = &handler["httpGet"];
    if !http.is_null() {
        let place = path.field("httpGet");
        if !given(&http["path"]) {
            errors.required(&place.field("path"), "");
        }
        errors.port_or_name(&place.field("port"), &http["port"]);
        errors.one_of(&place.field("scheme"), &http["scheme"], &["HTTP", "HTTPS"]);
        let headers = place.field("httpHeaders");
        for (index, header) in list(&http["httpHeaders"]).iter().enumerate() {
            let name = text(&header["name"]);
            let token = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
            if name.is_empty() || !name.bytes().all(token) {
                let detail = "a valid HTTP header must consist of alphanumeric characters or '-' (e.g. 'X-Header-Name', regex used for validation is '[-A-Za-z0-9]+')";
                errors.invalid(&headers.index(index).field("name"), name, detail);
            }
        }
    }
    let tcp = &handler["tcpSocket"];
    if !tcp.is_null() {
        errors.port_or_name(&path.field("tcpSocket").field("port"), &tcp["port"]);
    }
    let grpc = &handler["grpc"];
    if !grpc.is_null() {
        errors.port(&path.field("grpc").field("port"), &grpc["port"]);
    }
}
