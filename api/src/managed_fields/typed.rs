//! Sets and values read by their schema: which fields a value has, and a value without the fields of a set.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::set::{is_member, put_member};
use super::shape::{Shape, element};
use crate::schema::Schemas;

type Fields = Map<String, Value>;

/// The fields that a value has: leaves, items, entries of maps, and what is empty.
pub(super) fn fields(schemas: &Schemas, shape: Shape<'_>, value: &Value) -> Fields {
    let mut node = Fields::new();
    match (shape, value) {
        (Shape::Struct(_) | Shape::Map(_) | Shape::Open, Value::Object(map)) => {
            for (name, value) in map {
                let below = shape.below(schemas, name);
                let declared = matches!(shape, Shape::Struct(declared) if declared.field(name).is_some());
                let empty = value.is_null() || value.as_object().is_some_and(Map::is_empty);
                let member = !declared || empty || matches!(below, Shape::Leaf);
                put_member(&mut node, element("f:", name), member, fields(schemas, below, value));
            }
        }
        (Shape::Set | Shape::Keyed(..), Value::Array(items)) => {
            let elements: Vec<String> = items.iter().map(|item| shape.element(schemas, item)).collect();
            let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
            for element in &elements {
                *counts.entry(element).or_default() += 1;
            }
            for (element, item) in elements.iter().zip(items) {
                // Items that are there twice are owned as one.
                let below = match counts.get(element.as_str()) {
                    Some(1) => fields(schemas, shape.item(schemas), item),
                    _ => Fields::new(),
                };
                put_member(&mut node, element.clone(), true, below);
            }
        }
        _ => {}
    }
    node
}

/// The set with every declared field that leads to a member as a member too.
pub(super) fn with_named_parents(schemas: &Schemas, shape: Shape<'_>, set: &Fields) -> Fields {
    let mut out = Fields::new();
    for (element, below) in set {
        let Value::Object(below) = below else { continue };
        let name = element.strip_prefix("f:");
        let declared = match (shape, name) {
            (Shape::Struct(declared), Some(name)) => declared.field(name).is_some(),
            _ => false,
        };
        let inner = match name {
            Some(name) => shape.below(schemas, name),
            None => shape.item(schemas),
        };
        if element != "." {
            let children = with_named_parents(schemas, inner, below);
            put_member(&mut out, element.clone(), declared || is_member(below), children);
        }
    }
    out
}

/// The value without what is in the set. What is not in it itself stays, be it empty.
pub(super) fn without(schemas: &Schemas, shape: Shape<'_>, value: &Value, set: &Fields) -> Value {
    match (shape, value) {
        (Shape::Struct(_) | Shape::Map(_) | Shape::Open, Value::Object(map)) => {
            let mut kept = Fields::new();
            for (name, value) in map {
                let below = shape.below(schemas, name);
                if let Some(value) = unless_member(schemas, below, value, set.get(&element("f:", name))) {
                    kept.insert(name.clone(), value);
                }
            }
            Value::Object(kept)
        }
        (Shape::Set | Shape::Keyed(..), Value::Array(items)) => {
            let inner = shape.item(schemas);
            let kept = items.iter().filter_map(|item| {
                unless_member(schemas, inner, item, set.get(&shape.element(schemas, item)))
            });
            kept.collect()
        }
        _ => value.clone(),
    }
}

fn unless_member(schemas: &Schemas, shape: Shape<'_>, value: &Value, node: Option<&Value>) -> Option<Value> {
    match node.and_then(Value::as_object) {
        None => Some(value.clone()),
        Some(node) if is_member(node) => None,
        Some(node) => Some(without(schemas, shape, value, node)),
    }
}

/// What keeps a document from being a configuration of its type, one line each.
pub(super) fn faults(schemas: &Schemas, shape: Shape<'_>, value: &Value) -> Vec<String> {
    let mut faults = Vec::new();
    check(schemas, shape, value, &mut String::new(), &mut faults);
    faults
}

fn check(schemas: &Schemas, shape: Shape<'_>, value: &Value, path: &mut String, faults: &mut Vec<String>) {
    match (shape, value) {
        (_, Value::Null) | (Shape::Leaf | Shape::Open, _) => {}
        (Shape::Struct(_) | Shape::Map(_), Value::Object(map)) => {
            let length = path.len();
            for (name, value) in map {
                path.push('.');
                path.push_str(name);
                match shape {
                    Shape::Struct(declared) if declared.field(name).is_none() && !declared.open => {
                        faults.push(format!("{path}: field not declared in schema"));
                    }
                    _ => check(schemas, shape.below(schemas, name), value, path, faults),
                }
                path.truncate(length);
            }
        }
        (Shape::Set | Shape::Keyed(..), Value::Array(items)) => {
            check_items(schemas, shape, items, path, faults);
        }
        (Shape::Struct(_) | Shape::Map(_), other) => {
            faults.push(format!("{path}: expected map, got &{{{}}}", go(other)));
        }
        (_, other) => faults.push(format!("{path}: expected list, got &{{{}}}", go(other))),
    }
}

fn check_items(
    schemas: &Schemas,
    shape: Shape<'_>,
    items: &[Value],
    path: &mut String,
    faults: &mut Vec<String>,
) {
    let mut seen = BTreeSet::new();
    for (at, item) in items.iter().enumerate() {
        if let Shape::Keyed(field, inner) = shape {
            let Value::Object(map) = item else {
                faults.push(format!(
                    "{path}: element {at}: associative list with keys may not have non-map elements"
                ));
                continue;
            };
            let missing = field.list_keys.iter().find(|key| {
                !map.contains_key(&***key) && super::shape::key_default(schemas, inner, key).is_none()
            });
            if let Some(key) = missing {
                faults.push(format!(
                    "{path}: element {at}: associative list with keys has an element that omits key field {key:?} (and doesn't have default value)"
                ));
                continue;
            }
        }
        let element = shape.element(schemas, item);
        let length = path.len();
        if !seen.insert(element.clone()) {
            faults.push(format!("{path}: duplicate entries for key {}", super::shape::shown(&element)));
            continue;
        }
        path.push_str(&super::shape::shown(&element));
        check(schemas, shape.item(schemas), item, path, faults);
        path.truncate(length);
    }
}

/// A value as Go prints it.
fn go(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) => format!("[{}]", items.iter().map(go).collect::<Vec<_>>().join(" ")),
        Value::Object(map) => {
            let entries: Vec<String> =
                map.iter().map(|(key, value)| format!("{key}:{}", go(value))).collect();
            format!("map[{}]", entries.join(" "))
        }
        other => other.to_string(),
    }
}
