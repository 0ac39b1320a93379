//! Small readings and writings of objects, as documents and as bytes.

use bytes::{Bytes, BytesMut};
use serde_json::{Map, Value, json};
use store_core::Value as Stored;

use crate::scan;

/// Most objects are smaller.
const USUAL_SIZE: usize = 2048;

/// A string of the metadata; empty when it is not there.
pub fn meta<'a>(object: &'a Value, field: &str) -> &'a str {
    object["metadata"][field].as_str().unwrap_or_default()
}

/// The metadata, made when it is not there.
pub fn meta_mut(object: &mut Value) -> &mut Map<String, Value> {
    child(object, "metadata")
}

/// The object in `field`, made when it is not there (or is not an object).
pub fn child<'a>(object: &'a mut Value, field: &str) -> &'a mut Map<String, Value> {
    map_child(map_of(object), field)
}

/// The members of a document, which is made an object when it is none.
pub fn map_of(document: &mut Value) -> &mut Map<String, Value> {
    if !document.is_object() {
        *document = json!({});
    }
    match document {
        Value::Object(map) => map,
        _ => unreachable!("it was made an object"),
    }
}

/// The object in `field` of a map, made when it is not there (or is not an object).
pub fn map_child<'a>(map: &'a mut Map<String, Value>, field: &str) -> &'a mut Map<String, Value> {
    let value = map.entry(field).or_insert_with(|| json!({}));
    if !value.is_object() {
        *value = json!({});
    }
    match value {
        Value::Object(inner) => inner,
        _ => unreachable!("it was made an object"),
    }
}

/// Writes a field, or removes it when the value is null.
pub fn set(map: &mut Map<String, Value>, field: &str, value: Value) {
    match value {
        Value::Null => {
            map.remove(field);
        }
        value => {
            map.insert(field.to_owned(), value);
        }
    }
}

/// The items of a list; none when it is not one.
pub fn items(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

/// The finalizers of an object.
pub fn finalizers(object: &Value) -> &[Value] {
    items(&object["metadata"]["finalizers"])
}

/// Whether the object is being deleted.
pub fn is_terminating(object: &Value) -> bool {
    object["metadata"]["deletionTimestamp"].is_string()
}

/// The document of stored bytes.
pub fn parse(bytes: &[u8]) -> Option<Value> {
    serde_json::from_slice(bytes).ok()
}

/// The bytes to store, with the place where the store writes the revision.
pub fn encode(object: &mut Value) -> Stored {
    encode_with(object, &[])
}

/// As [`encode`]; `members` are further members of the object, given as JSON.
pub fn encode_with(object: &mut Value, members: &[(&str, &[u8])]) -> Stored {
    enum Piece<'a> {
        Document(&'a Value),
        Json(&'a [u8]),
    }
    meta_mut(object).insert("resourceVersion".into(), "".into());
    let document = object.as_object().into_iter().flatten();
    let mut pieces: Vec<_> = document.map(|(name, value)| (name.as_str(), Piece::Document(value))).collect();
    pieces.extend(members.iter().map(|(name, json)| (*name, Piece::Json(json))));
    pieces.sort_unstable_by_key(|(name, _)| *name);
    let mut bytes = Vec::with_capacity(USUAL_SIZE);
    let mut at = None;
    for (name, piece) in pieces {
        bytes.push(if bytes.is_empty() { b'{' } else { b',' });
        // Strings, and documents with keys of text, are always JSON, and memory takes every byte.
        let _ = serde_json::to_writer(&mut bytes, name);
        bytes.push(b':');
        let begin = bytes.len();
        match piece {
            Piece::Json(json) => bytes.extend_from_slice(json),
            Piece::Document(value) => drop(serde_json::to_writer(&mut bytes, value)),
        }
        if name == "metadata" {
            let range = scan::locate(&bytes[begin..], &["resourceVersion"]);
            at = range.map(|range| (begin + range.start) as u32 + 1);
        }
    }
    bytes.push(b'}');
    Stored { bytes: bytes.into(), splice_at: at }
}

/// Bytes to store whose resourceVersion is empty, with the place where the store writes the revision.
pub fn stored(bytes: Bytes) -> Stored {
    let at = scan::locate(&bytes, &["metadata", "resourceVersion"]).map(|range| range.start as u32 + 1);
    Stored { bytes, splice_at: at }
}

/// The map of a document.
pub fn into_map(document: Value) -> Option<Map<String, Value>> {
    match document {
        Value::Object(map) => Some(map),
        _ => None,
    }
}

/// The bytes of an object with another resourceVersion.
pub fn with_revision(object: &Bytes, revision: u64) -> Bytes {
    let Some(range) = scan::locate(object, &["metadata", "resourceVersion"]) else { return object.clone() };
    let mut out = BytesMut::with_capacity(object.len() + 8);
    out.extend_from_slice(&object[..range.start]);
    out.extend_from_slice(format!("\"{revision}\"").as_bytes());
    out.extend_from_slice(&object[range.end..]);
    out.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_revision_lands_in_the_metadata() {
        let mut object =
            json!({"data": {"resourceVersion": "x"}, "metadata": {"name": "a", "resourceVersion": "9"}});
        let stored = encode(&mut object);
        let bytes = crate::response::spliced(&stored, 42);
        assert_eq!(parse(&bytes).expect("JSON")["metadata"]["resourceVersion"], "42");
        let newer = with_revision(&bytes, 43);
        assert_eq!(parse(&newer).expect("JSON")["metadata"]["resourceVersion"], "43");
        assert_eq!(parse(&newer).expect("JSON")["data"]["resourceVersion"], "x");
    }
}
