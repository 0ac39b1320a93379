//! How custom resources are printed: as their definitions say, by default with their age.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::cell;
use crate::definition::Custom;

pub(super) fn columns(custom: &Custom) -> Value {
    let name = json!({"name": "Name", "type": "string", "format": "name", "priority": 0,
        "description": "Name must be unique within a namespace. Is required when creating resources, although some resources may allow a client to request the generation of an appropriate name automatically. Name is primarily intended for creation idempotence and configuration definition. Cannot be updated. More info: https://kubernetes.io/docs/concepts/overview/working-with-objects/names#names"});
    let mut columns = vec![name];
    if custom.columns.is_empty() {
        columns.push(json!({"name": "Age", "type": "date", "format": "", "priority": 0,
            "description": "The time since the object was created."}));
    }
    columns.extend(custom.columns.iter().map(|column| {
        let description = match &*column.description {
            "" => format!("Custom resource definition column (in JSONPath format): {}", column.path.text()),
            description => description.to_owned(),
        };
        json!({"name": column.name, "type": column.kind, "format": column.format, "priority": column.priority,
            "description": description})
    }));
    columns.into()
}

pub(super) fn row(custom: &Custom, object: &Value, now: Timestamp) -> Value {
    let mut cells = vec![cell::name(object)];
    if custom.columns.is_empty() {
        cells.push(cell::age(object, now));
    }
    cells.extend(custom.columns.iter().map(|column| match column.path.first(object) {
        Some(value) => printed(&column.kind, value, now),
        None => Value::Null,
    }));
    json!({"cells": cells})
}

/// A value as a column of a type shows it; null where it has another type.
fn printed(kind: &str, value: &Value, now: Timestamp) -> Value {
    match (kind, value) {
        (_, Value::Null) => Value::Null,
        ("string", Value::String(_)) => value.clone(),
        ("string", other) => other.to_string().into(),
        ("integer", Value::Number(number)) => {
            number.as_i64().or_else(|| number.as_f64().map(|number| number as i64)).into()
        }
        ("number", Value::Number(_)) | ("boolean", Value::Bool(_)) => value.clone(),
        ("date", Value::String(text)) => match text.parse::<Timestamp>() {
            Ok(_) => cell::since(value, now).into(),
            Err(_) => "<invalid>".into(),
        },
        _ => Value::Null,
    }
}
