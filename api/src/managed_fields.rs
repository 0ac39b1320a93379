//! Who owns which field: `metadata.managedFields`, tracked from the first write.
//!
//! A write that is no apply takes what it adds or changes, from every other manager, and what it removes is nobody's
//! any more. Field sets are kept in the form in which they are stored (`FieldsV1`): an object whose keys are path
//! elements; a path without children, or with the child `.`, is a member.

use serde_json::{Map, Value};

use crate::{
    catalogue::Resource,
    schema::{Schemas, TypeId},
};

mod apply;
mod compare;
mod conflict;
mod merge;
mod set;
mod shape;
mod typed;

pub use apply::{Applied, ApplyError, apply};
pub use compare::{Changes, changes};
pub use conflict::Conflict;
pub use set::FieldSet;

use compare::finish;

/// Who writes, and how.
#[derive(Clone, Debug)]
pub struct Writer<'a> {
    /// The manager's name, from [`manager_name`].
    pub manager: &'a str,
    /// What kind of write.
    pub operation: Operation,
    /// The subresource that was written, empty for the object itself.
    pub subresource: &'a str,
    /// `apiVersion` of what was written.
    pub api_version: &'a str,
    /// Now, as [`crate::time::format`] writes it.
    pub time: &'a str,
}

/// What kind of write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Server-side apply.
    Apply,
    /// Create, update and patch.
    Update,
}

/// More managers than this are merged, oldest first.
const MAX_UPDATE_MANAGERS: usize = 10;
const ANCIENT: &str = "ancient-changes";
const MAX_MANAGER_NAME: usize = 128;

// === impl Operation ===

impl Operation {
    /// The word in an entry.
    pub fn as_str(self) -> &'static str {
        match self {
            Operation::Apply => "Apply",
            Operation::Update => "Update",
        }
    }
}

/// The manager's name: what the request says, or else the program's name in its user agent.
pub fn manager_name(field_manager: &str, user_agent: &str) -> String {
    if !field_manager.is_empty() {
        return field_manager.to_owned();
    }
    let program = user_agent.split('/').next().unwrap_or_default();
    let printable = program.chars().filter(|letter| !letter.is_control());
    let mut name = String::new();
    for letter in printable {
        if name.len() + letter.len_utf8() > MAX_MANAGER_NAME {
            break;
        }
        name.push(letter);
    }
    if name.is_empty() { "unknown".to_owned() } else { name }
}

/// Brings `new`'s `metadata.managedFields` up to date with a write that turned `old` into `new`.
///
/// `new` is decoded and has its defaults. Entries are taken from `new` where it has any, from `old` otherwise; one empty
/// entry asks for a fresh start.
pub fn update(
    schemas: &Schemas,
    resource: &Resource,
    old: Option<&Value>,
    new: &mut Value,
    writer: &Writer<'_>,
) {
    update_type(schemas, resource.schema, resource.has_status(), old, new, writer);
}

/// As [`update`], for a type that is in no catalogue.
pub fn update_type(
    schemas: &Schemas,
    id: TypeId,
    has_status: bool,
    old: Option<&Value>,
    new: &mut Value,
    writer: &Writer<'_>,
) {
    let mut changes = changes(schemas, id, old, new);
    if has_status && writer.subresource.is_empty() {
        changes.changed.forget("f:status");
        changes.removed.forget("f:status");
    }
    let mut entries = take_entries(old, new);
    if !changes.changed.is_empty() || !changes.removed.is_empty() {
        for entry in &mut entries {
            let own = is_of(entry, writer);
            if let Some(set) = entry.get_mut("fieldsV1").and_then(Value::as_object_mut) {
                if !own {
                    set::subtract(set, changes.changed.as_map());
                }
                set::remove(set, changes.removed.as_map());
            }
        }
    }
    if !changes.changed.is_empty() {
        join(&mut entries, changes.changed, writer);
    }
    entries.retain(|entry| {
        entry.get("fieldsV1").and_then(Value::as_object).is_some_and(|fields| !fields.is_empty())
    });
    cap(&mut entries);
    sort(&mut entries);
    store(new, entries);
}

fn is_of(entry: &Map<String, Value>, writer: &Writer<'_>) -> bool {
    let is = |name: &str, wanted: &str| text(entry, name) == wanted;
    is("manager", writer.manager)
        && is("operation", writer.operation.as_str())
        && is("subresource", writer.subresource)
        && is("apiVersion", writer.api_version)
}

/// Whether an entry is that of the writer's own applies, at whatever version.
fn is_applied_by(entry: &Map<String, Value>, writer: &Writer<'_>) -> bool {
    let is = |name: &str, wanted: &str| text(entry, name) == wanted;
    is("manager", writer.manager) && is("operation", "Apply") && is("subresource", writer.subresource)
}

/// The fields of an entry.
fn fields_of(entry: &Map<String, Value>) -> Map<String, Value> {
    entry.get("fieldsV1").and_then(Value::as_object).cloned().unwrap_or_default()
}

/// The entries of an object.
fn entries_of(object: Option<&Value>) -> Vec<Map<String, Value>> {
    match object.and_then(|object| object.get("metadata")?.get("managedFields")) {
        Some(Value::Array(entries)) => objects(entries.clone()),
        _ => Vec::new(),
    }
}

fn text<'a>(entry: &'a Map<String, Value>, name: &str) -> &'a str {
    entry.get(name).and_then(Value::as_str).unwrap_or_default()
}

/// Adds fields to the writer's entry.
fn join(entries: &mut Vec<Map<String, Value>>, changed: FieldSet, writer: &Writer<'_>) {
    if let Some(entry) = entries.iter_mut().find(|entry| is_of(entry, writer)) {
        entry.insert("time".to_owned(), writer.time.into());
        if let Some(set) = entry.get_mut("fieldsV1").and_then(Value::as_object_mut) {
            set::union(set, changed.into_map());
            return;
        }
        entry.insert("fieldsV1".to_owned(), Value::Object(changed.into_map()));
        return;
    }
    let mut entry = Map::new();
    entry.insert("manager".to_owned(), writer.manager.into());
    entry.insert("operation".to_owned(), writer.operation.as_str().into());
    entry.insert("apiVersion".to_owned(), writer.api_version.into());
    entry.insert("time".to_owned(), writer.time.into());
    entry.insert("fieldsType".to_owned(), "FieldsV1".into());
    entry.insert("fieldsV1".to_owned(), Value::Object(changed.into_map()));
    if !writer.subresource.is_empty() {
        entry.insert("subresource".to_owned(), writer.subresource.into());
    }
    entries.push(entry);
}

/// The entries that a write starts from; they are taken out of `new`.
fn take_entries(old: Option<&Value>, new: &mut Value) -> Vec<Map<String, Value>> {
    let given = new
        .get_mut("metadata")
        .and_then(Value::as_object_mut)
        .and_then(|metadata| metadata.remove("managedFields"));
    let Some(old) = old else { return Vec::new() };
    let given = match given {
        Some(Value::Array(entries)) => objects(entries),
        _ => Vec::new(),
    };
    match given.as_slice() {
        [only] if only.is_empty() => return Vec::new(),
        [] => {}
        entries if entries.iter().all(well_formed) => return given,
        _ => {}
    }
    entries_of(Some(old))
}

fn objects(entries: Vec<Value>) -> Vec<Map<String, Value>> {
    entries
        .into_iter()
        .filter_map(|entry| match entry {
            Value::Object(map) => Some(map),
            _ => None,
        })
        .collect()
}

fn well_formed(entry: &Map<String, Value>) -> bool {
    matches!(text(entry, "operation"), "Apply" | "Update")
        && entry.get("fieldsV1").is_some_and(Value::is_object)
        && !text(entry, "apiVersion").is_empty()
}

/// Merges the oldest updates until there are few enough.
fn cap(entries: &mut Vec<Map<String, Value>>) {
    let updates = |entries: &[Map<String, Value>]| {
        entries.iter().filter(|entry| text(entry, "operation") == "Update").count()
    };
    while updates(entries) > MAX_UPDATE_MANAGERS {
        let oldest = entries
            .iter()
            .enumerate()
            .filter(|(_, entry)| text(entry, "operation") == "Update" && text(entry, "manager") != ANCIENT)
            .min_by(|(_, a), (_, b)| text(a, "time").cmp(text(b, "time")))
            .map(|(at, _)| at);
        let Some(at) = oldest else { return };
        let mut entry = entries.remove(at);
        let version = text(&entry, "apiVersion").to_owned();
        let bucket = entries
            .iter_mut()
            .find(|other| text(other, "manager") == ANCIENT && text(other, "apiVersion") == version);
        match bucket {
            Some(bucket) => {
                let time = text(bucket, "time").max(text(&entry, "time")).to_owned();
                bucket.insert("time".to_owned(), time.into());
                if let (Some(Value::Object(fields)), Some(Value::Object(set))) =
                    (entry.remove("fieldsV1"), bucket.get_mut("fieldsV1"))
                {
                    set::union(set, fields);
                }
            }
            None => {
                entry.insert("manager".to_owned(), ANCIENT.into());
                entry.remove("subresource");
                entries.push(entry);
            }
        }
    }
}

fn sort(entries: &mut [Map<String, Value>]) {
    entries.sort_by(|a, b| {
        let by = |name: &str| text(a, name).cmp(text(b, name));
        by("operation")
            .then_with(|| by("time"))
            .then_with(|| by("manager"))
            .then_with(|| by("apiVersion"))
            .then_with(|| by("subresource"))
    });
}

fn store(new: &mut Value, entries: Vec<Map<String, Value>>) {
    if entries.is_empty() {
        return;
    }
    let Value::Object(object) = new else { return };
    let metadata = object.entry("metadata").or_insert_with(|| Value::Object(Map::new()));
    if let Value::Object(metadata) = metadata {
        let entries = entries.into_iter().map(Value::Object).collect();
        metadata.insert("managedFields".to_owned(), Value::Array(entries));
    }
}

/// A configuration merged into an object of a type, whoever owns what: what it names is as it says, the rest stays.
pub fn merged(schemas: &Schemas, of: TypeId, object: &Value, config: &Value) -> Value {
    merge::merge(schemas, shape::Shape::Struct(schemas.get(of)), object, config)
}

#[cfg(test)]
mod tests;
