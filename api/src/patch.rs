//! The three kinds of patches: JSON patch, JSON merge patch and strategic merge patch.

use serde_json::{Map, Value};

use crate::{
    schema::{Schemas, TypeId},
    status::Status,
};

mod operations;
mod ordering;
mod strategic;

/// Why a patch does not apply.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatchError {
    /// The patch itself makes no sense.
    #[error("{0}")]
    Malformed(String),
    /// The patch does not fit the object.
    #[error("{0}")]
    DoesNotApply(String),
    /// The patch is too large.
    #[error("{0}")]
    TooLarge(String),
}

// === impl PatchError ===

impl PatchError {
    /// How it is answered.
    pub fn to_status(&self) -> Status {
        match self {
            Self::Malformed(message) => Status::bad_request(message),
            Self::DoesNotApply(message) => Status::unprocessable(message),
            Self::TooLarge(message) => Status { message: message.clone(), ..Status::too_large(0) },
        }
    }
}

/// Applies a JSON patch (RFC 6902). A patch that fails leaves `document` half done: patch a copy.
pub fn json(document: &mut Value, patch: &Value) -> Result<(), PatchError> {
    operations::apply(document, patch)
}

/// Applies a JSON merge patch (RFC 7386).
pub fn merge(document: &mut Value, patch: &Value) -> Result<(), PatchError> {
    if !patch.is_object() {
        return Err(PatchError::Malformed("a merge patch must be an object".to_owned()));
    }
    merge_value(document, patch);
    Ok(())
}

fn merge_value(document: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *document = patch.clone();
        return;
    };
    if !document.is_object() {
        *document = Value::Object(Map::new());
    }
    let Value::Object(map) = document else { return };
    for (name, value) in patch {
        match (value, map.get_mut(name)) {
            (Value::Null, _) => {
                map.remove(name);
            }
            (value, Some(present)) => merge_value(present, value),
            (value, None) => {
                let mut fresh = Value::Null;
                merge_value(&mut fresh, value);
                map.insert(name.clone(), fresh);
            }
        }
    }
}

/// Applies a strategic merge patch: lists are merged by the keys that the schema names. A patch that fails leaves
/// `document` half done: patch a copy.
pub fn strategic(
    schemas: &Schemas,
    id: TypeId,
    document: &mut Value,
    patch: &Value,
) -> Result<(), PatchError> {
    strategic::apply(schemas, id, document, patch)
}

#[cfg(test)]
mod tests;
