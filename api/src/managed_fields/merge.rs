//! A configuration merged into a live object: what it names is as it says, the rest stays.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde_json::{Map, Value};

use super::shape::Shape;
use crate::schema::Schemas;

/// Merges `config` into `live`.
pub(super) fn merge(schemas: &Schemas, shape: Shape<'_>, live: &Value, config: &Value) -> Value {
    match (shape, live, config) {
        (Shape::Leaf, _, config) => config.clone(),
        (_, live, Value::Null) => live.clone(),
        (Shape::Struct(_) | Shape::Map(_) | Shape::Open, Value::Object(live), Value::Object(config)) => {
            merge_maps(schemas, shape, live, config)
        }
        (Shape::Set | Shape::Keyed(..), Value::Array(live), Value::Array(config)) => {
            Value::Array(merge_lists(schemas, shape, live, config))
        }
        (_, _, config) => config.clone(),
    }
}

fn merge_maps(
    schemas: &Schemas,
    shape: Shape<'_>,
    live: &Map<String, Value>,
    config: &Map<String, Value>,
) -> Value {
    let mut merged = live.clone();
    for (name, value) in config {
        let value = match live.get(name) {
            Some(live) => merge(schemas, shape.below(schemas, name), live, value),
            None => value.clone(),
        };
        merged.insert(name.clone(), value);
    }
    Value::Object(merged)
}

/// Items by their elements, the first of each.
struct Side<'v> {
    items: &'v [Value],
    elements: Vec<String>,
    first: BTreeMap<String, &'v Value>,
}

impl<'v> Side<'v> {
    fn new(schemas: &Schemas, shape: Shape<'_>, items: &'v [Value]) -> Side<'v> {
        let elements: Vec<String> = items.iter().map(|item| shape.element(schemas, item)).collect();
        let mut first = BTreeMap::new();
        for (element, item) in elements.iter().zip(items) {
            first.entry(element.clone()).or_insert(item);
        }
        Side { items, elements, first }
    }

    fn has(&self, element: &str) -> bool {
        self.first.contains_key(element)
    }
}

/// Merges two lists. Items of the configuration are in its order; the live list's own stay behind the items that they
/// were behind, as far as the two orders allow it.
fn merge_lists(schemas: &Schemas, shape: Shape<'_>, live: &[Value], config: &[Value]) -> Vec<Value> {
    let (live, config) = (Side::new(schemas, shape, live), Side::new(schemas, shape, config));
    let both = |element: &str| {
        let wanted = config.first.get(element).copied().unwrap_or(&Value::Null);
        match live.first.get(element) {
            Some(live) => merge(schemas, shape.item(schemas), live, wanted),
            None => wanted.clone(),
        }
    };
    let mut shared: VecDeque<&str> =
        config.elements.iter().map(String::as_str).filter(|element| live.has(element)).collect();
    let mut next_shared = shared.pop_front();
    let mut merged = BTreeSet::new();
    let mut out = Vec::with_capacity(live.items.len() + config.items.len());
    let (mut left, mut right) = (0, 0);
    while left < live.items.len() || right < config.items.len() {
        if let (Some(own), Some(wanted)) = (live.elements.get(left), config.elements.get(right)) {
            if own == wanted {
                merged.insert(own.as_str());
                out.push(both(own));
                (left, right) = (left + 1, right + 1);
                next_shared = shared.pop_front();
                continue;
            }
            if config.has(own) && next_shared.is_some_and(|next| next != own) {
                left += 1;
                continue;
            }
        }
        if let Some(own) = live.elements.get(left) {
            if !config.has(own) {
                out.push(live.items[left].clone());
                left += 1;
                continue;
            }
            if merged.contains(own.as_str()) {
                left += 1;
            }
        }
        if let Some(wanted) = config.elements.get(right) {
            merged.insert(wanted);
            out.push(both(wanted));
            right += 1;
            if next_shared == Some(wanted) {
                next_shared = shared.pop_front();
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::schema;

    fn check(live: &[&str], config: &[&str], expected: &[&str]) {
        let named = |names: &[&str]| -> Value { names.iter().map(|name| json!({"name": name})).collect() };
        let schemas = schema::builtin();
        let pod = schemas.get(schemas.by_name("core.v1.PodSpec").expect("pod spec"));
        let live = json!({"containers": named(live), "restartPolicy": "Always"});
        let merged = merge(schemas, Shape::Struct(pod), &live, &json!({"containers": named(config)}));
        assert_eq!(merged, json!({"containers": named(expected), "restartPolicy": "Always"}));
    }

    #[test]
    fn lists_keep_the_order_of_the_configuration() {
        check(&["a", "b", "c"], &["b"], &["a", "b", "c"]);
        check(&["a", "b"], &["b", "a"], &["b", "a"]);
        check(&["a", "x", "b"], &["b", "a"], &["x", "b", "a"]);
        check(&["x", "a", "y"], &["n", "a"], &["x", "n", "a", "y"]);
        check(&[], &["a"], &["a"]);
        check(&["a"], &[], &["a"]);
    }
}
