//! How the parts of an object are owned and merged: field by field, entry by entry, item by item, or as one.

use serde_json::{Map, Value};

use crate::schema::{Field, Kind, ListType, Schemas, Type};

/// How one value is owned and merged.
#[derive(Clone, Copy)]
pub(super) enum Shape<'s> {
    /// As one.
    Leaf,
    /// Field by field.
    Struct(&'s Type),
    /// Entry by entry; the kind is that of an entry's value.
    Map(&'s Kind),
    /// Entry by entry if it is an object, with whatever is in it; else as one.
    Open,
    /// Item by item, each its own key.
    Set,
    /// Item by item, by keys; the kind is that of an item.
    Keyed(&'s Field, &'s Kind),
}

// === impl Shape ===

impl<'s> Shape<'s> {
    /// The shape of a field's value.
    pub fn of_field(schemas: &'s Schemas, field: &'s Field) -> Shape<'s> {
        if field.atomic_map {
            return Shape::Leaf;
        }
        match &field.kind {
            Kind::List(inner) => match field.list_type {
                ListType::Map => Shape::Keyed(field, inner),
                ListType::Set => Shape::Set,
                ListType::Atomic => Shape::Leaf,
            },
            kind => Shape::of_kind(schemas, kind),
        }
    }

    /// The shape of an item, or of a map's value.
    pub fn of_kind(schemas: &'s Schemas, kind: &'s Kind) -> Shape<'s> {
        match kind {
            Kind::Object(id) => match schemas.get(*id) {
                declared if declared.atomic => Shape::Leaf,
                declared => Shape::Struct(declared),
            },
            Kind::Map(inner) => Shape::Map(inner),
            Kind::Open => Shape::Open,
            _ => Shape::Leaf,
        }
    }

    /// The shape of what is at a name below a struct or map.
    pub fn below(self, schemas: &'s Schemas, name: &str) -> Shape<'s> {
        match self {
            Shape::Struct(declared) => {
                let unknown = if declared.open { Shape::Open } else { Shape::Leaf };
                declared.field(name).map_or(unknown, |field| Shape::of_field(schemas, field))
            }
            Shape::Open => Shape::Open,
            Shape::Map(inner) => Shape::of_kind(schemas, inner),
            _ => Shape::Leaf,
        }
    }

    /// The shape of an item.
    pub fn item(self, schemas: &'s Schemas) -> Shape<'s> {
        match self {
            Shape::Keyed(_, inner) => Shape::of_kind(schemas, inner),
            _ => Shape::Leaf,
        }
    }

    /// The path element of an item of a set or keyed list.
    pub fn element(self, schemas: &Schemas, item: &Value) -> String {
        match self {
            Shape::Keyed(field, inner) => item_key(schemas, field, inner, item),
            _ => element("v:", &item.to_string()),
        }
    }
}

/// A path element: a prefix and a name.
pub(super) fn element(prefix: &str, name: &str) -> String {
    let mut element = String::with_capacity(prefix.len() + name.len());
    element.push_str(prefix);
    element.push_str(name);
    element
}

/// The path element of an item: its keys with their values, sorted. A key that is not there has its declared default.
pub(super) fn item_key(schemas: &Schemas, field: &Field, inner: &Kind, item: &Value) -> String {
    if let [key] = field.list_keys.as_slice()
        && let Some(Value::String(text)) = item.get(&**key)
        && text.bytes().all(|byte| (b' '..=b'~').contains(&byte) && byte != b'"' && byte != b'\\')
    {
        return ["k:{\"", key, "\":\"", text, "\"}"].concat();
    }
    let mut keys = Map::new();
    for key in &field.list_keys {
        if let Some(value) = item.get(&**key).or_else(|| key_default(schemas, inner, key)) {
            keys.insert(key.clone().into_owned(), value.clone());
        }
    }
    format!("k:{}", Value::Object(keys))
}

/// The declared default of a key.
pub(super) fn key_default<'s>(schemas: &'s Schemas, inner: &Kind, key: &str) -> Option<&'s Value> {
    schemas.get(inner.object()?).field(key)?.default.as_ref()
}

/// A path element as messages show it: `.name`, `[key="value"]`, `[="item"]`.
pub(super) fn shown(element: &str) -> String {
    match element.split_once(':') {
        Some(("f", name)) => format!(".{name}"),
        Some(("k", keys)) => match serde_json::from_str(keys) {
            Ok(Value::Object(keys)) => {
                let pairs: Vec<String> = keys.iter().map(|(key, value)| format!("{key}={value}")).collect();
                format!("[{}]", pairs.join(","))
            }
            _ => format!("[{keys}]"),
        },
        Some(("v", value)) => format!("[={value}]"),
        Some((_, index)) => format!("[{index}]"),
        None => element.to_owned(),
    }
}
