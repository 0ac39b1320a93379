//! The quality-of-service class of a pod.

use serde_json::{Map, Value};

use crate::quantity::Quantity;

/// `Guaranteed`, `Burstable` or `BestEffort`: what a pod may count on when its node runs short.
pub fn class(pod: &Map<String, Value>) -> &'static str {
    let Some(spec) = pod.get("spec") else { return "BestEffort" };
    if let Some(resources) = spec.get("resources").filter(|resources| has_compute(resources)) {
        return if guaranteed(resources) { "Guaranteed" } else { "Burstable" };
    }
    let containers = ["initContainers", "containers"]
        .into_iter()
        .filter_map(|list| spec.get(list).and_then(Value::as_array))
        .flatten();
    let (mut any, mut all) = (false, true);
    for container in containers {
        let resources = &container["resources"];
        any |= has_compute(resources);
        all &= guaranteed(resources);
    }
    match (any, all) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

/// Writes the class into the status of a pod whose containers have got what they did not ask for.
pub fn write(pod: &mut Value) {
    let Value::Object(pod) = pod else { return };
    let class = class(pod);
    if let Some(Value::Object(status)) = pod.get_mut("status") {
        status.insert("qosClass".to_owned(), class.into());
    }
}

const COMPUTE: [&str; 2] = ["cpu", "memory"];

fn amount(resources: &Value, list: &str, name: &str) -> Option<Quantity> {
    let amount = resources.get(list)?.get(name)?.as_str()?.parse::<Quantity>().ok()?;
    (!amount.is_zero()).then_some(amount)
}

fn has_compute(resources: &Value) -> bool {
    COMPUTE.iter().any(|name| {
        amount(resources, "requests", name).is_some() || amount(resources, "limits", name).is_some()
    })
}

fn guaranteed(resources: &Value) -> bool {
    COMPUTE.iter().all(|name| {
        let limit = amount(resources, "limits", name);
        let request = amount(resources, "requests", name).or(limit);
        limit.is_some() && limit == request
    })
}
