//! Defaults of what rules traffic, requests, quantities, extensions and devices.

use serde_json::{Value, json};

use super::{Object, child, each, empty, present, put, text};

pub(super) fn network_policy(map: &mut Object) {
    let Some(spec) = child(map, "spec") else { return };
    for direction in ["ingress", "egress"] {
        each(spec, direction, |rule| each(rule, "ports", |port| put(port, "protocol", "TCP")));
    }
    let filled = |value: Option<&Value>| value.and_then(Value::as_array).is_some_and(|list| !list.is_empty());
    if !filled(spec.get("policyTypes")) {
        let types =
            if filled(spec.get("egress")) { json!(["Ingress", "Egress"]) } else { json!(["Ingress"]) };
        spec.insert("policyTypes".to_owned(), types);
    }
}

pub(super) fn ingress_class(map: &mut Object) {
    if let Some(parameters) = present(map, "spec").and_then(|spec| present(spec, "parameters")) {
        put(parameters, "scope", "Cluster");
    }
}

pub(super) fn limit_range(map: &mut Object) {
    let Some(spec) = child(map, "spec") else { return };
    each(spec, "limits", |limit| {
        if text(limit, "type") != "Container" {
            return;
        }
        for (name, from) in [("default", "max"), ("defaultRequest", "default"), ("defaultRequest", "min")] {
            let Some(values) = limit.get(from).and_then(Value::as_object).cloned() else { continue };
            if let Some(into) = child(limit, name) {
                values.into_iter().for_each(|(resource, value)| put(into, &resource, value));
            }
        }
    });
}

/// Which objects a webhook or policy is asked about.
fn matching(holder: &mut Object, rules: &str) {
    put(holder, "matchPolicy", "Equivalent");
    put(holder, "namespaceSelector", empty());
    put(holder, "objectSelector", empty());
    for rules in [rules, "excludeResourceRules"] {
        each(holder, rules, |rule| put(rule, "scope", "*"));
    }
}

pub(super) fn webhooks(map: &mut Object, mutating: bool) {
    each(map, "webhooks", |webhook| {
        put(webhook, "failurePolicy", "Fail");
        put(webhook, "timeoutSeconds", 10);
        if mutating {
            put(webhook, "reinvocationPolicy", "Never");
        }
        matching(webhook, "rules");
        client(webhook);
    });
}

fn client(holder: &mut Object) {
    if let Some(service) = present(holder, "clientConfig").and_then(|config| present(config, "service")) {
        put(service, "port", 443);
    }
}

pub(super) fn admission_policy(map: &mut Object) {
    let Some(spec) = child(map, "spec") else { return };
    put(spec, "failurePolicy", "Fail");
    if let Some(constraints) = present(spec, "matchConstraints") {
        matching(constraints, "resourceRules");
    }
}

pub(super) fn admission_binding(map: &mut Object) {
    if let Some(resources) = present(map, "spec").and_then(|spec| present(spec, "matchResources")) {
        matching(resources, "resourceRules");
    }
}

pub(super) fn custom_resource_definition(map: &mut Object) {
    let Some(spec) = child(map, "spec") else { return };
    if let Some(names) = child(spec, "names") {
        let kind = text(names, "kind").to_owned();
        if !kind.is_empty() {
            put(names, "singular", kind.to_lowercase());
            put(names, "listKind", format!("{kind}List"));
        }
    }
    if let Some(conversion) = child(spec, "conversion") {
        put(conversion, "strategy", "None");
        if let Some(webhook) = present(conversion, "webhook") {
            client(webhook);
        }
    }
}

pub(super) fn api_service(map: &mut Object) {
    if let Some(service) = present(map, "spec").and_then(|spec| present(spec, "service")) {
        put(service, "port", 443);
    }
}

pub(super) fn flow_schema(map: &mut Object) {
    if let Some(spec) = child(map, "spec") {
        put(spec, "matchingPrecedence", 1000);
    }
}

pub(super) fn priority_level(map: &mut Object) {
    let Some(spec) = child(map, "spec") else { return };
    match text(spec, "type") {
        "Limited" => {
            let Some(limited) = present(spec, "limited") else { return };
            put(limited, "nominalConcurrencyShares", 30);
            put(limited, "lendablePercent", 0);
            if let Some(queuing) =
                present(limited, "limitResponse").and_then(|response| present(response, "queuing"))
            {
                put(queuing, "queues", 64);
                put(queuing, "handSize", 8);
                put(queuing, "queueLengthLimit", 50);
            }
        }
        "Exempt" => {
            if let Some(exempt) = child(spec, "exempt") {
                put(exempt, "nominalConcurrencyShares", 0);
                put(exempt, "lendablePercent", 0);
            }
        }
        _ => {}
    }
}

pub(super) fn device_claim(spec: &mut Object) {
    let Some(devices) = present(spec, "devices") else { return };
    each(devices, "requests", |request| {
        if let Some(exactly) = present(request, "exactly") {
            device_request(exactly);
        }
        each(request, "firstAvailable", device_request);
    });
}

fn device_request(request: &mut Object) {
    put(request, "allocationMode", "ExactCount");
    if text(request, "allocationMode") == "ExactCount" {
        put(request, "count", 1);
    }
    each(request, "tolerations", |toleration| put(toleration, "operator", "Equal"));
}
