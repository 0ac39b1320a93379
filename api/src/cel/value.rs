//! The values of CEL. What is in the object that an expression is about stays where it is and is read in place.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Deref;
use std::sync::{Arc, OnceLock};

use jiff::{SignedDuration, Timestamp};
use regex::Regex;
use serde_json::{Map as JsonMap, Value as Json};

use super::functions::opaque::Opaque;
use super::types::Type;
use crate::schema::structural::{Node, expression};

/// A value.
#[derive(Clone, Debug)]
pub enum Value<'a> {
    /// `null`.
    Null,
    /// True or false.
    Bool(bool),
    /// A signed whole number.
    Int(i64),
    /// An unsigned whole number.
    Uint(u64),
    /// A floating-point number.
    Double(f64),
    /// A text.
    String(Text<'a>),
    /// Bytes.
    Bytes(Arc<[u8]>),
    /// A point in time.
    Timestamp(Timestamp),
    /// A span of time.
    Duration(SignedDuration),
    /// A list.
    List(List<'a>),
    /// A map, or an object.
    Map(Map<'a>),
    /// A value that may be missing.
    Optional(Option<Arc<Value<'a>>>),
    /// A type.
    Type(Type),
    /// What only functions can look into.
    Opaque(Opaque<'a>),
}

/// A text, of an object or made by an expression.
#[derive(Clone)]
pub enum Text<'a> {
    /// It is in the object.
    Borrowed(&'a str),
    /// It was made.
    Shared(Arc<str>),
    /// It is a regular expression in a program.
    Pattern(Arc<Pattern>),
}

/// A regular expression of a program; it is made ready when it is needed first.
pub struct Pattern {
    text: Box<str>,
    compiled: OnceLock<Option<Regex>>,
}

/// What a schema says of a place in an object; nothing where there is none.
pub(crate) type Shape<'a> = Option<&'a Node>;

/// A list.
#[derive(Clone, Debug)]
pub enum List<'a> {
    /// One that an expression made, and what is said of its items.
    Made(Arc<Vec<Value<'a>>>, Shaped<'a>),
    /// One in an object.
    Json(&'a [Json], Shaped<'a>),
}

/// A map.
#[derive(Clone, Debug)]
pub enum Map<'a> {
    /// One that an expression made.
    Made(Arc<BTreeMap<Key, Value<'a>>>),
    /// One in an object.
    Json(&'a JsonMap<String, Json>, Shaped<'a>),
    /// One that an expression made of a named type.
    Struct(Arc<str>, Arc<BTreeMap<Key, Value<'a>>>),
}

/// What a schema says of a container.
#[derive(Clone, Copy, Debug, Default)]
pub struct Shaped<'a>(pub(crate) Shape<'a>);

/// A key of a map.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    /// True or false.
    Bool(bool),
    /// A whole number; an unsigned one is written so where it fits.
    Int(i64),
    /// An unsigned whole number that is no signed one.
    Uint(u64),
    /// A text.
    String(Arc<str>),
}

/// Why an expression has no value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// A function is not for values like these.
    #[error("no such overload")]
    NoOverload,
    /// A map has no such key, or an object no such field.
    #[error("no such key: {0}")]
    NoKey(String),
    /// A list has no such item.
    #[error("index out of bounds: {0}")]
    OutOfBounds(i64),
    /// It takes more steps than it may.
    #[error("operation cancelled: actual cost limit exceeded")]
    OverBudget,
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

/// What evaluation comes to.
pub type Answer<'a> = Result<Value<'a>, Fault>;

// === impl Fault ===

impl Fault {
    pub(super) fn other<'a>(why: impl Into<String>) -> Answer<'a> {
        Err(Fault::Other(why.into()))
    }
}

// === impl Text ===

impl Deref for Text<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        match self {
            Text::Borrowed(text) => text,
            Text::Shared(text) => text,
            Text::Pattern(pattern) => &pattern.text,
        }
    }
}

impl Text<'_> {
    /// A regular expression, if it is one.
    pub(super) fn pattern(text: &str) -> Option<Text<'static>> {
        expression(text).ok()?;
        Some(Text::Pattern(Arc::new(Pattern { text: text.into(), compiled: OnceLock::new() })))
    }
}

impl Pattern {
    pub(super) fn compiled(&self) -> Option<&Regex> {
        self.compiled.get_or_init(|| expression(&self.text).ok()).as_ref()
    }
}

impl fmt::Debug for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

// === impl Key ===

impl Key {
    /// The key that a value is, if values like it can be one.
    pub(super) fn of(value: &Value<'_>) -> Option<Key> {
        Some(match value {
            Value::Bool(flag) => Key::Bool(*flag),
            Value::Int(number) => Key::Int(*number),
            Value::Uint(number) => i64::try_from(*number).map_or(Key::Uint(*number), Key::Int),
            Value::Double(number) if number.fract() == 0.0 && number.abs() < 9e15 => Key::Int(*number as i64),
            Value::String(Text::Shared(text)) => Key::String(text.clone()),
            Value::String(text) => Key::String(Arc::from(&**text)),
            _ => return None,
        })
    }

    pub(super) fn value(&self) -> Value<'static> {
        match self {
            Key::Bool(flag) => Value::Bool(*flag),
            Key::Int(number) => Value::Int(*number),
            Key::Uint(number) => Value::Uint(*number),
            Key::String(text) => Value::String(Text::Shared(text.clone())),
        }
    }
}

// === impl List ===

impl<'a> List<'a> {
    pub(super) fn len(&self) -> usize {
        match self {
            List::Made(items, _) => items.len(),
            List::Json(items, _) => items.len(),
        }
    }

    pub(super) fn get(&self, at: usize) -> Option<Value<'a>> {
        match self {
            List::Made(items, _) => items.get(at).cloned(),
            List::Json(items, shape) => {
                items.get(at).map(|item| Value::read(item, shape.0.and_then(|node| node.items.as_deref())))
            }
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = Value<'a>> + '_ {
        (0..self.len()).filter_map(|at| self.get(at))
    }

    pub(super) fn shape(&self) -> Shaped<'a> {
        match self {
            List::Made(_, shape) | List::Json(_, shape) => *shape,
        }
    }
}

// === impl Map ===

impl<'a> Map<'a> {
    pub(super) fn len(&self) -> usize {
        match self {
            Map::Made(entries) | Map::Struct(_, entries) => entries.len(),
            Map::Json(entries, shape) if shape.is_open() => entries.len(),
            Map::Json(..) => self.keys().len(),
        }
    }

    /// The value of a key.
    pub(super) fn get(&self, key: &Key) -> Option<Value<'a>> {
        match (self, key) {
            (Map::Made(entries) | Map::Struct(_, entries), key) => entries.get(key).cloned(),
            (Map::Json(entries, shape), Key::String(name)) => shape.member(entries, name),
            (Map::Json(..), _) => None,
        }
    }

    pub(super) fn keys(&self) -> Vec<Key> {
        match self {
            Map::Made(entries) | Map::Struct(_, entries) => entries.keys().cloned().collect(),
            Map::Json(entries, shape) => {
                entries.keys().filter_map(|name| Some(Key::String(shape.shown(name)?.into()))).collect()
            }
        }
    }
}

// === impl Value ===

impl<'a> Value<'a> {
    /// A text that was made.
    pub fn text(text: impl AsRef<str>) -> Value<'a> {
        Value::String(Text::Shared(Arc::from(text.as_ref())))
    }

    pub(super) fn bytes(bytes: Vec<u8>) -> Value<'a> {
        Value::Bytes(bytes.into())
    }

    /// A list that was made.
    pub fn list(items: Vec<Value<'a>>) -> Value<'a> {
        Value::List(List::Made(Arc::new(items), Shaped::default()))
    }

    pub(super) fn map(entries: BTreeMap<Key, Value<'a>>) -> Value<'a> {
        Value::Map(Map::Made(Arc::new(entries)))
    }

    pub(super) fn some(value: Value<'a>) -> Value<'a> {
        Value::Optional(Some(Arc::new(value)))
    }

    /// The type of a value; what is in containers is not looked at.
    pub fn kind(&self) -> Type {
        match self {
            Value::Null => Type::Null,
            Value::Bool(_) => Type::Bool,
            Value::Int(_) => Type::Int,
            Value::Uint(_) => Type::Uint,
            Value::Double(_) => Type::Double,
            Value::String(_) => Type::String,
            Value::Bytes(_) => Type::Bytes,
            Value::Timestamp(_) => Type::Timestamp,
            Value::Duration(_) => Type::Duration,
            Value::List(_) => Type::Dyn.list(),
            Value::Map(Map::Struct(name, _)) => Type::Struct(name.clone()),
            Value::Map(_) => Type::Map(Arc::new(Type::Dyn), Arc::new(Type::Dyn)),
            Value::Optional(_) => Type::Dyn.optional(),
            Value::Type(_) => Type::Type,
            Value::Opaque(opaque) => Type::Opaque(opaque.name()),
        }
    }

    /// The size that costs are counted by: letters, bytes, items, entries; of all else one.
    pub(super) fn size(&self) -> u64 {
        match self {
            Value::String(text) => text.chars().count() as u64,
            Value::Bytes(bytes) => bytes.len() as u64,
            Value::List(list) => list.len() as u64,
            Value::Map(map) => map.len() as u64,
            Value::Opaque(opaque) => opaque.size(),
            _ => 1,
        }
    }

    /// Whether values are the same, numbers of different types among them.
    pub(super) fn equals(&self, other: &Value<'_>) -> bool {
        match (self, other) {
            (Value::Null, Value::Null) => true,
            (Value::Bool(a), Value::Bool(b)) => a == b,
            (Value::String(a), Value::String(b)) => **a == **b,
            (Value::Bytes(a), Value::Bytes(b)) => a == b,
            (Value::Timestamp(a), Value::Timestamp(b)) => a == b,
            (Value::Duration(a), Value::Duration(b)) => a == b,
            (Value::Type(a), Value::Type(b)) => a.name() == b.name(),
            (Value::Optional(a), Value::Optional(b)) => match (a, b) {
                (Some(a), Some(b)) => a.equals(b),
                (a, b) => a.is_none() && b.is_none(),
            },
            (Value::List(a), Value::List(b)) => a.equals(b),
            (Value::Map(a), Value::Map(b)) => {
                a.len() == b.len()
                    && a.keys().iter().all(|key| match (a.get(key), b.get(key)) {
                        (Some(a), Some(b)) => a.equals(&b),
                        _ => false,
                    })
            }
            (Value::Opaque(a), Value::Opaque(b)) => a.equals(b),
            (a, b) => a.is_number() && b.is_number() && a.order(b) == Some(Ordering::Equal),
        }
    }

    fn is_number(&self) -> bool {
        matches!(self, Value::Int(_) | Value::Uint(_) | Value::Double(_))
    }

    /// Which value is before which, if values like these have an order.
    pub(super) fn order(&self, other: &Value<'_>) -> Option<Ordering> {
        match (self, other) {
            (Value::Bool(a), Value::Bool(b)) => Some(a.cmp(b)),
            (Value::Int(a), Value::Int(b)) => Some(a.cmp(b)),
            (Value::Uint(a), Value::Uint(b)) => Some(a.cmp(b)),
            (Value::Int(a), Value::Uint(b)) => Some(i128::from(*a).cmp(&i128::from(*b))),
            (Value::Uint(a), Value::Int(b)) => Some(i128::from(*a).cmp(&i128::from(*b))),
            (Value::Double(a), Value::Double(b)) => a.partial_cmp(b),
            (Value::Double(a), Value::Int(b)) => order_of(*a, i128::from(*b)),
            (Value::Double(a), Value::Uint(b)) => order_of(*a, i128::from(*b)),
            (Value::Int(a), Value::Double(b)) => order_of(*b, i128::from(*a)).map(Ordering::reverse),
            (Value::Uint(a), Value::Double(b)) => order_of(*b, i128::from(*a)).map(Ordering::reverse),
            (Value::String(a), Value::String(b)) => Some((**a).cmp(&**b)),
            (Value::Bytes(a), Value::Bytes(b)) => Some(a.cmp(b)),
            (Value::Timestamp(a), Value::Timestamp(b)) => Some(a.cmp(b)),
            (Value::Duration(a), Value::Duration(b)) => Some(a.cmp(b)),
            _ => None,
        }
    }
}

/// A floating-point number against a whole one, without losing digits of either.
fn order_of(a: f64, b: i128) -> Option<Ordering> {
    if a.is_nan() {
        return None;
    }
    if a.abs() >= 1e30 {
        return Some(if a > 0.0 { Ordering::Greater } else { Ordering::Less });
    }
    let whole = (a.trunc() as i128).cmp(&b);
    Some(whole.then(a.fract().partial_cmp(&0.0).unwrap_or(Ordering::Equal)))
}

impl fmt::Display for Value<'_> {
    /// For messages: as the expression would write it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::String(text) => write!(f, "\"{}\"", &**text),
            Value::Null => f.write_str("null"),
            Value::Bool(flag) => write!(f, "{flag}"),
            Value::Int(number) => write!(f, "{number}"),
            Value::Uint(number) => write!(f, "{number}u"),
            Value::Double(number) => f.write_str(&super::functions::conversions::double_text(*number)),
            Value::Bytes(bytes) => write!(f, "b\"{}\"", String::from_utf8_lossy(bytes)),
            Value::Timestamp(time) => write!(f, "timestamp(\"{time}\")"),
            Value::Duration(span) => {
                write!(f, "duration(\"{}\")", super::functions::conversions::duration_text(*span))
            }
            Value::List(list) => {
                let items: Vec<String> = list.iter().map(|item| item.to_string()).collect();
                write!(f, "[{}]", items.join(", "))
            }
            Value::Map(map) => {
                let entries: Vec<String> = map
                    .keys()
                    .iter()
                    .map(|key| match map.get(key) {
                        Some(value) => format!("{}: {value}", key.value()),
                        None => key.value().to_string(),
                    })
                    .collect();
                write!(f, "{{{}}}", entries.join(", "))
            }
            Value::Optional(None) => f.write_str("optional.none()"),
            Value::Optional(Some(value)) => write!(f, "optional.of({value})"),
            Value::Type(kind) => f.write_str(kind.name()),
            Value::Opaque(opaque) => f.write_str(&opaque.text()),
        }
    }
}
