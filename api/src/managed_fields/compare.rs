//! What a write added, changed and removed, as field sets, in one walk over both versions.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::set::FieldSet;
use super::shape::{Shape, element, item_key};
use crate::schema::{Field, Kind, Schemas, Type, TypeId};

/// What a write did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// What was added or has another value.
    pub changed: FieldSet,
    /// What is gone; a leaf stands for all below it.
    pub removed: FieldSet,
}

/// What was there before.
#[derive(Clone, Copy)]
enum Before<'a> {
    /// Nothing.
    Absent,
    /// What Go writes where nothing was said: structs without members, lists and maps that are null.
    Zero,
    /// A value.
    Value(&'a Value),
}

/// What became of one node.
#[derive(Default)]
struct Node {
    changed: Option<Map<String, Value>>,
    removed: Option<Map<String, Value>>,
}

/// Metadata that the server owns and nobody manages.
const UNMANAGED: [&str; 8] = [
    "creationTimestamp",
    "generation",
    "managedFields",
    "name",
    "namespace",
    "resourceVersion",
    "selfLink",
    "uid",
];

/// What turned `old` into `new`.
pub fn changes(schemas: &Schemas, id: TypeId, old: Option<&Value>, new: &Value) -> Changes {
    let walker = Walker { schemas };
    let node = walker.object(schemas.get(id), old.map_or(Before::Zero, Before::Value), new);
    let set = |set: Option<Map<String, Value>>| FieldSet::from(finish(set.unwrap_or_default()));
    Changes { changed: set(node.changed), removed: set(node.removed) }
}

/// The set without what nobody manages.
pub(super) fn finish(mut set: Map<String, Value>) -> Map<String, Value> {
    set.remove("f:apiVersion");
    set.remove("f:kind");
    if let Some(Value::Object(metadata)) = set.get_mut("f:metadata") {
        metadata
            .retain(|element, _| element.strip_prefix("f:").is_none_or(|name| !UNMANAGED.contains(&name)));
        metadata.remove(".");
        if metadata.is_empty() {
            set.remove("f:metadata");
        }
    }
    set
}

struct Walker<'s> {
    schemas: &'s Schemas,
}

// === impl Before ===

impl<'a> Before<'a> {
    fn is_absent(self) -> bool {
        matches!(self, Before::Absent)
    }

    fn field(self, name: &str, field: Option<&Field>) -> Before<'a> {
        let zero = || match field {
            Some(field) if !field.go.is_empty() && !field.pointer() => match field.kind {
                Kind::Object(_) => Before::Zero,
                Kind::List(_) | Kind::Map(_) if !field.omitempty => Before::Zero,
                _ => Before::Absent,
            },
            _ => Before::Absent,
        };
        match self {
            Before::Absent => Before::Absent,
            Before::Zero => zero(),
            Before::Value(value) => value.get(name).map_or_else(zero, Before::Value),
        }
    }
}

// === impl Node ===

impl Node {
    fn leaf() -> Self {
        Self { changed: Some(Map::new()), removed: None }
    }

    fn put(&mut self, element: impl Fn() -> String, below: Node) {
        if let Some(changed) = below.changed {
            self.changed.get_or_insert_default().insert(element(), Value::Object(changed));
        }
        if let Some(removed) = below.removed {
            self.removed.get_or_insert_default().insert(element(), Value::Object(removed));
        }
    }

    fn gone(&mut self, element: String) {
        self.removed.get_or_insert_default().insert(element, Value::Object(Map::new()));
    }

    /// A container that was not there before is itself added.
    fn added_if(mut self, absent: bool) -> Self {
        if absent {
            let changed = self.changed.get_or_insert_default();
            if !changed.is_empty() {
                changed.insert(".".to_owned(), Value::Object(Map::new()));
            }
        }
        self
    }
}

// === impl Walker ===

impl Walker<'_> {
    fn object(&self, declared: &Type, old: Before<'_>, new: &Value) -> Node {
        let mut node = Node::default();
        let Value::Object(new) = new else { return node };
        for (name, value) in new {
            let field = declared.field(name);
            let before = old.field(name, field);
            let below = match field {
                Some(field) => self.field(field, before, value),
                None if declared.open => self.shaped(Shape::Open, before, value),
                None => leaf(before, value),
            };
            node.put(|| element("f:", name), below);
        }
        if let Before::Value(Value::Object(old)) = old {
            for name in old.keys().filter(|name| !new.contains_key(*name)) {
                node.gone(element("f:", name));
            }
        }
        node
    }

    fn field(&self, field: &Field, old: Before<'_>, new: &Value) -> Node {
        self.shaped(Shape::of_field(self.schemas, field), old, new)
    }

    fn shaped(&self, shape: Shape<'_>, old: Before<'_>, new: &Value) -> Node {
        match (shape, new) {
            (Shape::Struct(declared), Value::Object(_)) => {
                self.object(declared, old, new).added_if(old.is_absent())
            }
            (Shape::Map(inner), Value::Object(new)) => self.map(inner, old, new),
            (Shape::Open, Value::Object(new)) => self.map(&Kind::Open, old, new),
            (Shape::Keyed(field, inner), Value::Array(items)) => self.keyed(field, inner, old, items),
            (Shape::Set, Value::Array(items)) => set(old, items),
            _ => leaf(old, new),
        }
    }

    fn map(&self, inner: &Kind, old: Before<'_>, new: &Map<String, Value>) -> Node {
        let mut node = Node::default();
        let shape = Shape::of_kind(self.schemas, inner);
        for (key, value) in new {
            let before = match old {
                Before::Value(old) => old.get(key).map_or(Before::Absent, Before::Value),
                _ => Before::Absent,
            };
            node.put(|| element("f:", key), self.shaped(shape, before, value));
        }
        if let Before::Value(Value::Object(old)) = old {
            for key in old.keys().filter(|key| !new.contains_key(*key)) {
                node.gone(element("f:", key));
            }
        }
        node.added_if(old.is_absent())
    }

    fn keyed(&self, field: &Field, inner: &Kind, old: Before<'_>, items: &[Value]) -> Node {
        let mut node = Node::default();
        let mut before: BTreeMap<String, &Value> = BTreeMap::new();
        if let Before::Value(Value::Array(old)) = old {
            for item in old {
                before.entry(item_key(self.schemas, field, inner, item)).or_insert(item);
            }
        }
        let mut seen = BTreeSet::new();
        for item in items {
            let key = item_key(self.schemas, field, inner, item);
            if seen.contains(&key) {
                continue;
            }
            let found = before.remove(&key).map_or(Before::Absent, Before::Value);
            let below = self.shaped(Shape::of_kind(self.schemas, inner), found, item);
            node.put(|| key.clone(), below);
            seen.insert(key);
        }
        for key in before.into_keys() {
            node.gone(key);
        }
        node.added_if(old.is_absent())
    }
}

/// A value that is owned as one.
fn leaf(old: Before<'_>, new: &Value) -> Node {
    match old {
        Before::Value(old) if old == new => Node::default(),
        Before::Zero if matches!(new, Value::Object(map) if map.is_empty()) => Node::default(),
        _ => Node::leaf(),
    }
}

fn set(old: Before<'_>, items: &[Value]) -> Node {
    let mut node = Node::default();
    let mut before: BTreeSet<String> = match old {
        Before::Value(Value::Array(old)) => old.iter().map(|item| element("v:", &item.to_string())).collect(),
        _ => BTreeSet::new(),
    };
    let mut seen = BTreeSet::new();
    for item in items {
        let element = element("v:", &item.to_string());
        if !before.remove(&element) && !seen.contains(&element) {
            node.put(|| element.clone(), Node::leaf());
        }
        seen.insert(element);
    }
    for element in before {
        node.gone(element);
    }
    node.added_if(old.is_absent())
}
