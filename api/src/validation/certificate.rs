//! Checks requests for certificates, trust bundles, flow control and devices.

use base64::Engine as _;
use serde_json::Value;

use super::{Errors, Path, given, list, text};
use crate::field::FieldError;
use crate::name;

const USAGES: &[&str] = &[
    "any",
    "cert sign",
    "client auth",
    "code signing",
    "content commitment",
    "crl sign",
    "data encipherment",
    "decipher only",
    "digital signature",
    "email protection",
    "encipher only",
    "ipsec end system",
    "ipsec tunnel",
    "ipsec user",
    "key agreement",
    "key encipherment",
    "microsoft sgc",
    "netscape sgc",
    "ocsp signing",
    "s/mime",
    "server auth",
    "signing",
    "timestamping",
];
const SHORTEST: i64 = 600;

pub fn check_signing_request(object: &Value, errors: &mut Errors) {
    let root = Path::root("spec");
    let spec = &object["spec"];
    let place = root.field("request");
    let decoded = base64::prelude::BASE64_STANDARD.decode(text(&spec["request"])).unwrap_or_default();
    if decoded.is_empty() {
        errors.required(&place, "");
    } else if !String::from_utf8_lossy(&decoded).contains("-----BEGIN CERTIFICATE REQUEST-----") {
        errors.invalid(&place, spec["request"].clone(), "PEM block type must be CERTIFICATE REQUEST");
    }
    let usages = list(&spec["usages"]);
    let place = root.field("usages");
    if usages.is_empty() {
        errors.required(&place, "usages must be provided");
    }
    for (at, usage) in usages.iter().enumerate() {
        if !USAGES.contains(&text(usage)) {
            errors.add(FieldError::not_supported(place.index(at).to_string(), usage.clone(), USAGES));
        }
        if usages[..at].contains(usage) {
            errors.duplicate(&place.index(at), usage.clone());
        }
    }
    check_signer(text(&spec["signerName"]), &root.field("signerName"), errors);
    if let Some(seconds) = spec["expirationSeconds"].as_i64()
        && seconds < SHORTEST
    {
        let detail = "may not specify a duration less than 600 seconds (10 minutes)";
        errors.invalid(&root.field("expirationSeconds"), seconds, detail);
    }
    check_conditions(object, errors);
}

fn check_signer(signer: &str, path: &Path<'_>, errors: &mut Errors) {
    if signer.is_empty() {
        errors.required(path, "");
        return;
    }
    match signer.split_once('/') {
        Some((domain, rest)) if !rest.is_empty() => {
            errors.reasons(path, signer, name::dns1123_subdomain(domain));
            if !domain.contains('.') {
                let detail = "should be a domain with at least two segments separated by dots";
                errors.invalid(path, domain, detail);
            }
        }
        _ => {
            let detail = "must be a fully qualified domain and path of the form 'example.com/signer-name'";
            errors.invalid(path, signer, detail);
        }
    }
}

fn check_conditions(object: &Value, errors: &mut Errors) {
    let root = Path::root("status.conditions");
    let conditions = list(&object["status"]["conditions"]);
    for (at, condition) in conditions.iter().enumerate() {
        let place = root.index(at);
        let kind = text(&condition["type"]);
        if kind.is_empty() {
            errors.required(&place.field("type"), "");
        }
        if matches!(kind, "Approved" | "Denied" | "Failed") && condition["status"] != "True" {
            let accepted = &["True"];
            let path = place.field("status").to_string();
            errors.add(FieldError::not_supported(path, condition["status"].clone(), accepted));
        }
        if conditions[..at].iter().any(|other| other["type"] == condition["type"]) {
            errors.duplicate(&place.field("type"), kind);
        }
        let other = if kind == "Approved" { "Denied" } else { "Approved" };
        if matches!(kind, "Approved" | "Denied") && conditions[..at].iter().any(|one| one["type"] == other) {
            let detail = "Approved and Denied conditions are mutually exclusive";
            errors.invalid(&place.field("type"), kind, detail);
        }
    }
}

/// What a request must keep.
pub fn check_signing_request_update(new: &Value, old: &Value, errors: &mut Errors) {
    let had = |wanted: &str| list(&old["status"]["conditions"]).iter().any(|one| one["type"] == wanted);
    let has = |wanted: &str| list(&new["status"]["conditions"]).iter().any(|one| one["type"] == wanted);
    for kind in ["Approved", "Denied", "Failed"] {
        if had(kind) && !has(kind) {
            let detail = format!("updates may not remove a condition of type {kind:?}");
            errors.forbidden(&Path::root("status.conditions"), detail);
        }
    }
}

pub fn check_trust_bundle(object: &Value, errors: &mut Errors) {
    let root = Path::root("spec");
    let signer = text(&object["spec"]["signerName"]);
    let own = text(&object["metadata"]["name"]);
    let wanted = signer.replace('/', ":");
    match signer {
        "" if own.contains(':') => {
            let detail = "ClusterTrustBundle without signer name must not have \":\" in its name";
            errors.invalid(&Path::root("metadata.name"), own, detail);
        }
        "" => {}
        _ if !own.starts_with(&format!("{wanted}:")) => {
            let detail =
                format!("ClusterTrustBundle for signerName {signer} must be named with prefix {wanted}:");
            errors.invalid(&Path::root("metadata.name"), own, detail);
        }
        _ => check_signer(signer, &root.field("signerName"), errors),
    }
    let place = root.field("trustBundle");
    match text(&object["spec"]["trustBundle"]) {
        "" => errors.required(&place, "ClusterTrustBundle must have non-empty trustBundle"),
        bundle if !bundle.contains("-----BEGIN CERTIFICATE-----") => {
            errors.invalid(&place, "<value omitted>", "at least one trust anchor must be provided");
        }
        _ => {}
    }
}

pub fn check_pod_certificate_request(object: &Value, errors: &mut Errors) {
    let root = Path::root("spec");
    let spec = &object["spec"];
    for field in ["podName", "podUID", "serviceAccountName", "serviceAccountUID", "nodeName", "nodeUID"] {
        if text(&spec[field]).is_empty() {
            errors.required(&root.field(field), "");
        }
    }
    check_signer(text(&spec["signerName"]), &root.field("signerName"), errors);
}

pub fn check_flow_schema(object: &Value, errors: &mut Errors) {
    const HIGHEST: i64 = 10_000;
    let root = Path::root("spec");
    let spec = &object["spec"];
    let precedence = spec["matchingPrecedence"].as_i64().unwrap_or(0);
    if !(1..=HIGHEST).contains(&precedence) {
        let detail = format!("must be a value between 1 and {HIGHEST} inclusive");
        errors.invalid(&root.field("matchingPrecedence"), precedence, detail);
    }
    if !spec["distinguisherMethod"].is_null() {
        let place = root.field("distinguisherMethod");
        errors.one_of(&place.field("type"), &spec["distinguisherMethod"]["type"], &["ByNamespace", "ByUser"]);
    }
    let place = root.field("priorityLevelConfiguration");
    match text(&spec["priorityLevelConfiguration"]["name"]) {
        "" => errors.required(&place.field("name"), "must reference a priority level"),
        level => errors.reasons(&place.field("name"), level, name::dns1123_subdomain(level)),
    }
    let place = root.field("rules");
    for (at, rule) in list(&spec["rules"]).iter().enumerate() {
        let place = place.index(at);
        if !given(&rule["subjects"]) {
            errors.required(&place.field("subjects"), "subjects must contain at least one value");
        }
        if !given(&rule["resourceRules"]) && !given(&rule["nonResourceRules"]) {
            let detail = "at least one of resourceRules and nonResourceRules has to be non-empty";
            errors.required(&place, detail);
        }
        let subjects = place.field("subjects");
        for (at, subject) in list(&rule["subjects"]).iter().enumerate() {
            let kinds = &["Group", "ServiceAccount", "User"];
            errors.one_of(&subjects.index(at).field("kind"), &subject["kind"], kinds);
        }
    }
}

pub fn check_priority_level(object: &Value, errors: &mut Errors) {
    let root = Path::root("spec");
    let spec = &object["spec"];
    errors.one_of(&root.field("type"), &spec["type"], &["Exempt", "Limited"]);
    match (text(&spec["type"]), spec["limited"].is_object()) {
        ("Exempt", true) => {
            let detail = "must be nil if the type is not Limited";
            errors.forbidden(&root.field("limited"), detail);
        }
        ("Limited", false) => {
            errors.required(&root.field("limited"), "must not be empty when type is Limited");
        }
        ("Limited", true) => {
            let (limited, place) = (&spec["limited"], root.field("limited"));
            let shares = place.field("nominalConcurrencyShares");
            if limited["nominalConcurrencyShares"].as_i64().is_some_and(|shares| shares < 0) {
                let detail = "must be a non-negative integer";
                errors.invalid(&shares, limited["nominalConcurrencyShares"].clone(), detail);
            }
            if limited["lendablePercent"].as_i64().is_some_and(|percent| !(0..=100).contains(&percent)) {
                let detail = "must be between 0 and 100, inclusive";
                errors.invalid(&place.field("lendablePercent"), limited["lendablePercent"].clone(), detail);
            }
            let (response, place) = (&limited["limitResponse"], place.field("limitResponse"));
            errors.one_of(&place.field("type"), &response["type"], &["Queue", "Reject"]);
            let queuing = place.field("queuing");
            match (text(&response["type"]), response["queuing"].is_object()) {
                ("Queue", false) => {
                    errors.required(&queuing, "must not be empty if limitResponse.type is Queue");
                }
                ("Reject", true) => {
                    errors.forbidden(&queuing, "must be nil if limitResponse.type is not Limited");
                }
                _ => {}
            }
        }
        _ => {}
    }
}

/// The spec of a claim of devices.
pub fn check_device_claim(spec: &Value, root: &Path<'_>, errors: &mut Errors) {
    const REQUESTS_MAX: usize = 32;
    let devices = root.field("devices");
    let place = devices.field("requests");
    let requests = list(&spec["devices"]["requests"]);
    if requests.len() > REQUESTS_MAX {
        errors.add(FieldError::too_many(place.to_string(), requests.len(), REQUESTS_MAX));
    }
    for (at, request) in requests.iter().enumerate() {
        let place = place.index(at);
        let own = text(&request["name"]);
        match own {
            "" => errors.required(&place.field("name"), ""),
            own => errors.reasons(&place.field("name"), own, name::dns1123_label(own)),
        }
        if requests[..at].iter().any(|other| other["name"] == request["name"]) {
            errors.duplicate(&place.field("name"), own);
        }
        match (request["exactly"].is_object(), given(&request["firstAvailable"])) {
            (false, false) => {
                errors.required(&place, "exactly one of `exactly` or `firstAvailable` is required");
            }
            (true, true) => {
                let detail = "exactly one of `exactly` or `firstAvailable` is required";
                errors.invalid(&place, Value::Null, detail);
            }
            (true, false) => check_device_request(&request["exactly"], &place.field("exactly"), errors),
            (false, true) => {
                let place = place.field("firstAvailable");
                for (at, one) in list(&request["firstAvailable"]).iter().enumerate() {
                    check_device_request(one, &place.index(at), errors);
                }
            }
        }
    }
}

fn check_device_request(request: &Value, path: &Path<'_>, errors: &mut Errors) {
    match text(&request["deviceClassName"]) {
        "" => errors.required(&path.field("deviceClassName"), ""),
        class => errors.reasons(&path.field("deviceClassName"), class, name::dns1123_subdomain(class)),
    }
    errors.one_of(&path.field("allocationMode"), &request["allocationMode"], &["All", "ExactCount"]);
    let count = request["count"].as_i64().unwrap_or(0);
    match text(&request["allocationMode"]) {
        "All" if count != 0 => {
            let detail = "must not be specified when allocationMode is 'All'";
            errors.invalid(&path.field("count"), count, detail);
        }
        "ExactCount" if count <= 0 => {
            errors.invalid(&path.field("count"), count, "must be greater than zero");
        }
        _ => {}
    }
    check_selectors(&request["selectors"], &path.field("selectors"), errors);
}

fn check_selectors(selectors: &Value, path: &Path<'_>, errors: &mut Errors) {
    for (at, selector) in list(selectors).iter().enumerate() {
        if text(&selector["cel"]["expression"]).trim().is_empty() {
            errors.required(&path.index(at).field("cel"), "");
        }
    }
}

pub fn check_device_class(object: &Value, errors: &mut Errors) {
    check_selectors(&object["spec"]["selectors"], &Path::root("spec.selectors"), errors);
}

pub fn check_device_slice(object: &Value, errors: &mut Errors) {
    const DEVICES_MAX: usize = 128;
    let root = Path::root("spec");
    let spec = &object["spec"];
    match text(&spec["driver"]) {
        "" => errors.required(&root.field("driver"), ""),
        driver => errors.reasons(&root.field("driver"), driver, name::dns1123_subdomain(driver)),
    }
    let pool = root.field("pool");
    if text(&spec["pool"]["name"]).is_empty() {
        errors.required(&pool.field("name"), "");
    }
    if spec["pool"]["resourceSliceCount"].as_i64().unwrap_or(0) <= 0 {
        let shown = spec["pool"]["resourceSliceCount"].clone();
        errors.invalid(&pool.field("resourceSliceCount"), shown, "must be greater than zero");
    }
    let places = [
        given(&spec["nodeName"]),
        spec["nodeSelector"].is_object(),
        spec["allNodes"] == true,
        spec["perDeviceNodeSelection"] == true,
    ];
    let detail =
        "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required";
    match places.iter().filter(|given| **given).count() {
        0 => errors.required(&root, detail),
        1 => {}
        _ => errors.invalid(&root, Value::Null, detail),
    }
    let (devices, place) = (list(&spec["devices"]), root.field("devices"));
    if devices.len() > DEVICES_MAX {
        errors.add(FieldError::too_many(place.to_string(), devices.len(), DEVICES_MAX));
    }
    for (at, device) in devices.iter().enumerate() {
        let own = text(&device["name"]);
        errors.reasons(&place.index(at).field("name"), own, name::dns1123_label(own));
        if devices[..at].iter().any(|other| other["name"] == device["name"]) {
            errors.duplicate(&place.index(at).field("name"), own);
        }
    }
}

pub fn check_device_taint(object: &Value, errors: &mut Errors) {
    let root = Path::root("spec.taint");
    let taint = &object["spec"]["taint"];
    match text(&taint["key"]) {
        "" => errors.required(&root.field("key"), ""),
        key => errors.reasons(&root.field("key"), key, name::qualified_name(key)),
    }
    errors.one_of(&root.field("effect"), &taint["effect"], &["NoExecute", "NoSchedule", "None"]);
}
