//! Prints objects as rows, as `kubectl get` shows them.
//!
//! The server prints: a client needs to know nothing of a kind. Columns of priority 1 are shown by `-o wide` only.

mod cell;
mod cluster;
mod network;
mod pod;
mod rbac;
mod workload;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::catalogue::Resource;

/// One column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Column {
    name: &'static str,
    /// `string`, `integer` or `date`.
    kind: &'static str,
    /// 1: shown in wide tables only.
    priority: i32,
}

/// How a kind is printed.
struct Printer {
    /// Behind the name, before the age of narrow tables.
    columns: &'static [Column],
    /// One cell a column.
    cells: fn(&Value, Timestamp) -> Vec<Value>,
}

const fn text(name: &'static str) -> Column {
    Column { name, kind: "string", priority: 0 }
}

const fn number(name: &'static str) -> Column {
    Column { name, kind: "integer", priority: 0 }
}

const fn wide(name: &'static str) -> Column {
    Column { name, kind: "string", priority: 1 }
}

const NAME: Column = text("Name");
const AGE: Column = text("Age");

const PLAIN: Printer = Printer {
    columns: &[NAME, Column { name: "Created At", kind: "date", priority: 0 }],
    cells: |object, _| vec![cell::name(object), object["metadata"]["creationTimestamp"].clone()],
};

/// The column definitions of a resource's table (`meta.k8s.io/v1` TableColumnDefinition).
pub fn columns(resource: &Resource) -> Value {
    let definitions = printer(resource).columns.iter().map(|column| {
        // The format tells clients which column names the object.
        let format = if *column == NAME { "name" } else { "" };
        json!({
            "name": column.name,
            "type": column.kind,
            "format": format,
            "description": format!("{} of the {}.", column.name, resource.kind),
            "priority": column.priority,
        })
    });
    definitions.collect()
}

/// The row of one object, without the object itself. `now` is what ages are counted to.
pub fn row(resource: &Resource, object: &Value, now: Timestamp) -> Value {
    let mut row = json!({"cells": (printer(resource).cells)(object, now)});
    if resource.kind == "Pod" {
        let conditions = pod::conditions(object);
        if !conditions.is_empty() {
            row["conditions"] = conditions.into();
        }
    }
    row
}

fn printer(resource: &Resource) -> &'static Printer {
    match (resource.group.as_ref(), resource.kind.as_ref()) {
        ("", "Pod") => &pod::POD,
        ("", "Namespace") => &cluster::NAMESPACE,
        ("", "Node") => &cluster::NODE,
        ("", "ConfigMap") => &cluster::CONFIG_MAP,
        ("", "Secret") => &cluster::SECRET,
        ("", "ServiceAccount") => &cluster::SERVICE_ACCOUNT,
        ("", "Event") | ("events.k8s.io", "Event") => &cluster::EVENT,
        ("coordination.k8s.io", "Lease") => &cluster::LEASE,
        ("scheduling.k8s.io", "PriorityClass") => &cluster::PRIORITY_CLASS,
        ("", "Service") => &network::SERVICE,
        ("", "Endpoints") => &network::ENDPOINTS,
        ("discovery.k8s.io", "EndpointSlice") => &network::ENDPOINT_SLICE,
        ("apps", "Deployment") => &workload::DEPLOYMENT,
        ("apps", "ReplicaSet") => &workload::REPLICA_SET,
        ("apps", "DaemonSet") => &workload::DAEMON_SET,
        ("apps", "ControllerRevision") => &workload::CONTROLLER_REVISION,
        ("rbac.authorization.k8s.io", "RoleBinding" | "ClusterRoleBinding") => &rbac::BINDING,
        _ => &PLAIN,
    }
}

#[cfg(test)]
mod tests;
