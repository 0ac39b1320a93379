//! The parts of a pod that have a path of their own: an update through it changes them, and nothing else.

use serde_json::Value;

/// Prepares an update through `ephemeralcontainers`: only the list of ephemeral containers changes.
pub fn ephemeral_update(new: &mut Value, old: &Value) {
    let list = new["spec"]["ephemeralContainers"].take();
    keep_rest(new, old, |spec| match list {
        Value::Null => drop(spec.as_object_mut().and_then(|spec| spec.remove("ephemeralContainers"))),
        list => spec["ephemeralContainers"] = list,
    });
}

/// Prepares an update through `resize`: only the resources of containers change.
pub fn resize_update(new: &mut Value, old: &Value) {
    let asked = new["spec"].take();
    keep_rest(new, old, |spec| {
        for field in ["containers", "initContainers"] {
            let Some(Value::Array(containers)) = spec.get_mut(field) else { continue };
            for container in containers {
                let wanted = asked[field].as_array().into_iter().flatten();
                if let Some(wanted) = wanted.into_iter().find(|wanted| wanted["name"] == container["name"]) {
                    container["resources"] = wanted["resources"].clone();
                }
            }
        }
    });
}

/// Everything is as it was but for what `change` does to the spec, and who owns what.
fn keep_rest(new: &mut Value, old: &Value, change: impl FnOnce(&mut Value)) {
    let owners = new["metadata"]["managedFields"].take();
    *new = old.clone();
    change(&mut new["spec"]);
    if new["spec"] != old["spec"]
        && let Some(generation) = old["metadata"]["generation"].as_i64()
    {
        new["metadata"]["generation"] = (generation + 1).into();
    }
    if !owners.is_null() {
        new["metadata"]["managedFields"] = owners;
    }
}
