//! Checks that the schema of custom resources is structural: every place in an object has one type, told by one node.

use serde_json::Value;

use super::{Errors, Path, entries, given, list, rules, text};
use crate::field::FieldError;
use crate::schema::structural::{Node, pattern_fault};

const TYPES: &[&str] = &["array", "boolean", "integer", "number", "object", "string"];
const LIST_TYPES: &[&str] = &["atomic", "map", "set"];
const MAP_TYPES: &[&str] = &["atomic", "granular"];
/// What has no meaning where only values are constrained.
const STRUCTURE: &[&str] = &[
    "type",
    "default",
    "description",
    "title",
    "nullable",
    "additionalProperties",
    "x-kubernetes-preserve-unknown-fields",
    "x-kubernetes-embedded-resource",
    "x-kubernetes-int-or-string",
    "x-kubernetes-list-type",
    "x-kubernetes-list-map-keys",
    "x-kubernetes-map-type",
];

/// Where a node is: what it says of a missing type.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Level {
    Root,
    Field,
    Item,
}

/// A whole schema.
pub fn check(schema: &Value, path: &Path<'_>, errors: &mut Errors) {
    if text(&schema["type"]) != "object" {
        let place = path.field("type");
        match text(&schema["type"]) {
            "" => errors.required(&place, "must not be empty at the root"),
            found => errors.invalid(&place, found, "must be object at the root"),
        }
        return;
    }
    let before = errors.0.len();
    check_node(schema, path, Level::Root, errors);
    // Rules rest on the structure.
    if errors.0.len() == before {
        rules::check(schema, path, errors);
    }
}

fn check_node(schema: &Value, path: &Path<'_>, level: Level, errors: &mut Errors) {
    check_type(schema, path, level, errors);
    check_forbidden(schema, path, errors);
    check_lists(schema, path, errors);
    check_pattern(schema, path, errors);
    check_default(schema, path, errors);
    errors.optional_one_of(&path.field("x-kubernetes-map-type"), &schema["x-kubernetes-map-type"], MAP_TYPES);
    if schema["x-kubernetes-embedded-resource"] == true && text(&schema["type"]) != "object" {
        let detail = "must be object if x-kubernetes-embedded-resource is true";
        errors.invalid(&path.field("type"), text(&schema["type"]), detail);
    }
    let properties = path.field("properties");
    for (name, below) in entries(&schema["properties"]) {
        check_node(below, &properties.entry(name), Level::Field, errors);
    }
    if schema["additionalProperties"].is_object() {
        check_node(
            &schema["additionalProperties"],
            &path.field("additionalProperties"),
            Level::Field,
            errors,
        );
    }
    if schema["items"].is_object() {
        check_node(&schema["items"], &path.field("items"), Level::Item, errors);
    }
    for junctor in ["allOf", "anyOf", "oneOf"] {
        let place = path.field(junctor);
        for (at, below) in list(&schema[junctor]).iter().enumerate() {
            check_constraint(below, &place.index(at), int_or_string(schema), errors);
        }
    }
    if schema["not"].is_object() {
        check_constraint(&schema["not"], &path.field("not"), false, errors);
    }
}

fn int_or_string(schema: &Value) -> bool {
    schema["x-kubernetes-int-or-string"] == true
}

fn check_type(schema: &Value, path: &Path<'_>, level: Level, errors: &mut Errors) {
    let place = path.field("type");
    match text(&schema["type"]) {
        "" if int_or_string(schema) || schema["x-kubernetes-preserve-unknown-fields"] == true => {}
        "" if level == Level::Item => errors.required(&place, "must not be empty for specified array items"),
        "" => errors.required(&place, "must not be empty for specified object fields"),
        kind if int_or_string(schema) => {
            errors.invalid(&place, kind, "must be empty if x-kubernetes-int-or-string is true");
        }
        kind if !TYPES.contains(&kind) => {
            errors.add(FieldError::not_supported(place.to_string(), kind, TYPES));
        }
        "array" if schema["items"].is_null() => errors.required(&path.field("items"), "must be specified"),
        _ => {}
    }
}

fn check_forbidden(schema: &Value, path: &Path<'_>, errors: &mut Errors) {
    if given(&schema["$ref"]) {
        errors.forbidden(&path.field("$ref"), "$ref is not supported");
    }
    if schema["uniqueItems"] == true {
        let detail = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic";
        errors.forbidden(&path.field("uniqueItems"), detail);
    }
    for (field, detail) in [
        ("definitions", "definitions is not supported"),
        ("dependencies", "dependencies is not supported"),
        ("patternProperties", "patternProperties is not supported"),
        ("additionalItems", "additionalItems is not supported"),
        ("id", "id is not supported"),
    ] {
        if !schema[field].is_null() {
            errors.forbidden(&path.field(field), detail);
        }
    }
    if schema["additionalProperties"] == false {
        errors.forbidden(&path.field("additionalProperties"), "additionalProperties cannot be set to false");
    }
    if given(&schema["properties"]) && !schema["additionalProperties"].is_null() {
        let detail = "additionalProperties and properties are mutual exclusive";
        errors.forbidden(&path.field("additionalProperties"), detail);
    }
    if schema["x-kubernetes-preserve-unknown-fields"] == false {
        let detail = "must be true or undefined";
        errors.invalid(&path.field("x-kubernetes-preserve-unknown-fields"), false, detail);
    }
}

fn check_pattern(schema: &Value, path: &Path<'_>, errors: &mut Errors) {
    let pattern = text(&schema["pattern"]);
    if let Some(fault) = pattern_fault(pattern) {
        let detail = format!("must be a valid regular expression, but isn't: {fault}");
        errors.invalid(&path.field("pattern"), pattern, detail);
    }
}

/// A default is itself a value that the schema takes, with nothing in it that would be pruned.
fn check_default(schema: &Value, path: &Path<'_>, errors: &mut Errors) {
    let default = &schema["default"];
    if default.is_null() {
        return;
    }
    let (node, path) = (Node::read(schema), path.field("default"));
    let (mut pruned, mut unknown) = (default.clone(), Vec::new());
    node.prune(&mut pruned, &mut unknown);
    if !unknown.is_empty() {
        let detail = format!("must not have unknown fields, found {}", unknown.join(", "));
        errors.invalid(&path, default.clone(), detail);
    }
    for error in node.check(default, None) {
        errors.invalid(&path, error.value, error.detail);
    }
}

fn check_lists(schema: &Value, path: &Path<'_>, errors: &mut Errors) {
    let kind = text(&schema["x-kubernetes-list-type"]);
    let place = path.field("x-kubernetes-list-type");
    errors.optional_one_of(&place, &schema["x-kubernetes-list-type"], LIST_TYPES);
    if !kind.is_empty() && text(&schema["type"]) != "array" {
        let detail = "must be array if x-kubernetes-list-type is specified";
        errors.invalid(&path.field("type"), text(&schema["type"]), detail);
    }
    let keys = list(&schema["x-kubernetes-list-map-keys"]);
    let place = path.field("x-kubernetes-list-map-keys");
    if kind != "map" {
        if !keys.is_empty() {
            let detail = "must be map if x-kubernetes-list-map-keys is non-empty";
            errors.invalid(&path.field("x-kubernetes-list-type"), kind, detail);
        }
        return;
    }
    if keys.is_empty() {
        errors.required(&place, "must not be empty if x-kubernetes-list-type is map");
    }
    let items = &schema["items"];
    if text(&items["type"]) != "object" {
        let detail = "must be object if parent array's x-kubernetes-list-type is map";
        errors.invalid(&path.field("items").field("type"), text(&items["type"]), detail);
        return;
    }
    let required = list(&items["required"]);
    for (at, key) in keys.iter().enumerate() {
        let property = &items["properties"][text(key)];
        if property.is_null() {
            let detail = "entries must all be names of item properties";
            errors.invalid(&place.index(at), key.clone(), detail);
        } else if property["default"].is_null() && !required.contains(key) {
            let property = path.field("items");
            let property = property.field("properties");
            let detail = "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property";
            errors.required(&property.entry(text(key)).field("default"), detail);
        }
    }
}

/// A node that constrains values and says nothing of their structure.
fn check_constraint(schema: &Value, path: &Path<'_>, types: bool, errors: &mut Errors) {
    check_pattern(schema, path, errors);
    for field in STRUCTURE.iter().filter(|field| !schema[**field].is_null()) {
        // `anyOf: [{type: integer}, {type: string}]` is how int-or-string is written out.
        if !(*field == "type" && types) {
            errors.forbidden(&path.field(field), "must be empty to be structural");
        }
    }
    let properties = path.field("properties");
    for (name, below) in entries(&schema["properties"]) {
        check_constraint(below, &properties.entry(name), false, errors);
    }
    if schema["items"].is_object() {
        check_constraint(&schema["items"], &path.field("items"), false, errors);
    }
}
