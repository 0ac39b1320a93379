//! What the cells of several kinds have in common.

use jiff::Timestamp;
use serde_json::Value;

use crate::time;

const UNKNOWN: &str = "<unknown>";
const NONE: &str = "<none>";

/// The object's name.
pub fn name(object: &Value) -> Value {
    object["metadata"]["name"].as_str().unwrap_or_default().into()
}

/// The time since the object was created.
pub fn age(object: &Value, now: Timestamp) -> Value {
    since(&object["metadata"]["creationTimestamp"], now).into()
}

/// The time since a moment in RFC 3339.
pub fn since(moment: &Value, now: Timestamp) -> String {
    match moment.as_str().and_then(|text| text.parse::<Timestamp>().ok()) {
        Some(moment) => time::human_duration(now.duration_since(moment)),
        None => UNKNOWN.to_owned(),
    }
}

/// A number, 0 when it is not there.
pub fn count(value: &Value) -> Value {
    value.as_i64().unwrap_or(0).into()
}

/// A text, `<none>` when it is empty or not there.
pub fn or_none(text: &str) -> Value {
    if text.is_empty() { NONE.into() } else { text.into() }
}

/// The entries of an array; none when there is no array.
pub fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

/// A text, empty when it is not there.
pub fn str(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// Texts joined by commas.
pub fn joined<'a>(texts: impl Iterator<Item = &'a str>) -> String {
    texts.collect::<Vec<_>>().join(",")
}

/// `a=b,c=d` of a string map, or `<none>`.
pub fn pairs(map: &Value) -> Value {
    let pairs = map.as_object().into_iter().flatten().map(|(key, value)| format!("{key}={}", str(value)));
    or_none(&pairs.collect::<Vec<_>>().join(","))
}

/// A label selector in its text form, or `<none>`.
pub fn selector(selector: &Value) -> Value {
    let labels = selector["matchLabels"].as_object().into_iter().flatten();
    let mut parts: Vec<String> = labels.map(|(key, value)| format!("{key}={}", str(value))).collect();
    for expression in list(&selector["matchExpressions"]) {
        let key = str(&expression["key"]);
        let values = joined(list(&expression["values"]).iter().map(str));
        parts.push(match str(&expression["operator"]) {
            "In" => format!("{key} in ({values})"),
            "NotIn" => format!("{key} notin ({values})"),
            "DoesNotExist" => format!("!{key}"),
            _ => key.to_owned(),
        });
    }
    or_none(&parts.join(","))
}

/// Names and images of a pod template's containers, each joined by commas.
pub fn containers(pod_spec: &Value) -> [Value; 2] {
    let of =
        |field: &str| joined(list(&pod_spec["containers"]).iter().map(|container| str(&container[field])));
    [of("name").into(), of("image").into()]
}
