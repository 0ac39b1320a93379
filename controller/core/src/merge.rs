//! The merge patch between two states of one object.

use serde::Serialize;
use serde_json::{Map, Value};

/// The merge patch (RFC 7386) that turns `old` into `new`; None when they are the same.
///
/// Lists are replaced whole: send such a patch with the revision it was made against.
pub fn diff(old: &Value, new: &Value) -> Option<Value> {
    match (old, new) {
        (old, new) if old == new => None,
        (Value::Object(old), Value::Object(new)) => {
            let mut patch = Map::new();
            for (name, value) in new {
                match old.get(name) {
                    Some(before) => {
                        if let Some(change) = diff(before, value) {
                            patch.insert(name.clone(), change);
                        }
                    }
                    None => {
                        patch.insert(name.clone(), value.clone());
                    }
                }
            }
            for name in old.keys().filter(|name| !new.contains_key(*name)) {
                patch.insert(name.clone(), Value::Null);
            }
            Some(Value::Object(patch))
        }
        (_, new) => Some(new.clone()),
    }
}

/// The JSON of a typed value. Kubernetes types always have one.
pub fn to_json(value: &impl Serialize) -> Value {
    serde_json::to_value(value).unwrap_or(Value::Null)
}

/// The merge patch between two typed states, as the content of `field`.
pub fn diff_field<T: Serialize + PartialEq>(field: &str, old: &T, new: &T) -> Option<Value> {
    if old == new {
        return None;
    }
    let change = diff(&to_json(old), &to_json(new))?;
    let mut body = Map::new();
    body.insert(field.to_owned(), change);
    Some(Value::Object(body))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn names_only_what_changed() {
        let old = json!({"a": 1, "b": {"c": [1], "d": 2}, "e": 3});
        let new = json!({"a": 1, "b": {"c": [2], "d": 2}, "f": 4});
        assert_eq!(diff(&old, &new), Some(json!({"b": {"c": [2]}, "e": null, "f": 4})));
        assert_eq!(diff(&old, &old), None);
    }
}
