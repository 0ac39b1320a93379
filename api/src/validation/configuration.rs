//! Checks ConfigMaps, Secrets and other small kinds.

use base64::Engine as _;
use serde_json::Value;

use super::{Errors, Path, entries, given, text};
use crate::field::FieldError;
use crate::name;

/// All values of one ConfigMap or Secret together.
const DATA_BYTES_MAX: usize = 1 << 20;
/// Above are the classes that the system itself uses.
const PRIORITY_MAX: i64 = 1_000_000_000;

pub fn check_config_map(object: &Value, errors: &mut Errors) {
    let data = Path::root("data");
    let binary = Path::root("binaryData");
    let mut size = 0;
    for (key, value) in entries(&object["data"]) {
        check_key(key, &data, errors);
        if !object["binaryData"][key].is_null() {
            errors.invalid(&data.entry(key), key, "duplicate of key present in binaryData");
        }
        size += text(value).len();
    }
    for (key, value) in entries(&object["binaryData"]) {
        check_key(key, &binary, errors);
        size += decoded_length(value);
    }
    if size > DATA_BYTES_MAX {
        errors.add(FieldError::too_long("", DATA_BYTES_MAX));
    }
}

pub fn check_secret(object: &Value, errors: &mut Errors) {
    let data = Path::root("data");
    let mut size = 0;
    for (key, value) in entries(&object["data"]) {
        check_key(key, &data, errors);
        size += decoded_length(value);
    }
    if size > DATA_BYTES_MAX {
        errors.add(FieldError::too_long("data", DATA_BYTES_MAX));
    }
    let required: &[&str] = match text(&object["type"]) {
        "kubernetes.io/dockerconfigjson" => &[".dockerconfigjson"],
        "kubernetes.io/dockercfg" => &[".dockercfg"],
        "kubernetes.io/ssh-auth" => &["ssh-privatekey"],
        "kubernetes.io/tls" => &["tls.crt", "tls.key"],
        _ => &[],
    };
    for key in required {
        let value = &object["data"][*key];
        if value.is_null() {
            errors.required(&data.entry(key), "");
        } else if key.starts_with(".docker") && !holds_json(value) {
            errors.invalid(&data.entry(key), "<secret contents redacted>", "invalid character in JSON");
        }
    }
    if text(&object["type"]) == "kubernetes.io/basic-auth"
        && !given(&object["data"]["username"])
        && !given(&object["data"]["password"])
    {
        errors.required(&data.entry("username"), "");
        errors.required(&data.entry("password"), "");
    }
    if text(&object["type"]) == "kubernetes.io/service-account-token"
        && !given(&object["metadata"]["annotations"]["kubernetes.io/service-account.name"])
    {
        let annotations = Path::root("metadata.annotations");
        errors.required(&annotations.entry("kubernetes.io/service-account.name"), "");
    }
}

fn check_key(key: &str, path: &Path<'_>, errors: &mut Errors) {
    errors.reasons(&path.entry(key), key, name::config_map_key(key));
}

fn decoded_length(value: &Value) -> usize {
    text(value).len() / 4 * 3
}

fn holds_json(value: &Value) -> bool {
    let decoded = base64::prelude::BASE64_STANDARD.decode(text(value));
    decoded.is_ok_and(|bytes| serde_json::from_slice::<serde::de::IgnoredAny>(&bytes).is_ok())
}

pub fn check_lease(object: &Value, errors: &mut Errors) {
    let spec = Path::root("spec");
    if let Some(seconds) = object["spec"]["leaseDurationSeconds"].as_i64()
        && seconds <= 0
    {
        errors.invalid(&spec.field("leaseDurationSeconds"), seconds, "must be greater than 0");
    }
    errors.not_negative(&spec.field("leaseTransitions"), &object["spec"]["leaseTransitions"]);
}

pub fn check_priority_class(object: &Value, errors: &mut Errors) {
    let name = text(&object["metadata"]["name"]);
    let value = object["value"].as_i64().unwrap_or(0);
    if name.starts_with("system-") {
        if !matches!(
            (name, value),
            ("system-cluster-critical", 2_000_000_000) | ("system-node-critical", 2_000_001_000)
        ) {
            let detail = "priority class names with 'system-' prefix are reserved for system use only";
            errors.forbidden(&Path::root("metadata.name"), detail);
        }
    } else if value > PRIORITY_MAX {
        let detail = format!("maximum allowed value of a user defined priority is {PRIORITY_MAX}");
        errors.forbidden(&Path::root("value"), detail);
    }
    errors.optional_one_of(
        &Path::root("preemptionPolicy"),
        &object["preemptionPolicy"],
        &["Never", "PreemptLowerPriority"],
    );
}

pub fn check_event(object: &Value, errors: &mut Errors) {
    let namespace = text(&object["metadata"]["namespace"]);
    let (field, about) = match &object["regarding"] {
        Value::Null => ("involvedObject.namespace", &object["involvedObject"]),
        about => ("regarding.namespace", about),
    };
    let of = text(&about["namespace"]);
    let fits = if of.is_empty() { matches!(namespace, "default" | "kube-system") } else { of == namespace };
    if !fits {
        errors.invalid(&Path::root(field), of, "does not match event.namespace");
    }
}
