//! Binding: a pod gets its node, once.

use api::schema;
use api::status::{ResourceName, Status};
use bytes::Bytes;
use http::StatusCode;
use serde_json::{Map, Value, json};
use store_core::{Compare, Expect, Op, Txn, Value as Stored};

use crate::admission::Passing;
use crate::body::{self, Expected};
use crate::call::Call;
use crate::edit::Edits;
use crate::failure::{self, Refused};
use crate::ids::Ids;
use crate::object::{self, meta};
use crate::prepare::Planned;
use crate::response::{Commit, Prepared, Reply};
use crate::{admission, create, keys, scan};

const RESOURCE: ResourceName<'static> = ResourceName { group: "", resource: "pods/binding" };

/// POST of a Binding.
pub(crate) fn plan(call: &Call<'_>, _ids: &mut Ids<'_>) -> Planned {
    let schema = schema::builtin().type_of("", "v1", "Binding").unwrap_or_default();
    let expected = Expected { group: "", version: "v1", kind: "Binding", schemas: schema::builtin(), schema };
    let mut binding = body::read(call.request, expected)?.object;
    create::place(call, &mut binding)?;
    let path_name = if call.is("", "pods") { call.name() } else { "" };
    let name = match (path_name, meta(&binding, "name")) {
        ("", "") => return Err(failure::bad_request("name must be provided").into()),
        ("", name) | (name, "") => name.to_owned(),
        (path, name) if path == name => name.to_owned(),
        _ => return Err(failure::bad_request("name in URL does not match name in Binding object").into()),
    };
    let passing = Passing::created(&name, expected);
    passing.mutate(call, &mut binding)?;
    let node = target(&binding, &name)?;
    let warnings = passing.validate(call, &binding)?;
    let key = keys::object("", "pods", call.namespace(), &name);
    let missing = ResourceName { group: "", resource: "pods" };
    let entry = call.world.snapshot.get(&key).ok_or_else(|| Status::not_found(missing, &name))?;
    check(&binding, &entry.value, &name)?;
    let bound = scan::text(&entry.value, &["spec", "nodeName"]);
    admission::node_may_touch_pod_of(call, bound.as_deref(), &name, "bind")?;
    let value = assigned(&entry.value, &binding, &node, &api::time::format(call.now))
        .ok_or_else(|| failure::internal("a stored object is not valid JSON"))?;
    let mut done = failure::response(&Status::success(StatusCode::CREATED.as_u16()));
    done.headers.extend(create::warnings_headers(&warnings));
    if call.options().dry_run {
        return Ok(Prepared::Respond(done));
    }
    let compares = vec![Compare { key: key.clone(), expect: Expect::Revision(entry.revision) }];
    let ops = vec![Op::Put { key, value, expires_at_ms: None }];
    Ok(Prepared::Commit(Commit { txn: Txn { compares, ops }, reply: Reply::fixed(done) }))
}

fn target(binding: &Value, name: &str) -> Result<String, Refused> {
    let target = &binding["target"];
    let invalid = |field: &str, error: api::field::FieldError| {
        let _ = field;
        Err(Status::invalid("", "Binding", name, &[error]).into())
    };
    if !matches!(target["kind"].as_str(), None | Some("" | "Node")) {
        let found = target["kind"].as_str().unwrap_or_default();
        return invalid(
            "target.kind",
            api::field::FieldError::not_supported("target.kind", found, &["Node", "<empty>"]),
        );
    }
    match target["name"].as_str().unwrap_or_default() {
        "" => invalid("target.name", api::field::FieldError::required("target.name", "")),
        node => Ok(node.to_owned()),
    }
}

/// Whether the pod may still be bound.
fn check(binding: &Value, pod: &[u8], name: &str) -> Result<(), Refused> {
    let refuse = |why: String| Err(Status::conflict(RESOURCE, name, why).into());
    let of = |path: &[&str]| scan::text(pod, path).unwrap_or_default();
    let (uid, own) = (meta(binding, "uid"), of(&["metadata", "uid"]));
    if !uid.is_empty() && uid != own {
        return refuse(format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {own}"));
    }
    let version = meta(binding, "resourceVersion");
    if !version.is_empty() && version != of(&["metadata", "resourceVersion"]) {
        return refuse(api::status::MODIFIED.to_owned());
    }
    if !of(&["metadata", "deletionTimestamp"]).is_empty() {
        return refuse(format!("pod {name} is being deleted, cannot be assigned to a host"));
    }
    let node = of(&["spec", "nodeName"]);
    if !node.is_empty() {
        return refuse(format!("pod {name} is already assigned to node {node:?}"));
    }
    let gates = scan::locate(pod, &["spec", "schedulingGates"]);
    if gates.is_some_and(|gates| pod[gates].starts_with(b"[{")) {
        return refuse(format!("pod {name} has non-empty .spec.schedulingGates"));
    }
    Ok(())
}

/// The pod with its node, and with what else the binding says.
fn assigned(pod: &Bytes, binding: &Value, node: &str, now: &str) -> Option<Stored> {
    let read =
        |path: &[&str]| Some(serde_json::from_slice(&pod[scan::locate(pod, path)?]).unwrap_or_default());
    let mut edits = Edits::new(pod);
    edits.set(&["spec", "nodeName"], Value::from(node).to_string().as_bytes())?;
    for field in ["annotations", "labels"] {
        let Some(added) = binding["metadata"][field].as_object().filter(|added| !added.is_empty()) else {
            continue;
        };
        let path = ["metadata", field];
        let mut map: Map<String, Value> = read(&path).and_then(object::into_map).unwrap_or_default();
        map.extend(added.clone());
        edits.set(&path, Value::Object(map).to_string().as_bytes())?;
    }
    let mut status: Map<String, Value> = read(&["status"]).and_then(object::into_map).unwrap_or_default();
    let condition =
        json!({"type": "PodScheduled", "status": "True", "lastProbeTime": null, "lastTransitionTime": now});
    let conditions = status.entry("conditions").or_insert_with(|| json!([]));
    if let Value::Array(conditions) = conditions {
        conditions.retain(|condition| condition["type"] != "PodScheduled");
        conditions.push(condition);
    }
    edits.set(&["status"], Value::Object(status).to_string().as_bytes())?;
    edits.set(&["metadata", "resourceVersion"], b"\"\"")?;
    Some(object::stored(edits.finish()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assign(pod: &mut Value, binding: &Value, node: &str, now: &str) {
        object::child(pod, "spec").insert("nodeName".into(), node.into());
        for field in ["annotations", "labels"] {
            if let Some(added) = binding["metadata"][field].as_object() {
                object::map_child(object::meta_mut(pod), field).extend(added.clone());
            }
        }
        let condition = json!({"type": "PodScheduled", "status": "True", "lastProbeTime": null, "lastTransitionTime": now});
        let conditions = object::child(pod, "status").entry("conditions").or_insert_with(|| json!([]));
        let conditions = conditions.as_array_mut().expect("a list");
        conditions.retain(|condition| condition["type"] != "PodScheduled");
        conditions.push(condition);
    }

    /// What is done to the bytes is what would be done to the document.
    #[test]
    fn the_pod_is_as_if_it_had_been_read_and_written() {
        let pods = [
            json!({"metadata": {"name": "a", "resourceVersion": "5"}, "spec": {"containers": []}}),
            json!({"metadata": {"annotations": {"x": "y\"}"}, "name": "a", "resourceVersion": "5", "uid": "u"},
                "spec": {"zone": 1, "nodeName": ""}, "status": {"phase": "Pending"}}),
            json!({"metadata": {"labels": {"m": "n"}, "managedFields": [{"manager": "m"}], "name": "a", "resourceVersion": "5"},
                "spec": {"affinity": {"nodeName": "no"}, "tolerations": [{"key": "{"}]},
                "status": {"conditions": [{"type": "PodScheduled", "status": "False"}, {"type": "Ready"}]}}),
        ];
        let bindings = [
            json!({}),
            json!({"metadata": {"annotations": {"x": "z", "a": "1"}, "labels": {"m": "o"}}}),
            json!({"metadata": {"labels": {"q": "\u{1f600}"}}}),
        ];
        for (pod, binding) in pods.iter().flat_map(|pod| bindings.iter().map(move |binding| (pod, binding))) {
            let stored = Bytes::from(pod.to_string());
            let bytes = assigned(&stored, binding, "node-1", "now").expect("assigned");
            let mut document = pod.clone();
            assign(&mut document, binding, "node-1", "now");
            assert_eq!(bytes, object::encode(&mut document), "{pod} {binding}");
        }
    }
}
