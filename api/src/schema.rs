//! The schema engine: one table of types that pruning, type checks, defaults, patches, field ownership, OpenAPI and
//! the protobuf transcoder all read.

use std::{collections::BTreeMap, sync::LazyLock};

use serde_json::Value;

use crate::catalogue::Name;

mod decode;
mod defaulting;
pub(crate) mod structural;
mod table;

pub use decode::{Decoded, TypeError};

/// A type's place in its table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TypeId(pub(crate) u32);

/// All types of one table.
#[derive(Debug)]
pub struct Schemas {
    /// The table whose types come before the own ones.
    base: Option<&'static Schemas>,
    types: Vec<Type>,
    by_name: BTreeMap<Name, TypeId>,
    docs: Option<&'static [u8]>,
    /// What holds for the first own type, where it is that of a custom resource.
    root: Option<Box<structural::Node>>,
}

/// An object type with known fields.
#[derive(Clone, Debug, Default)]
pub struct Type {
    /// Short full name: `core.v1.Pod`, `meta.v1.ObjectMeta`.
    pub name: Name,
    /// Fields, sorted by name.
    pub fields: Vec<Field>,
    /// Whether the object is owned and replaced as one.
    pub atomic: bool,
    /// Whether there may be fields that are not known.
    pub open: bool,
    /// Fields by protobuf number, sorted.
    pub wire: Vec<(u32, Wire)>,
    /// Whether this type, or one below it, declares defaults.
    pub(crate) defaults_below: bool,
    /// Index of the type's text; those of its fields follow.
    pub(crate) doc: usize,
}

/// What a protobuf number leads to.
#[derive(Clone, Debug)]
pub enum Wire {
    /// A field of the type.
    Field(usize),
    /// A message that JSON flattens into the type.
    Inline(Vec<(u32, Wire)>),
}

/// A field of an object type.
#[derive(Clone, Debug)]
pub struct Field {
    /// Name in JSON.
    pub name: Name,
    /// What it holds.
    pub kind: Kind,
    /// The type in Go, for the words of errors; empty where it is not known.
    pub go: Name,
    /// Whether the schema demands it.
    pub required: bool,
    /// Whether Go leaves out its zero value.
    pub omitempty: bool,
    /// How a list is owned and merged by server-side apply.
    pub list_type: ListType,
    /// What identifies an item of a [`ListType::Map`].
    pub list_keys: Vec<Name>,
    /// Whether a map or object is owned as one.
    pub atomic_map: bool,
    /// How strategic merge patch treats it.
    pub strategy: PatchStrategy,
    /// What identifies an item of a list to strategic merge patch.
    pub merge_key: Option<Name>,
    /// Declared default.
    pub default: Option<Value>,
}

/// What a field, an item or a map's value holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Text.
    String,
    /// 32-bit integer.
    Int32,
    /// 64-bit integer.
    Int64,
    /// Truth value.
    Bool,
    /// Floating-point number.
    Double,
    /// Bytes, as base64 in JSON.
    Bytes,
    /// An integer or text.
    IntOrString,
    /// A quantity such as `100m`.
    Quantity,
    /// Time to the second.
    Time,
    /// Time to the microsecond.
    MicroTime,
    /// A field set.
    Fields,
    /// Any JSON, owned as one.
    Raw,
    /// Any JSON, objects owned entry by entry.
    Open,
    /// An object with known fields.
    Object(TypeId),
    /// A list.
    List(Box<Kind>),
    /// A map from text.
    Map(Box<Kind>),
    /// A list that protobuf wraps into a message of its own.
    Wrapped(Box<Kind>),
}

/// How a list is owned and merged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ListType {
    /// As one.
    #[default]
    Atomic,
    /// By value.
    Set,
    /// By keys.
    Map,
}

/// How strategic merge patch treats a field.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PatchStrategy {
    /// A list is merged by key or value.
    pub merge: bool,
    /// The patch may name the keys that stay.
    pub retain_keys: bool,
    /// The value is replaced.
    pub replace: bool,
}

/// The built-in types.
pub fn builtin() -> &'static Schemas {
    static BUILTIN: LazyLock<Schemas> = LazyLock::new(|| {
        let mut schemas = table::load(include_str!("../schemas.txt"));
        schemas.docs = Some(include_bytes!("../schemas-docs.zlib"));
        schemas
    });
    &BUILTIN
}

// === impl TypeId ===

impl TypeId {
    /// The type of what has no schema: no field of it is known.
    pub const UNKNOWN: TypeId = TypeId(u32::MAX);
}

// === impl Schemas ===

impl Schemas {
    /// The type of a kind. Kinds that every group shares (`DeleteOptions`, `Status`) are found in any group.
    pub fn type_of(&self, group: &str, version: &str, kind: &str) -> Option<TypeId> {
        let package = match group {
            "" => "core",
            group => group.split('.').next().unwrap_or(group),
        };
        self.by_name(&format!("{package}.{version}.{kind}")).or_else(|| {
            let shared = matches!(kind, "DeleteOptions" | "Status");
            shared.then(|| self.by_name(&format!("meta.v1.{kind}"))).flatten()
        })
    }

    /// The type of that short name, such as `core.v1.PodSpec`.
    pub fn by_name(&self, name: &str) -> Option<TypeId> {
        self.by_name.get(name).copied()
    }

    /// The type itself.
    pub fn get(&self, id: TypeId) -> &Type {
        static NOTHING: LazyLock<Type> = LazyLock::new(Type::default);
        let at = id.0 as usize;
        let found = match self.base {
            None => self.types.get(at),
            Some(base) => base.types.get(at).or_else(|| self.types.get(at - base.types.len())),
        };
        found.unwrap_or(&NOTHING)
    }

    /// The type of every custom resource in its own table.
    pub(crate) fn first_custom() -> TypeId {
        TypeId(builtin().types.len() as u32)
    }

    /// The tree of a custom resource, if `id` is its type.
    pub(crate) fn tree(&self, id: TypeId) -> Option<&structural::Node> {
        self.root.as_deref().filter(|_| id == Schemas::first_custom())
    }

    /// Checks a custom resource; `old` is what it was before.
    pub(crate) fn check(&self, object: &Value, old: Option<&Value>) -> Vec<crate::field::FieldError> {
        self.root.as_ref().map(|root| root.check(object, old)).unwrap_or_default()
    }

    /// All types.
    pub fn types(&self) -> impl Iterator<Item = (TypeId, &Type)> {
        (0..).map(TypeId).zip(&self.types)
    }

    /// The field that a dotted path leads to, lists and maps passed through.
    pub fn field_at(&self, id: TypeId, path: &str) -> Option<&Field> {
        let (first, rest) = path.split_once('.').map_or((path, None), |(first, rest)| (first, Some(rest)));
        let field = self.get(id).field(first)?;
        match rest {
            None => Some(field),
            Some(rest) => self.field_at(field.kind.object()?, rest),
        }
    }

    /// The texts of all types and fields, decoded anew: they are asked for seldom and take memory.
    pub(crate) fn texts(&self) -> Vec<String> {
        use std::io::Read as _;
        let mut text = String::new();
        let Some(docs) = self.docs else { return Vec::new() };
        match flate2::read::ZlibDecoder::new(docs).read_to_string(&mut text) {
            Ok(_) => text.split('\0').map(str::to_owned).collect(),
            Err(_) => Vec::new(),
        }
    }
}

// === impl Type ===

impl Type {
    /// The field of that name.
    pub fn field(&self, name: &str) -> Option<&Field> {
        self.field_index(name).map(|at| &self.fields[at])
    }

    pub(crate) fn field_index(&self, name: &str) -> Option<usize> {
        self.fields.binary_search_by(|field| (*field.name).cmp(name)).ok()
    }

    /// The type's name without package: `Pod`.
    pub fn short_name(&self) -> &str {
        self.name.rsplit('.').next().unwrap_or(&self.name)
    }
}

// === impl Field ===

impl Field {
    /// Whether Go holds it by pointer, so that zero and absent differ.
    pub fn pointer(&self) -> bool {
        self.go.is_empty() || self.go.starts_with('*')
    }

    /// Whether Go would not write `value`.
    pub fn omits(&self, value: &Value) -> bool {
        let leaves_out = if self.go.is_empty() { !self.required } else { self.omitempty };
        match value {
            Value::Null => true,
            Value::Array(items) => leaves_out && items.is_empty(),
            Value::Object(map) => leaves_out && map.is_empty() && matches!(self.kind, Kind::Map(_)),
            _ if !leaves_out || self.pointer() => false,
            Value::String(text) => text.is_empty() && matches!(self.kind, Kind::String | Kind::Bytes),
            Value::Bool(flag) => !flag,
            Value::Number(number) => {
                number.as_i64() == Some(0) && matches!(self.kind, Kind::Int32 | Kind::Int64)
            }
        }
    }
}

// === impl Kind ===

impl Kind {
    /// The object type that it holds, lists and maps passed through.
    pub fn object(&self) -> Option<TypeId> {
        match self {
            Kind::Object(id) => Some(*id),
            Kind::List(inner) | Kind::Map(inner) | Kind::Wrapped(inner) => inner.object(),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
