//! Binding: a pod gets its node, once.

use api::schema;
use api::status::{ResourceName, Status};
use http::StatusCode;
use serde_json::{Value, json};
use store_core::{Compare, Expect, Op, Txn};

use crate::body::{self, Expected};
use crate::call::Call;
use crate::failure::{self, Refused};
use crate::ids::Ids;
use crate::object::{self, meta};
use crate::prepare::Planned;
use crate::response::{Commit, Prepared, Reply};
use crate::{admission, create, keys};

const RESOURCE: ResourceName<'static> = ResourceName { group: "", resource: "pods/binding" };

/// POST of a Binding.
pub(crate) fn plan(call: &Call<'_>, _ids: &mut Ids<'_>) -> Planned {
    let schema = schema::builtin().type_of("", "v1", "Binding").unwrap_or_default();
    let read = body::read(call.request, Expected { group: "", version: "v1", kind: "Binding", schema })?;
    let mut binding = read.object;
    create::place(call, &mut binding)?;
    let path_name = if call.is("", "pods") { call.name() } else { "" };
    let name = match (path_name, meta(&binding, "name")) {
        ("", "") => return Err(failure::bad_request("name must be provided")),
        ("", name) | (name, "") => name.to_owned(),
        (path, name) if path == name => name.to_owned(),
        _ => return Err(failure::bad_request("name in URL does not match name in Binding object")),
    };
    let node = target(&binding, &name)?;
    let key = keys::object("", "pods", call.namespace(), &name);
    let missing = ResourceName { group: "", resource: "pods" };
    let entry = call.world.snapshot.get(&key).ok_or_else(|| Status::not_found(missing, &name))?;
    let mut pod = call.parsed(entry)?;
    check(&binding, &pod, &name)?;
    admission::node_may_touch_pod(call, &pod, "bind")?;
    assign(&mut pod, &binding, &node, &api::time::format(call.now));
    let done = failure::response(&Status::success(StatusCode::CREATED.as_u16()));
    if call.options().dry_run {
        return Ok(Prepared::Respond(done));
    }
    let compares = vec![Compare { key: key.clone(), expect: Expect::Revision(entry.revision) }];
    let ops = vec![Op::Put { key, value: object::encode(&mut pod), expires_at_ms: None }];
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
fn check(binding: &Value, pod: &Value, name: &str) -> Result<(), Refused> {
    let refuse = |why: String| Err(Status::conflict(RESOURCE, name, why).into());
    let uid = meta(binding, "uid");
    if !uid.is_empty() && uid != meta(pod, "uid") {
        return refuse(format!(
            "Precondition failed: UID in precondition: {uid}, UID in object meta: {}",
            meta(pod, "uid")
        ));
    }
    let version = meta(binding, "resourceVersion");
    if !version.is_empty() && version != meta(pod, "resourceVersion") {
        return refuse(api::status::MODIFIED.to_owned());
    }
    if object::is_terminating(pod) {
        return refuse(format!("pod {name} is being deleted, cannot be assigned to a host"));
    }
    if let Some(node) = pod["spec"]["nodeName"].as_str().filter(|node| !node.is_empty()) {
        return refuse(format!("pod {name} is already assigned to node {node:?}"));
    }
    if !object::items(&pod["spec"]["schedulingGates"]).is_empty() {
        return refuse(format!("pod {name} has non-empty .spec.schedulingGates"));
    }
    Ok(())
}

fn assign(pod: &mut Value, binding: &Value, node: &str, now: &str) {
    object::child(pod, "spec").insert("nodeName".into(), node.into());
    for field in ["annotations", "labels"] {
        let Some(added) = binding["metadata"][field].as_object().filter(|added| !added.is_empty()) else {
            continue;
        };
        object::map_child(object::meta_mut(pod), field).extend(added.clone());
    }
    let status = object::child(pod, "status");
    let condition =
        json!({"type": "PodScheduled", "status": "True", "lastProbeTime": null, "lastTransitionTime": now});
    let conditions = status.entry("conditions").or_insert_with(|| json!([]));
    if let Value::Array(conditions) = conditions {
        conditions.retain(|condition| condition["type"] != "PodScheduled");
        conditions.push(condition);
    }
}
