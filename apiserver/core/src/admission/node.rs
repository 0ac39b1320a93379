//! What node agents may write: their own node, and the pods that are bound to it.

use serde_json::{Value, json};

use super::pod::is_mirror;
use crate::call::Call;
use crate::failure::Refused;
use crate::keys;
use crate::kinds::Part;
use crate::object::{self, items, meta};
use crate::scan;

const NOT_READY: &str = "node.kubernetes.io/not-ready";

/// Labels below kubernetes.io and k8s.io that a node may set on itself.
const OWN_LABELS: &[&str] = &[
    "kubernetes.io/hostname",
    "kubernetes.io/arch",
    "kubernetes.io/os",
    "beta.kubernetes.io/arch",
    "beta.kubernetes.io/os",
    "beta.kubernetes.io/instance-type",
    "node.kubernetes.io/instance-type",
    "failure-domain.beta.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "topology.kubernetes.io/region",
    "topology.kubernetes.io/zone",
];
const OWN_LABEL_DOMAINS: &[&str] = &["kubelet.kubernetes.io", "node.kubernetes.io"];

/// A new node takes no pods until it was seen ready.
pub(super) fn taint_new(node: &mut Value) {
    let present =
        items(&node["spec"]["taints"]).iter().any(|t| t["key"] == NOT_READY && t["effect"] == "NoSchedule");
    if present {
        return;
    }
    let taints = object::child(node, "spec").entry("taints").or_insert_with(|| json!([]));
    if let Value::Array(taints) = taints {
        taints.push(json!({"key": NOT_READY, "effect": "NoSchedule"}));
    }
}

/// A node registers itself and nobody else, with labels that are its own.
pub(super) fn create_node(call: &Call<'_>, new: &Value) -> Result<(), Refused> {
    let Some(own) = call.user.node() else { return Ok(()) };
    let name = meta(new, "name");
    if name != own {
        return Err(call.forbidden(name, format!("node {own:?} is not allowed to modify node {name:?}")));
    }
    labels(call, own, new, &Value::Null)
}

/// A node changes neither its taints nor labels that others trust.
pub(super) fn update_node(call: &Call<'_>, new: &Value, old: &Value) -> Result<(), Refused> {
    let Some(own) = call.user.node() else { return Ok(()) };
    let name = meta(old, "name");
    if name != own {
        return Err(call.forbidden(name, format!("node {own:?} is not allowed to modify node {name:?}")));
    }
    if new["spec"]["taints"] != old["spec"]["taints"] {
        return Err(call.forbidden(name, format!("node {own:?} is not allowed to modify taints")));
    }
    if new["metadata"]["ownerReferences"] != old["metadata"]["ownerReferences"] {
        return Err(call.forbidden(name, format!("node {own:?} is not allowed to modify ownerReferences")));
    }
    labels(call, own, new, old)
}

fn labels(call: &Call<'_>, own: &str, new: &Value, old: &Value) -> Result<(), Refused> {
    let of = |node: &Value| node["metadata"]["labels"].as_object().cloned().unwrap_or_default();
    let (after, before) = (of(new), of(old));
    let changed = after.keys().chain(before.keys()).filter(|key| after.get(*key) != before.get(*key));
    let mut refused: Vec<&str> = changed.map(String::as_str).filter(|key| !may_set(key)).collect();
    refused.sort_unstable();
    refused.dedup();
    match refused.is_empty() {
        true => Ok(()),
        false => Err(call.forbidden(
            meta(new, "name"),
            format!("is not allowed to modify labels: {} (node {own:?})", refused.join(", ")),
        )),
    }
}

fn may_set(label: &str) -> bool {
    let Some((domain, _)) = label.split_once('/') else { return true };
    let within = |parent: &str| domain == parent || domain.ends_with(&format!(".{parent}"));
    if !within("kubernetes.io") && !within("k8s.io") {
        return true;
    }
    let restricted =
        domain == "node-restriction.kubernetes.io" || domain.ends_with(".node-restriction.kubernetes.io");
    !restricted && (OWN_LABELS.contains(&label) || OWN_LABEL_DOMAINS.iter().any(|own| within(own)))
}

/// A node creates pods only to show what it runs of its own accord.
pub(super) fn create_pod(call: &Call<'_>, pod: &Value) -> Result<(), Refused> {
    let Some(own) = call.user.node() else { return Ok(()) };
    let name = meta(pod, "name");
    if !is_mirror(pod) {
        return Err(call.forbidden(name, format!("pod does not have \"kubernetes.io/config.mirror\" annotation, node {own:?} can only create mirror pods")));
    }
    if pod["spec"]["nodeName"].as_str() != Some(own) {
        return Err(call
            .forbidden(name, format!("node {own:?} can only create pods with spec.nodeName set to itself")));
    }
    if pod["spec"]["serviceAccountName"].as_str().is_some_and(|account| !account.is_empty()) {
        return Err(call
            .forbidden(name, format!("node {own:?} can not create pods that reference a service account")));
    }
    let reads = ["secret", "configMap", "projected", "persistentVolumeClaim"];
    if items(&pod["spec"]["volumes"]).iter().any(|volume| reads.iter().any(|kind| volume[*kind].is_object()))
    {
        return Err(call.forbidden(name, format!("node {own:?} can not create pods that reference secrets, configmaps or persistentvolumeclaims")));
    }
    Ok(())
}

/// A node writes the status of its pods, and nothing else of them.
pub(super) fn update_pod(call: &Call<'_>, new: &Value, old: &Value, part: Part) -> Result<(), Refused> {
    let Some(own) = call.user.node() else { return Ok(()) };
    // A status is written without reading the spec.
    let node = call.entry()?;
    let node = scan::text(&node.value, &["spec", "nodeName"]);
    may_touch_pod_of(call, node.as_deref(), meta(old, "name"), "update status for")?;
    if part == Part::Sub("status") && new["metadata"]["labels"] != old["metadata"]["labels"] {
        return Err(call
            .forbidden(meta(old, "name"), format!("node {own:?} cannot update labels through pod status")));
    }
    Ok(())
}

/// A node touches only pods that are bound to it.
pub(crate) fn may_touch_pod(call: &Call<'_>, pod: &Value, verb: &str) -> Result<(), Refused> {
    may_touch_pod_of(call, pod["spec"]["nodeName"].as_str(), meta(pod, "name"), verb)
}

/// As [`may_touch_pod`], for the pod of that name on `node`.
pub(crate) fn may_touch_pod_of(
    call: &Call<'_>,
    node: Option<&str>,
    name: &str,
    verb: &str,
) -> Result<(), Refused> {
    let Some(own) = call.user.node() else { return Ok(()) };
    match node == Some(own) {
        true => Ok(()),
        false => {
            let why = format!("node {own:?} can only {verb} pods with spec.nodeName set to itself");
            Err(call.forbidden(name, why))
        }
    }
}

/// A node's heartbeat has the node's name.
pub(super) fn create_lease(call: &Call<'_>, lease: &Value) -> Result<(), Refused> {
    let Some(own) = call.user.node() else { return Ok(()) };
    match meta(lease, "name") == own && call.namespace() == "kube-node-lease" {
        true => Ok(()),
        false => Err(call.forbidden(
            meta(lease, "name"),
            "can only access node lease with the same name as the requesting node",
        )),
    }
}

/// A node gets tokens only for pods that are bound to it.
pub(crate) fn token(call: &Call<'_>, reference: &Value, private: &Value) -> Result<(), Refused> {
    let Some(own) = call.user.node() else { return Ok(()) };
    let uid = reference["uid"].as_str().unwrap_or_default();
    if !private["pod"].is_object() {
        return Err(call.forbidden(call.name(), "node requested token not bound to a pod"));
    }
    if uid.is_empty() {
        return Err(call.forbidden(call.name(), "node requested token with a pod binding without a uid"));
    }
    let name = reference["name"].as_str().unwrap_or_default();
    let key = keys::object("", "pods", call.namespace(), name);
    let bound = call.world.snapshot.get(&key);
    let node = bound.and_then(|entry| scan::text(&entry.value, &["spec", "nodeName"]));
    match node.as_deref() == Some(own) {
        true => Ok(()),
        false => {
            Err(call
                .forbidden(call.name(), "node requested token bound to a pod scheduled on a different node"))
        }
    }
}
