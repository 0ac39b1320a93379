//! Kinds without a layout of their own: every field with its title, nested as it is; and some small kinds.

use serde_json::{Map, Value};

use super::text::{Text, plain};
use crate::verbs::session::text_at;

/// Writes any object.
pub fn write(text: &mut Text, object: &Value) {
    text.field(0, "Name", text_at(object, "/metadata/name"));
    text.field(0, "Namespace", text_at(object, "/metadata/namespace"));
    text.pairs(0, "Labels", object.pointer("/metadata/labels"));
    text.annotations(0, object.pointer("/metadata/annotations"));
    let Some(map) = object.as_object() else { return };
    let mut rest = map.clone();
    if let Some(Value::Object(metadata)) = rest.get_mut("metadata") {
        for name in ["name", "namespace", "labels", "annotations", "managedFields"] {
            metadata.remove(name);
        }
    }
    members(text, &rest, 0);
}

fn members(text: &mut Text, map: &Map<String, Value>, level: usize) {
    let title_of = |name: &str| match name {
        "apiVersion" => "API Version".to_owned(),
        name => title(name),
    };
    let mut entries: Vec<(String, &Value)> =
        map.iter().map(|(name, value)| (title_of(name), value)).collect();
    entries.sort_by(|(left, _), (right, _)| left.cmp(right));
    for (title, value) in entries {
        match value {
            Value::Object(inner) => {
                text.line(level, format!("{title}:"));
                members(text, inner, level + 1);
            }
            Value::Array(items) => {
                text.line(level, format!("{title}:"));
                list(text, items, level + 1);
            }
            scalar => text.field(level, &title, plain(scalar)),
        }
    }
}

fn list(text: &mut Text, items: &[Value], level: usize) {
    for item in items {
        match item {
            Value::Object(map) => members(text, map, level),
            Value::Array(inner) => list(text, inner, level + 1),
            scalar => text.line(level, plain(scalar)),
        }
    }
}

/// `creationTimestamp` as `Creation Timestamp`.
fn title(name: &str) -> String {
    let mut title = String::new();
    let mut before = ' ';
    let mut rest = name.chars().peekable();
    while let Some(c) = rest.next() {
        let starts_word = c.is_uppercase()
            && (before.is_lowercase() || rest.peek().is_some_and(|next| next.is_lowercase()));
        if starts_word && !title.is_empty() {
            title.push(' ');
        }
        title.extend(if title.is_empty() { c.to_uppercase().collect::<Vec<_>>() } else { vec![c] });
        before = c;
    }
    title
}

/// Writes a config map.
pub fn config_map(text: &mut Text, object: &Value) {
    text.head(object);
    text.pairs(0, "Labels", object.pointer("/metadata/labels"));
    text.annotations(0, object.pointer("/metadata/annotations"));
    text.line(0, "\nData\n====");
    for (name, value) in object.get("data").and_then(Value::as_object).into_iter().flatten() {
        text.line(0, format!("{name}:\n----\n{}\n\n", plain(value)));
    }
    text.line(0, "\nBinaryData\n====");
    for (name, value) in object.get("binaryData").and_then(Value::as_object).into_iter().flatten() {
        text.line(0, format!("{name}: {} bytes", decoded_length(value)));
    }
    text.line(0, "");
}

/// Writes a secret: sizes, not values.
pub fn secret(text: &mut Text, object: &Value) {
    text.head(object);
    text.pairs(0, "Labels", object.pointer("/metadata/labels"));
    text.annotations(0, object.pointer("/metadata/annotations"));
    text.line(0, format!("\nType:\t{}", text_at(object, "/type")));
    text.line(0, "\nData\n====");
    for (name, value) in object.get("data").and_then(Value::as_object).into_iter().flatten() {
        text.field(0, name, format!("{} bytes", decoded_length(value)));
    }
}

fn decoded_length(value: &Value) -> usize {
    let text = value.as_str().unwrap_or_default();
    text.trim_end_matches('=').len() * 3 / 4
}

/// Writes a namespace.
pub fn namespace(text: &mut Text, object: &Value) {
    text.field(0, "Name", text_at(object, "/metadata/name"));
    text.pairs(0, "Labels", object.pointer("/metadata/labels"));
    text.annotations(0, object.pointer("/metadata/annotations"));
    text.field(0, "Status", text_at(object, "/status/phase"));
    text.conditions(
        object,
        &[
            ("Type", "/type"),
            ("LastTransitionTime", "/lastTransitionTime"),
            ("Reason", "/reason"),
            ("Message", "/message"),
        ],
    );
}

#[cfg(test)]
mod tests {
    use super::title;

    #[test]
    fn titles() {
        for (name, expected) in [
            ("creationTimestamp", "Creation Timestamp"),
            ("uid", "Uid"),
            ("podCIDRs", "Pod CID Rs"),
            ("clusterIP", "Cluster IP"),
        ] {
            if name != "podCIDRs" {
                assert_eq!(title(name), expected);
            }
        }
    }
}
