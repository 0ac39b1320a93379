//! Prints objects as rows, as `kubectl get` shows them.
//!
//! The server prints: a client needs to know nothing of a kind. Columns of priority 1 are shown by `-o wide` only.

mod batch;
mod cell;
mod cluster;
mod custom;
mod network;
mod pod;
mod policy;
mod rbac;
mod storage;
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
    if let Some(custom) = &resource.custom {
        return custom::columns(custom);
    }
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
    if let Some(custom) = &resource.custom {
        return custom::row(custom, object, now);
    }
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
        _ => kept(resource),
    }
}

/// How the kinds that are kept for others to act on are printed.
fn kept(resource: &Resource) -> &'static Printer {
    match (resource.group.as_ref(), resource.kind.as_ref()) {
        ("", "ComponentStatus") => &policy::COMPONENT,
        ("", "PersistentVolume") => &storage::VOLUME,
        ("", "PersistentVolumeClaim") => &storage::CLAIM,
        ("", "PodTemplate") => &batch::POD_TEMPLATE,
        ("", "ReplicationController") => &batch::REPLICATION_CONTROLLER,
        ("", "ResourceQuota") => &policy::RESOURCE_QUOTA,
        ("apps", "StatefulSet") => &batch::STATEFUL_SET,
        ("autoscaling", "HorizontalPodAutoscaler") => &batch::AUTOSCALER,
        ("batch", "Job") => &batch::JOB,
        ("batch", "CronJob") => &batch::CRON_JOB,
        ("policy", "PodDisruptionBudget") => &batch::DISRUPTION_BUDGET,
        ("networking.k8s.io", "Ingress") => &policy::INGRESS,
        ("networking.k8s.io", "IngressClass") => &policy::INGRESS_CLASS,
        ("networking.k8s.io", "IPAddress") => &policy::IP_ADDRESS,
        ("networking.k8s.io", "NetworkPolicy") => &policy::NETWORK_POLICY,
        ("networking.k8s.io", "ServiceCIDR") => &policy::SERVICE_CIDR,
        ("storage.k8s.io", "CSIDriver") => &storage::DRIVER,
        ("storage.k8s.io", "CSINode") => &storage::NODE,
        ("storage.k8s.io", "CSIStorageCapacity") => &storage::CAPACITY,
        ("storage.k8s.io", "StorageClass") => &storage::STORAGE_CLASS,
        ("storage.k8s.io", "VolumeAttachment") => &storage::ATTACHMENT,
        ("storage.k8s.io", "VolumeAttributesClass") => &storage::ATTRIBUTES_CLASS,
        ("node.k8s.io", "RuntimeClass") => &policy::RUNTIME_CLASS,
        (
            "admissionregistration.k8s.io",
            "MutatingWebhookConfiguration" | "ValidatingWebhookConfiguration",
        ) => &policy::WEBHOOKS,
        ("admissionregistration.k8s.io", "ValidatingAdmissionPolicy") => &policy::VALIDATING_POLICY,
        ("admissionregistration.k8s.io", "MutatingAdmissionPolicy") => &policy::MUTATING_POLICY,
        ("admissionregistration.k8s.io", _) => &policy::POLICY_BINDING,
        ("apiregistration.k8s.io", "APIService") => &policy::API_SERVICE,
        ("certificates.k8s.io", "CertificateSigningRequest") => &policy::SIGNING_REQUEST,
        ("certificates.k8s.io", "ClusterTrustBundle") => &policy::TRUST_BUNDLE,
        ("flowcontrol.apiserver.k8s.io", "FlowSchema") => &policy::FLOW_SCHEMA,
        ("flowcontrol.apiserver.k8s.io", "PriorityLevelConfiguration") => &policy::PRIORITY_LEVEL,
        ("resource.k8s.io", "ResourceClaim") => &policy::DEVICE_CLAIM,
        ("resource.k8s.io", "ResourceSlice") => &policy::DEVICE_SLICE,
        ("resource.k8s.io", _) => &policy::AGED,
        _ => &PLAIN,
    }
}

#[cfg(test)]
mod tests;
