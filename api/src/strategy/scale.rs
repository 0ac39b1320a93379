//! The `scale` subresource: a size, whatever the kind.

use serde_json::{Map, Value, json};

use crate::selector::LabelSelector;

/// The `Scale` of a workload.
pub fn of(object: &Value) -> Value {
    let metadata = &object["metadata"];
    let mut own = Map::new();
    for name in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        if let Some(value) = metadata.get(name) {
            own.insert(name.to_owned(), value.clone());
        }
    }
    let mut spec = Map::new();
    let replicas = object["spec"].get("replicas").and_then(Value::as_i64).unwrap_or_default();
    if replicas != 0 {
        spec.insert("replicas".to_owned(), replicas.into());
    }
    let mut status = Map::new();
    let observed = object["status"].get("replicas").and_then(Value::as_i64).unwrap_or_default();
    status.insert("replicas".to_owned(), observed.into());
    let selector = &object["spec"]["selector"];
    if let Ok(selector) = LabelSelector::from_object(selector)
        && !selector.requirements().is_empty()
    {
        status.insert("selector".to_owned(), selector.to_string().into());
    }
    json!({"kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": own, "spec": spec, "status": status})
}

/// Sets the size that a `Scale` asks for; a size that is not written is zero.
pub fn apply(object: &mut Value, scale: &Value) {
    let replicas = scale["spec"].get("replicas").cloned().unwrap_or_else(|| 0.into());
    if let Some(Value::Object(spec)) = object.get_mut("spec") {
        spec.insert("replicas".to_owned(), replicas);
    }
}
