//! What lists and watches carry, decoded straight into objects.

use std::borrow::Cow;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use crate::cache::{Cached, Failure, Page, WatchEvent};
use crate::lean::without;
use crate::object::{Object, ObjectKey, PartialObject};

/// What is accepted where an object is wanted as it is.
pub const JSON: &str = "application/json";
/// What is accepted where of an object only its metadata is wanted.
pub const METADATA: &str = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json";
/// What is accepted where of a list's objects only their metadata is wanted.
pub const METADATA_LIST: &str =
    "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json";

/// Is told of an object that cannot be decoded: its name, where that could be read, and why.
pub type Unreadable<'a> = &'a mut dyn FnMut(Option<&ObjectKey>, serde_json::Error);

#[derive(Deserialize)]
struct RawPage<'a> {
    #[serde(default)]
    metadata: RawMeta,
    #[serde(borrow, default)]
    items: Option<Vec<&'a RawValue>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawMeta {
    resource_version: Option<String>,
    #[serde(rename = "continue")]
    continue_token: Option<String>,
}

/// A line of a watch, whose object is not looked into.
#[derive(Deserialize)]
pub struct Envelope<'a> {
    /// `ADDED`, `MODIFIED`, `DELETED`, `BOOKMARK` or `ERROR`.
    #[serde(rename = "type", borrow)]
    pub kind: Cow<'a, str>,
    /// The object's JSON.
    #[serde(borrow)]
    pub object: &'a RawValue,
}

#[derive(Deserialize)]
struct ErrorObject {
    #[serde(default)]
    code: i32,
    #[serde(default)]
    reason: String,
    #[serde(default)]
    message: String,
}

/// Decodes a page of a list. `lists` are left out of its objects, as [`without`] has it.
///
/// # Errors
/// When it is no list. Objects that cannot be decoded are part of the page.
pub fn decode_page<T: Cached + DeserializeOwned>(
    bytes: &[u8],
    lists: &[&str],
    unreadable: Unreadable<'_>,
) -> Result<Page<T>, serde_json::Error> {
    let page: RawPage<'_> = serde_json::from_slice(bytes)?;
    let raw = page.items.unwrap_or_default();
    let mut items = Vec::with_capacity(raw.len());
    let mut undecodable = Vec::new();
    for item in raw {
        match serde_json::from_str::<T>(&without(item.get(), lists)) {
            Ok(object) => items.push(trimmed(object)),
            Err(error) => {
                let key = serde_json::from_str::<PartialObject>(item.get()).ok().map(|object| object.key());
                unreadable(key.as_ref(), error);
                undecodable.extend(key);
            }
        }
    }
    Ok(Page {
        resource_version: page.metadata.resource_version.unwrap_or_default(),
        continue_token: page.metadata.continue_token,
        items,
        undecodable,
    })
}

/// Decodes one line of a watch. `lists` are left out of its object, as [`without`] has it.
///
/// # Errors
/// When the server says that the watch failed.
pub fn decode_line<T: Cached + DeserializeOwned>(
    line: &[u8],
    lists: &[&str],
    unreadable: Unreadable<'_>,
) -> Result<WatchEvent<T>, Failure> {
    let Some((kind, json)) = opened(line) else {
        return Err(Failure::Other("a line of the watch is not an event".to_owned()));
    };
    let mut object = |make: fn(T) -> WatchEvent<T>| match serde_json::from_str::<T>(&without(json, lists)) {
        Ok(object) => Ok(make(trimmed(object))),
        Err(error) => {
            unreadable(None, error);
            Ok(WatchEvent::Undecodable)
        }
    };
    match &*kind {
        "ADDED" | "MODIFIED" => object(WatchEvent::Applied),
        "DELETED" => object(WatchEvent::Deleted),
        "BOOKMARK" => match serde_json::from_str::<PartialObject>(json) {
            Ok(bookmark) => Ok(WatchEvent::Bookmark {
                resource_version: bookmark.metadata.resource_version.unwrap_or_default(),
            }),
            Err(_) => Ok(WatchEvent::Undecodable),
        },
        "ERROR" => Err(match serde_json::from_str::<ErrorObject>(json) {
            Ok(error) if error.code == 410 || matches!(&*error.reason, "Expired" | "Gone") => {
                Failure::Expired
            }
            Ok(error) => Failure::Other(error.message),
            Err(error) => Failure::Other(error.to_string()),
        }),
        other => Err(Failure::Other(format!("unknown watch event {other}"))),
    }
}

/// The kind of an event and the JSON of its object.
pub fn opened(line: &[u8]) -> Option<(Cow<'_, str>, &str)> {
    // As API servers write it: the object need not be looked through to find its end.
    let plain = || {
        let (kind, rest) = std::str::from_utf8(line).ok()?.strip_prefix("{\"type\":\"")?.split_once('"')?;
        Some((kind, rest.strip_prefix(",\"object\":")?.strip_suffix('}')?))
    };
    match plain() {
        Some((kind, object)) => Some((Cow::Borrowed(kind), object)),
        None => {
            serde_json::from_slice::<Envelope<'_>>(line).ok().map(|event| (event.kind, event.object.get()))
        }
    }
}

/// The object without what was not left out of the JSON.
fn trimmed<T: Cached>(mut object: T) -> T {
    object.tidy();
    object
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Pod;

    use super::*;
    use crate::lean::MANAGED_FIELDS;

    fn decode(line: &[u8]) -> Result<WatchEvent<Pod>, Failure> {
        decode_line(line, &[MANAGED_FIELDS], &mut |_, _| {})
    }

    #[test]
    fn events() {
        let line = br#"{"type":"ADDED","object":{"apiVersion":"v1","kind":"Pod","metadata":{"name":"a","resourceVersion":"7","managedFields":[{"manager":"m"}]}}}"#;
        let Ok(WatchEvent::Applied(pod)) = decode(line) else { panic!("applied") };
        assert_eq!((pod.name(), pod.resource_version()), ("a", "7"));
        assert!(pod.metadata.managed_fields.is_none());
        let bookmark = br#"{"type":"BOOKMARK","object":{"apiVersion":"v1","kind":"Pod","metadata":{"resourceVersion":"9"}}}"#;
        assert!(
            matches!(decode(bookmark), Ok(WatchEvent::Bookmark { resource_version }) if resource_version == "9")
        );
        let gone = br#"{"type":"ERROR","object":{"kind":"Status","code":410,"reason":"Expired","message":"too old"}}"#;
        assert_eq!(decode(gone).expect_err("gone"), Failure::Expired);
        let wrong = br#"{"type":"ADDED","object":{"apiVersion":"v1","kind":"Pod","metadata":{"name":7}}}"#;
        assert!(matches!(decode(wrong), Ok(WatchEvent::Undecodable)));
        assert!(matches!(decode(b"{"), Err(Failure::Other(_))));
    }
    #[test]
    fn a_page_keeps_what_can_be_read() {
        let page = br#"{"metadata":{"resourceVersion":"9","continue":"t"},"items":[{"metadata":{"name":"a"}},{"metadata":{"name":"b"},"spec":7}]}"#;
        let mut told = Vec::new();
        let page =
            decode_page::<Pod>(page, &[], &mut |key, _| told.extend(key.map(|key| key.name.to_string())));
        let page = page.expect("a list");
        assert_eq!((page.resource_version.as_str(), page.continue_token.as_deref()), ("9", Some("t")));
        assert_eq!((page.items.len(), page.undecodable.len()), (1, 1));
        assert_eq!(told, ["b"]);
        assert!(decode_page::<Pod>(b"[", &[], &mut |_, _| {}).is_err());
    }
}
