//! Writes the table. Its grammar is described where it is read: `api::schema::table`.

use std::fmt::Write as _;

use anyhow::{Context as _, bail};
use serde_json::{Map, Value};

use crate::facts::Facts;

const SCALARS: [(&str, &str); 12] = [
    ("io.k8s.apimachinery.pkg.util.intstr.IntOrString", "intstr"),
    ("io.k8s.apimachinery.pkg.api.resource.Quantity", "quantity"),
    ("io.k8s.apimachinery.pkg.apis.meta.v1.Time", "time"),
    ("io.k8s.apimachinery.pkg.apis.meta.v1.MicroTime", "microtime"),
    ("io.k8s.apimachinery.pkg.apis.meta.v1.FieldsV1", "fields"),
    ("io.k8s.apimachinery.pkg.runtime.RawExtension", "raw"),
    ("io.k8s.apimachinery.pkg.apis.meta.v1.Patch", "raw"),
    ("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSON", "raw"),
    ("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrArray", "raw"),
    ("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrBool", "raw"),
    ("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrStringArray", "raw"),
    ("io.k8s.apimachinery.pkg.version.Info", "raw"),
];

/// The table and the texts, the latter in the table's order and parted by NUL.
pub fn write(definitions: &Map<String, Value>, facts: &Facts) -> anyhow::Result<(String, String)> {
    let (mut table, mut docs) = (String::new(), String::new());
    for (name, definition) in definitions {
        if SCALARS.iter().any(|(scalar, _)| scalar == name) {
            continue;
        }
        write!(table, "{}", short(name))?;
        if let Some(map_type) = facts.merge(name, ".")["map-type"].as_str() {
            write!(table, " map-type={map_type}")?;
        }
        table.push('\n');
        doc(&mut docs, definition);
        let required: Vec<&str> =
            definition["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let empty = Map::new();
        for (field, schema) in definition["properties"].as_object().unwrap_or(&empty) {
            write_field(&mut table, facts, name, field, schema, required.contains(&field.as_str()))
                .with_context(|| format!("{name}.{field}"))?;
            doc(&mut docs, schema);
        }
    }
    Ok((table, docs))
}

fn write_field(
    table: &mut String,
    facts: &Facts,
    definition: &str,
    field: &str,
    schema: &Value,
    required: bool,
) -> anyhow::Result<()> {
    let go = facts.go(definition, field);
    let go_type = go.as_ref().and_then(|go| go.facts["go"].as_str());
    let mut kind = kind_of(schema)?;
    if go_type.is_some_and(|go| go.ends_with("]ExtraValue")) {
        kind = "map:wrapped:string".to_owned();
    }
    write!(table, " {field} {kind}")?;
    if required {
        table.push_str(" required");
    }
    match &go {
        Some(go) => {
            if let Some(numbers) = &go.numbers {
                let numbers: Vec<String> = numbers.iter().map(u32::to_string).collect();
                write!(table, " #{}", numbers.join("."))?;
            }
            write!(table, " go={}", go.facts["go"].as_str().context("no Go type")?)?;
            if go.facts["omitempty"] == true {
                table.push_str(" omitempty");
            }
            if let Some(default) = go.facts["default"].as_str().filter(|default| !default.starts_with("ref("))
            {
                write!(table, " default={default}")?;
            }
        }
        None => {
            if let Some(numbers) = facts.newer_numbers(definition, field) {
                let numbers: Vec<String> = numbers.iter().map(u32::to_string).collect();
                write!(table, " #{}", numbers.join("."))?;
            } else {
                eprintln!("no number: {definition}.{field}");
            }
        }
    }
    let merge = facts.merge(definition, field);
    for key in ["list-type", "map-type", "patch-merge-key", "patch-strategy"] {
        if let Some(value) = merge[key].as_str() {
            write!(table, " {key}={value}")?;
        }
    }
    if let Some(keys) = merge["list-map-keys"].as_array() {
        let keys: Vec<&str> = keys.iter().filter_map(Value::as_str).collect();
        write!(table, " list-map-keys={}", keys.join(","))?;
    }
    table.push('\n');
    Ok(())
}

fn kind_of(schema: &Value) -> anyhow::Result<String> {
    let reference = schema["$ref"].as_str().or_else(|| schema["allOf"][0]["$ref"].as_str());
    if let Some(reference) = reference {
        let name = reference.rsplit('/').next().unwrap_or(reference);
        return Ok(match SCALARS.iter().find(|(scalar, _)| *scalar == name) {
            Some((_, scalar)) => (*scalar).to_owned(),
            None => short(name),
        });
    }
    Ok(match (schema["type"].as_str(), schema["format"].as_str()) {
        (Some("string"), Some("byte")) => "bytes".to_owned(),
        (Some("string"), _) => "string".to_owned(),
        (Some("integer"), Some("int64")) => "int64".to_owned(),
        (Some("integer"), _) => "int32".to_owned(),
        (Some("boolean"), _) => "bool".to_owned(),
        (Some("number"), _) => "double".to_owned(),
        (Some("array"), _) => format!("list:{}", kind_of(&schema["items"])?),
        (Some("object"), _) if schema.get("additionalProperties").is_some() => {
            format!("map:{}", kind_of(&schema["additionalProperties"])?)
        }
        (Some("object"), _) => "raw".to_owned(),
        (None, _) => "raw".to_owned(),
        other => bail!("unknown schema type {other:?}"),
    })
}

/// `io.k8s.api.core.v1.Pod` as `core.v1.Pod`, `io.k8s.apimachinery.pkg.apis.meta.v1.Time` as `meta.v1.Time`.
fn short(name: &str) -> String {
    name.strip_prefix("io.k8s.apimachinery.pkg.apis.")
        .or_else(|| name.strip_prefix("io.k8s.apiextensions-apiserver.pkg.apis."))
        .or_else(|| name.strip_prefix("io.k8s.kube-aggregator.pkg.apis."))
        .or_else(|| name.strip_prefix("io.k8s.api."))
        .unwrap_or(name)
        .to_owned()
}

fn doc(docs: &mut String, schema: &Value) {
    docs.push_str(schema["description"].as_str().unwrap_or_default());
    docs.push('\0');
}
