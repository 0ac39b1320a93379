//! Sets of field paths in their stored form.

use serde_json::{Map, Value};

const SELF: &str = ".";

/// A set of field paths.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSet(Map<String, Value>);

// === impl FieldSet ===

impl FieldSet {
    /// The set as it is stored.
    pub fn as_map(&self) -> &Map<String, Value> {
        &self.0
    }

    /// The set as it is stored.
    pub fn into_map(self) -> Map<String, Value> {
        self.0
    }

    /// Whether it has no member.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes a path element at the root, and all below it, out of the set.
    pub fn forget(&mut self, element: &str) {
        self.0.remove(element);
    }

    /// Adds the members of another set.
    pub fn union(&mut self, other: FieldSet) {
        union(&mut self.0, other.0);
    }

    /// Takes out the members of another set.
    pub fn subtract(&mut self, other: &FieldSet) {
        subtract(&mut self.0, &other.0);
    }

    /// Whether a path, given by its elements, is a member.
    pub fn contains(&self, path: &[&str]) -> bool {
        let mut at = &self.0;
        for element in path {
            match at.get(*element).and_then(Value::as_object) {
                Some(below) => at = below,
                None => return false,
            }
        }
        !path.is_empty() && is_member(at)
    }
}

impl From<Map<String, Value>> for FieldSet {
    fn from(map: Map<String, Value>) -> Self {
        Self(map)
    }
}

/// Whether the path that led to this node is itself in the set.
pub(super) fn is_member(node: &Map<String, Value>) -> bool {
    node.is_empty() || node.contains_key(SELF)
}

/// Puts a node below an element, unless it is nothing.
pub(super) fn put_member(
    set: &mut Map<String, Value>,
    element: String,
    member: bool,
    mut below: Map<String, Value>,
) {
    match (member, below.is_empty()) {
        (false, true) => return,
        (true, false) => {
            below.insert(SELF.to_owned(), nothing());
        }
        _ => {}
    }
    set.insert(element, Value::Object(below));
}

/// The members that both sets have.
pub(super) fn intersection(a: &Map<String, Value>, b: &Map<String, Value>) -> Map<String, Value> {
    let mut both = Map::new();
    for (element, left) in a {
        let (Value::Object(left), Some(Value::Object(right))) = (left, b.get(element)) else { continue };
        if element != SELF {
            put_member(
                &mut both,
                element.clone(),
                is_member(left) && is_member(right),
                intersection(left, right),
            );
        }
    }
    both
}

/// The members of `a` that `b` has not.
pub(super) fn difference(a: &Map<String, Value>, b: &Map<String, Value>) -> Map<String, Value> {
    let mut left = a.clone();
    subtract(&mut left, b);
    left
}

/// Every member, as the elements that lead to it; a parent comes before what is below it.
pub(super) fn each_member<'a>(
    set: &'a Map<String, Value>,
    path: &mut Vec<&'a str>,
    visit: &mut impl FnMut(&[&'a str]),
) {
    let nodes = || {
        set.iter()
            .filter(|(element, _)| *element != SELF)
            .filter_map(|(element, below)| Some((element, below.as_object()?)))
    };
    for (element, _) in nodes().filter(|(_, below)| is_member(below)) {
        path.push(element);
        visit(path);
        path.pop();
    }
    for (element, below) in nodes() {
        path.push(element);
        each_member(below, path, visit);
        path.pop();
    }
}

fn nothing() -> Value {
    Value::Object(Map::new())
}

/// Adds the members of `other` below the root.
pub(super) fn union(set: &mut Map<String, Value>, other: Map<String, Value>) {
    for (element, below) in other {
        let Value::Object(below) = below else { continue };
        match set.get_mut(&element) {
            Some(Value::Object(present)) => {
                let member = is_member(present) || is_member(&below);
                union(present, below);
                if member && !present.is_empty() && !present.contains_key(SELF) {
                    present.insert(SELF.to_owned(), nothing());
                } else if present.len() == 1 && present.contains_key(SELF) {
                    present.clear();
                }
            }
            _ => {
                set.insert(element, Value::Object(below));
            }
        }
    }
}

/// Takes out the members of `other`, each by itself.
pub(super) fn subtract(set: &mut Map<String, Value>, other: &Map<String, Value>) {
    for (element, below) in other {
        let (Some(Value::Object(present)), Value::Object(below)) = (set.get_mut(element), below) else {
            continue;
        };
        let member = is_member(present) && !is_member(below);
        present.remove(SELF);
        subtract(present, below);
        settle(set, element, member);
    }
}

/// Takes out the members of `other` and, where it has a leaf, all that is below it.
pub(super) fn remove(set: &mut Map<String, Value>, other: &Map<String, Value>) {
    for (element, below) in other {
        let Value::Object(below) = below else { continue };
        if below.is_empty() {
            set.remove(element);
            continue;
        }
        let Some(Value::Object(present)) = set.get_mut(element) else { continue };
        let member = is_member(present);
        present.remove(SELF);
        remove(present, below);
        settle(set, element, member);
    }
}

/// Gives a changed node its form: a leaf, an inner node with or without `.`, or nothing.
fn settle(set: &mut Map<String, Value>, element: &str, member: bool) {
    let Some(Value::Object(node)) = set.get_mut(element) else { return };
    match (node.is_empty(), member) {
        (true, false) => {
            set.remove(element);
        }
        (false, true) => {
            node.insert(SELF.to_owned(), nothing());
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn set(value: Value) -> Map<String, Value> {
        value.as_object().cloned().expect("object")
    }

    #[test]
    fn union_and_difference() {
        let mut a = set(json!({"f:a": {}, "f:b": {"f:c": {}}}));
        union(&mut a, set(json!({"f:a": {"f:x": {}}, "f:b": {".": {}}})));
        assert_eq!(
            Value::Object(a.clone()),
            json!({"f:a": {".": {}, "f:x": {}}, "f:b": {".": {}, "f:c": {}}})
        );
        subtract(&mut a, &set(json!({"f:a": {}, "f:b": {"f:c": {}}})));
        assert_eq!(Value::Object(a), json!({"f:a": {"f:x": {}}, "f:b": {}}));
    }

    #[test]
    fn removal_takes_all_below() {
        let mut a = set(json!({"f:a": {"f:x": {}}, "f:b": {".": {}, "f:c": {}}}));
        remove(&mut a, &set(json!({"f:a": {}, "f:b": {"f:c": {}}})));
        assert_eq!(Value::Object(a.clone()), json!({"f:b": {}}));
        assert!(FieldSet::from(a).contains(&["f:b"]));
    }
}
