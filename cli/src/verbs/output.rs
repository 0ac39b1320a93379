//! The forms in which objects are printed: JSON, YAML, names, templates, columns.

use std::io::Write;

use serde::Serialize as _;
use serde_json::ser::{Formatter, PrettyFormatter};
use serde_json::{Value, json};

use super::discovery::qualified;
use super::error::{Error, Result, message};
use super::jsonpath::{self, Template};
use super::session::text_at;
use super::{tabs, yaml};

/// A form of output.
#[derive(Clone, Debug)]
pub enum Output {
    /// A table, with all columns or the usual ones.
    Table {
        /// All columns.
        wide: bool,
    },
    /// JSON.
    Json,
    /// YAML.
    Yaml,
    /// `pod/web`.
    Name,
    /// A JSONPath template, its result as text or as a JSON list.
    JsonPath {
        /// The template.
        template: Template,
        /// As a JSON list.
        as_json: bool,
    },
    /// Columns with a title and a path each.
    Columns(Vec<(String, Template)>),
}

// === impl Output ===

impl Output {
    /// Reads the value of `-o`.
    pub fn parse(text: Option<&str>) -> Result<Self> {
        let Some(text) = text.filter(|text| !text.is_empty()) else { return Ok(Self::Table { wide: false }) };
        let (form, argument) = text.split_once('=').unwrap_or((text, ""));
        let template = |as_json| {
            if argument.is_empty() {
                return message("template format specified but no template given");
            }
            Ok(Self::JsonPath { template: Template::parse(argument)?, as_json })
        };
        match form {
            "wide" => Ok(Self::Table { wide: true }),
            "json" => Ok(Self::Json),
            "yaml" => Ok(Self::Yaml),
            "name" => Ok(Self::Name),
            "jsonpath" => template(false),
            "jsonpath-as-json" => template(true),
            "jsonpath-file" => {
                Ok(Self::JsonPath { template: Template::parse(&read(argument)?)?, as_json: false })
            }
            "custom-columns" => columns(argument),
            "custom-columns-file" => columns_file(&read(argument)?),
            _ => message(format!(
                "unable to match a printer suitable for the output format \"{form}\", allowed formats are: custom-columns,custom-columns-file,json,jsonpath,jsonpath-as-json,jsonpath-file,name,wide,yaml"
            )),
        }
    }

    /// Whether tables are wanted.
    pub fn is_table(&self) -> bool {
        matches!(self, Self::Table { .. })
    }

    /// Prints an object or a list.
    pub fn print(&self, value: &Value, out: &mut impl Write) -> Result<()> {
        match self {
            Self::Table { .. } | Self::Name => {
                for item in items(value) {
                    writeln!(out, "{}", name_of(item))?;
                }
            }
            Self::Json => write_json(value, out)?,
            Self::Yaml => out.write_all(yaml::to_string(value).as_bytes())?,
            Self::JsonPath { template, as_json: false } => {
                out.write_all(template.render(value)?.as_bytes())?
            }
            Self::JsonPath { template, as_json: true } => {
                write_json(&json!(template.find(value)?), out)?;
            }
            Self::Columns(columns) => out.write_all(in_columns(columns, value, true)?.as_bytes())?,
        }
        Ok(())
    }
}

impl From<jsonpath::Error> for Error {
    fn from(error: jsonpath::Error) -> Self {
        Self::Message(match error {
            jsonpath::Error::Eval(reason) => format!("error executing jsonpath: {reason}"),
            parse => parse.to_string(),
        })
    }
}

fn read(path: &str) -> Result<String> {
    std::fs::read_to_string(path)
        .map_err(|error| Error::Message(format!("error reading template {path}, {error}")))
}

/// The items of a list, or the object itself.
pub fn items(value: &Value) -> Vec<&Value> {
    match value.get("items").and_then(Value::as_array) {
        Some(items) if text_at(value, "/kind").ends_with("List") => items.iter().collect(),
        _ => vec![value],
    }
}

/// `deployment.apps/web`.
pub fn name_of(object: &Value) -> String {
    let (group, _) = api::catalogue::split_api_version(text_at(object, "/apiVersion"));
    let kind = qualified(&text_at(object, "/kind").to_lowercase(), group);
    format!("{kind}/{}", text_at(object, "/metadata/name"))
}

/// Drops what readers seldom want to see.
pub fn without_managed_fields(value: &mut Value) {
    if let Some(Value::Array(items)) = value.get_mut("items") {
        items.iter_mut().for_each(without_managed_fields);
    }
    if let Some(Value::Object(metadata)) = value.get_mut("metadata") {
        metadata.remove("managedFields");
    }
}

/// Several objects as one `List`.
pub fn list_of(items: Vec<Value>) -> Value {
    json!({"apiVersion": "v1", "kind": "List", "items": items, "metadata": {"resourceVersion": ""}})
}

fn columns(text: &str) -> Result<Output> {
    if text.is_empty() {
        return message("custom-columns format specified but no custom columns given");
    }
    let parsed = text.split(',').map(|part| match part.split_once(':') {
        Some((title, path)) if !title.is_empty() && !path.is_empty() => {
            Ok((title.to_owned(), Template::relaxed(path)?))
        }
        _ => message(format!("unexpected custom-columns spec: {part}, expected <header>:<json-path-expr>")),
    });
    Ok(Output::Columns(parsed.collect::<Result<_>>()?))
}

fn columns_file(text: &str) -> Result<Output> {
    let mut lines = text.lines();
    let titles = lines.next().unwrap_or_default().split_whitespace();
    let paths: Vec<&str> = lines.next().unwrap_or_default().split_whitespace().collect();
    let titles: Vec<&str> = titles.collect();
    if titles.is_empty() || titles.len() != paths.len() {
        return message(format!(
            "number of headers ({}) and field specifications ({}) don't match",
            titles.len(),
            paths.len()
        ));
    }
    let parsed =
        titles.into_iter().zip(paths).map(|(title, path)| Ok((title.to_owned(), Template::relaxed(path)?)));
    Ok(Output::Columns(parsed.collect::<Result<_>>()?))
}

/// Objects in columns of paths, several values of one path separated by commas.
pub fn in_columns(columns: &[(String, Template)], value: &Value, headers: bool) -> Result<String> {
    let mut text = String::new();
    if headers {
        let titles: Vec<&str> = columns.iter().map(|(title, _)| &**title).collect();
        text.push_str(&titles.join("\t"));
        text.push('\n');
    }
    for item in items(value) {
        let mut cells = Vec::new();
        for (_, path) in columns {
            let found: Vec<String> = path.find(item)?.into_iter().map(column_text).collect();
            cells.push(if found.is_empty() { "<none>".to_owned() } else { found.join(",") });
        }
        text.push_str(&cells.join("\t"));
        text.push('\n');
    }
    Ok(tabs::align(&text, tabs::TABLE))
}

/// Maps and lists as Go prints them.
fn column_text(value: &Value) -> String {
    match value {
        Value::Null => "<none>".to_owned(),
        Value::Array(items) => {
            let parts: Vec<String> = items.iter().map(column_text).collect();
            format!("[{}]", parts.join(" "))
        }
        Value::Object(map) => {
            let parts: Vec<String> =
                map.iter().map(|(key, value)| format!("{key}:{}", column_text(value))).collect();
            format!("map[{}]", parts.join(" "))
        }
        scalar => jsonpath::text_of(scalar),
    }
}

/// JSON with four blanks a level, and characters that are special to HTML escaped.
pub fn write_json(value: &Value, out: &mut impl Write) -> Result<()> {
    let formatter = Escaping(PrettyFormatter::with_indent(b"    "));
    let mut serializer = serde_json::Serializer::with_formatter(&mut *out, formatter);
    value.serialize(&mut serializer).map_err(std::io::Error::from)?;
    writeln!(out)?;
    Ok(())
}

struct Escaping<'a>(PrettyFormatter<'a>);

// === impl Escaping ===

impl Formatter for Escaping<'_> {
    fn write_string_fragment<W: ?Sized + Write>(&mut self, out: &mut W, text: &str) -> std::io::Result<()> {
        let mut rest = text;
        while let Some(at) = rest.find(['<', '>', '&', '\u{2028}', '\u{2029}']) {
            let (before, from) = rest.split_at(at);
            out.write_all(before.as_bytes())?;
            let mut more = from.chars();
            if let Some(c) = more.next() {
                write!(out, "\\u{:04x}", c as u32)?;
            }
            rest = more.as_str();
        }
        out.write_all(rest.as_bytes())
    }

    fn begin_array<W: ?Sized + Write>(&mut self, out: &mut W) -> std::io::Result<()> {
        self.0.begin_array(out)
    }

    fn end_array<W: ?Sized + Write>(&mut self, out: &mut W) -> std::io::Result<()> {
        self.0.end_array(out)
    }

    fn begin_array_value<W: ?Sized + Write>(&mut self, out: &mut W, first: bool) -> std::io::Result<()> {
        self.0.begin_array_value(out, first)
    }

    fn end_array_value<W: ?Sized + Write>(&mut self, out: &mut W) -> std::io::Result<()> {
        self.0.end_array_value(out)
    }

    fn begin_object<W: ?Sized + Write>(&mut self, out: &mut W) -> std::io::Result<()> {
        self.0.begin_object(out)
    }

    fn end_object<W: ?Sized + Write>(&mut self, out: &mut W) -> std::io::Result<()> {
        self.0.end_object(out)
    }

    fn begin_object_key<W: ?Sized + Write>(&mut self, out: &mut W, first: bool) -> std::io::Result<()> {
        self.0.begin_object_key(out, first)
    }

    fn begin_object_value<W: ?Sized + Write>(&mut self, out: &mut W) -> std::io::Result<()> {
        self.0.begin_object_value(out)
    }

    fn end_object_value<W: ?Sized + Write>(&mut self, out: &mut W) -> std::io::Result<()> {
        self.0.end_object_value(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(form: &str, value: &Value, expected: &str) {
        let mut out = Vec::new();
        Output::parse(Some(form)).expect(form).print(value, &mut out).expect("printed");
        assert_eq!(String::from_utf8_lossy(&out), expected);
    }

    #[test]
    fn forms() {
        let object = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "labels": {"a": "<b>"}}, "spec": {"replicas": 3, "x": [], "y": {}}});
        check("name", &object, "deployment.apps/web\n");
        check("jsonpath={.spec.replicas}", &object, "3");
        check(
            "custom-columns=NAME:.metadata.name,N:.spec.replicas,NO:.nothing",
            &object,
            "NAME   N     NO\nweb    3     <none>\n",
        );
        check(
            "json",
            &json!({"a": "<b>&", "n": [], "o": {}, "l": [1]}),
            "{\n    \"a\": \"\\u003cb\\u003e\\u0026\",\n    \"l\": [\n        1\n    ],\n    \"n\": [],\n    \"o\": {}\n}\n",
        );
        let list = list_of(vec![object.clone(), object]);
        check("name", &list, "deployment.apps/web\ndeployment.apps/web\n");
        check("jsonpath={.items[*].metadata.name}", &list, "web web");
        Output::parse(Some("nonsense")).expect_err("no such form");
        Output::parse(Some("jsonpath=")).expect_err("no template");
    }
}
