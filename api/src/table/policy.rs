//! Prints what rules traffic, requests, quantities and devices.

use jiff::Timestamp;
use serde_json::Value;

use super::{AGE, NAME, Printer, cell, number, text};

pub const INGRESS: Printer = Printer {
    columns: &[NAME, text("Class"), text("Hosts"), text("Address"), text("Ports"), AGE],
    cells: ingress,
};
pub const INGRESS_CLASS: Printer =
    Printer { columns: &[NAME, text("Controller"), text("Parameters"), AGE], cells: ingress_class };
pub const NETWORK_POLICY: Printer =
    Printer { columns: &[NAME, text("Pod-Selector"), AGE], cells: network_policy };
pub const IP_ADDRESS: Printer = Printer { columns: &[NAME, text("ParentRef"), AGE], cells: ip_address };
pub const SERVICE_CIDR: Printer = Printer { columns: &[NAME, text("CIDRs"), AGE], cells: service_cidr };
pub const RESOURCE_QUOTA: Printer =
    Printer { columns: &[NAME, text("Request"), text("Limit"), AGE], cells: resource_quota };
pub const RUNTIME_CLASS: Printer = Printer { columns: &[NAME, text("Handler"), AGE], cells: runtime_class };
pub const WEBHOOKS: Printer = Printer { columns: &[NAME, number("Webhooks"), AGE], cells: webhooks };
pub const VALIDATING_POLICY: Printer =
    Printer { columns: &[NAME, number("Validations"), text("ParamKind"), AGE], cells: validating_policy };
pub const MUTATING_POLICY: Printer =
    Printer { columns: &[NAME, number("Mutations"), text("ParamKind"), AGE], cells: mutating_policy };
pub const POLICY_BINDING: Printer =
    Printer { columns: &[NAME, text("PolicyName"), text("ParamRef"), AGE], cells: policy_binding };
pub const API_SERVICE: Printer =
    Printer { columns: &[NAME, text("Service"), text("Available"), AGE], cells: api_service };
pub const SIGNING_REQUEST: Printer = Printer {
    columns: &[
        NAME,
        AGE,
        text("SignerName"),
        text("Requestor"),
        text("RequestedDuration"),
        text("Condition"),
    ],
    cells: signing_request,
};
pub const TRUST_BUNDLE: Printer = Printer { columns: &[NAME, text("SignerName")], cells: trust_bundle };
pub const FLOW_SCHEMA: Printer = Printer {
    columns: &[
        NAME,
        text("PriorityLevel"),
        number("MatchingPrecedence"),
        text("DistinguisherMethod"),
        AGE,
        text("MissingPL"),
    ],
    cells: flow_schema,
};
pub const PRIORITY_LEVEL: Printer = Printer {
    columns: &[
        NAME,
        text("Type"),
        text("NominalConcurrencyShares"),
        text("Queues"),
        text("HandSize"),
        text("QueueLengthLimit"),
        AGE,
    ],
    cells: priority_level,
};
pub const DEVICE_CLAIM: Printer = Printer { columns: &[NAME, text("State"), AGE], cells: device_claim };
pub const DEVICE_SLICE: Printer =
    Printer { columns: &[NAME, text("Node"), text("Driver"), text("Pool"), AGE], cells: device_slice };
pub const AGED: Printer = Printer { columns: &[NAME, AGE], cells: aged };
pub const COMPONENT: Printer =
    Printer { columns: &[NAME, text("Status"), text("Message"), text("Error")], cells: component };

/// So many hosts of an ingress are shown; the others are counted.
const HOSTS_MAX: usize = 3;
const UNSET: &str = "<unset>";
const NONE: &str = "<none>";

fn aged(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![cell::name(object), cell::age(object, now)]
}

fn or(text: &str, other: &str) -> Value {
    if text.is_empty() { other.into() } else { text.into() }
}

fn ingress(object: &Value, now: Timestamp) -> Vec<Value> {
    let spec = &object["spec"];
    let rules = cell::list(&spec["rules"]);
    let hosts: Vec<&str> =
        rules.iter().map(|rule| cell::str(&rule["host"])).filter(|host| !host.is_empty()).collect();
    let shown = cell::joined(hosts.iter().take(HOSTS_MAX).copied());
    let hosts = match hosts.len() {
        0 => "*".to_owned(),
        count if count > HOSTS_MAX => format!("{shown} + {} more...", rules.len() - HOSTS_MAX),
        _ => shown,
    };
    let mut addresses: Vec<&str> = cell::list(&object["status"]["loadBalancer"]["ingress"])
        .iter()
        .map(|one| one["ip"].as_str().unwrap_or(cell::str(&one["hostname"])))
        .filter(|address| !address.is_empty())
        .collect();
    addresses.sort_unstable();
    addresses.dedup();
    vec![
        cell::name(object),
        cell::or_none(cell::str(&spec["ingressClassName"])),
        hosts.into(),
        cell::joined(addresses.into_iter()).into(),
        if cell::list(&spec["tls"]).is_empty() { "80".into() } else { "80, 443".into() },
        cell::age(object, now),
    ]
}

fn ingress_class(object: &Value, now: Timestamp) -> Vec<Value> {
    let spec = &object["spec"];
    let parameters = match &spec["parameters"] {
        Value::Null => NONE.to_owned(),
        to => {
            let group = cell::str(&to["apiGroup"]);
            let group = if group.is_empty() { String::new() } else { format!(".{group}") };
            format!("{}{group}/{}", cell::str(&to["kind"]), cell::str(&to["name"]))
        }
    };
    vec![cell::name(object), cell::str(&spec["controller"]).into(), parameters.into(), cell::age(object, now)]
}

fn network_policy(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![cell::name(object), cell::selector(&object["spec"]["podSelector"]), cell::age(object, now)]
}

fn ip_address(object: &Value, now: Timestamp) -> Vec<Value> {
    let parent = match &object["spec"]["parentRef"] {
        Value::Null => NONE.to_owned(),
        parent => {
            let (group, resource) = (cell::str(&parent["group"]), cell::str(&parent["resource"]));
            let dot = if group.is_empty() { "" } else { "." };
            let (namespace, name) = (cell::str(&parent["namespace"]), cell::str(&parent["name"]));
            let slash = if namespace.is_empty() { "" } else { "/" };
            format!("{}/{namespace}{slash}{name}", format!("{resource}{dot}{group}").to_lowercase())
        }
    };
    vec![cell::name(object), parent.into(), cell::age(object, now)]
}

fn service_cidr(object: &Value, now: Timestamp) -> Vec<Value> {
    let cidrs = cell::joined(cell::list(&object["spec"]["cidrs"]).iter().map(cell::str));
    vec![cell::name(object), cidrs.into(), cell::age(object, now)]
}

fn resource_quota(object: &Value, now: Timestamp) -> Vec<Value> {
    let (mut requests, mut limits) = (Vec::new(), Vec::new());
    for (name, hard) in object["status"]["hard"].as_object().into_iter().flatten() {
        let used = object["status"]["used"][name].as_str().unwrap_or("0");
        let shown = format!("{name}: {used}/{}", cell::str(hard));
        if name.starts_with("limits.") { limits.push(shown) } else { requests.push(shown) }
    }
    vec![cell::name(object), requests.join(", ").into(), limits.join(", ").into(), cell::age(object, now)]
}

fn runtime_class(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![cell::name(object), cell::str(&object["handler"]).into(), cell::age(object, now)]
}

fn webhooks(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![cell::name(object), cell::list(&object["webhooks"]).len().into(), cell::age(object, now)]
}

fn validating_policy(object: &Value, now: Timestamp) -> Vec<Value> {
    admission_policy(object, "validations", now)
}

fn mutating_policy(object: &Value, now: Timestamp) -> Vec<Value> {
    admission_policy(object, "mutations", now)
}

fn admission_policy(object: &Value, what: &str, now: Timestamp) -> Vec<Value> {
    let spec = &object["spec"];
    let kind = match &spec["paramKind"] {
        Value::Null => UNSET.to_owned(),
        kind => format!("{}/{}", cell::str(&kind["apiVersion"]), cell::str(&kind["kind"])),
    };
    vec![cell::name(object), cell::list(&spec[what]).len().into(), kind.into(), cell::age(object, now)]
}

fn policy_binding(object: &Value, now: Timestamp) -> Vec<Value> {
    let spec = &object["spec"];
    let parameters = match &spec["paramRef"] {
        Value::Null => UNSET.to_owned(),
        to => match (cell::str(&to["namespace"]), cell::str(&to["name"])) {
            ("", "") => cell::str(&cell::selector(&to["selector"])).to_owned(),
            ("", name) => name.to_owned(),
            (namespace, name) => format!("{namespace}/{name}"),
        },
    };
    vec![cell::name(object), cell::str(&spec["policyName"]).into(), parameters.into(), cell::age(object, now)]
}

fn api_service(object: &Value, now: Timestamp) -> Vec<Value> {
    let service = match &object["spec"]["service"] {
        Value::Null => "Local".to_owned(),
        to => format!("{}/{}", cell::str(&to["namespace"]), cell::str(&to["name"])),
    };
    let conditions = cell::list(&object["status"]["conditions"]);
    let available = conditions.iter().find(|one| one["type"] == "Available");
    let available = match available.map(|one| (cell::str(&one["status"]), cell::str(&one["reason"]))) {
        None => "Unknown".to_owned(),
        Some(("True", _)) => "True".to_owned(),
        Some((status, reason)) => format!("{status} ({reason})"),
    };
    vec![cell::name(object), service.into(), available.into(), cell::age(object, now)]
}

fn signing_request(object: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (&object["spec"], &object["status"]);
    let has = |name: &str| cell::list(&status["conditions"]).iter().any(|one| one["type"] == name);
    let mut state = if has("Denied") {
        "Denied"
    } else if has("Approved") {
        "Approved"
    } else {
        "Pending"
    }
    .to_owned();
    if has("Failed") {
        state.push_str(",Failed");
    }
    if !cell::str(&status["certificate"]).is_empty() {
        state.push_str(",Issued");
    }
    let wanted = match spec["expirationSeconds"].as_i64() {
        Some(seconds) => crate::time::human_duration(jiff::SignedDuration::from_secs(seconds)),
        None => NONE.to_owned(),
    };
    vec![
        cell::name(object),
        cell::age(object, now),
        or(cell::str(&spec["signerName"]), NONE),
        cell::str(&spec["username"]).into(),
        wanted.into(),
        state.into(),
    ]
}

fn trust_bundle(object: &Value, _: Timestamp) -> Vec<Value> {
    vec![cell::name(object), or(cell::str(&object["spec"]["signerName"]), NONE)]
}

fn flow_schema(object: &Value, now: Timestamp) -> Vec<Value> {
    let spec = &object["spec"];
    let dangling = cell::list(&object["status"]["conditions"]).iter().find(|one| one["type"] == "Dangling");
    let missing = dangling.map(|one| cell::str(&one["status"])).filter(|status| *status != "Unknown");
    vec![
        cell::name(object),
        or(cell::str(&spec["priorityLevelConfiguration"]["name"]), NONE),
        cell::count(&spec["matchingPrecedence"]),
        or(cell::str(&spec["distinguisherMethod"]["type"]), NONE),
        cell::age(object, now),
        missing.unwrap_or("?").into(),
    ]
}

fn priority_level(object: &Value, now: Timestamp) -> Vec<Value> {
    let spec = &object["spec"];
    let number = |value: &Value| match value.as_i64() {
        Some(number) => number.to_string().into(),
        None => Value::from(NONE),
    };
    let shares = match cell::str(&spec["type"]) {
        "Exempt" => &spec["exempt"]["nominalConcurrencyShares"],
        _ => &spec["limited"]["nominalConcurrencyShares"],
    };
    let queuing = &spec["limited"]["limitResponse"]["queuing"];
    vec![
        cell::name(object),
        cell::str(&spec["type"]).into(),
        number(shares),
        number(&queuing["queues"]),
        number(&queuing["handSize"]),
        number(&queuing["queueLengthLimit"]),
        cell::age(object, now),
    ]
}

fn device_claim(object: &Value, now: Timestamp) -> Vec<Value> {
    let status = &object["status"];
    let mut states = Vec::new();
    if object["metadata"]["deletionTimestamp"].is_string() {
        states.push("deleted");
    }
    if status["allocation"].is_null() {
        if states.is_empty() {
            states.push("pending");
        }
    } else {
        states.push("allocated");
        let reserved = !cell::list(&status["reservedFor"]).is_empty();
        states.extend(reserved.then_some("reserved"));
    }
    vec![cell::name(object), cell::joined(states.into_iter()).into(), cell::age(object, now)]
}

fn device_slice(object: &Value, now: Timestamp) -> Vec<Value> {
    let spec = &object["spec"];
    vec![
        cell::name(object),
        or(cell::str(&spec["nodeName"]), UNSET),
        cell::str(&spec["driver"]).into(),
        cell::str(&spec["pool"]["name"]).into(),
        cell::age(object, now),
    ]
}

fn component(object: &Value, _: Timestamp) -> Vec<Value> {
    let healthy = cell::list(&object["conditions"]).iter().find(|one| one["type"] == "Healthy");
    let healthy = healthy.unwrap_or(&Value::Null);
    let state = match cell::str(&healthy["status"]) {
        "True" => "Healthy",
        "False" => "Unhealthy",
        _ => "Unknown",
    };
    vec![
        cell::name(object),
        state.into(),
        cell::str(&healthy["message"]).into(),
        cell::str(&healthy["error"]).into(),
    ]
}
