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
                .filter(|id| !schemas.get(*id).wire.is_empty())
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
    envelope(text("apiVersion"), text("kind"), &encode::message(schemas, id, object))
}

/// Encodes whatever a document says it is, with its envelope: an object, a list, metadata only. `None` for what has no
/// form in protobuf.
pub fn encode_document(schemas: &Schemas, document: &Value) -> Option<Vec<u8>> {
    let text = |name: &str| document.get(name).and_then(Value::as_str).unwrap_or_default();
    let (api_version, kind) = (text("apiVersion"), text("kind"));
    let message = match Message::of(schemas, api_version, kind) {
        Some(message) => message.encode(schemas, document),
        None => {
            let item = Message::of(schemas, api_version, kind.strip_suffix("List")?)?;
            let items = document.get("items")?.as_array()?;
            let metadata = document.get("metadata").unwrap_or(&Value::Null);
            list_message(schemas, metadata, items.iter().map(|object| item.encode(schemas, object)))
        }
    };
    Some(envelope(api_version, kind, &message))
}

/// What a kind's message is made of.
#[derive(Clone, Copy, Debug)]
pub enum Message {
    /// The fields of a type.
    Typed(TypeId),
    /// The metadata alone.
    Partial,
}

// === impl Message ===

impl Message {
    /// The message of a kind; `None` for a kind without a form in protobuf.
    pub fn of(schemas: &Schemas, api_version: &str, kind: &str) -> Option<Message> {
        if (api_version, kind) == ("meta.k8s.io/v1", "PartialObjectMetadata") {
            return Some(Message::Partial);
        }
        let (group, version) = split_api_version(api_version);
        schemas.type_of(group, version, kind).and_then(|id| Message::of_type(schemas, id))
    }

    /// The message of a type; `None` for one without a form in protobuf.
    pub fn of_type(schemas: &Schemas, id: TypeId) -> Option<Message> {
        (!schemas.get(id).wire.is_empty()).then_some(Message::Typed(id))
    }

    /// The message of an object, without envelope.
    pub fn encode(self, schemas: &Schemas, object: &Value) -> Vec<u8> {
        match self {
            Message::Typed(id) => encode::message(schemas, id, object),
            Message::Partial => metadata_message(schemas, "meta.v1.ObjectMeta", &object["metadata"]),
        }
    }
}

/// A message whose field 1 is metadata.
fn metadata_message(schemas: &Schemas, type_name: &str, metadata: &Value) -> Vec<u8> {
    let mut message = Vec::new();
    if let Some(id) = schemas.by_name(type_name) {
        wire::put_bytes(&mut message, 1, &encode::message(schemas, id, metadata));
    }
    message
}

/// The message of a list.
pub fn list_message(schemas: &Schemas, metadata: &Value, items: impl Iterator<Item = Vec<u8>>) -> Vec<u8> {
    let mut message = metadata_message(schemas, "meta.v1.ListMeta", metadata);
    items.for_each(|item| wire::put_bytes(&mut message, 2, &item));
    message
}

/// A message in its envelope: the magic, the type's name, the message.
pub fn envelope(api_version: &str, kind: &str, message: &[u8]) -> Vec<u8> {
    let mut names = Vec::new();
    wire::put_bytes(&mut names, 1, api_version.as_bytes());
    wire::put_bytes(&mut names, 2, kind.as_bytes());
    let mut bytes = Vec::with_capacity(message.len() + names.len() + 16);
    bytes.extend_from_slice(MAGIC);
    wire::put_bytes(&mut bytes, 1, &names);
    wire::put_bytes(&mut bytes, 2, message);
    wire::put_bytes(&mut bytes, 3, b"");
    wire::put_bytes(&mut bytes, 4, b"");
    bytes
}

/// One frame of a watch: four bytes of length, then the event, whose object is a document of its own.
pub fn watch_frame(event: &str, document: &[u8]) -> Vec<u8> {
    let mut object = Vec::with_capacity(document.len() + 8);
    wire::put_bytes(&mut object, 1, document);
    let mut message = Vec::with_capacity(object.len() + event.len() + 16);
    wire::put_bytes(&mut message, 1, event.as_bytes());
    wire::put_bytes(&mut message, 2, &object);
    let mut frame = Vec::with_capacity(message.len() + 4);
    frame.extend_from_slice(&(message.len() as u32).to_be_bytes());
    frame.append(&mut message);
    frame
}

#[cfg(test)]
mod tests;
