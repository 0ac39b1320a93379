//! The smallest strategic merge patch that turns one pod status into another.

use k8s_openapi::api::core::v1::{PodCondition, PodStatus};
use serde::Serialize;
use serde_json::{Map, Value, json};

/// The patch from `old` to `new`, or nothing when they agree. Conditions that others own are left alone.
pub fn status_patch(uid: &str, old: &PodStatus, new: &PodStatus) -> Option<Value> {
    let mut fields = Map::new();
    scalar(&mut fields, "phase", &old.phase, &new.phase);
    scalar(&mut fields, "reason", &old.reason, &new.reason);
    scalar(&mut fields, "message", &old.message, &new.message);
    scalar(&mut fields, "hostIP", &old.host_ip, &new.host_ip);
    scalar(&mut fields, "podIP", &old.pod_ip, &new.pod_ip);
    scalar(&mut fields, "qosClass", &old.qos_class, &new.qos_class);
    scalar(&mut fields, "startTime", &old.start_time, &new.start_time);
    scalar(&mut fields, "observedGeneration", &old.observed_generation, &new.observed_generation);
    merged(&mut fields, "hostIPs", &old.host_ips, &new.host_ips);
    merged(&mut fields, "podIPs", &old.pod_ips, &new.pod_ips);
    whole(&mut fields, "containerStatuses", &old.container_statuses, &new.container_statuses);
    whole(&mut fields, "initContainerStatuses", &old.init_container_statuses, &new.init_container_statuses);
    whole(
        &mut fields,
        "ephemeralContainerStatuses",
        &old.ephemeral_container_statuses,
        &new.ephemeral_container_statuses,
    );
    let conditions = changed(old.conditions.as_deref(), new.conditions.as_deref());
    if !conditions.is_empty() {
        fields.insert("conditions".into(), Value::Array(conditions));
    }
    (!fields.is_empty()).then(|| json!({ "metadata": { "uid": uid }, "status": fields }))
}

/// A list that strategic merge would merge by key, as a patch that replaces it.
pub fn strategic_list(mut items: Vec<Value>, had_any: bool) -> Value {
    if had_any {
        items.push(json!({ "$patch": "replace" }));
    }
    Value::Array(items)
}

fn scalar<T: Serialize + PartialEq>(
    fields: &mut Map<String, Value>,
    name: &str,
    old: &Option<T>,
    new: &Option<T>,
) {
    if old != new {
        fields.insert(name.into(), serde_json::to_value(new).unwrap_or(Value::Null));
    }
}

fn whole<T: Serialize + PartialEq>(
    fields: &mut Map<String, Value>,
    name: &str,
    old: &Option<Vec<T>>,
    new: &Option<Vec<T>>,
) {
    let (old, new) = (old.as_deref().unwrap_or_default(), new.as_deref().unwrap_or_default());
    if old != new {
        fields.insert(name.into(), serde_json::to_value(new).unwrap_or(Value::Null));
    }
}

fn merged<T: Serialize + PartialEq>(
    fields: &mut Map<String, Value>,
    name: &str,
    old: &Option<Vec<T>>,
    new: &Option<Vec<T>>,
) {
    let (old, new) = (old.as_deref().unwrap_or_default(), new.as_deref().unwrap_or_default());
    if old != new {
        let items = new.iter().filter_map(|it| serde_json::to_value(it).ok()).collect();
        fields.insert(name.into(), strategic_list(items, !old.is_empty()));
    }
}

fn changed(old: Option<&[PodCondition]>, new: Option<&[PodCondition]>) -> Vec<Value> {
    let (old, new) = (old.unwrap_or_default(), new.unwrap_or_default());
    let gone = old.iter().filter(|it| new.iter().all(|other| other.type_ != it.type_));
    let gone = gone.map(|it| json!({ "type": it.type_, "$patch": "delete" }));
    new.iter()
        .filter_map(|condition| {
            let before = old.iter().find(|it| it.type_ == condition.type_);
            if before == Some(condition) {
                return None;
            }
            let mut value = serde_json::to_value(condition).ok()?;
            let fields = value.as_object_mut()?;
            if before.is_some_and(|it| it.reason.is_some()) && condition.reason.is_none() {
                fields.insert("reason".into(), Value::Null);
            }
            if before.is_some_and(|it| it.message.is_some()) && condition.message.is_none() {
                fields.insert("message".into(), Value::Null);
            }
            Some(value)
        })
        .chain(gone)
        .collect()
}
