//! Autoscalers: `autoscaling/v1` has a field for one metric, the use of CPU; what else `autoscaling/v2` holds travels
//! in annotations.

use serde_json::{Map, Value, json};

type Object = Map<String, Value>;

const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const CURRENT: &str = "autoscaling.alpha.kubernetes.io/current-metrics";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";
const TARGET_CPU: &str = "targetCPUUtilizationPercentage";
const CURRENT_CPU: &str = "currentCPUUtilizationPercentage";

fn object<'a>(map: &'a mut Object, name: &str) -> Option<&'a mut Object> {
    map.get_mut(name)?.as_object_mut()
}

/// Takes the annotation of that name, read as JSON.
fn taken(map: &mut Object, name: &str) -> Option<Value> {
    let metadata = object(map, "metadata")?;
    let annotations = object(metadata, "annotations")?;
    let text = annotations.remove(name)?;
    if annotations.is_empty() {
        metadata.remove("annotations");
    }
    serde_json::from_str(text.as_str()?).ok()
}

fn annotate(map: &mut Object, name: &str, value: &Value) {
    let metadata = map.entry("metadata").or_insert_with(|| json!({}));
    if let Some(metadata) = metadata.as_object_mut() {
        let annotations = metadata.entry("annotations").or_insert_with(|| json!({}));
        if let Some(annotations) = annotations.as_object_mut() {
            annotations.insert(name.to_owned(), value.to_string().into());
        }
    }
}

/// From `v1` to `v2`.
pub(super) fn to_v2(map: &mut Object) {
    let (metrics, behavior) = (taken(map, METRICS), taken(map, BEHAVIOR));
    let (current, conditions) = (taken(map, CURRENT), taken(map, CONDITIONS));
    if let Some(spec) = object(map, "spec") {
        let cpu = spec.remove(TARGET_CPU).map(|percent| {
            json!({"type": "Resource", "resource":
                {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": percent}}})
        });
        put_list(spec, "metrics", metrics, cpu);
        if let Some(behavior) = behavior {
            spec.insert("behavior".to_owned(), behavior);
        }
    }
    if let Some(status) = object(map, "status") {
        let cpu = status.remove(CURRENT_CPU).map(|percent| {
            json!({"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": percent}}})
        });
        put_list(status, "currentMetrics", current, cpu);
        if let Some(conditions) = conditions {
            status.insert("conditions".to_owned(), conditions);
        }
    }
}

fn put_list(map: &mut Object, name: &str, others: Option<Value>, first: Option<Value>) {
    let mut list: Vec<Value> = first.into_iter().collect();
    if let Some(Value::Array(others)) = others {
        list.extend(others);
    }
    if !list.is_empty() {
        map.insert(name.to_owned(), list.into());
    }
}

/// From `v2` to `v1`.
pub(super) fn to_v1(map: &mut Object) {
    let metrics = object(map, "spec").and_then(|spec| lifted(spec, "metrics", "target", TARGET_CPU));
    let current =
        object(map, "status").and_then(|status| lifted(status, "currentMetrics", "current", CURRENT_CPU));
    let behavior = object(map, "spec").and_then(|spec| spec.remove("behavior"));
    let conditions = object(map, "status").and_then(|status| status.remove("conditions"));
    for (name, value) in
        [(METRICS, metrics), (CURRENT, current), (BEHAVIOR, behavior), (CONDITIONS, conditions)]
    {
        if let Some(value) = value {
            annotate(map, name, &value);
        }
    }
}

/// Makes the first metric of CPU use a field, and returns the others.
fn lifted(map: &mut Object, list: &str, inside: &str, field: &str) -> Option<Value> {
    let Some(Value::Array(mut metrics)) = map.remove(list) else { return None };
    let percent = |metric: &Value| metric["resource"][inside]["averageUtilization"].clone();
    let cpu = metrics.iter().position(|metric| {
        metric["type"] == "Resource" && metric["resource"]["name"] == "cpu" && percent(metric).is_i64()
    });
    if let Some(at) = cpu {
        let metric = metrics.remove(at);
        map.insert(field.to_owned(), percent(&metric));
    }
    (!metrics.is_empty()).then(|| metrics.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(value: Value) -> Object {
        value.as_object().cloned().expect("an object")
    }

    #[test]
    fn what_v1_has_no_field_for_comes_back() {
        let memory = json!({"type": "Resource", "resource":
            {"name": "memory", "target": {"type": "AverageValue", "averageValue": "1Gi"}}});
        let cpu = json!({"type": "Resource", "resource":
            {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 70}}});
        let v2 = json!({"metadata": {"name": "a"}, "spec": {"maxReplicas": 3, "metrics": [cpu, memory],
            "behavior": {"scaleDown": {"selectPolicy": "Max"}}}, "status": {"desiredReplicas": 1,
            "conditions": [{"type": "AbleToScale", "status": "True"}]}});
        let mut there = map(v2.clone());
        to_v1(&mut there);
        assert_eq!(there["spec"], json!({"maxReplicas": 3, TARGET_CPU: 70}));
        assert_eq!(there["status"], json!({"desiredReplicas": 1}));
        to_v2(&mut there);
        assert_eq!(Value::Object(there), v2);
    }
}
