//! What a schema declares to expressions: types, and how large values can be.
//!
//! The sizes are those that Kubernetes reckons with, so that its estimates come out the same.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::document::escaped;
use super::types::{Declared, Object, Type};
use crate::catalogue::Resource;
use crate::schema::structural::{Additional, JsonType, Node};
use crate::schema::{Kind, Schemas, TypeId};

/// The bytes of the largest request.
const REQUEST: u64 = 3 * 1024 * 1024;
/// An object of the API can refer to its own type: so deep one is looked into.
const MAX_DEPTH: usize = 12;

/// What a node declares; nothing where expressions do not see it. `name` is for messages.
pub(crate) fn of_node(node: &Node, name: &str, whole: bool) -> Option<Declared> {
    let text = |most: u64, least_bytes: u64, kind: Type| Declared { kind, most, least_bytes, items: None };
    let length = node.rules.as_ref().and_then(|rules| rules.length.most);
    if node.int_or_string {
        return Some(text(length.map_or(REQUEST - 2, |most| most.saturating_mul(4)), 1, Type::Dyn));
    }
    Some(match node.kind? {
        JsonType::Array => {
            let items = node.items.as_deref()?;
            let items = of_node(items, &format!("{name}.@idx"), items.embedded)?;
            let most = node.rules.as_ref().and_then(|rules| rules.items.most);
            let most = most.unwrap_or_else(|| list_items(items.least_bytes));
            let kind = items.kind.clone().list();
            Declared { kind, most, least_bytes: 2, items: Some(Arc::new(items)) }
        }
        JsonType::Object => match &node.additional {
            Additional::Of(values) => {
                let values = of_node(values, &format!("{name}.@elem"), values.embedded)?;
                let most = node.rules.as_ref().and_then(|rules| rules.members.most);
                let most = most.unwrap_or_else(|| map_entries(values.least_bytes));
                let kind = values.kind.clone().map();
                Declared { kind, most, least_bytes: 2, items: Some(Arc::new(values)) }
            }
            _ => object(node, name, whole || node.embedded),
        },
        JsonType::String => match node.format() {
            Some("byte") => text(length.unwrap_or(REQUEST - 2), 2, Type::Bytes),
            Some("duration") => text(32, 3, Type::Duration),
            Some("date") => text(12, 12, Type::Timestamp),
            Some("date-time") => text(32, 21, Type::Timestamp),
            _ => text(letters(node, length), 2, Type::String),
        },
        JsonType::Boolean => text(0, 4, Type::Bool),
        JsonType::Number => text(0, 1, Type::Double),
        JsonType::Integer => text(0, 1, Type::Int),
    })
}

/// The most letters of a text; a letter may take four bytes.
fn letters(node: &Node, length: Option<u64>) -> u64 {
    let accepted = node.rules.as_ref().map(|rules| &rules.accepted).filter(|accepted| !accepted.is_empty());
    let longest = |accepted: &Vec<serde_json::Value>| {
        accepted.iter().filter_map(|value| value.as_str()).map(|text| text.len() as u64).max().unwrap_or(0)
    };
    match (length, accepted) {
        (Some(most), _) => most.saturating_mul(4),
        (None, Some(accepted)) => longest(accepted),
        (None, None) => REQUEST - 2,
    }
}

fn object(node: &Node, name: &str, whole: bool) -> Declared {
    let mut fields = BTreeMap::new();
    let mut least_bytes = 2;
    let required = node.rules.as_ref().map(|rules| &*rules.required).unwrap_or_default();
    for (field, below) in node.properties.iter() {
        let Some(declared) = of_node(below, &format!("{name}.{field}"), false) else { continue };
        if required.iter().any(|name| **name == *field) && below.default.is_none() {
            least_bytes += field.len() as u64 + declared.least_bytes + 4;
        }
        if let Some(escaped) = escaped(field) {
            fields.insert(escaped.into(), Arc::new(declared));
        }
    }
    if whole {
        identity(&mut fields, name);
    }
    let kind = Type::Object(Arc::new(Object { name: name.into(), fields }));
    Declared { kind, most: 0, least_bytes, items: None }
}

/// What every object of the API has.
fn identity(fields: &mut BTreeMap<Box<str>, Arc<Declared>>, name: &str) {
    let text = || Arc::new(Declared { kind: Type::String, most: REQUEST - 2, least_bytes: 2, items: None });
    let names = ["name", "generateName"].map(|field| (Box::from(field), text()));
    let metadata = Object { name: format!("{name}.metadata").into(), fields: BTreeMap::from(names) };
    let metadata = Declared::plain(Type::Object(Arc::new(metadata)));
    fields.insert("apiVersion".into(), text());
    fields.insert("kind".into(), text());
    fields.entry("metadata".into()).or_insert_with(|| Arc::new(metadata));
}

/// How many items of so many bytes a request can have.
fn list_items(bytes: u64) -> u64 {
    (REQUEST - 2) / (bytes + 1)
}

/// How many entries with values of so many bytes a request can have.
fn map_entries(bytes: u64) -> u64 {
    (REQUEST - 2) / (bytes + 6)
}

/// What the objects of a resource declare. Of built-in ones sizes are not told: policies are not refused for what they may cost.
pub fn of_resource(resource: &Resource) -> Option<Declared> {
    let schemas = resource.schemas();
    match schemas.tree(resource.schema) {
        Some(root) => of_node(root, &resource.kind, true),
        None => Some(Declared::plain(of_table(schemas, resource.schema, &resource.kind, 0))),
    }
}

fn of_table(schemas: &Schemas, id: TypeId, name: &str, depth: usize) -> Type {
    if depth > MAX_DEPTH || schemas.get(id).open {
        return Type::Dyn;
    }
    let fields = schemas.get(id).fields.iter().filter_map(|field| {
        let below = format!("{name}.{}", field.name);
        let kind = of_kind(schemas, &field.kind, &below, depth + 1);
        Some((escaped(&field.name)?.into(), Arc::new(Declared::plain(kind))))
    });
    let mut fields: BTreeMap<Box<str>, Arc<Declared>> = fields.collect();
    if depth == 0 {
        for field in ["apiVersion", "kind"] {
            fields.entry(field.into()).or_insert_with(|| Arc::new(Declared::plain(Type::String)));
        }
    }
    Type::Object(Arc::new(Object { name: name.into(), fields }))
}

fn of_kind(schemas: &Schemas, kind: &Kind, name: &str, depth: usize) -> Type {
    match kind {
        Kind::Object(id) => of_table(schemas, *id, name, depth),
        Kind::List(of) => of_kind(schemas, of, &format!("{name}.@idx"), depth).list(),
        Kind::Map(of) => of_kind(schemas, of, &format!("{name}.@elem"), depth).map(),
        Kind::Bool => Type::Bool,
        Kind::Int32 | Kind::Int64 => Type::Int,
        Kind::Double => Type::Double,
        Kind::String => Type::String,
        // Points in time, quantities, bytes and the like are what JSON has for them.
        _ => Type::Dyn,
    }
}
