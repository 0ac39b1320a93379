//! JSON patch: a list of operations on paths.

use serde_json::Value;

use super::PatchError;
use crate::json::{MAX_DEPTH, depth};

const MAX_OPERATIONS: usize = 10_000;
/// What `copy` may add to a document before it is taken for an attack.
const MAX_COPIED: usize = 3 * 1024 * 1024;

/// Applies all operations in order.
pub(super) fn apply(document: &mut Value, patch: &Value) -> Result<(), PatchError> {
    let Value::Array(operations) = patch else {
        return Err(PatchError::Malformed("a JSON patch must be a list of operations".to_owned()));
    };
    if operations.len() > MAX_OPERATIONS {
        let count = operations.len();
        return Err(PatchError::TooLarge(format!(
            "The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {count}"
        )));
    }
    let mut copied = 0;
    for operation in operations {
        one(document, operation, &mut copied)?;
    }
    Ok(())
}

fn one(document: &mut Value, operation: &Value, copied: &mut usize) -> Result<(), PatchError> {
    let text = |name: &str| operation.get(name).and_then(Value::as_str);
    let word = text("op").unwrap_or_default();
    let path = || {
        text("path").ok_or_else(|| failed(format!("{word} operation failed to decode path: missing value")))
    };
    let from = || {
        text("from").ok_or_else(|| failed(format!("{word} operation failed to decode from: missing value")))
    };
    let value = || operation.get("value").cloned().unwrap_or(Value::Null);
    match word {
        "add" => {
            let (path, value) = (path()?, value());
            bounded(path, &value)?;
            add(document, path, value, "add")
        }
        "remove" => remove(document, path()?, "remove").map(drop),
        "replace" => {
            let (path, value) = (path()?, value());
            bounded(path, &value)?;
            replace(document, path, value)
        }
        "move" => {
            let (from, path) = (from()?, path()?);
            if path.strip_prefix(from).is_some_and(|rest| rest.starts_with('/')) {
                return Err(failed(format!("move operation does not apply: {path} is below {from}")));
            }
            let moved = remove(document, from, "move")?;
            bounded(path, &moved)?;
            add(document, path, moved, "move")
        }
        "copy" => {
            let from = from()?;
            let value = find(document, from).cloned().ok_or_else(|| missing("copy", "from path", from))?;
            *copied += size(&value);
            if *copied > MAX_COPIED {
                return Err(failed(
                    "Unable to complete the copy, the accumulated size is too large".to_owned(),
                ));
            }
            let path = path()?;
            bounded(path, &value)?;
            add(document, path, value, "copy")
        }
        "test" => {
            let path = path()?;
            let actual = find(document, path).unwrap_or(&Value::Null);
            match *actual == value() {
                true => Ok(()),
                false => Err(failed(format!("testing value {path} failed: test failed"))),
            }
        }
        other => Err(failed(format!("Unexpected kind: {other}"))),
    }
}

fn failed(message: String) -> PatchError {
    PatchError::DoesNotApply(message)
}

fn missing(word: &str, what: &str, path: &str) -> PatchError {
    failed(format!("{word} operation does not apply: doc is missing {what}: {path:?}: missing value"))
}

fn size(value: &Value) -> usize {
    match value {
        Value::Array(items) => items.iter().map(size).sum::<usize>() + 8,
        Value::Object(map) => map.iter().map(|(name, value)| name.len() + size(value)).sum::<usize>() + 8,
        Value::String(text) => text.len() + 8,
        _ => 8,
    }
}

/// Refuses what would nest a document deeper than a request may: operations that put values into each other could go on
/// until nothing can walk the document any more.
fn bounded(path: &str, value: &Value) -> Result<(), PatchError> {
    match path.matches('/').count() + depth(value) > MAX_DEPTH {
        true => Err(failed(format!("the patch nests the document deeper than {MAX_DEPTH} levels"))),
        false => Ok(()),
    }
}

/// The pointer's last segment, unescaped, and what is before it.
fn split(path: &str) -> Option<(&str, String)> {
    let (parent, last) = path.rsplit_once('/')?;
    Some((parent, unescape(last)))
}

fn unescape(segment: &str) -> String {
    segment.replace("~1", "/").replace("~0", "~")
}

/// An index into a list; negative ones count from the end.
fn index(segment: &str, len: usize) -> Option<usize> {
    let number: i64 = segment.parse().ok()?;
    match number {
        0.. => usize::try_from(number).ok(),
        _ => len.checked_sub(usize::try_from(number.unsigned_abs()).ok()?),
    }
}

fn find<'a>(document: &'a Value, path: &str) -> Option<&'a Value> {
    if path.is_empty() {
        return Some(document);
    }
    path.strip_prefix('/')?.split('/').try_fold(document, |value, segment| match value {
        Value::Object(map) => map.get(&unescape(segment)),
        Value::Array(items) => items.get(index(segment, items.len())?),
        _ => None,
    })
}

fn find_mut<'a>(document: &'a mut Value, path: &str) -> Option<&'a mut Value> {
    if path.is_empty() {
        return Some(document);
    }
    path.strip_prefix('/')?.split('/').try_fold(document, |value, segment| match value {
        Value::Object(map) => map.get_mut(&unescape(segment)),
        Value::Array(items) => {
            let at = index(segment, items.len())?;
            items.get_mut(at)
        }
        _ => None,
    })
}

fn add(document: &mut Value, path: &str, value: Value, word: &str) -> Result<(), PatchError> {
    if path.is_empty() {
        *document = value;
        return Ok(());
    }
    let (parent, last) = split(path).ok_or_else(|| missing(word, "path", path))?;
    match find_mut(document, parent) {
        Some(Value::Object(map)) => {
            map.insert(last, value);
            Ok(())
        }
        Some(Value::Array(items)) if last == "-" => {
            items.push(value);
            Ok(())
        }
        Some(Value::Array(items)) => match index(&last, items.len() + 1) {
            Some(at) if at <= items.len() => {
                items.insert(at, value);
                Ok(())
            }
            _ => Err(failed(format!("Unable to access invalid index: {last}: invalid index referenced"))),
        },
        _ => Err(missing(word, "path", path)),
    }
}

fn remove(document: &mut Value, path: &str, word: &str) -> Result<Value, PatchError> {
    let (parent, last) = split(path).ok_or_else(|| missing(word, "path", path))?;
    match find_mut(document, parent) {
        Some(Value::Object(map)) => map
            .remove(&last)
            .ok_or_else(|| failed(format!("Unable to remove nonexistent key: {last}: missing value"))),
        Some(Value::Array(items)) => match index(&last, items.len()) {
            Some(at) if at < items.len() => Ok(items.remove(at)),
            _ => Err(failed(format!("Unable to access invalid index: {last}: invalid index referenced"))),
        },
        _ => Err(missing(word, "path", path)),
    }
}

fn replace(document: &mut Value, path: &str, value: Value) -> Result<(), PatchError> {
    match find_mut(document, path) {
        Some(present) => {
            *present = value;
            Ok(())
        }
        None => Err(failed(format!(
            "replace operation does not apply: doc is missing key: {path}: missing value"
        ))),
    }
}
