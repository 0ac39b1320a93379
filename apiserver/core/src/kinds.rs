//! What `api` knows of single kinds, gathered for the verbs.

use api::catalogue::Resource;
use api::field::FieldError;
use api::managed_fields;
use api::schema::{self, TypeId};
use api::strategy::Minted;
use jiff::Timestamp;
use serde_json::Value;

use crate::failure::{self, Refused};

/// Which part of an object a request writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// Everything but the status.
    Main,
    /// A subresource, as `status`.
    Sub(&'static str),
}

// === impl Part ===

impl Part {
    /// The subresource's name, empty for the object itself.
    pub fn name(self) -> &'static str {
        match self {
            Part::Main => "",
            Part::Sub(name) => name,
        }
    }
}

/// Fills in defaults.
pub(crate) fn default(resource: &Resource, object: &mut Value) {
    api::defaults::apply(resource, object);
}

/// What creation does to a kind besides checking it.
pub(crate) fn prepare_create(resource: &Resource, object: &mut Value, uid: &str, now: Timestamp) {
    let time = api::time::format(now);
    api::strategy::create(resource, object, &Minted { uid, time: &time });
}

/// What an update does to a kind besides checking it.
pub(crate) fn prepare_update(resource: &Resource, part: Part, new: &mut Value, old: &Value, now: Timestamp) {
    match part {
        Part::Sub("approval") => api::strategy::approval_update(new, old, &api::time::format(now)),
        Part::Sub("status") => api::strategy::status_update(resource, new, old),
        Part::Sub("finalize") => api::strategy::finalize_update(new, old),
        Part::Sub("ephemeralcontainers") => api::strategy::ephemeral_update(new, old),
        Part::Sub("resize") => api::strategy::resize_update(new, old),
        Part::Main | Part::Sub(_) => api::strategy::update(resource, new, old),
    }
}

/// Checks a new object.
pub(crate) fn validate_create(resource: &Resource, object: &Value) -> Vec<FieldError> {
    api::validation::create(resource, object)
}

/// Checks a changed object.
pub(crate) fn validate_update(resource: &Resource, part: Part, new: &Value, old: &Value) -> Vec<FieldError> {
    match part {
        Part::Sub("status" | "finalize") => api::validation::status_update(resource, new, old),
        Part::Sub(part @ ("ephemeralcontainers" | "resize")) => {
            api::validation::pod_part_update(resource, part, new, old)
        }
        Part::Main | Part::Sub(_) => api::validation::update(resource, new, old),
    }
}

/// Who wrote which fields.
pub(crate) struct Writer<'a> {
    pub manager: &'a str,
    pub part: Part,
    pub now: Timestamp,
}

/// Keeps managedFields.
pub(crate) fn track(resource: &Resource, old: Option<&Value>, new: &mut Value, writer: &Writer<'_>) {
    let time = api::time::format(writer.now);
    let writer = managed_fields::Writer {
        manager: writer.manager,
        operation: managed_fields::Operation::Update,
        subresource: writer.part.name(),
        api_version: &resource.api_version(),
        time: &time,
    };
    managed_fields::update(resource.schemas(), resource, old, new, &writer);
}

/// Applies a configuration to the live object, or to nothing.
pub(crate) fn apply(
    resource: &Resource,
    live: Option<&Value>,
    config: &Value,
    writer: &Writer<'_>,
    force: bool,
) -> Result<managed_fields::Applied, Refused> {
    let time = api::time::format(writer.now);
    let writer = managed_fields::Writer {
        manager: writer.manager,
        operation: managed_fields::Operation::Apply,
        subresource: writer.part.name(),
        api_version: &resource.api_version(),
        time: &time,
    };
    managed_fields::apply(resource.schemas(), resource, live, config, &writer, force)
        .map_err(|error| error.to_status().into())
}

/// Whether objects of a resource have a form in protobuf.
pub(crate) fn has_protobuf(resource: &Resource) -> bool {
    resource.custom.is_none() && api::protobuf::Message::of_type(schema::builtin(), resource.schema).is_some()
}

/// Reads a protobuf body.
pub(crate) fn protobuf(bytes: &[u8]) -> Result<Value, Refused> {
    match api::protobuf::decode_object(bytes) {
        Ok(document) => Ok(document.value),
        Err(error) => Err(failure::bad_request(&error.to_string())),
    }
}

/// The columns of a kind's table.
pub(crate) fn columns(resource: &Resource) -> Value {
    api::table::columns(resource)
}

/// One row of a kind's table, without its object.
pub(crate) fn row(resource: &Resource, object: &Value, now: Timestamp) -> Value {
    api::table::row(resource, object, now)
}

/// A format of patches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Patch {
    /// RFC 6902.
    Json,
    /// RFC 7386.
    Merge,
    /// Kubernetes' own, by merge keys.
    Strategic,
}

/// Applies a patch to an object of a resource.
pub(crate) fn patch(
    resource: &Resource,
    kind: Patch,
    object: &mut Value,
    patch: &Value,
) -> Result<(), Refused> {
    patch_typed(resource.schema, kind, object, patch)
}

/// Applies a patch to an object of a type.
pub(crate) fn patch_typed(
    schema: TypeId,
    kind: Patch,
    object: &mut Value,
    patch: &Value,
) -> Result<(), Refused> {
    let done = match kind {
        Patch::Json => api::patch::json(object, patch),
        Patch::Merge => api::patch::merge(object, patch),
        Patch::Strategic => api::patch::strategic(schema::builtin(), schema, object, patch),
    };
    done.map_err(|error| error.to_status().into())
}
