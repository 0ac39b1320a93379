//! Server-side apply: PATCH with the fields that its manager wants to own.

use api::field::FieldError;
use api::status::Status;
use api::{conversion, definition, json};
use serde_json::Value;

use crate::aside::Aside;
use crate::authz::{self, Attributes};
use crate::body::{self, Expected};
use crate::call::Call;
use crate::failure::{self, Refused};
use crate::ids::Ids;
use crate::kinds::{self, Part, Writer};
use crate::object::{self, meta};
use crate::prepare::Planned;
use crate::request::{FieldValidation, Verb};
use crate::update::{self, Ownership};
use crate::{create, patch};

/// The media type of a configuration, which is YAML or JSON.
pub(crate) const MEDIA_TYPE: &str = "application/apply-patch+yaml";

/// Whether the request is an apply.
pub(crate) fn is_asked(call: &Call<'_>) -> bool {
    call.request.info.verb == Verb::Patch && body::media_type(call.request) == MEDIA_TYPE
}

/// PATCH of an object, which may not exist yet, or of its status.
pub(crate) fn plan(call: &Call<'_>, ids: &mut Ids<'_>) -> Planned {
    let mut warnings = Vec::new();
    let config = configuration(call, &mut warnings)?;
    let part = update::part(call);
    let Some(entry) = call.world.snapshot.get(&call.key(call.name())) else {
        return match part {
            Part::Main => create(call, ids, &config, warnings),
            Part::Sub(_) => Err(Status::not_found(call.resource, call.name()).into()),
        };
    };
    let old = call.current(call.parsed(entry)?)?;
    let mut live = old.clone();
    conversion::from_stored(call.resource, &mut live);
    let manager = call.manager();
    let writer = Writer { manager: &manager, part, now: call.now };
    let applied = kinds::apply(call.resource, Some(&live), &config, &writer, call.options().force)?;
    let mut new = applied.object;
    named(call, &new)?;
    body::decode(call.request, Expected::of(call.resource), &mut new, &mut Vec::new())?;
    create::place(call, &mut new)?;
    conversion::to_stored(call.resource, &mut new);
    let ownership = Ownership::Settled(applied.entries);
    let stored = update::Old { entry, document: old, aside: Aside::default() };
    update::replace_owned(call, ids, stored, new, part, (warnings, ownership))
}

/// An apply to a name that is free.
fn create(call: &Call<'_>, ids: &mut Ids<'_>, config: &Value, warnings: Vec<String>) -> Planned {
    let info = &call.request.info;
    authz::check(&call.world, call.user, &Attributes { verb: "create", ..Attributes::of(info, "") })?;
    let uid = meta(config, "uid");
    if !uid.is_empty() {
        let why = format!(
            "uid mismatch: the provided object specified uid {uid}, and no existing object was found"
        );
        return Err(call.conflict(call.name(), why).into());
    }
    let manager = call.manager();
    let writer = Writer { manager: &manager, part: Part::Main, now: call.now };
    let applied = kinds::apply(call.resource, None, config, &writer, call.options().force)?;
    let mut new = applied.object;
    named(call, &new)?;
    body::decode(call.request, Expected::of(call.resource), &mut new, &mut Vec::new())?;
    create::insert(call, ids, new, warnings, Ownership::Settled(applied.entries))
}

/// Reads the configuration; who applies must say so.
pub(crate) fn configuration(call: &Call<'_>, warnings: &mut Vec<String>) -> Result<Value, Refused> {
    if call.options().field_manager.is_empty() {
        let error = FieldError::required("fieldManager", "is required for apply patch");
        return Err(Status::invalid("meta.k8s.io", "PatchOptions", "", &[error]).into());
    }
    let bytes = &call.request.body;
    let is_json = bytes.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'{');
    let config = match json::parse(bytes) {
        Ok(parsed) => {
            warnings.extend(parsed.duplicates.iter().map(|path| format!("duplicate field \"{path}\"")));
            parsed.value
        }
        Err(error) if is_json => return Err(failure::bad_request(&format!("error decoding YAML: {error}"))),
        Err(_) => body::yaml(bytes)?,
    };
    match call.options().field_validation {
        FieldValidation::Ignore => warnings.clear(),
        FieldValidation::Strict if !warnings.is_empty() => {
            let why = format!("error strict decoding YAML: {}", warnings.join(", "));
            return Err(failure::bad_request(&why));
        }
        FieldValidation::Warn | FieldValidation::Strict => {}
    }
    match config.is_object() {
        true => Ok(config),
        false => Err(failure::bad_request("error decoding YAML: the configuration must be an object")),
    }
}

/// Holds the name in a configuration against the path's.
pub(crate) fn named(call: &Call<'_>, config: &Value) -> Result<(), Refused> {
    if meta(config, "name").is_empty() {
        return Err(failure::bad_request(&format!(
            "the name of the object ({} based on URL) was undeterminable: name must be provided",
            call.name()
        )));
    }
    let namespace = meta(config, "namespace");
    if call.resource.namespaced() && !namespace.is_empty() && namespace != call.namespace() {
        return Err(failure::bad_request(&format!(
            "the namespace of the object ({namespace}) does not match the namespace on the request ({})",
            call.namespace()
        )));
    }
    patch::check_name(call, config)
}

/// The size that an applied `Scale` asks for, and who owns what of the workload then.
pub(crate) fn scale(call: &Call<'_>, old: &Value) -> Result<(Value, Ownership, Vec<String>), Refused> {
    let mut warnings = Vec::new();
    let scale = configuration(call, &mut warnings)?;
    named(call, &scale)?;
    let mut config = serde_json::json!({"apiVersion": call.resource.api_version(), "kind": call.resource.kind,
        "metadata": {"name": call.name()}});
    let own = ["spec".into(), "replicas".into()];
    let path: &[Box<str>] = match call.resource.custom.as_ref().and_then(|custom| custom.scale.as_ref()) {
        Some(scale) => &scale.spec,
        None => &own,
    };
    if let Some(replicas) = scale["spec"].get("replicas") {
        definition::put(&mut config, path, replicas.clone());
    }
    let manager = call.manager();
    let writer = Writer { manager: &manager, part: Part::Sub("scale"), now: call.now };
    let applied = kinds::apply(call.resource, Some(old), &config, &writer, call.options().force)?;
    let mut wanted = scale;
    let replicas = definition::at(&applied.object, path).cloned().unwrap_or_default();
    object::set(object::child(&mut wanted, "spec"), "replicas", replicas);
    Ok((wanted, Ownership::Settled(applied.entries), warnings))
}
