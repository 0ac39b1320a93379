//! Prints nodes, namespaces, configuration and what was noted about them.

use jiff::Timestamp;
use serde_json::Value;

use super::{AGE, Column, NAME, Printer, cell, number, text, wide};

pub const NAMESPACE: Printer = Printer { columns: &[NAME, text("Status"), AGE], cells: namespace };

pub const NODE: Printer = Printer {
    columns: &[
        NAME,
        text("Status"),
        text("Roles"),
        AGE,
        text("Version"),
        wide("Internal-IP"),
        wide("External-IP"),
        wide("OS-Image"),
        wide("Kernel-Version"),
        wide("Container-Runtime"),
    ],
    cells: node,
};

pub const CONFIG_MAP: Printer = Printer { columns: &[NAME, number("Data"), AGE], cells: config_map };
pub const SECRET: Printer = Printer { columns: &[NAME, text("Type"), number("Data"), AGE], cells: secret };
pub const SERVICE_ACCOUNT: Printer =
    Printer { columns: &[NAME, number("Secrets"), AGE], cells: service_account };
pub const LEASE: Printer = Printer { columns: &[NAME, text("Holder"), AGE], cells: lease };

pub const PRIORITY_CLASS: Printer = Printer {
    columns: &[
        NAME,
        number("Value"),
        Column { name: "Global-Default", kind: "boolean", priority: 0 },
        AGE,
        text("PreemptionPolicy"),
    ],
    cells: priority_class,
};

pub const EVENT: Printer = Printer {
    columns: &[
        text("Last Seen"),
        text("Type"),
        text("Reason"),
        text("Object"),
        wide("Subobject"),
        wide("Source"),
        text("Message"),
        wide("First Seen"),
        wide("Count"),
        Column { name: "Name", kind: "string", priority: 1 },
    ],
    cells: event,
};

const ROLE_LABEL: &str = "node-role.kubernetes.io/";

fn namespace(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![cell::name(object), cell::str(&object["status"]["phase"]).into(), cell::age(object, now)]
}

fn node(object: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (&object["spec"], &object["status"]);
    let ready = cell::list(&status["conditions"]).iter().find(|one| cell::str(&one["type"]) == "Ready");
    let mut state = match ready.map(|one| cell::str(&one["status"])) {
        Some("True") => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    }
    .to_owned();
    if spec["unschedulable"] == true {
        state.push_str(",SchedulingDisabled");
    }
    let labels = object["metadata"]["labels"].as_object();
    let roles = labels.into_iter().flatten().filter_map(|(key, value)| match key.strip_prefix(ROLE_LABEL) {
        Some(role) if !role.is_empty() => Some(role),
        _ if key == "kubernetes.io/role" => value.as_str().filter(|role| !role.is_empty()),
        _ => None,
    });
    let roles = cell::joined(roles);
    let address = |kind: &str| {
        let found = cell::list(&status["addresses"]).iter().find(|one| cell::str(&one["type"]) == kind);
        cell::or_none(found.map(|one| cell::str(&one["address"])).unwrap_or_default())
    };
    let info = |field: &str| -> Value {
        let text = cell::str(&status["nodeInfo"][field]);
        if text.is_empty() { "<unknown>".into() } else { text.into() }
    };
    vec![
        cell::name(object),
        state.into(),
        cell::or_none(&roles),
        cell::age(object, now),
        cell::str(&status["nodeInfo"]["kubeletVersion"]).into(),
        address("InternalIP"),
        address("ExternalIP"),
        info("osImage"),
        info("kernelVersion"),
        info("containerRuntimeVersion"),
    ]
}

fn entries(value: &Value) -> usize {
    value.as_object().map_or(0, serde_json::Map::len)
}

fn config_map(object: &Value, now: Timestamp) -> Vec<Value> {
    let count = entries(&object["data"]) + entries(&object["binaryData"]);
    vec![cell::name(object), count.into(), cell::age(object, now)]
}

fn secret(object: &Value, now: Timestamp) -> Vec<Value> {
    let count = entries(&object["data"]);
    vec![cell::name(object), cell::str(&object["type"]).into(), count.into(), cell::age(object, now)]
}

fn service_account(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![cell::name(object), cell::list(&object["secrets"]).len().into(), cell::age(object, now)]
}

fn lease(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![cell::name(object), cell::str(&object["spec"]["holderIdentity"]).into(), cell::age(object, now)]
}

fn priority_class(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![
        cell::name(object),
        cell::count(&object["value"]),
        (object["globalDefault"] == true).into(),
        cell::age(object, now),
        cell::str(&object["preemptionPolicy"]).into(),
    ]
}

fn event(object: &Value, now: Timestamp) -> Vec<Value> {
    let first_of = |fields: &[&Value]| {
        fields
            .iter()
            .find(|value| value.is_string())
            .map_or_else(|| "<unknown>".to_owned(), |value| cell::since(value, now))
    };
    let first =
        first_of(&[&object["firstTimestamp"], &object["deprecatedFirstTimestamp"], &object["eventTime"]]);
    let last = first_of(&[
        &object["series"]["lastObservedTime"],
        &object["lastTimestamp"],
        &object["deprecatedLastTimestamp"],
        &object["eventTime"],
    ]);
    let about =
        if object["involvedObject"].is_object() { &object["involvedObject"] } else { &object["regarding"] };
    let source = if object["source"].is_object() { &object["source"] } else { &object["deprecatedSource"] };
    let component = match cell::str(&source["component"]) {
        "" => cell::str(&object["reportingComponent"]),
        component => component,
    };
    let host = match cell::str(&source["host"]) {
        "" => cell::str(&object["reportingInstance"]),
        host => host,
    };
    let source = if host.is_empty() { component.to_owned() } else { format!("{component}, {host}") };
    let count = [&object["series"]["count"], &object["count"], &object["deprecatedCount"]];
    let count = count.iter().find_map(|value| value.as_i64().filter(|count| *count > 0)).unwrap_or(1);
    let message = object["message"].as_str().unwrap_or(cell::str(&object["note"])).trim();
    vec![
        last.into(),
        cell::str(&object["type"]).into(),
        cell::str(&object["reason"]).into(),
        format!("{}/{}", cell::str(&about["kind"]).to_lowercase(), cell::str(&about["name"])).into(),
        cell::str(&about["fieldPath"]).into(),
        source.into(),
        message.into(),
        first.into(),
        count.to_string().into(),
        cell::name(object),
    ]
}
