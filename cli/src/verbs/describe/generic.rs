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

/// Writes a service account.
pub fn service_account(text: &mut Text, object: &Value) {
    text.head(object);
    text.pairs(0, "Labels", object.pointer("/metadata/labels"));
    text.annotations(0, object.pointer("/metadata/annotations"));
    let names = |list: &str| -> Vec<String> {
        let all = object.get(list).and_then(Value::as_array);
        all.into_iter().flatten().map(|one| text_at(one, "/name").to_owned()).collect()
    };
    text.lines(0, "Image pull secrets", &names("imagePullSecrets"));
    text.lines(0, "Mountable secrets", &names("secrets"));
    text.field(0, "Tokens", "<none>");
}

/// Writes a role or cluster role.
pub fn role(text: &mut Text, object: &Value) {
    text.field(0, "Name", text_at(object, "/metadata/name"));
    text.pairs(0, "Labels", object.pointer("/metadata/labels"));
    text.annotations(0, object.pointer("/metadata/annotations"));
    text.line(0, "PolicyRule:");
    text.line(1, "Resources\tNon-Resource URLs\tResource Names\tVerbs");
    text.line(1, "---------\t-----------------\t--------------\t-----");
    let words = |rule: &Value, name: &str| -> Vec<String> {
        rule.get(name).and_then(Value::as_array).into_iter().flatten().map(plain).collect()
    };
    for rule in object.get("rules").and_then(Value::as_array).into_iter().flatten() {
        let verbs = words(rule, "verbs").join(" ");
        let names = words(rule, "resourceNames").join(" ");
        for resource in words(rule, "resources") {
            for group in words(rule, "apiGroups") {
                let resource = crate::verbs::discovery::qualified(&resource, &group);
                text.line(1, format!("{resource}\t[]\t[{names}]\t[{verbs}]"));
            }
        }
        for url in words(rule, "nonResourceURLs") {
            text.line(1, format!("\t[{url}]\t[]\t[{verbs}]"));
        }
    }
}

/// Writes a role binding or cluster role binding.
pub fn binding(text: &mut Text, object: &Value) {
    text.field(0, "Name", text_at(object, "/metadata/name"));
    text.pairs(0, "Labels", object.pointer("/metadata/labels"));
    text.annotations(0, object.pointer("/metadata/annotations"));
    text.line(0, "Role:");
    text.field(1, "Kind", text_at(object, "/roleRef/kind"));
    text.field(1, "Name", text_at(object, "/roleRef/name"));
    text.line(0, "Subjects:");
    text.line(1, "Kind\tName\tNamespace");
    text.line(1, "----\t----\t---------");
    for subject in object.get("subjects").and_then(Value::as_array).into_iter().flatten() {
        let (kind, name) = (text_at(subject, "/kind"), text_at(subject, "/name"));
        text.line(1, format!("{kind}\t{name}\t{}", text_at(subject, "/namespace")));
    }
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
        &[("Type", "/type"), ("Status", "/status"), ("Reason", "/reason"), ("Message", "/message")],
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
            assert_eq!(title(name), expected);
        }
    }
}
