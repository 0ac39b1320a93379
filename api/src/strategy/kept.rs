//! What a write does to the kinds that are kept for others to act on.

use serde_json::{Map, Value, json};

use super::{Minted, Object, child};
use crate::{
    catalogue::Resource,
    schema::{self, Kind, TypeId},
};

/// Labels that a job gives its pods: today's and those of old clients.
const JOB_NAME: [&str; 2] = ["batch.kubernetes.io/job-name", "job-name"];
const CONTROLLER_UID: [&str; 2] = ["batch.kubernetes.io/controller-uid", "controller-uid"];
const APPROVALS: [&str; 2] = ["Approved", "Denied"];

/// The status of a new object, and what else creation sets.
pub(super) fn create(resource: &Resource, map: &mut Object, minted: &Minted<'_>) {
    let status = match (&*resource.group, &*resource.kind) {
        ("", "PersistentVolumeClaim") => Some(json!({"phase": "Pending"})),
        ("", "PersistentVolume") => Some(json!({"phase": "Pending", "lastPhaseTransitionTime": minted.time})),
        ("batch", "Job") => {
            select_own_pods(map, minted.uid);
            Some(json!({}))
        }
        ("apiextensions.k8s.io", "CustomResourceDefinition") => {
            map.remove("status");
            remember_versions(map);
            map.remove("status")
        }
        ("apiregistration.k8s.io", "APIService") => Some(availability(map, minted.time)),
        _ if resource.has_status() && resource.custom.is_none() => zero_status(resource),
        _ => None,
    };
    if let Some(status) = status {
        map.insert("status".to_owned(), status);
    }
}

/// A job selects the pods that carry its uid, unless it says itself how it selects.
fn select_own_pods(map: &mut Object, uid: &str) {
    let name = map
        .get("metadata")
        .and_then(|metadata| metadata.get("name"))
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned();
    let spec = child(map, "spec");
    if spec.get("manualSelector") == Some(&Value::Bool(true)) {
        return;
    }
    let labels = child(child(child(spec, "template"), "metadata"), "labels");
    for label in JOB_NAME {
        labels.insert(label.to_owned(), name.as_str().into());
    }
    for label in CONTROLLER_UID {
        labels.insert(label.to_owned(), uid.into());
    }
    let labels = labels.clone();
    let selected = child(child(spec, "selector"), "matchLabels");
    selected.entry(CONTROLLER_UID[0]).or_insert_with(|| uid.into());
    // A job without labels has those of its pods.
    child(map, "metadata").entry("labels").or_insert(Value::Object(labels));
}

/// A definition remembers every version that objects may be stored in.
pub(super) fn remember_versions(map: &mut Object) {
    let versions = map.get("spec").and_then(|spec| spec.get("versions")).and_then(Value::as_array);
    let stored: Vec<Value> = versions
        .into_iter()
        .flatten()
        .filter(|version| version["storage"] == true)
        .map(|version| version["name"].clone())
        .collect();
    let remembered = child(map, "status").entry("storedVersions").or_insert_with(|| json!([]));
    if let Value::Array(remembered) = remembered {
        for name in stored {
            if !remembered.contains(&name) {
                remembered.push(name);
            }
        }
    }
}

/// What this server serves itself is always there.
fn availability(map: &Object, time: &str) -> Value {
    match map.get("spec").and_then(|spec| spec.get("service")) {
        Some(Value::Object(_)) => json!({}),
        _ => json!({"conditions": [{"type": "Available", "status": "True", "reason": "Local",
            "message": "Local APIServices are always available", "lastTransitionTime": time}]}),
    }
}

/// The status as Go writes it where nothing was said.
fn zero_status(resource: &Resource) -> Option<Value> {
    let field = schema::builtin().get(resource.schema).field("status")?;
    (!field.pointer()).then(|| field.kind.object().map(zero)).flatten()
}

fn zero(id: TypeId) -> Value {
    let mut map = Map::new();
    for field in &schema::builtin().get(id).fields {
        if field.pointer() || field.omitempty {
            continue;
        }
        let value = match field.kind {
            Kind::Int32 | Kind::Int64 => 0.into(),
            Kind::Bool => false.into(),
            Kind::String => "".into(),
            Kind::Object(inner) => zero(inner),
            _ => continue,
        };
        map.insert(field.name.clone().into_owned(), value);
    }
    Value::Object(map)
}

fn conditions(map: &Object) -> Vec<Value> {
    let conditions = map.get("status").and_then(|status| status.get("conditions"));
    conditions.and_then(Value::as_array).cloned().unwrap_or_default()
}

fn is_approval(condition: &Value) -> bool {
    APPROVALS.iter().any(|kind| condition["type"] == *kind)
}

/// Whether a request for a certificate is granted is said through `approval` only.
pub(super) fn keep_approvals(map: &mut Object, before: &Object) {
    let mut kept: Vec<Value> = conditions(before).into_iter().filter(is_approval).collect();
    kept.extend(conditions(map).into_iter().filter(|condition| !is_approval(condition)));
    if !kept.is_empty() {
        child(map, "status").insert("conditions".to_owned(), kept.into());
    }
}

/// Prepares an update through `approval`: only the conditions change. New ones get their times.
pub fn approval_update(new: &mut Value, old: &Value, time: &str) {
    let Value::Object(given) = &*new else { return };
    let before = old.as_object().map(conditions).unwrap_or_default();
    let mut conditions = conditions(given);
    for condition in conditions.iter_mut().filter_map(Value::as_object_mut) {
        condition.entry("lastUpdateTime").or_insert_with(|| time.into());
        let same = |one: &&Value| one["type"] == condition["type"] && one["status"] == condition["status"];
        let since = before.iter().find(same).map(|one| one["lastTransitionTime"].clone());
        let since = since.filter(Value::is_string).unwrap_or_else(|| time.into());
        condition.entry("lastTransitionTime").or_insert(since);
    }
    let mut kept = old.clone();
    if let Value::Object(map) = &mut kept {
        match conditions.is_empty() {
            true => drop(child(map, "status").remove("conditions")),
            false => drop(child(map, "status").insert("conditions".to_owned(), conditions.into())),
        }
        if let (Some(metadata), Value::Object(map)) = (new.get("metadata"), &mut kept) {
            map.insert("metadata".to_owned(), metadata.clone());
        }
    }
    *new = kept;
}
