//! Types of custom resources as JSON schemas: as their definitions have them, with what every object has.

use serde_json::{Map, Value, json};

use super::Dialect;
use super::definitions::{META, kind};
use crate::{catalogue::Resource, definition::Custom};

/// What OpenAPI v2 has no words for.
const V3_ONLY: [&str; 6] = ["allOf", "anyOf", "oneOf", "not", "nullable", "default"];
/// What would make old clients refuse fields that are not specified.
const CLOSED: [&str; 4] = ["type", "properties", "items", "additionalProperties"];

/// The type of one object.
pub(super) fn definition(resource: &Resource, custom: &Custom, dialect: Dialect) -> Value {
    let mut schema = match custom.schema() {
        Value::Object(schema) => schema,
        _ => Map::new(),
    };
    if dialect == Dialect::V2 {
        if schema.get("x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(true)) {
            schema.remove("properties");
        }
        schema.remove("x-kubernetes-preserve-unknown-fields");
        lower(&mut schema);
    }
    complete(&mut schema, dialect);
    embed(&mut schema, dialect);
    let own = kind(&resource.group, &resource.version, &resource.kind);
    schema.insert("type".to_owned(), "object".into());
    schema.insert("x-kubernetes-group-version-kind".to_owned(), json!([own]));
    Value::Object(schema)
}

/// Adds what every object of the API has.
fn complete(schema: &mut Map<String, Value>, dialect: Dialect) {
    const API_VERSION: &str = "APIVersion defines the versioned schema of this representation of an object. Servers should convert recognized schemas to the latest internal value, and may reject unrecognized values. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#resources";
    const KIND: &str = "Kind is a string value representing the REST resource this object represents. Servers may infer this from the endpoint the client submits requests to. Cannot be updated. In CamelCase. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#types-kinds";
    const METADATA: &str = "Standard object's metadata. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata";
    let reference = json!({"$ref": dialect.reference(&format!("{META}.ObjectMeta"))});
    let metadata = match dialect {
        Dialect::V2 => json!({"$ref": reference["$ref"], "description": METADATA}),
        Dialect::V3 => json!({"allOf": [reference], "description": METADATA}),
    };
    let properties = schema.entry("properties").or_insert_with(|| json!({}));
    properties["apiVersion"] = json!({"type": "string", "description": API_VERSION});
    properties["kind"] = json!({"type": "string", "description": KIND});
    properties["metadata"] = metadata;
}

/// Completes the objects of the API that are fields of others.
fn embed(schema: &mut Map<String, Value>, dialect: Dialect) {
    for below in schema.values_mut() {
        match below {
            Value::Object(map) => {
                if map.get("x-kubernetes-embedded-resource") == Some(&Value::Bool(true)) {
                    complete(map, dialect);
                }
                embed(map, dialect);
            }
            Value::Array(several) => {
                several.iter_mut().filter_map(Value::as_object_mut).for_each(|map| embed(map, dialect));
            }
            _ => {}
        }
    }
}

/// Leaves out what OpenAPI v2 cannot say; it then says less, never anything else.
fn lower(schema: &mut Map<String, Value>) {
    let is = |schema: &Map<String, Value>, word: &str| schema.get(word) == Some(&Value::Bool(true));
    if is(schema, "nullable") || is(schema, "x-kubernetes-preserve-unknown-fields") {
        CLOSED.iter().for_each(|word| drop(schema.remove(*word)));
    }
    if is(schema, "x-kubernetes-int-or-string") {
        schema.remove("type");
    }
    V3_ONLY.iter().for_each(|word| drop(schema.remove(*word)));
    if let Some(Value::Object(properties)) = schema.get_mut("properties") {
        properties.values_mut().filter_map(Value::as_object_mut).for_each(lower);
    }
    for word in ["items", "additionalProperties"] {
        if let Some(Value::Object(below)) = schema.get_mut(word) {
            lower(below);
        }
    }
}
