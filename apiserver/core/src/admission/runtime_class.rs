//! Runtime classes: what a pod of a class costs besides its containers, and where it may run.

use serde_json::{Value, json};

use crate::call::Call;
use crate::failure::Refused;
use crate::keys;
use crate::object::{self, items, meta};

/// Gives a new pod what its class says. A class that is not there is refused.
pub(super) fn apply(call: &Call<'_>, pod: &mut Value) -> Result<(), Refused> {
    let refuse = |pod: &Value, why: String| Err(call.forbidden(meta(pod, "name"), why));
    let name = pod["spec"]["runtimeClassName"].as_str().unwrap_or_default().to_owned();
    let overhead_of = |value: &Value| api::quota::amounts(value);
    let has_overhead = pod["spec"]["overhead"].is_object();
    if name.is_empty() {
        return match has_overhead {
            true => refuse(
                pod,
                "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead".into(),
            ),
            false => Ok(()),
        };
    }
    let key = keys::object("node.k8s.io", "runtimeclasses", "", &name);
    let Some(entry) = call.world.snapshot.get(&key) else {
        return refuse(pod, format!("pod rejected: RuntimeClass {name:?} not found"));
    };
    let class = call.parsed(entry)?;
    let overhead = &class["overhead"]["podFixed"];
    match (overhead.is_object(), has_overhead) {
        (true, true) if overhead_of(overhead) != overhead_of(&pod["spec"]["overhead"]) => {
            return refuse(
                pod,
                "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead".into(),
            );
        }
        (false, true) => {
            return refuse(
                pod,
                "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead".into(),
            );
        }
        (true, _) => drop(object::child(pod, "spec").insert("overhead".into(), overhead.clone())),
        (false, false) => {}
    }
    schedule(&class["scheduling"], pod).or_else(|why| refuse(pod, why))
}

/// Takes over where pods of the class may run.
fn schedule(scheduling: &Value, pod: &mut Value) -> Result<(), String> {
    for (key, wanted) in scheduling["nodeSelector"].as_object().into_iter().flatten() {
        let selector = object::map_child(object::child(pod, "spec"), "nodeSelector");
        let own = selector.entry(key.clone()).or_insert_with(|| wanted.clone());
        if own != wanted {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            return Err(format!(
                "conflict: runtimeClass.scheduling.nodeSelector[{key}] = {}; pod.spec.nodeSelector[{key}] = {}",
                text(wanted),
                text(own)
            ));
        }
    }
    let tolerations = items(&scheduling["tolerations"]);
    if !tolerations.is_empty() {
        let own = object::child(pod, "spec").entry("tolerations").or_insert_with(|| json!([]));
        if let Value::Array(own) = own {
            let new: Vec<Value> = tolerations.iter().filter(|each| !own.contains(each)).cloned().collect();
            own.extend(new);
        }
    }
    Ok(())
}
