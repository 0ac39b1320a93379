//! Declared defaults.

use serde_json::{Map, Value};

use super::{Kind, Schemas, TypeId};

impl Schemas {
    /// Fills in declared defaults.
    pub fn default(&self, id: TypeId, value: &mut Value) {
        if let Some(tree) = self.tree(id) {
            return tree.fill(value);
        }
        if let Value::Object(map) = value {
            self.default_object(id, map);
        }
    }

    fn default_object(&self, id: TypeId, map: &mut Map<String, Value>) {
        let declared = self.get(id);
        if !declared.defaults_below {
            return;
        }
        for field in &declared.fields {
            match &field.default {
                Some(default) if !map.contains_key(&*field.name) => {
                    map.insert(field.name.clone().into_owned(), default.clone());
                }
                Some(_) => {}
                None if field.kind.object().is_some_and(|inner| self.get(inner).defaults_below) => {
                    if let Some(value) = map.get_mut(&*field.name) {
                        self.default_kind(&field.kind, value);
                    }
                }
                None => {}
            }
        }
    }

    fn default_kind(&self, kind: &Kind, value: &mut Value) {
        match (kind, value) {
            (Kind::Object(id), Value::Object(map)) => self.default_object(*id, map),
            (Kind::List(inner) | Kind::Wrapped(inner), Value::Array(items)) => {
                items.iter_mut().for_each(|item| self.default_kind(inner, item));
            }
            (Kind::Map(inner), Value::Object(map)) => {
                map.values_mut().for_each(|value| self.default_kind(inner, value));
            }
            _ => {}
        }
    }
}
