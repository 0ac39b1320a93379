//! PATCH: a change is applied to the stored object, and the result takes its place.

use api::conversion;
use api::field::FieldError;
use api::status::Status;
use serde_json::Value;

use crate::apply;
use crate::aside::Aside;
use crate::body::{self, Expected};
use crate::call::Call;
use crate::create;
use crate::failure::{self, Refused};
use crate::ids::Ids;
use crate::kinds;
use crate::object::meta;
use crate::prepare::Planned;
use crate::update;

/// Formats of patches that are taken.
const ACCEPTED: &[&str] = &[
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    apply::MEDIA_TYPE,
];

/// Those that need no merge keys.
const ACCEPTED_BY_CUSTOM: &[&str] =
    &["application/json-patch+json", "application/merge-patch+json", apply::MEDIA_TYPE];

/// PATCH of an object or of its status.
pub(crate) fn plan(call: &Call<'_>, ids: &mut Ids<'_>) -> Planned {
    if apply::is_asked(call) {
        return apply::plan(call, ids);
    }
    let mut warnings = Vec::new();
    let (kind, patch) = read(call, &mut warnings)?;
    let entry = call.entry()?;
    let (old, aside) = match Aside::of_status_patch(call, &patch, entry) {
        Some(read) => read,
        None => (call.current(call.parsed(entry)?)?, Aside::default()),
    };
    let mut new = old.clone();
    conversion::from_stored(call.resource, &mut new);
    kinds::patch(call.resource, kind, &mut new, &patch)?;
    check_name(call, &new)?;
    body::decode(call.request, Expected::of(call.resource), &mut new, &mut warnings)?;
    create::place(call, &mut new)?;
    conversion::to_stored(call.resource, &mut new);
    let stored = update::Old { entry, document: old, aside };
    update::replace(call, ids, stored, new, update::part(call), warnings)
}

/// The kind of patch and its document.
pub(crate) fn read(call: &Call<'_>, warnings: &mut Vec<String>) -> Result<(kinds::Patch, Value), Refused> {
    let kind = match body::media_type(call.request) {
        "application/json-patch+json" => kinds::Patch::Json,
        "application/merge-patch+json" => kinds::Patch::Merge,
        "application/strategic-merge-patch+json" if call.resource.custom.is_none() => kinds::Patch::Strategic,
        _ if call.resource.custom.is_some() => {
            return Err(Status::unsupported_media_type(ACCEPTED_BY_CUSTOM).into());
        }
        _ => return Err(Status::unsupported_media_type(ACCEPTED).into()),
    };
    if call.request.info.param("force").is_some() {
        let error = FieldError::forbidden("force", "may not be specified for non-apply patch");
        return Err(Status::invalid("meta.k8s.io", "PatchOptions", "", &[error]).into());
    }
    let mut doubled = Vec::new();
    let patch = body::json(&call.request.body, &mut doubled)?;
    warnings.extend(doubled);
    if kind != kinds::Patch::Json && !patch.is_object() {
        let step = if kind == kinds::Patch::Merge { "error decoding patch: " } else { "" };
        let found = match &patch {
            Value::Bool(_) => "bool",
            Value::Number(_) => "number",
            Value::String(_) => "string",
            _ => "array",
        };
        return Err(failure::bad_request(&format!(
            "{step}json: cannot unmarshal {found} into Go value of type map[string]interface {{}}"
        )));
    }
    Ok((kind, patch))
}

pub(crate) fn check_name(call: &Call<'_>, new: &Value) -> Result<(), Refused> {
    match meta(new, "name") == call.name() {
        true => Ok(()),
        false => Err(failure::bad_request(&format!(
            "the name of the object ({}) does not match the name on the URL ({})",
            meta(new, "name"),
            call.name()
        ))),
    }
}
