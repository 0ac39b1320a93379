//! OpenAPI v2 in the protobuf form that clients of old ask for (gnostic's `openapi.v2.Document`).

use serde_json::{Map, Value};

use crate::protobuf::wire::{put_bytes, put_number};

/// Encodes a document made by [`crate::schema::Schemas::openapi_v2`].
pub fn encode_v2(document: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    put_text(&mut out, 1, &document["swagger"]);
    let mut info = Vec::new();
    put_text(&mut info, 1, &document["info"]["title"]);
    put_text(&mut info, 2, &document["info"]["version"]);
    put_bytes(&mut out, 2, &info);
    put_bytes(&mut out, 8, &named(&document["paths"], 2, path_item));
    put_bytes(&mut out, 9, &named(&document["definitions"], 1, schema));
    out
}

fn put_text(out: &mut Vec<u8>, number: u32, value: &Value) {
    if let Some(text) = value.as_str() {
        put_bytes(out, number, text.as_bytes());
    }
}

fn put_texts(out: &mut Vec<u8>, number: u32, value: &Value) {
    value.as_array().into_iter().flatten().for_each(|text| put_text(out, number, text));
}

fn put_flag(out: &mut Vec<u8>, number: u32, value: &Value) {
    if value == &Value::Bool(true) {
        put_number(out, number, 1);
    }
}

/// A message whose field `number` repeats pairs of a name and a message.
fn named(map: &Value, number: u32, encode: impl Fn(&Value) -> Vec<u8>) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in map.as_object().into_iter().flatten() {
        let mut pair = Vec::new();
        put_bytes(&mut pair, 1, name.as_bytes());
        put_bytes(&mut pair, 2, &encode(value));
        put_bytes(&mut out, number, &pair);
    }
    out
}

/// JSON is YAML.
fn any(value: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    put_bytes(&mut out, 2, value.to_string().as_bytes());
    out
}

fn extensions(out: &mut Vec<u8>, number: u32, value: &Value) {
    let empty = Map::new();
    for (name, value) in value.as_object().unwrap_or(&empty) {
        if name.starts_with("x-") {
            let mut pair = Vec::new();
            put_bytes(&mut pair, 1, name.as_bytes());
            put_bytes(&mut pair, 2, &any(value));
            put_bytes(out, number, &pair);
        }
    }
}

fn path_item(item: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    for (number, method) in [(2, "get"), (3, "put"), (4, "post"), (5, "delete"), (8, "patch")] {
        if let Some(value) = item.get(method) {
            put_bytes(&mut out, number, &operation(value));
        }
    }
    parameters(&mut out, 9, &item["parameters"]);
    out
}

fn operation(operation: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    put_texts(&mut out, 1, &operation["tags"]);
    put_text(&mut out, 5, &operation["operationId"]);
    put_texts(&mut out, 6, &operation["produces"]);
    put_texts(&mut out, 7, &operation["consumes"]);
    parameters(&mut out, 8, &operation["parameters"]);
    put_bytes(&mut out, 9, &named(&operation["responses"], 1, response));
    extensions(&mut out, 13, operation);
    out
}

/// `ResponseValue` with a `Response`.
fn response(response: &Value) -> Vec<u8> {
    let mut inner = Vec::new();
    put_text(&mut inner, 1, &response["description"]);
    if let Some(value) = response.get("schema") {
        let mut item = Vec::new();
        put_bytes(&mut item, 1, &schema(value));
        put_bytes(&mut inner, 2, &item);
    }
    let mut out = Vec::new();
    put_bytes(&mut out, 1, &inner);
    out
}

/// `ParametersItem`, each with a `Parameter`.
fn parameters(out: &mut Vec<u8>, number: u32, list: &Value) {
    for parameter in list.as_array().into_iter().flatten() {
        let mut wrapped = Vec::new();
        let place = parameter["in"].as_str().unwrap_or_default();
        if place == "body" {
            put_bytes(&mut wrapped, 1, &body_parameter(parameter));
        } else {
            let mut inner = Vec::new();
            put_bytes(&mut inner, if place == "path" { 4 } else { 3 }, &plain_parameter(parameter, place));
            put_bytes(&mut wrapped, 2, &inner);
        }
        let mut item = Vec::new();
        put_bytes(&mut item, 1, &wrapped);
        put_bytes(out, number, &item);
    }
}

fn body_parameter(parameter: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    put_text(&mut out, 2, &parameter["name"]);
    put_text(&mut out, 3, &parameter["in"]);
    put_flag(&mut out, 4, &parameter["required"]);
    put_bytes(&mut out, 5, &schema(&parameter["schema"]));
    out
}

/// The sub-schemas of query and path parameters differ in one number only.
fn plain_parameter(parameter: &Value, place: &str) -> Vec<u8> {
    let mut out = Vec::new();
    put_flag(&mut out, 1, &parameter["required"]);
    put_text(&mut out, 2, &parameter["in"]);
    put_text(&mut out, 4, &parameter["name"]);
    put_text(&mut out, if place == "path" { 5 } else { 6 }, &parameter["type"]);
    out
}

fn schema(schema_value: &Value) -> Vec<u8> {
    let value = schema_value;
    let mut out = Vec::new();
    put_text(&mut out, 1, &value["$ref"]);
    put_text(&mut out, 2, &value["format"]);
    put_text(&mut out, 4, &value["description"]);
    if let Some(default) = value.get("default") {
        put_bytes(&mut out, 5, &any(default));
    }
    put_texts(&mut out, 19, &value["required"]);
    if let Some(additional) = value.get("additionalProperties") {
        let mut item = Vec::new();
        put_bytes(&mut item, 1, &schema(additional));
        put_bytes(&mut out, 21, &item);
    }
    if value["type"].is_string() {
        let mut item = Vec::new();
        put_text(&mut item, 1, &value["type"]);
        put_bytes(&mut out, 22, &item);
    }
    if let Some(items) = value.get("items") {
        let mut item = Vec::new();
        put_bytes(&mut item, 1, &schema(items));
        put_bytes(&mut out, 23, &item);
    }
    if value["properties"].is_object() {
        put_bytes(&mut out, 25, &named(&value["properties"], 1, schema));
    }
    extensions(&mut out, 31, value);
    out
}
