//! One walk that does to a document what decoding it into Go's structs and encoding it again would do: unknown
//! fields, nulls and omitted zero values go, quantities and times become canonical, wrong types are reported.

use std::fmt;

use base64::Engine as _;
use serde_json::{Map, Value};

use super::structural::Node;
use super::{Field, Kind, Schemas, Type, TypeId};
use crate::json::found;
use crate::{quantity::Quantity, time};

/// What the walk found.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Decoded {
    /// Paths of fields that the schema does not know; they are gone from the document. The first hundred.
    pub unknown: Vec<String>,
    /// Values of a wrong type; they are left as they are. The first hundred.
    pub errors: Vec<TypeError>,
}

/// A value of a wrong type, worded as Go's decoder does.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum TypeError {
    /// A JSON type that the field cannot hold.
    Mismatch {
        /// What was found: `string`, `number 1.5`, …
        found: String,
        /// The struct whose field it is; empty at the root.
        owner: String,
        /// Dotted path from the root, without indexes.
        path: String,
        /// The type that was wanted, in Go's words.
        wanted: String,
    },
    /// Text that does not parse.
    Malformed(String),
}

// === impl TypeError ===

impl fmt::Display for TypeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mismatch { found, owner, wanted, .. } if owner.is_empty() => {
                write!(f, "json: cannot unmarshal {found} into Go value of type {wanted}")
            }
            Self::Mismatch { found, owner, path, wanted } => {
                write!(
                    f,
                    "json: cannot unmarshal {found} into Go struct field {owner}.{path} of type {wanted}"
                )
            }
            Self::Malformed(message) => f.write_str(message),
        }
    }
}

// === impl Decoded ===

impl Decoded {
    /// Whether nothing was found.
    pub fn is_clean(&self) -> bool {
        self.unknown.is_empty() && self.errors.is_empty()
    }

    fn marks(&self) -> (usize, usize) {
        (self.unknown.len(), self.errors.len())
    }

    /// Puts a field in front of what was found below it since `marks`.
    fn under_field(&mut self, marks: (usize, usize), owner: &Type, name: &str) {
        found::put_before(&mut self.unknown[marks.0..], &name);
        for error in &mut self.errors[marks.1..] {
            if let TypeError::Mismatch { owner: inner, path, .. } = error {
                if inner.is_empty() {
                    *inner = owner.short_name().to_owned();
                    *path = name.to_owned();
                } else {
                    *path = format!("{name}.{path}");
                }
            }
        }
    }

    fn under_index(&mut self, marks: (usize, usize), at: usize) {
        found::put_before(&mut self.unknown[marks.0..], &format_args!("[{at}]"));
    }

    fn under_key(&mut self, marks: (usize, usize), key: &str) {
        found::put_before(&mut self.unknown[marks.0..], &key);
    }

    fn wrong(&mut self, error: TypeError) {
        if self.errors.len() < found::MAX_FOUND {
            self.errors.push(error);
        }
    }

    fn mismatch(&mut self, found: &Value, wanted: impl Into<String>) {
        let found = match found {
            Value::Null => "null".to_owned(),
            Value::Bool(_) => "bool".to_owned(),
            Value::Number(_) => "number".to_owned(),
            Value::String(_) => "string".to_owned(),
            Value::Array(_) => "array".to_owned(),
            Value::Object(_) => "object".to_owned(),
        };
        let (owner, path) = (String::new(), String::new());
        self.wrong(TypeError::Mismatch { found, owner, path, wanted: wanted.into() });
    }
}

// === impl Schemas ===

impl Schemas {
    /// Decodes and normalises a document in one walk.
    pub fn decode(&self, id: TypeId, value: &mut Value) -> Decoded {
        let mut decoded = Decoded::default();
        let declared = self.get(id);
        if let Some(tree) = self.tree(id) {
            self.decode_custom(tree, declared, value, &mut decoded);
            return decoded;
        }
        match value {
            Value::Object(map) => self.object(declared, map, &mut decoded),
            other => decoded.mismatch(other, format!("v1.{}", declared.short_name())),
        }
        decoded
    }

    /// Of a custom resource only the metadata has types of Go.
    fn decode_custom(&self, tree: &Node, declared: &Type, value: &mut Value, decoded: &mut Decoded) {
        tree.prune(value, &mut decoded.unknown);
        let Some(field) = declared.field("metadata") else { return };
        let Some(metadata) = value.get_mut("metadata") else { return };
        let marks = decoded.marks();
        self.value(&field.kind, field, metadata, decoded);
        if decoded.marks() != marks {
            decoded.under_field(marks, declared, "metadata");
        }
    }

    /// Drops unknown fields, nulls and omitted zero values; returns the paths of the unknown fields.
    pub fn prune(&self, id: TypeId, value: &mut Value) -> Vec<String> {
        self.decode(id, value).unknown
    }

    /// The values of a wrong type.
    pub fn check_types(&self, id: TypeId, value: &Value) -> Vec<TypeError> {
        self.decode(id, &mut value.clone()).errors
    }

    fn object(&self, declared: &Type, map: &mut Map<String, Value>, out: &mut Decoded) {
        map.retain(|name, value| {
            let Some(field) = declared.field(name) else {
                found::note(&mut out.unknown, name);
                return false;
            };
            if field.omits(value) {
                return false;
            }
            let marks = out.marks();
            self.value(&field.kind, field, value, out);
            if out.marks() != marks {
                out.under_field(marks, declared, name);
            }
            true
        });
    }

    fn value(&self, kind: &Kind, field: &Field, value: &mut Value, out: &mut Decoded) {
        match (kind, &mut *value) {
            (Kind::String, Value::String(_)) | (Kind::Bool, Value::Bool(_)) | (Kind::Raw | Kind::Open, _) => {
            }
            (Kind::Double, Value::Number(_)) | (Kind::Fields, Value::Object(_)) => {}
            (Kind::Object(id), Value::Object(map)) => self.object(self.get(*id), map, out),
            (Kind::List(inner) | Kind::Wrapped(inner), Value::Array(items)) => {
                for (at, item) in items.iter_mut().enumerate() {
                    let marks = out.marks();
                    self.element(inner, field, item, out);
                    if out.marks() != marks {
                        out.under_index(marks, at);
                    }
                }
            }
            (Kind::Map(inner), Value::Object(map)) => {
                for (key, item) in map {
                    let marks = out.marks();
                    self.element(inner, field, item, out);
                    if out.marks() != marks {
                        out.under_key(marks, key);
                    }
                }
            }
            (Kind::Int32 | Kind::Int64 | Kind::IntOrString, Value::Number(number)) => {
                integer(kind, field, number, out);
            }
            (Kind::IntOrString, Value::String(_)) => {}
            (Kind::Quantity, Value::String(_) | Value::Number(_)) => quantity(value, out),
            (Kind::Time, Value::String(text)) => match time::normalise(text) {
                Ok(None) => {}
                Ok(Some(normal)) => *text = normal,
                Err(error) => out.wrong(TypeError::Malformed(error.to_string())),
            },
            (Kind::MicroTime, Value::String(text)) => match time::normalise_micro(text) {
                Ok(None) => {}
                Ok(Some(normal)) => *text = normal,
                Err(error) => out.wrong(TypeError::Malformed(error.to_string())),
            },
            (Kind::Bytes, Value::String(text)) => bytes(text, out),
            (kind, found) => {
                let found = &*found;
                out.mismatch(found, wanted(self, kind, field));
            }
        }
    }

    /// An item of a list or map, where null stands for the zero value.
    fn element(&self, kind: &Kind, field: &Field, value: &mut Value, out: &mut Decoded) {
        if value.is_null() {
            *value = match kind {
                Kind::String | Kind::Bytes => Value::String(String::new()),
                Kind::Int32 | Kind::Int64 | Kind::IntOrString => Value::from(0),
                Kind::Quantity => Value::from("0"),
                Kind::Bool => Value::Bool(false),
                Kind::Object(_) | Kind::Map(_) => Value::Object(Map::new()),
                Kind::List(_) | Kind::Wrapped(_) => Value::Array(Vec::new()),
                _ => return,
            };
        }
        self.value(kind, field, value, out);
    }
}

fn integer(kind: &Kind, field: &Field, number: &serde_json::Number, out: &mut Decoded) {
    let fits = match kind {
        Kind::Int64 => number.as_i64().is_some(),
        _ => number.as_i64().is_some_and(|number| i32::try_from(number).is_ok()),
    };
    if !fits {
        let wanted = match kind {
            Kind::IntOrString => "int32".to_owned(),
            kind => element_type(kind, field),
        };
        let (owner, path) = (String::new(), String::new());
        out.wrong(TypeError::Mismatch { found: format!("number {number}"), owner, path, wanted });
    }
}

fn quantity(value: &mut Value, out: &mut Decoded) {
    let text = match &*value {
        Value::Number(number) => number.to_string(),
        Value::String(text) => text.clone(),
        _ => return,
    };
    match text.parse::<Quantity>() {
        Ok(parsed) => {
            let canonical = parsed.to_string();
            if value.as_str() != Some(&canonical) {
                *value = Value::String(canonical);
            }
        }
        Err(error) => out.wrong(TypeError::Malformed(error.to_string())),
    }
}

fn bytes(text: &mut String, out: &mut Decoded) {
    if text.contains(['\n', '\r']) {
        text.retain(|letter| letter != '\n' && letter != '\r');
    }
    if base64::engine::general_purpose::STANDARD.decode(text.as_bytes()).is_ok() {
        return;
    }
    let at = text
        .bytes()
        .position(|byte| !byte.is_ascii_alphanumeric() && byte != b'+' && byte != b'/')
        .unwrap_or(text.len() / 4 * 4);
    out.wrong(TypeError::Malformed(format!("illegal base64 data at input byte {at}")));
}

/// The wanted type in Go's words.
fn wanted(schemas: &Schemas, kind: &Kind, field: &Field) -> String {
    match kind {
        Kind::Quantity | Kind::Time | Kind::MicroTime => "string".to_owned(),
        Kind::IntOrString => "int32".to_owned(),
        Kind::Object(id) => format!("v1.{}", schemas.get(*id).short_name()),
        kind if *kind == field.kind && !field.go.is_empty() => go_type(&field.go),
        kind => element_type(kind, field),
    }
}

/// The type of a field, or of an item of it, in Go's words.
fn element_type(kind: &Kind, field: &Field) -> String {
    if *kind == field.kind && !field.go.is_empty() {
        return go_type(&field.go);
    }
    let element = field.go.strip_prefix("[]").or_else(|| field.go.split_once(']').map(|(_, value)| value));
    match (element, kind) {
        (Some(element), _) if !element.is_empty() => go_type(element),
        (_, Kind::String) => "string".to_owned(),
        (_, Kind::Int32) => "int32".to_owned(),
        (_, Kind::Int64) => "int64".to_owned(),
        (_, Kind::Bool) => "bool".to_owned(),
        (_, Kind::Double) => "float64".to_owned(),
        (_, Kind::Bytes) => "[]uint8".to_owned(),
        (_, Kind::List(_) | Kind::Wrapped(_)) => "[]string".to_owned(),
        (_, Kind::Map(_)) => "map[string]string".to_owned(),
        _ => "interface {}".to_owned(),
    }
}

/// A Go type as its `String` method prints it: named types carry their package's name.
fn go_type(go: &str) -> String {
    let go = go.trim_start_matches('*');
    if let Some(element) = go.strip_prefix("[]") {
        return match element {
            "byte" => "[]uint8".to_owned(),
            element => format!("[]{}", go_element(element)),
        };
    }
    if let Some((key, value)) = go.strip_prefix("map[").and_then(|rest| rest.split_once(']')) {
        return format!("map[{}]{}", go_type(key), go_element(value));
    }
    match go.split_once('.') {
        Some(("metav1" | "corev1" | "v1" | "authenticationv1", name)) => format!("v1.{name}"),
        Some(_) => go.to_owned(),
        None if go.starts_with(|letter: char| letter.is_ascii_uppercase()) => format!("v1.{go}"),
        None => go.to_owned(),
    }
}

fn go_element(element: &str) -> String {
    match element.strip_prefix('*') {
        Some(pointed) => format!("*{}", go_type(pointed)),
        None => go_type(element),
    }
}
