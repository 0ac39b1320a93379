//! The JSON of an object as values: with the types that a schema says, the names that expressions have for fields, and the
//! equality of lists that are sets or maps.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map as JsonMap, Number, Value as Json};

use super::functions::conversions;
use super::parser::RESERVED;
use super::value::{Key, List, Map, Shape, Shaped, Text, Value};
use crate::schema::ListType;
use crate::schema::structural::{Additional, JsonType, Node};

/// What stands for what has no place in a name.
const ESCAPES: &[(&str, char)] = &[("__dot__", '.'), ("__dash__", '-'), ("__slash__", '/')];

/// The name that expressions have for a field; nothing where they cannot name it.
pub(super) fn escaped(name: &str) -> Option<String> {
    if is_keyword(name) {
        return Some(format!("__{name}__"));
    }
    let mut out = name.replace("__", "__underscores__");
    for (escape, letter) in ESCAPES {
        out = out.replace(*letter, escape);
    }
    let is_name = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    (!out.is_empty() && out.chars().all(is_name) && !out.starts_with(|first: char| first.is_ascii_digit()))
        .then_some(out)
}

/// Whether a field cannot be called by a word; between underscores it can.
fn is_keyword(word: &str) -> bool {
    matches!(word, "true" | "false" | "null" | "in") || RESERVED.contains(&word)
}

/// The field that an expression means by a name.
fn unescaped(name: &str) -> String {
    let word = name.strip_prefix("__").and_then(|rest| rest.strip_suffix("__"));
    if let Some(word) = word.filter(|word| is_keyword(word)) {
        return word.to_owned();
    }
    let (mut out, mut rest) = (String::with_capacity(name.len()), name);
    while let Some(at) = rest.find("__") {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let known = ESCAPES.iter().find_map(|(escape, letter)| Some((rest.strip_prefix(escape)?, *letter)));
        if let Some((after, letter)) = known {
            out.push(letter);
            rest = after;
        } else if let Some(after) = rest.strip_prefix("__underscores__") {
            out.push_str("__");
            rest = after;
        } else {
            out.push_str("__");
            rest = &rest[2..];
        }
    }
    out + rest
}

/// Whether a field is there whatever a schema says: the identity of an object.
fn is_identity(name: &str) -> bool {
    matches!(name, "apiVersion" | "kind" | "metadata")
}

// === impl Shaped ===

impl<'a> Shaped<'a> {
    /// Whether entries have any names, so that none of them is written in another way.
    pub(super) fn is_open(&self) -> bool {
        self.0.is_none_or(|node| !matches!(node.additional, Additional::Nothing))
    }

    /// The member that an expression means by a name.
    pub(super) fn member(&self, entries: &'a JsonMap<String, Json>, name: &str) -> Option<Value<'a>> {
        if self.is_open() {
            return entries
                .get(name)
                .map(|value| Value::read(value, self.0.and_then(|node| node.member(name))));
        }
        let name = if name.contains("__") { unescaped(name) } else { name.to_owned() };
        self.shown(&name)?;
        entries.get(&name).map(|value| Value::read(value, self.0.and_then(|node| node.member(&name))))
    }

    /// How an expression names an entry; nothing where it does not see it.
    pub(super) fn shown(&self, name: &str) -> Option<String> {
        match self.0 {
            Some(node) if !self.is_open() => {
                let seen = node.properties.contains(name) || is_identity(name);
                if seen { escaped(name) } else { None }
            }
            _ => Some(name.to_owned()),
        }
    }

    fn list(&self) -> (ListType, &'a [Box<str>]) {
        match self.0 {
            Some(node) => (node.list, &node.list_keys),
            None => (ListType::Atomic, &[]),
        }
    }
}

// === impl Value ===

impl<'a> Value<'a> {
    /// Reads a value in place. Without a shape numbers are whole if they are written so.
    pub(crate) fn read(value: &'a Json, shape: Shape<'a>) -> Value<'a> {
        match value {
            Json::Null => Value::Null,
            Json::Bool(flag) => Value::Bool(*flag),
            Json::Number(found) => number(found, shape),
            Json::String(text) => formatted(text, shape),
            Json::Array(items) => Value::List(List::Json(items, Shaped(shape))),
            Json::Object(entries) => Value::Map(Map::Json(entries, Shaped(shape))),
        }
    }

    /// Reads a value in place, as one without a schema.
    pub fn of_json(value: &'a Json) -> Value<'a> {
        Value::read(value, None)
    }

    /// The value as JSON, as far as it has a form there.
    pub fn to_json(&self) -> Option<Json> {
        Some(match self {
            Value::Null => Json::Null,
            Value::Bool(flag) => Json::Bool(*flag),
            Value::Int(number) => (*number).into(),
            Value::Uint(number) => (*number).into(),
            // JSON knows one type of numbers: a whole one is written as such.
            Value::Double(number) if number.fract() == 0.0 && number.abs() < 9e15 => (*number as i64).into(),
            Value::Double(number) => Number::from_f64(*number)?.into(),
            Value::String(text) => (**text).into(),
            Value::Bytes(bytes) => STANDARD.encode(bytes).into(),
            Value::Timestamp(time) => time.to_string().into(),
            Value::Duration(span) => conversions::duration_text(*span).into(),
            Value::List(list) => Json::Array(list.iter().map(|item| item.to_json()).collect::<Option<_>>()?),
            Value::Map(Map::Json(entries, _)) => Json::Object((*entries).clone()),
            Value::Map(Map::Made(entries) | Map::Struct(_, entries)) => {
                let mut object = JsonMap::new();
                for (key, value) in entries.iter() {
                    let Key::String(name) = key else { return None };
                    object.insert(name.to_string(), value.to_json()?);
                }
                Json::Object(object)
            }
            Value::Optional(_) | Value::Type(_) => return None,
            Value::Opaque(opaque) => opaque.to_json()?,
        })
    }
}

fn number<'a>(found: &Number, shape: Shape<'_>) -> Value<'a> {
    let as_double = || found.as_f64().map_or(Value::Null, Value::Double);
    match shape.and_then(|node| node.kind) {
        Some(JsonType::Number) => as_double(),
        Some(JsonType::Integer) => match found.as_i64() {
            Some(whole) => Value::Int(whole),
            // A whole number may be written with a fraction of zero.
            None => found.as_f64().map_or(Value::Null, |number| Value::Int(number as i64)),
        },
        _ => found
            .as_i64()
            .map(Value::Int)
            .or_else(|| found.as_u64().map(Value::Uint))
            .unwrap_or_else(as_double),
    }
}

/// A text, or what its format makes of it.
fn formatted<'a>(text: &'a str, shape: Shape<'a>) -> Value<'a> {
    let format = shape.filter(|node| node.kind == Some(JsonType::String)).and_then(Node::format);
    let made = match format {
        Some("date-time") => conversions::timestamp(text).map(Value::Timestamp),
        Some("date") => conversions::timestamp(&format!("{text}T00:00:00Z")).map(Value::Timestamp),
        Some("duration") => conversions::duration(text).map(Value::Duration),
        Some("byte") => STANDARD.decode(text).ok().map(Value::bytes),
        _ => None,
    };
    made.unwrap_or(Value::String(Text::Borrowed(text)))
}

// === impl List ===

impl<'a> List<'a> {
    /// Whether lists are the same. The order of sets and of maps does not count.
    pub(super) fn equals(&self, other: &List<'_>) -> bool {
        if self.len() != other.len() {
            return false;
        }
        match self.shape().list() {
            (ListType::Atomic, _) => self.iter().zip(other.iter()).all(|(a, b)| a.equals(&b)),
            (ListType::Set, _) => self.iter().all(|a| other.iter().any(|b| a.equals(&b))),
            (ListType::Map, keys) => self.iter().all(|a| {
                let same = other.iter().find(|b| is_same_item(&a, b, keys));
                same.is_some_and(|b| a.equals(&b))
            }),
        }
    }

    /// Both lists in one. To a set only what is not in it is added; in a list of maps what has the same keys is replaced.
    pub(super) fn joined(&self, other: &List<'a>) -> List<'a> {
        let mut items: Vec<Value<'a>> = self.iter().collect();
        let (kind, keys) = self.shape().list();
        for item in other.iter() {
            let same = match kind {
                ListType::Atomic => None,
                ListType::Set => items.iter().position(|known| known.equals(&item)),
                ListType::Map => items.iter().position(|known| is_same_item(known, &item, keys)),
            };
            match same {
                Some(at) => items[at] = item,
                None => items.push(item),
            }
        }
        List::Made(Arc::new(items), self.shape())
    }
}

/// Whether two items of a list of maps are the same one.
fn is_same_item(a: &Value<'_>, b: &Value<'_>, keys: &[Box<str>]) -> bool {
    let (Value::Map(a), Value::Map(b)) = (a, b) else { return false };
    keys.iter().all(|name| {
        let key = Key::String(escaped(name).unwrap_or_default().into());
        match (a.get(&key), b.get(&key)) {
            (Some(a), Some(b)) => a.equals(&b),
            (a, b) => a.is_none() && b.is_none(),
        }
    })
}
