//! The types of CEL, as expressions are checked with them.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use super::document::escaped;

/// A type.
#[derive(Clone, Debug, PartialEq)]
pub enum Type {
    /// Not known before evaluation.
    Dyn,
    /// That of `null`.
    Null,
    /// True or false.
    Bool,
    /// A signed whole number.
    Int,
    /// An unsigned whole number.
    Uint,
    /// A floating-point number.
    Double,
    /// A text.
    String,
    /// Bytes.
    Bytes,
    /// A point in time.
    Timestamp,
    /// A span of time.
    Duration,
    /// That of types.
    Type,
    /// A list.
    List(Arc<Type>),
    /// A map, by its keys and values.
    Map(Arc<Type>, Arc<Type>),
    /// A value that may be missing.
    Optional(Arc<Type>),
    /// An object with declared fields.
    Object(Arc<Object>),
    /// What only functions can look into, by its name.
    Opaque(&'static str),
    /// What an expression builds by a type's name, such as `Object.spec{}`.
    Struct(Arc<str>),
    /// Any type, the same wherever it stands in one signature.
    Parameter(u8),
    /// A type that is still to be found.
    Open(usize),
}

/// An object with declared fields.
#[derive(Debug)]
pub struct Object {
    /// Its name, for messages.
    pub name: Box<str>,
    /// Its fields, named as expressions name them.
    pub fields: BTreeMap<Box<str>, Arc<Declared>>,
}

/// A type, and how much of it there can be.
#[derive(Debug)]
pub struct Declared {
    /// The type.
    pub kind: Type,
    /// The most items, entries, or letters that a value can have.
    pub most: u64,
    /// The fewest bytes that a value takes as JSON.
    pub least_bytes: u64,
    /// What a list or a map consists of.
    pub items: Option<Arc<Declared>>,
}

// === impl Type ===

impl Type {
    /// A list of that.
    pub fn list(self) -> Type {
        Type::List(Arc::new(self))
    }

    /// A map from texts to that.
    pub fn map(self) -> Type {
        Type::Map(Arc::new(Type::String), Arc::new(self))
    }

    /// That, if it is there.
    pub fn optional(self) -> Type {
        Type::Optional(Arc::new(self))
    }

    /// Whether values have a size of their own: all that are not texts, bytes or containers.
    pub(super) fn is_scalar(&self) -> bool {
        match self {
            Type::Bool | Type::Int | Type::Uint | Type::Double | Type::Timestamp | Type::Duration => true,
            Type::Optional(of) => of.is_scalar(),
            _ => false,
        }
    }

    /// A type by the name that expressions have for it.
    pub(super) fn named(name: &str) -> Option<Type> {
        let any = || Arc::new(Type::Dyn);
        Some(match name {
            "bool" => Type::Bool,
            "int" => Type::Int,
            "uint" => Type::Uint,
            "double" => Type::Double,
            "string" => Type::String,
            "bytes" => Type::Bytes,
            "null_type" => Type::Null,
            "type" => Type::Type,
            "list" => Type::List(any()),
            "map" => Type::Map(any(), any()),
            "dyn" => Type::Dyn,
            "optional_type" => Type::Optional(any()),
            "google.protobuf.Timestamp" => Type::Timestamp,
            "google.protobuf.Duration" => Type::Duration,
            _ => Type::Opaque(OPAQUE.iter().map(|(_, name)| *name).find(|known| *known == name)?),
        })
    }

    /// The name of a type without what it is of, as `type()` tells it.
    pub(super) fn name(&self) -> &str {
        match self {
            Type::Dyn | Type::Parameter(_) | Type::Open(_) => "dyn",
            Type::Null => "null_type",
            Type::Bool => "bool",
            Type::Int => "int",
            Type::Uint => "uint",
            Type::Double => "double",
            Type::String => "string",
            Type::Bytes => "bytes",
            Type::Timestamp => "google.protobuf.Timestamp",
            Type::Duration => "google.protobuf.Duration",
            Type::Type => "type",
            Type::List(_) => "list",
            Type::Map(..) => "map",
            Type::Optional(_) => "optional_type",
            Type::Object(object) => &object.name,
            Type::Opaque(name) => name,
            Type::Struct(name) => name,
        }
    }
}

/// The opaque types: how signatures write them, and their names.
pub(super) const OPAQUE: &[(&str, &str)] = &[
    ("URL", "kubernetes.URL"),
    ("IP", "net.IP"),
    ("CIDR", "net.CIDR"),
    ("Quantity", "kubernetes.Quantity"),
    ("Semver", "kubernetes.Semver"),
    ("Format", "kubernetes.NamedFormat"),
    ("Authorizer", "kubernetes.authorization.Authorizer"),
    ("PathCheck", "kubernetes.authorization.PathCheck"),
    ("GroupCheck", "kubernetes.authorization.GroupCheck"),
    ("ResourceCheck", "kubernetes.authorization.ResourceCheck"),
    ("Decision", "kubernetes.authorization.Decision"),
];

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Type::Null => f.write_str("null"),
            Type::Timestamp => f.write_str("timestamp"),
            Type::Duration => f.write_str("duration"),
            Type::List(of) => write!(f, "list({of})"),
            Type::Map(key, value) => write!(f, "map({key}, {value})"),
            Type::Optional(of) => write!(f, "optional_type({of})"),
            other => f.write_str(other.name()),
        }
    }
}

// Two objects are of one type if they are declared in one place.
impl PartialEq for Object {
    fn eq(&self, other: &Object) -> bool {
        self.name == other.name
    }
}

// === impl Declared ===

impl Declared {
    /// A type of which nothing more is known.
    pub fn plain(kind: Type) -> Declared {
        Declared { kind, most: 0, least_bytes: 1, items: None }
    }

    /// A field of an object.
    pub(super) fn field(&self, name: &str) -> Option<&Arc<Declared>> {
        match &self.kind {
            Type::Object(object) => object.field(name),
            _ => None,
        }
    }
}

impl Object {
    /// A field by the name that an expression has for it. Words of the language can be written as they are, too.
    pub(super) fn field(&self, name: &str) -> Option<&Arc<Declared>> {
        self.fields.get(name).or_else(|| self.fields.get(&*escaped(name)?))
    }

    /// An object type with those fields, of which nothing more is known.
    pub fn of<'f>(name: &str, fields: impl IntoIterator<Item = (&'f str, Type)>) -> Type {
        let fields =
            fields.into_iter().map(|(name, kind)| (name.into(), Arc::new(Declared::plain(kind)))).collect();
        Type::Object(Arc::new(Object { name: name.into(), fields }))
    }
}
