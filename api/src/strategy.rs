//! What a write does to an object besides validation: which part of it the caller may set, and what the server keeps,
//! mints and counts.

use serde_json::{Map, Value, json};

use crate::catalogue::Resource;

mod kept;
mod pod;
pub mod qos;
pub mod scale;
mod service;

pub use kept::approval_update;
pub use pod::{ephemeral_update, resize_update};

type Object = Map<String, Value>;

/// What the server mints for a new object.
#[derive(Clone, Debug)]
pub struct Minted<'a> {
    /// Its uid.
    pub uid: &'a str,
    /// Now, as [`crate::time::format`] writes it.
    pub time: &'a str,
}

/// Metadata that only the server sets.
const SERVER_OWNED: [&str; 8] = [
    "name",
    "namespace",
    "uid",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "generation",
    "selfLink",
];

const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";

/// Prepares a new object: it gets its identity, and a status only where the kind's owner writes it at creation.
///
/// Call it after defaults; `metadata.name` is set already, `metadata.namespace` as well where there is one.
pub fn create(resource: &Resource, object: &mut Value, minted: &Minted<'_>) {
    let Value::Object(map) = object else { return };
    let metadata = child(map, "metadata");
    for name in
        ["deletionTimestamp", "deletionGracePeriodSeconds", "generation", "selfLink", "resourceVersion"]
    {
        metadata.remove(name);
    }
    metadata.insert("uid".to_owned(), minted.uid.into());
    metadata.insert("creationTimestamp".to_owned(), minted.time.into());
    if !resource.namespaced() {
        metadata.remove("namespace");
    }
    if counts_generations(resource) {
        metadata.insert("generation".to_owned(), 1.into());
    }
    if resource.has_status() && !resource.is("", "nodes") {
        map.remove("status");
    }
    match (&*resource.group, &*resource.kind) {
        ("", "Pod") => {
            let class = qos::class(map);
            map.insert("status".to_owned(), json!({"phase": "Pending", "qosClass": class}));
        }
        ("", "Namespace") => {
            map.insert("status".to_owned(), json!({"phase": "Active"}));
            let metadata = child(map, "metadata");
            let name = metadata.get("name").cloned();
            if let Some(name) = name {
                let labels = child(metadata, "labels");
                labels.entry("kubernetes.io/metadata.name").or_insert(name);
            }
            let finalizers = child(map, "spec").entry("finalizers").or_insert_with(|| json!([]));
            if let Value::Array(list) = finalizers
                && !list.iter().any(|finalizer| finalizer == "kubernetes")
            {
                list.push("kubernetes".into());
            }
        }
        ("", "Service") => {
            map.insert("status".to_owned(), json!({"loadBalancer": {}}));
        }
        ("apps", "DaemonSet") => {
            let annotations = child(child(map, "metadata"), "annotations");
            annotations.insert(TEMPLATE_GENERATION.to_owned(), "1".into());
            map.insert("status".to_owned(), daemon_set_status());
        }
        ("apps", "Deployment") => {
            map.insert("status".to_owned(), json!({}));
        }
        ("apps", "ReplicaSet") => {
            map.insert("status".to_owned(), json!({"replicas": 0}));
        }
        // A node says itself how it is, from the first write.
        ("", "Node") => {}
        _ => kept::create(resource, map, minted),
    }
}

fn daemon_set_status() -> Value {
    json!({"currentNumberScheduled": 0, "desiredNumberScheduled": 0, "numberMisscheduled": 0, "numberReady": 0})
}

/// Prepares an update: the server's metadata and the status stay as they were, the generation counts changes.
///
/// Call it after defaults and before managed fields and validation.
pub fn update(resource: &Resource, new: &mut Value, old: &Value) {
    let (Value::Object(map), Value::Object(before)) = (new, old) else { return };
    keep_metadata(map, before);
    if resource.has_status() {
        keep(map, before, "status");
    }
    match (&*resource.group, &*resource.kind) {
        ("", "Service") => service::keep_allocated(map, before),
        ("", "Namespace") => {
            let finalizers = before.get("spec").and_then(|spec| spec.get("finalizers")).cloned();
            let spec = child(map, "spec");
            match finalizers {
                Some(finalizers) => spec.insert("finalizers".to_owned(), finalizers),
                None => spec.remove("finalizers"),
            };
        }
        ("apps", "DaemonSet") => template_generation(map, before),
        ("apiextensions.k8s.io", "CustomResourceDefinition") => kept::remember_versions(map),
        // A request for a certificate is what it is.
        ("certificates.k8s.io", "CertificateSigningRequest") => keep(map, before, "spec"),
        _ => {}
    }
    if counts_generations(resource) && is_new_generation(resource, map, before) {
        let generation = before
            .get("metadata")
            .and_then(|metadata| metadata.get("generation"))
            .and_then(Value::as_i64)
            .unwrap_or_default();
        child(map, "metadata").insert("generation".to_owned(), (generation + 1).into());
    }
}

/// Prepares an update of the status: everything else stays as it was, but for labels and annotations.
pub fn status_update(resource: &Resource, new: &mut Value, old: &Value) {
    let (Value::Object(map), Value::Object(before)) = (new, old) else { return };
    keep_metadata(map, before);
    if resource.custom.is_some() {
        return custom_status_update(map, before);
    }
    map.retain(|name, _| name == "metadata" || name == "status");
    for (name, value) in before {
        if name != "metadata" && name != "status" {
            map.insert(name.clone(), value.clone());
        }
    }
    let old_metadata = before.get("metadata").and_then(Value::as_object);
    let metadata = child(map, "metadata");
    let old_metadata = old_metadata.unwrap_or(&EMPTY);
    keep(metadata, old_metadata, "ownerReferences");
    keep(metadata, old_metadata, "finalizers");
    if resource.group == "apps" {
        keep(metadata, old_metadata, "labels");
    }
    if resource.is("certificates.k8s.io", "certificatesigningrequests") {
        kept::keep_approvals(map, before);
    }
    if resource.is("", "pods") {
        let class = before.get("status").and_then(|status| status.get("qosClass")).cloned();
        if let Some(class) = class {
            child(map, "status").entry("qosClass").or_insert(class);
        }
    }
}

/// Of a custom resource nothing but the status changes; who owns what is told in the metadata.
fn custom_status_update(map: &mut Object, before: &Object) {
    let status = map.remove("status");
    let owners = child(map, "metadata").remove("managedFields");
    *map = before.clone();
    map.remove("status");
    map.extend(status.map(|status| ("status".to_owned(), status)));
    let metadata = child(map, "metadata");
    metadata.remove("managedFields");
    metadata.extend(owners.map(|owners| ("managedFields".to_owned(), owners)));
}

/// Prepares an update through `finalize` of a namespace: only `spec.finalizers` changes.
pub fn finalize_update(new: &mut Value, old: &Value) {
    let finalizers = new.get("spec").and_then(|spec| spec.get("finalizers")).cloned();
    let mut kept = old.clone();
    if let Value::Object(map) = &mut kept {
        let spec = child(map, "spec");
        match finalizers {
            Some(finalizers) => spec.insert("finalizers".to_owned(), finalizers),
            None => spec.remove("finalizers"),
        };
    }
    *new = kept;
}

/// What a path does not write, as a field set: a leaf stands for all below it.
///
/// An applied configuration may name such fields; they are not its manager's.
pub fn reset_fields(resource: &Resource, subresource: &str) -> Object {
    let leaves = |names: &[&str]| -> Object {
        names.iter().map(|name| (format!("f:{name}"), Value::Object(Map::new()))).collect()
    };
    match subresource {
        "status" => {
            let mut kept = vec!["ownerReferences", "finalizers", "deletionTimestamp"];
            if resource.group == "apps" {
                kept.push("labels");
            }
            let mut reset = leaves(&["spec"]);
            reset.insert("f:metadata".to_owned(), Value::Object(leaves(&kept)));
            reset
        }
        "approval" => leaves(&["spec"]),
        "" if resource.has_status() => leaves(&["status"]),
        _ => Object::new(),
    }
}

static EMPTY: std::sync::LazyLock<Object> = std::sync::LazyLock::new(Map::new);

/// Whether the kind counts its generations.
pub fn counts_generations(resource: &Resource) -> bool {
    if resource.custom.is_some() {
        return true;
    }
    match &*resource.group {
        "" => matches!(&*resource.plural, "pods" | "replicationcontrollers" | "podtemplates"),
        "apps" => resource.plural != "controllerrevisions",
        "networking.k8s.io" => !matches!(&*resource.plural, "ipaddresses" | "servicecidrs"),
        "storage.k8s.io" => resource.plural == "csidrivers",
        "resource.k8s.io" => !matches!(&*resource.plural, "resourceclaims" | "resourceclaimtemplates"),
        "apiregistration.k8s.io"
        | "autoscaling"
        | "certificates.k8s.io"
        | "coordination.k8s.io"
        | "events.k8s.io"
        | "node.k8s.io"
        | "rbac.authorization.k8s.io"
        | "storagemigration.k8s.io" => false,
        _ => resource.stored,
    }
}

fn is_new_generation(resource: &Resource, map: &Object, before: &Object) -> bool {
    // Where nothing but the object itself is written, its status is a part of it like any other.
    let one = resource.custom.is_some() && !resource.has_status();
    let content = |name: &String| {
        name != "metadata" && (one || name != "status") && name != "apiVersion" && name != "kind"
    };
    let changed = map.iter().any(|(name, value)| content(name) && before.get(name) != Some(value))
        || before.keys().any(|name| content(name) && !map.contains_key(name));
    if changed || resource.kind != "Deployment" {
        return changed;
    }
    let annotations =
        |object: &Object| object.get("metadata").and_then(|metadata| metadata.get("annotations")).cloned();
    annotations(map) != annotations(before)
}

fn keep_metadata(map: &mut Object, before: &Object) {
    let Some(old) = before.get("metadata").and_then(Value::as_object) else { return };
    let metadata = child(map, "metadata");
    for name in SERVER_OWNED {
        keep(metadata, old, name);
    }
}

/// Sets a field to what it was, or removes it.
fn keep(map: &mut Object, before: &Object, name: &str) {
    match before.get(name) {
        Some(value) if map.get(name) == Some(value) => {}
        Some(value) => {
            map.insert(name.to_owned(), value.clone());
        }
        None => {
            map.remove(name);
        }
    }
}

/// The object in a field, made where the field holds none.
fn child<'a>(map: &'a mut Object, name: &str) -> &'a mut Object {
    let slot = map.entry(name).or_insert_with(|| Value::Object(Map::new()));
    if !slot.is_object() {
        *slot = Value::Object(Map::new());
    }
    match slot {
        Value::Object(map) => map,
        _ => unreachable!("an object was put here just now"),
    }
}

fn template_generation(map: &mut Object, before: &Object) {
    let template = |object: &Object| object.get("spec").and_then(|spec| spec.get("template")).cloned();
    let old: i64 = before
        .get("metadata")
        .and_then(|metadata| metadata["annotations"].get(TEMPLATE_GENERATION))
        .and_then(Value::as_str)
        .and_then(|text| text.parse().ok())
        .unwrap_or_default();
    let now = if template(map) == template(before) { old } else { old.saturating_add(1) };
    let annotations = child(child(map, "metadata"), "annotations");
    annotations.insert(TEMPLATE_GENERATION.to_owned(), now.to_string().into());
}

#[cfg(test)]
mod tests;
