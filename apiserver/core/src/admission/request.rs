//! What policies and webhooks are told of a request besides its objects: an AdmissionRequest of `admission.k8s.io/v1`.

use api::catalogue::Resource;
use api::schema::{self, Schemas, TypeId};
use serde_json::{Map, Value, json};

use super::matching::Operation;
use crate::call::Call;
use crate::{delete, object, review};

/// The kind of the documents of a request: that of the resource, or the one that a subresource speaks, as `Scale`.
#[derive(Clone, Copy)]
pub(crate) struct Spoken<'r> {
    pub group: &'r str,
    pub version: &'r str,
    pub kind: &'r str,
    pub schemas: &'r Schemas,
    /// Absent for kinds that are never a body, as `PodExecOptions`.
    pub schema: Option<TypeId>,
    /// Whether documents are objects of the resource itself. Others have one version only.
    pub is_own: bool,
}

// === impl Spoken ===

impl<'r> Spoken<'r> {
    /// What a request would speak if it named this version of its resource.
    pub fn of(call: &Call<'_>, resource: &'r Resource) -> Spoken<'r> {
        let own = Spoken {
            group: &resource.group,
            version: &resource.version,
            kind: &resource.kind,
            schemas: resource.schemas(),
            schema: Some(resource.schema),
            is_own: true,
        };
        match resource.subresource(call.subresource()).filter(|below| !below.kind.is_empty()) {
            Some(below) if *below.kind != *own.kind || *below.group != *own.group => Spoken {
                group: &below.group,
                version: &below.version,
                kind: &below.kind,
                schemas: schema::builtin(),
                schema: below.schema,
                is_own: false,
            },
            _ => own,
        }
    }

    fn named(&self) -> Value {
        json!({"group": self.group, "version": self.version, "kind": self.kind})
    }
}

/// The request without its uid and its objects, for one who wants to be told of it as of the version of `matched`.
///
/// What is not said is not there.
pub(crate) fn described(
    call: &Call<'_>,
    (operation, name): (Operation, &str),
    matched: &Resource,
) -> Map<String, Value> {
    let path = |resource: &Resource| json!({"group": resource.group, "version": resource.version, "resource": resource.plural});
    let subresource = call.subresource();
    // The namespace of a Namespace is its own name.
    let namespace = if call.is("", "namespaces") { name } else { call.namespace() };
    let fields = [
        ("kind", Spoken::of(call, matched).named()),
        ("resource", path(matched)),
        ("subResource", subresource.into()),
        ("requestKind", Spoken::of(call, call.resource).named()),
        ("requestResource", path(call.resource)),
        ("requestSubResource", subresource.into()),
        ("name", name.into()),
        ("namespace", namespace.into()),
        ("operation", operation.as_str().into()),
        ("userInfo", review::user_info(call.user)),
        ("dryRun", is_dry_run(call, operation).into()),
        ("options", options(call, operation)),
    ];
    let said = fields.into_iter().filter(|(_, value)| *value != "");
    said.map(|(field, value)| (field.to_owned(), value)).collect()
}

/// Whether a request only asks what would be.
pub(crate) fn is_dry_run(call: &Call<'_>, operation: Operation) -> bool {
    let of_deletion = || delete::options(call).is_ok_and(|given| given.dry_run);
    call.options().dry_run || (operation == Operation::Delete && of_deletion())
}

/// The options of an operation as they were sent, as an object of `meta.k8s.io/v1`. Connections have none.
pub(crate) fn options(call: &Call<'_>, operation: Operation) -> Value {
    let kind = match operation {
        Operation::Create => "CreateOptions",
        Operation::Update => "UpdateOptions",
        Operation::Delete => return deletion_options(call),
        Operation::Connect => return Value::Null,
    };
    let mut options = json!({"kind": kind, "apiVersion": "meta.k8s.io/v1"});
    if call.options().dry_run {
        options["dryRun"] = json!(["All"]);
    }
    for field in ["fieldManager", "fieldValidation"] {
        if let Some(value) = call.request.info.param(field).filter(|value| !value.is_empty()) {
            options[field] = value.into();
        }
    }
    options
}

fn deletion_options(call: &Call<'_>) -> Value {
    // What cannot be read was refused before anyone is told of the deletion.
    let given = delete::options(call).unwrap_or_default();
    let mut options = json!({"kind": "DeleteOptions", "apiVersion": "meta.k8s.io/v1"});
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
    let conditions = [("uid", given.uid), ("resourceVersion", given.revision)];
    let conditions: Map<String, Value> =
        conditions.into_iter().filter_map(|(field, value)| Some((field.to_owned(), value?.into()))).collect();
    if !conditions.is_empty() {
        map.insert("preconditions".into(), Value::Object(conditions));
    }
    options
}
