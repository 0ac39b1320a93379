//! Kubernetes' protobuf form of objects, read from the same table as JSON.
//!
//! A document is the magic `k8s\0` and a message with the type's name and the object's own message. Wire quirks: structs
//! that JSON flattens are nested messages; integers of a list are not packed; Go writes the zero value of every field
//! that is no pointer, which JSON leaves out again where it says `omitempty`.

use serde_json::{Map, Value};

use crate::{
    catalogue::split_api_version,
    schema::{self, Schemas, TypeId},
};

mod decode;
mod encode;
pub(crate) mod wire;

/// What every document starts with.
pub const MAGIC: &[u8; 4] = b"k8s\0";

/// The media type.
pub const MEDIA_TYPE: &str = "application/vnd.kubernetes.protobuf";

/// Why bytes are no document.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The magic is missing.
    #[error("provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]")]
    Magic,
    /// The bytes end within a field.
    #[error("unexpected EOF")]
    Truncated,
    /// A number that is longer than 64 bits.
    #[error("proto: integer overflow")]
    Overflow,
    /// A field in a form that its type cannot have.
    #[error("proto: wrong wireType = {wire_type} for field {field}")]
    WireType {
        /// The field's name.
        field: String,
        /// What was found.
        wire_type: u8,
    },
    /// A field number or wire type that cannot be.
    #[error("proto: illegal tag {0}")]
    Tag(u64),
    /// Text that is not UTF-8.
    #[error("proto: field {0} contains invalid UTF-8")]
    Utf8(String),
    /// Messages within messages beyond reason.
    #[error("proto: messages are nested too deeply")]
    Depth,
    /// A time that cannot be.
    #[error("proto: field {0} holds a time out of range")]
    Time(String),
    /// Embedded JSON that does not parse.
    #[error("proto: field {0} holds malformed JSON")]
    Json(String),
    /// Content in an encoding or of a type that is not spoken.
    #[error("content of type {0:?} is not supported")]
    Content(String),
    /// A kind that is not known.
    #[error("no kind {kind:?} is registered for version {api_version:?}")]
    UnknownKind {
        /// Its `apiVersion`.
        api_version: String,
        /// Its name.
        kind: String,
    },
}

/// A decoded document.
#[derive(Clone, Debug, PartialEq)]
pub struct Document {
    /// Its `apiVersion`.
    pub api_version: String,
    /// Its kind.
    pub kind: String,
    /// The object, `apiVersion` and `kind` included.
    pub value: Value,
}

/// Decodes a document of a built-in kind.
pub fn decode_object(bytes: &[u8]) -> Result<Document, Error> {
    decode_document(schema::builtin(), bytes, 0)
}

fn decode_document(schemas: &Schemas, bytes: &[u8], depth: usize) -> Result<Document, Error> {
    let body = bytes.strip_prefix(MAGIC.as_slice()).ok_or(Error::Magic)?;
    let envelope = decode::envelope(body)?;
    if !envelope.content_encoding.is_empty() {
        return Err(Error::Content(envelope.content_encoding.to_owned()));
    }
    let (api_version, kind) = (envelope.api_version.to_owned(), envelope.kind.to_owned());
    let mut value = match envelope.content_type {
        "" | MEDIA_TYPE => {
            let (group, version) = split_api_version(&api_version);
            let id = schemas
                .type_of(group, version, &kind)
                .ok_or_else(|| Error::UnknownKind { api_version: api_version.clone(), kind: kind.clone() })?;
            Value::Object(decode::message(schemas, id, envelope.raw, depth)?)
        }
        "application/json" => {
            serde_json::from_slice(envelope.raw).map_err(|_| Error::Json("raw".to_owned()))?
        }
        other => return Err(Error::Content(other.to_owned())),
    };
    if let Value::Object(map) = &mut value {
        name_type(map, &api_version, &kind);
    }
    Ok(Document { api_version, kind, value })
}

fn name_type(map: &mut Map<String, Value>, api_version: &str, kind: &str) {
    for (name, text) in [("apiVersion", api_version), ("kind", kind)] {
        if !text.is_empty() {
            map.insert(name.to_owned(), text.into());
        }
    }
}

/// Encodes an object with its envelope.
pub fn encode_object(schemas: &Schemas, id: TypeId, object: &Value) -> Vec<u8> {
    let text = |name: &str| object.get(name).and_then(Value::as_str).unwrap_or_default();
    let mut names = Vec::new();
    wire::put_bytes(&mut names, 1, text("apiVersion").as_bytes());
    wire::put_bytes(&mut names, 2, text("kind").as_bytes());
    let mut bytes = MAGIC.to_vec();
    wire::put_bytes(&mut bytes, 1, &names);
    wire::put_bytes(&mut bytes, 2, &encode::message(schemas, id, object));
    wire::put_bytes(&mut bytes, 3, b"");
    wire::put_bytes(&mut bytes, 4, b"");
    bytes
}

#[cfg(test)]
mod tests;
