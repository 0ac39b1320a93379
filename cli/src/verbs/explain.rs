//! `explain`: what a kind and its fields are, as the server's own schema says it.

use std::fmt::Write as _;

use clap::Args;
use serde_json::Value;

use super::discovery::ApiResource;
use super::error::{Result, message};
use super::session::{Connection, Session};

/// Where descriptions are broken.
const WIDTH: usize = 80;

/// Get documentation for a resource
#[derive(Args, Debug)]
pub struct Explain {
    /// TYPE, or TYPE.FIELD.FIELD
    what: String,
    /// Print the fields of fields (all at once, without descriptions)
    #[arg(short = 'R', long)]
    recursive: bool,
    /// The group and version to look in, as apps/v1
    #[arg(long, value_name = "GROUP/VERSION")]
    api_version: Option<String>,
    #[command(flatten)]
    connection: Connection,
}

/// The schemas of one group and version.
struct Schemas<'a>(&'a Value);

/// A field, or a whole kind, with what is known of it.
#[derive(Clone, Copy)]
struct Place<'a> {
    /// As it is used: it may have a description of its own beside the type's.
    used: &'a Value,
    /// Its type; of a list or map, that of the items.
    of: &'a Value,
}

/// Runs `explain`.
pub async fn run(arguments: &Explain) -> Result<()> {
    let session = Session::open(&arguments.connection, "kubectl").await?;
    let mut words = arguments.what.trim_end_matches('.').split('.');
    let word = words.next().unwrap_or_default();
    let api = find(&session, word, arguments.api_version.as_deref()).await?;
    let group_version = api.resource.api_version();
    let root = if api.resource.group.is_empty() { "api" } else { "apis" };
    let document: Value = session.client.get_path(&format!("/openapi/v3/{root}/{group_version}")).await?;
    let fields: Vec<&str> = words.collect();
    print!("{}", explained(&document, &api, &fields, arguments.recursive)?);
    Ok(())
}

async fn find(session: &Session, word: &str, version: Option<&str>) -> Result<ApiResource> {
    let found = session.find(word).await?;
    let Some(version) = version else { return Ok(found) };
    match session.discovery().await?.by_kind(version, &found.resource.kind) {
        Some(other) => Ok(other.clone()),
        None => message(format!("couldn't find resource for \"{version}, Kind={}\"", found.resource.kind)),
    }
}

/// The whole text.
fn explained(document: &Value, api: &ApiResource, fields: &[&str], recursive: bool) -> Result<String> {
    let schemas = Schemas(&document["components"]["schemas"]);
    let resource = &api.resource;
    let Some(kind) = schemas.kind(&resource.group, &resource.version, &resource.kind) else {
        let what = format!("{}, Kind={}", resource.api_version(), resource.kind);
        return message(format!("GVK {what} not found in OpenAPI schema"));
    };
    let mut place = schemas.place(kind);
    for field in fields {
        match schemas.fields(place.of).find(|(name, _)| name == field) {
            Some((_, below)) => place = schemas.place(below),
            None => return message(format!("field \"{field}\" does not exist")),
        }
    }
    let mut out = String::new();
    if !resource.group.is_empty() {
        line(&mut out, format_args!("GROUP:      {}", resource.group));
    }
    line(&mut out, format_args!("KIND:       {}", resource.kind));
    line(&mut out, format_args!("VERSION:    {}\n", resource.version));
    if let Some(name) = fields.last() {
        line(&mut out, format_args!("FIELD: {name} <{}>\n", schemas.type_of(place.used)));
        choices(&mut out, place.used, "");
    }
    line(&mut out, format_args!("DESCRIPTION:"));
    let (own, of) = (text(&place.used["description"]), text(&place.of["description"]));
    for part in if own.is_empty() || own == of { vec![of] } else { vec![own, of] } {
        wrapped(&mut out, if part.is_empty() && own.is_empty() { "<empty>" } else { part }, "    ");
    }
    line(&mut out, format_args!("    "));
    if schemas.fields(place.of).next().is_some() {
        line(&mut out, format_args!("FIELDS:"));
        match recursive {
            true => schemas.tree(&mut out, place.of, "  ", &mut Vec::new()),
            false => schemas.list(&mut out, place.of),
        }
    }
    line(&mut out, format_args!(""));
    Ok(out)
}

// === impl Schemas ===

impl<'a> Schemas<'a> {
    /// The schema of a kind.
    fn kind(&self, group: &str, version: &str, kind: &str) -> Option<&'a Value> {
        let is = |schema: &&Value| {
            let kinds = schema["x-kubernetes-group-version-kind"].as_array();
            kinds
                .into_iter()
                .flatten()
                .any(|one| one["group"] == group && one["version"] == version && one["kind"] == kind)
        };
        self.0.as_object()?.values().find(is)
    }

    /// Follows references, lists and maps to the type behind them.
    fn place(&self, used: &'a Value) -> Place<'a> {
        let mut of = used;
        loop {
            of = match (self.referred(of), &of["items"], &of["additionalProperties"]) {
                (Some((_, target)), ..) => target,
                (None, items, _) if items.is_object() => items,
                (None, _, values) if values.is_object() => values,
                _ => return Place { used, of },
            };
        }
    }

    /// The type that a schema refers to, with its name.
    fn referred(&self, schema: &'a Value) -> Option<(&'a str, &'a Value)> {
        let reference = schema["$ref"].as_str().or_else(|| schema["allOf"][0]["$ref"].as_str())?;
        let name = reference.rsplit('/').next()?;
        self.0.get(name).map(|target| (name, target))
    }

    /// The fields of a type by name.
    fn fields(&self, schema: &'a Value) -> impl Iterator<Item = (&'a String, &'a Value)> + use<'a> {
        schema["properties"].as_object().into_iter().flatten()
    }

    /// How the type of a field is called: `string`, `[]Container`, `map[string]Quantity`.
    fn type_of(&self, schema: &'a Value) -> String {
        if let Some((name, _)) = self.referred(schema) {
            return name.rsplit('.').next().unwrap_or(name).to_owned();
        }
        match text(&schema["type"]) {
            "array" => format!("[]{}", self.type_of(&schema["items"])),
            "object" if schema["additionalProperties"].is_object() => {
                format!("map[string]{}", self.type_of(&schema["additionalProperties"]))
            }
            "" if schema["x-kubernetes-int-or-string"] == true => "IntOrString".to_owned(),
            "" | "object" => "Object".to_owned(),
            other => other.to_owned(),
        }
    }

    /// The fields of a type with what is said of each.
    fn list(&self, out: &mut String, schema: &'a Value) {
        for (name, field) in self.fields(schema) {
            line(out, format_args!("  {name}\t<{}>{}", self.type_of(field), required(schema, name)));
            choices(out, field, "  ");
            let own = text(&field["description"]);
            let said = if own.is_empty() { text(&self.place(field).of["description"]) } else { own };
            wrapped(out, if said.is_empty() { "<no description>" } else { said }, "    ");
            line(out, format_args!(""));
        }
    }

    /// The fields of a type with those below them. A type within itself is not followed again.
    fn tree(&self, out: &mut String, schema: &'a Value, indent: &str, around: &mut Vec<*const Value>) {
        if around.contains(&std::ptr::from_ref(schema)) {
            return;
        }
        around.push(schema);
        for (name, field) in self.fields(schema) {
            line(out, format_args!("{indent}{name}\t<{}>{}", self.type_of(field), required(schema, name)));
            choices(out, field, indent);
            self.tree(out, self.place(field).of, &format!("{indent}  "), around);
        }
        around.pop();
    }
}

fn required(schema: &Value, name: &str) -> &'static str {
    let required = schema["required"].as_array().is_some_and(|names| names.iter().any(|one| one == name));
    if required { " -required-" } else { "" }
}

/// The values that a field may have, where its schema counts them up.
fn choices(out: &mut String, field: &Value, indent: &str) {
    let words = field["enum"].as_array().into_iter().flatten();
    let words: Vec<String> =
        words.map(|word| word.as_str().map_or(word.to_string(), str::to_owned)).collect();
    if !words.is_empty() {
        line(out, format_args!("{indent}enum: {}", words.join(", ")));
    }
}

/// Text in lines of bounded length; its own paragraphs stay.
fn wrapped(out: &mut String, text: &str, indent: &str) {
    for paragraph in text.split('\n') {
        let mut length = 0;
        for word in paragraph.split_whitespace() {
            let more = word.chars().count() + 1;
            if length > 0 && indent.len() + length + more > WIDTH {
                out.push('\n');
                length = 0;
            }
            out.push_str(if length == 0 { indent } else { " " });
            out.push_str(word);
            length += more;
        }
        if length == 0 {
            out.push_str(indent);
        }
        out.push('\n');
    }
}

fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a String does not fail.
    let _ = writeln!(out, "{text}");
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use client::core::object::ResourceType;
    use serde_json::json;

    use super::*;

    fn check(fields: &[&str], recursive: bool, expected: &str) {
        let api = ApiResource {
            resource: ResourceType::new("example.com", "v1", "Widget", "widgets", true),
            singular: "widget".into(),
            short_names: Vec::new(),
            categories: Vec::new(),
            verbs: Vec::new(),
            preferred: true,
        };
        let document = json!({"components": {"schemas": {
            "com.example.v1.Widget": {
                "description": "A widget.", "type": "object", "required": ["spec"],
                "x-kubernetes-group-version-kind": [{"group": "example.com", "version": "v1", "kind": "Widget"}],
                "properties": {
                    "kind": {"type": "string", "description": "Its kind."},
                    "spec": {"allOf": [{"$ref": "#/components/schemas/com.example.v1.Spec"}], "description": "What is wanted."}}},
            "com.example.v1.Spec": {
                "description": "Spec of a widget.", "type": "object",
                "properties": {
                    "parts": {"type": "array", "items": {"$ref": "#/components/schemas/com.example.v1.Spec"}},
                    "sizes": {"type": "object", "additionalProperties": {"type": "integer"}},
                    "state": {"type": "string", "enum": ["on", "off"]}}}}}});
        let found = match explained(&document, &api, fields, recursive) {
            Ok(text) => text,
            Err(error) => error.to_string(),
        };
        let trimmed: Vec<&str> = found.lines().map(str::trim_end).collect();
        assert_eq!(trimmed.join("\n").trim_end(), expected.trim());
    }

    #[test]
    fn kinds_and_fields() {
        check(
            &[],
            false,
            "GROUP:      example.com\nKIND:       Widget\nVERSION:    v1\n\nDESCRIPTION:\n    A widget.\n\nFIELDS:\n  \
             kind\t<string>\n    Its kind.\n\n  spec\t<Spec> -required-\n    What is wanted.",
        );
        check(
            &["spec"],
            true,
            "GROUP:      example.com\nKIND:       Widget\nVERSION:    v1\n\nFIELD: spec <Spec>\n\nDESCRIPTION:\n    \
             What is wanted.\n    Spec of a widget.\n\nFIELDS:\n  parts\t<[]Spec>\n  sizes\t<map[string]integer>\n  \
             state\t<string>\n  enum: on, off",
        );
        check(&["spec", "none"], false, "field \"none\" does not exist");
    }

    #[test]
    fn long_lines_are_broken() {
        let mut out = String::new();
        wrapped(&mut out, &"word ".repeat(40), "    ");
        assert!(out.lines().all(|line| line.len() <= WIDTH && line.starts_with("    word")), "{out}");
    }
}
