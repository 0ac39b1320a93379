//! The scale subresource: one number of a workload, in the words of `autoscaling/v1`.

use api::selector::LabelSelector;
use api::{definition, schema};
use http::StatusCode;
use serde_json::{Value, json};
use store_core::{Compare, Expect, Op, Txn};

use crate::admission::Passing;
use crate::admission::matching::Operation;
use crate::body::{self, Expected};
use crate::call::Call;
use crate::create;
use crate::failure::{self, Refused};
use crate::ids::Ids;
use crate::kinds::{self, Part};
use crate::object::{self, meta};
use crate::prepare::Planned;
use crate::request::Verb;
use crate::response::{Commit, Prepared, Reply, Response};
use crate::update::{self, Ownership};
use crate::{apply, patch};

/// GET, PUT and PATCH of `scale`.
pub(crate) fn plan(call: &Call<'_>, ids: &mut Ids<'_>) -> Planned {
    let (entry, old) = call.stored()?;
    let old = call.current(old)?;
    let mut warnings = Vec::new();
    let mut ownership = Ownership::Tracked;
    let current = scale_of(call, &old);
    let mut wanted = match call.request.info.verb {
        Verb::Get => return Ok(Prepared::Respond(Response::document(StatusCode::OK, &current))),
        Verb::Patch if apply::is_asked(call) => {
            let wanted;
            (wanted, ownership, warnings) = apply::scale(call, &old)?;
            wanted
        }
        Verb::Patch => patched(call, current, &mut warnings)?,
        _ => {
            let read = body::read(call.request, expected())?;
            warnings = read.warnings;
            read.object
        }
    };
    if meta(&wanted, "name") != call.name() {
        return Err(failure::bad_request("the name of the object does not match the name on the URL").into());
    }
    let passing = Passing {
        operation: Operation::Update,
        name: call.name(),
        old: &scale_of(call, &old),
        expected: Some(expected()),
    };
    passing.mutate(call, &mut wanted)?;
    let replicas = wanted["spec"]["replicas"].as_i64().unwrap_or(0);
    if replicas < 0 {
        let error =
            api::field::FieldError::invalid("spec.replicas", replicas, "must be greater than or equal to 0");
        return Err(api::status::Status::invalid("autoscaling", "Scale", call.name(), &[error]).into());
    }
    let mut new = old.clone();
    for field in ["resourceVersion", "uid"] {
        object::set(object::meta_mut(&mut new), field, wanted["metadata"][field].clone());
    }
    match scale_paths(call) {
        Some(paths) => definition::put(&mut new, &paths.spec, replicas.into()),
        None => drop(object::child(&mut new, "spec").insert("replicas".into(), replicas.into())),
    }
    let key = call.key(call.name());
    let mut txn = Txn {
        compares: vec![Compare { key: key.clone(), expect: Expect::Revision(entry.revision) }],
        ops: vec![],
    };
    let parts = (Part::Sub("scale"), ownership);
    let changed = update::settle(call, ids, (&mut new, &old), parts, &mut txn, &mut warnings)?;
    warnings.extend(passing.validate(call, &scale_of(call, &new))?);
    let headers = create::warnings_headers(&warnings);
    if !changed || call.options().dry_run {
        return Ok(Prepared::Respond(Response {
            headers,
            ..Response::document(StatusCode::OK, &scale_of(call, &new))
        }));
    }
    let mut scale = scale_of(call, &new);
    call.store_form(&mut new)?;
    let value = object::encode(&mut new);
    txn.ops.insert(0, Op::Put { key, value, expires_at_ms: None });
    let reply = Reply::made(move |revisions| {
        scale["metadata"]["resourceVersion"] =
            revisions.first().copied().unwrap_or_default().to_string().into();
        Response { headers, ..Response::document(StatusCode::OK, &scale) }
    });
    Ok(Prepared::Commit(Commit { txn, reply }))
}

fn expected() -> Expected<'static> {
    let schema = schema::builtin().type_of("autoscaling", "v1", "Scale").unwrap_or_default();
    Expected { group: "autoscaling", version: "v1", kind: "Scale", schemas: schema::builtin(), schema }
}

fn patched(call: &Call<'_>, mut scale: Value, warnings: &mut Vec<String>) -> Result<Value, Refused> {
    let (kind, change) = patch::read(call, warnings)?;
    kinds::patch_typed(expected().schema, kind, &mut scale, &change)?;
    body::decode(call.request, expected(), &mut scale, warnings)?;
    Ok(scale)
}

/// Where a custom resource has its numbers.
fn scale_paths<'a>(call: &Call<'a>) -> Option<&'a definition::Scale> {
    call.resource.custom.as_ref()?.scale.as_ref()
}

/// The Scale of a workload.
fn scale_of(call: &Call<'_>, workload: &Value) -> Value {
    let mut metadata = json!({});
    for field in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        metadata[field] = workload["metadata"][field].clone();
    }
    let (wanted, found, selector) = match scale_paths(call) {
        Some(paths) => {
            let at = |path: &[Box<str>]| definition::at(workload, path);
            let selector = paths.selector.as_ref().and_then(|path| at(path)?.as_str().map(str::to_owned));
            (at(&paths.spec), at(&paths.status), selector)
        }
        None => {
            let selector = LabelSelector::from_object(&workload["spec"]["selector"]).ok();
            let selector = selector.map(|selector| selector.to_string());
            (workload["spec"].get("replicas"), workload["status"].get("replicas"), selector)
        }
    };
    let mut status = json!({"replicas": found.and_then(Value::as_i64).unwrap_or(0)});
    if let Some(selector) = selector {
        status["selector"] = selector.into();
    }
    let mut spec = json!({});
    if let Some(replicas) = wanted.and_then(Value::as_i64).filter(|replicas| *replicas != 0) {
        spec["replicas"] = replicas.into();
    }
    json!({"kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": metadata, "spec": spec, "status": status})
}
