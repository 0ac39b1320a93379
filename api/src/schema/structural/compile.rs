//! The tree of a custom resource as types of a table: what ownership and merging of fields read.

use super::{Additional, JsonType, Node};
use crate::catalogue::Name;
use crate::schema::{Field, Kind, ListType, PatchStrategy, Schemas, Type, TypeId};

/// Puts the types of a whole object into a table. The first of them is that of the object itself.
pub(in crate::schema) fn types(root: &Node, name: Name, first: TypeId, meta: Option<TypeId>) -> Vec<Type> {
    let mut types = Types { types: Vec::new(), first, meta };
    types.object(root, name, true);
    types.types.shrink_to_fit();
    types.types
}

struct Types {
    types: Vec<Type>,
    first: TypeId,
    /// The type of metadata.
    meta: Option<TypeId>,
}

impl Types {
    /// Adds the type of an object with named fields.
    fn object(&mut self, node: &Node, name: Name, whole: bool) -> TypeId {
        let at = self.types.len();
        self.types.push(Type::default());
        let mut fields = Vec::new();
        for (field, below) in node.properties.iter() {
            if !(whole && matches!(field, "apiVersion" | "kind" | "metadata")) {
                fields.push(self.field(field, below));
            }
        }
        if whole {
            fields.push(plain("apiVersion", Kind::String));
            fields.push(plain("kind", Kind::String));
            fields.push(plain("metadata", self.meta.map_or(Kind::Open, Kind::Object)));
        }
        fields.sort_by(|a, b| a.name.cmp(&b.name));
        fields.shrink_to_fit();
        self.types[at] = Type { name, fields, atomic: node.atomic, open: node.is_open(), ..Type::default() };
        TypeId(self.first.0 + at as u32)
    }

    fn field(&mut self, name: &str, node: &Node) -> Field {
        Field {
            list_type: node.list,
            list_keys: node.list_keys.iter().map(|key| Name::Owned(key.to_string())).collect(),
            atomic_map: node.atomic,
            default: node.default.as_deref().cloned(),
            ..plain(name, self.kind(node))
        }
    }

    fn kind(&mut self, node: &Node) -> Kind {
        match node.kind {
            Some(JsonType::Object) => match &node.additional {
                Additional::Of(value) => Kind::Map(Box::new(self.kind(value))),
                Additional::Anything => Kind::Open,
                Additional::Nothing if node.properties.is_empty() && !node.embedded => Kind::Open,
                Additional::Nothing => Kind::Object(self.object(node, Name::Borrowed(""), node.embedded)),
            },
            Some(JsonType::Array) => Kind::List(Box::new(match &node.items {
                Some(items) => self.kind(items),
                None => Kind::Open,
            })),
            Some(JsonType::Boolean) => Kind::Bool,
            Some(JsonType::Integer) => Kind::Int64,
            Some(JsonType::Number) => Kind::Double,
            Some(JsonType::String) => Kind::String,
            None if node.int_or_string => Kind::IntOrString,
            None => Kind::Open,
        }
    }
}

/// A field of which nothing but its name and kind is said.
fn plain(name: &str, kind: Kind) -> Field {
    Field {
        name: Name::Owned(name.to_owned()),
        kind,
        go: Name::Borrowed(""),
        required: false,
        omitempty: false,
        list_type: ListType::Atomic,
        list_keys: Vec::new(),
        atomic_map: false,
        strategy: PatchStrategy::default(),
        merge_key: None,
        default: None,
    }
}

impl Schemas {
    /// The table of one version of a custom resource: `name` is what its type is published as.
    pub(crate) fn custom(name: String, schema: &serde_json::Value) -> Schemas {
        let base = super::super::builtin();
        let root = Node::read(schema);
        let first = Schemas::first_custom();
        let types = types(&root, Name::Owned(name), first, base.by_name("meta.v1.ObjectMeta"));
        Schemas {
            base: Some(base),
            types,
            by_name: Default::default(),
            docs: None,
            root: Some(Box::new(root)),
        }
    }
}
