//! Checks of what has a path of its own in a pod: containers added to look into it, and the size of its containers.

use serde_json::Value;

use super::{Errors, Path, given, list, text};
use crate::field::{ErrorKind, FieldError};
use crate::quantity::Quantity;
use crate::strategy::qos;

const MIRROR: &str = "kubernetes.io/config.mirror";

/// What an ephemeral container does not have: nobody waits for it, and it gets nothing of its own.
const NOT_EPHEMERAL: &[&str] =
    &["ports", "livenessProbe", "readinessProbe", "startupProbe", "lifecycle", "resources", "resizePolicy"];

/// What only an ephemeral container is held to.
pub fn check_ephemeral(spec: &Value, container: &Value, path: &Path<'_>, errors: &mut Errors) {
    for field in NOT_EPHEMERAL.iter().filter(|field| is_filled(&container[**field])) {
        errors.forbidden(&path.field(field), "cannot be set for an Ephemeral Container");
    }
    let target = text(&container["targetContainerName"]);
    let known = ["containers", "initContainers"]
        .iter()
        .any(|field| list(&spec[*field]).iter().any(|container| container["name"] == target));
    if !target.is_empty() && !known {
        let place = path.field("targetContainerName").to_string();
        errors.add(FieldError::new(ErrorKind::NotFound, place, target, ""));
    }
}

fn is_filled(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Object(map) => !map.is_empty(),
        Value::Array(items) => !items.is_empty(),
        _ => true,
    }
}

/// A new pod has no ephemeral containers.
pub fn check_create(pod: &Value, errors: &mut Errors) {
    if given(&pod["spec"]["ephemeralContainers"]) && !list(&pod["spec"]["ephemeralContainers"]).is_empty() {
        errors.forbidden(&Path::root("spec.ephemeralContainers"), "cannot be set on create");
    }
}

/// Ephemeral containers are added, and stay as they are.
pub fn check_ephemeral_update(new: &Value, old: &Value, errors: &mut Errors) {
    let path = Path::root("spec.ephemeralContainers");
    let now = list(&new["spec"]["ephemeralContainers"]);
    for before in list(&old["spec"]["ephemeralContainers"]) {
        let name = text(&before["name"]);
        match now.iter().find(|container| container["name"] == before["name"]) {
            None => errors.forbidden(
                &path,
                format!("existing ephemeral containers {name:?} may not be removed\n").as_str(),
            ),
            Some(after) if after != before => errors.forbidden(
                &path,
                format!("existing ephemeral containers {name:?} may not be changed\n").as_str(),
            ),
            Some(_) => {}
        }
    }
}

/// Processor and memory of containers may change, as long as the pod keeps its class.
pub fn check_resize(new: &Value, old: &Value, errors: &mut Errors) {
    let root = Path::root("spec");
    if old["metadata"]["annotations"].get(MIRROR).is_some() {
        let place = Path::root("metadata.annotations[kubernetes.io/config.mirror]");
        return errors.forbidden(&place, "static pods cannot be resized");
    }
    let class = |pod: &Value| pod.as_object().map_or("BestEffort", qos::class);
    if class(new) != class(old) {
        let detail = "Pod QOS Class may not change as a result of resizing";
        errors.invalid(&root, class(new), detail);
    }
    let mut same = true;
    for field in ["containers", "initContainers"] {
        let place = root.field(field);
        let pairs = list(&new["spec"][field]).iter().zip(list(&old["spec"][field]));
        for (index, (now, before)) in pairs.enumerate() {
            let lasting = field == "containers" || before["restartPolicy"] == "Always";
            let changed = now["resources"] != before["resources"];
            if changed && !lasting {
                let detail = "resources for non-sidecar init containers are immutable";
                errors.forbidden(&place.index(index).field("resources"), detail);
            }
            same &= rest(&now["resources"]) == rest(&before["resources"]);
            kept(&now["resources"], &before["resources"], &place.index(index), errors);
        }
    }
    if !same {
        errors.forbidden(&root, "only cpu and memory resources are mutable");
    }
}

/// Resources without what may change.
fn rest(resources: &Value) -> Value {
    let mut rest = resources.clone();
    for list in ["requests", "limits"] {
        if let Some(Value::Object(amounts)) = rest.get_mut(list) {
            amounts.retain(|name, _| !matches!(name.as_str(), "cpu" | "memory"));
        }
        let empty = rest[list].as_object().is_none_or(serde_json::Map::is_empty);
        if empty && let Value::Object(map) = &mut rest {
            map.remove(list);
        }
    }
    rest
}

/// What is requested or limited may be changed, not taken away.
fn kept(now: &Value, before: &Value, path: &Path<'_>, errors: &mut Errors) {
    let place = path.field("resources");
    for list in ["requests", "limits"] {
        for name in ["cpu", "memory"] {
            let amount = |of: &Value| of[list][name].as_str().and_then(|text| text.parse::<Quantity>().ok());
            if amount(before).is_some() && amount(now).is_none() {
                let detail = format!("resource {list} cannot be removed");
                errors.forbidden(&place.field(list), detail.as_str());
            }
        }
    }
}
