//! What decoding does to a custom resource: fields that are not specified go, nulls that no field may hold go, and
//! declared defaults come.

use serde_json::{Map, Value};

use super::{Additional, Node};
use crate::json::found;

/// Fields that every object of the API has, whatever its schema says.
const OF_EVERY_OBJECT: [&str; 3] = ["apiVersion", "kind", "metadata"];

impl Node {
    /// Drops the fields of a whole object that are not specified; their paths go to `unknown`, the first hundred of them.
    pub fn prune(&self, object: &mut Value, unknown: &mut Vec<String>) {
        let mut path = String::new();
        self.prune_value(object, true, &mut path, unknown);
    }

    fn prune_value(&self, value: &mut Value, root: bool, path: &mut String, unknown: &mut Vec<String>) {
        match value {
            Value::Object(map) => self.prune_map(map, root || self.embedded, path, unknown),
            Value::Array(items) => {
                let Some(node) = &self.items else { return };
                for (at, item) in items.iter_mut().enumerate() {
                    let length = path.len();
                    path.push_str(&format!("[{at}]"));
                    node.prune_value(item, false, path, unknown);
                    path.truncate(length);
                }
            }
            _ => {}
        }
    }

    fn prune_map(
        &self,
        map: &mut Map<String, Value>,
        whole: bool,
        path: &mut String,
        unknown: &mut Vec<String>,
    ) {
        map.retain(|name, value| {
            if whole && OF_EVERY_OBJECT.contains(&name.as_str()) {
                return true;
            }
            let length = path.len();
            if !path.is_empty() {
                path.push('.');
            }
            path.push_str(name);
            let kept = match self.member(name) {
                Some(node) => {
                    node.prune_value(value, false, path, unknown);
                    true
                }
                None => self.preserve || matches!(self.additional, Additional::Anything),
            };
            if !kept {
                found::note(unknown, path);
            }
            path.truncate(length);
            kept
        });
    }

    /// Fills in declared defaults, and takes out the nulls of fields that may not be null.
    pub fn fill(&self, value: &mut Value) {
        match value {
            Value::Object(map) => {
                for (name, node) in self.properties.iter() {
                    let Some(default) = &node.default else { continue };
                    if map.get(name).is_none_or(|value| value.is_null() && !node.nullable) {
                        map.insert(name.to_owned(), Value::clone(default));
                    }
                }
                map.retain(|name, value| {
                    let Some(node) = self.member(name) else { return true };
                    node.fill(value);
                    !value.is_null() || node.nullable || node.takes_anything()
                });
            }
            Value::Array(items) => {
                if let Some(node) = &self.items {
                    items.iter_mut().for_each(|item| node.fill(item));
                }
            }
            _ => {}
        }
    }

    /// Nothing is said of the value, not even its type.
    fn takes_anything(&self) -> bool {
        self.kind.is_none() && !self.int_or_string
    }

    /// Whether an object may have members that are not specified.
    pub fn is_open(&self) -> bool {
        self.preserve || matches!(self.additional, Additional::Anything)
    }
}
