//! The request of an `AdmissionReview`: what a webhook is told of a write.

use api::catalogue::Resource;
use api::conversion;
use serde_json::{Map, Value, json};

use super::Write;
use crate::admission::matching::Operation;
use crate::call::Call;
use crate::convert;
use crate::object;
use crate::prepare::Stop;

/// Object and old object of a write in the version of `matched`, another version of the request's resource.
///
/// Kinds of subresources, as `Scale`, have one version only.
pub(super) fn seen_as(call: &Call<'_>, write: &Write, matched: &Resource) -> Result<(Value, Value), Stop> {
    let seen = |object: &Value| match object.is_null() || !is_other(call, matched) {
        true => Ok(object.clone()),
        false => between(call, call.resource, matched, object),
    };
    Ok((seen(&write.object)?, seen(&write.old)?))
}

/// An object that a webhook has changed, back in the version of the request.
pub(super) fn back(call: &Call<'_>, matched: &Resource, object: Value) -> Result<Value, Stop> {
    match is_other(call, matched) {
        true => between(call, matched, call.resource, &object),
        false => Ok(object),
    }
}

/// Whether objects have another form in the version of `matched` than in that of the request.
fn is_other(call: &Call<'_>, matched: &Resource) -> bool {
    kind_of(call, call.resource).0 && matched.api_version() != call.resource.api_version()
}

fn between(call: &Call<'_>, from: &Resource, to: &Resource, object: &Value) -> Result<Value, Stop> {
    if convert::by_webhook(from) {
        return convert::one(call, to, object);
    }
    let mut object = object.clone();
    conversion::to_stored(from, &mut object);
    conversion::from_stored(to, &mut object);
    // What is stored in the version that is wanted is named as it.
    if let Value::Object(map) = &mut object {
        map.insert("apiVersion".to_owned(), to.api_version().into_owned().into());
    }
    Ok(object)
}

/// Group, version and kind of what a request is about; `true` beside it if it is an object of the resource itself.
fn kind_of<'r>(call: &Call<'r>, resource: &'r Resource) -> (bool, (&'r str, &'r str, &'r str)) {
    let own = (&*resource.group, &*resource.version, &*resource.kind);
    match resource.subresource(call.subresource()) {
        Some(sub) if !sub.kind.is_empty() => {
            let kind = (&*sub.group, &*sub.version, &*sub.kind);
            (kind == own, kind)
        }
        _ => (true, own),
    }
}

/// The request, without its uid.
pub(super) fn request(
    call: &Call<'_>,
    write: &Write,
    matched: &Resource,
    (object, old): (&Value, &Value),
) -> Value {
    let kind = |resource| {
        let (_, (group, version, kind)) = kind_of(call, resource);
        json!({"group": group, "version": version, "kind": kind})
    };
    let plural = |resource: &Resource| json!({"group": resource.group, "version": resource.version, "resource": resource.plural});
    let mut request = json!({
        "kind": kind(matched), "resource": plural(matched),
        "requestKind": kind(call.resource), "requestResource": plural(call.resource),
        "operation": write.operation.as_str(), "userInfo": user_info(call),
        "object": object, "oldObject": old,
        "dryRun": call.options().dry_run, "options": write.options,
    });
    if let Value::Object(request) = &mut request {
        let mut text = |field: &str, text: &str| {
            if !text.is_empty() {
                request.insert(field.to_owned(), text.into());
            }
        };
        text("subResource", call.subresource());
        text("requestSubResource", call.subresource());
        text("name", &write.name);
        text("namespace", namespace(call, write));
    }
    request
}

/// The namespace of a write; that of a Namespace is its own name.
fn namespace<'w>(call: &Call<'w>, write: &'w Write) -> &'w str {
    match call.is("", "namespaces") {
        true => &write.name,
        false => call.namespace(),
    }
}

fn user_info(call: &Call<'_>) -> Value {
    let user = call.user;
    let mut info = Map::new();
    info.insert("username".into(), user.name.as_str().into());
    if !user.uid.is_empty() {
        info.insert("uid".into(), user.uid.as_str().into());
    }
    if !user.groups.is_empty() {
        info.insert("groups".into(), json!(user.groups));
    }
    if !user.extra.is_empty() {
        info.insert("extra".into(), json!(user.extra));
    }
    Value::Object(info)
}

/// The options of an operation as they were sent, as an object.
pub(crate) fn options(call: &Call<'_>, operation: Operation) -> Value {
    let kind = match operation {
        Operation::Create => "CreateOptions",
        Operation::Update => "UpdateOptions",
        Operation::Delete => "DeleteOptions",
        Operation::Connect => return Value::Null,
    };
    let mut options = json!({"kind": kind, "apiVersion": "meta.k8s.io/v1"});
    if call.options().dry_run {
        options["dryRun"] = json!(["All"]);
    }
    if operation != Operation::Delete {
        for field in ["fieldManager", "fieldValidation"] {
            if let Some(value) = call.request.info.param(field).filter(|value| !value.is_empty()) {
                options[field] = value.into();
            }
        }
    }
    options
}

/// The options of a deletion.
pub(crate) fn deletion_options(call: &Call<'_>, given: &crate::delete::DeleteOptions) -> Value {
    let mut options = options(call, Operation::Delete);
    let map = object::map_of(&mut options);
    if given.dry_run {
        map.insert("dryRun".into(), json!(["All"]));
    }
    if let Some(grace) = given.grace {
        map.insert("gracePeriodSeconds".into(), grace.into());
    }
    if let Some(propagation) = given.propagation {
        map.insert("propagationPolicy".into(), propagation.as_str().into());
    }
    let conditions = [("uid", &given.uid), ("resourceVersion", &given.revision)];
    let conditions: Map<String, Value> = conditions
        .into_iter()
        .filter_map(|(field, value)| Some((field.to_owned(), value.as_deref()?.into())))
        .collect();
    if !conditions.is_empty() {
        map.insert("preconditions".into(), Value::Object(conditions));
    }
    options
}
