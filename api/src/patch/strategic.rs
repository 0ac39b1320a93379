//! Strategic merge patch: what a merge patch is, with lists merged by key, and directives.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::{PatchError, ordering};
use crate::schema::{Field, Kind, Schemas, TypeId};

const DIRECTIVE: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const DELETE_PRIMITIVE: &str = "$deleteFromPrimitiveList/";
const RETAIN_KEYS_WORDS: &str = "invalid patch format of retainKeys";
const SET_ORDER: &str = "$setElementOrder/";

/// What is known of the place that is patched.
#[derive(Clone, Copy)]
struct Context<'s> {
    schemas: &'s Schemas,
    id: Option<TypeId>,
}

/// How one list is merged.
struct ListRule<'s> {
    context: Context<'s>,
    merge: bool,
    key: Option<&'s str>,
}

/// Applies a patch to a whole object.
pub(super) fn apply(
    schemas: &Schemas,
    id: TypeId,
    document: &mut Value,
    patch: &Value,
) -> Result<(), PatchError> {
    let (Value::Object(original), Value::Object(patch)) = (document, patch) else {
        return Err(malformed("a strategic merge patch must be an object".to_owned()));
    };
    Context { schemas, id: Some(id) }.merge_map(original, patch.clone())
}

fn malformed(message: String) -> PatchError {
    PatchError::Malformed(message)
}

// === impl Context ===

impl<'s> Context<'s> {
    fn field(&self, name: &str) -> Option<&'s Field> {
        self.schemas.get(self.id?).field(name)
    }

    /// The context of a field's value, or of the items of its list.
    fn below(&self, name: &str) -> Context<'s> {
        let id = self.field(name).and_then(|field| match &field.kind {
            Kind::Object(id) => Some(*id),
            Kind::List(inner) => inner.object(),
            _ => None,
        });
        Context { schemas: self.schemas, id }
    }

    fn list_rule(&self, name: &str) -> ListRule<'s> {
        let field = self.field(name);
        ListRule {
            context: self.below(name),
            merge: field.is_some_and(|field| field.strategy.merge),
            key: field.and_then(|field| field.merge_key.as_deref()),
        }
    }

    fn merge_map(
        &self,
        original: &mut Map<String, Value>,
        mut patch: Map<String, Value>,
    ) -> Result<(), PatchError> {
        match patch.remove(DIRECTIVE) {
            None => {}
            Some(Value::String(word)) => match word.as_str() {
                "replace" => {
                    *original = patch;
                    return Ok(());
                }
                "delete" => {
                    original.clear();
                    return Ok(());
                }
                "merge" => {}
                other => return Err(malformed(format!("unknown patch type: {other}"))),
            },
            Some(other) => return Err(malformed(format!("unknown patch type: {other}"))),
        }
        if let Some(retained) = patch.remove(RETAIN_KEYS) {
            retain_keys(original, &patch, &retained)?;
        }
        self.set_orders(original, &mut patch)?;
        for (name, value) in patch {
            if let Some(name) = name.strip_prefix(DELETE_PRIMITIVE) {
                delete_primitives(original, name, &value)?;
            } else {
                self.merge_field(original, name, value)?;
            }
        }
        Ok(())
    }

    fn merge_field(
        &self,
        original: &mut Map<String, Value>,
        name: String,
        value: Value,
    ) -> Result<(), PatchError> {
        if value.is_null() {
            original.remove(&name);
            return Ok(());
        }
        let replace = self.field(&name).is_some_and(|field| field.strategy.replace);
        match (original.get_mut(&name), value) {
            (Some(Value::Object(present)), Value::Object(value)) if !replace => {
                self.below(&name).merge_map(present, value)
            }
            (Some(Value::Array(present)), Value::Array(value)) => {
                let merged = self.list_rule(&name).merge(std::mem::take(present), value)?;
                *present = merged;
                Ok(())
            }
            (_, mut value) => {
                drop_directives(&mut value);
                original.insert(name, value);
                Ok(())
            }
        }
    }

    /// Merges the lists whose order the patch names, and orders them.
    fn set_orders(
        &self,
        original: &mut Map<String, Value>,
        patch: &mut Map<String, Value>,
    ) -> Result<(), PatchError> {
        let orders: Vec<String> = patch.keys().filter(|name| name.starts_with(SET_ORDER)).cloned().collect();
        for directive in orders {
            let Some(Value::Array(order)) = patch.remove(&directive) else {
                return Err(malformed(format!("{directive} must be a list")));
            };
            let name = &directive[SET_ORDER.len()..];
            let rule = self.list_rule(name);
            let before = match original.get(name) {
                Some(Value::Array(items)) => Some(items.clone()),
                _ => None,
            };
            match patch.get(name) {
                Some(Value::Array(items)) => check_order(items, &order, rule.key)?,
                Some(_) => continue,
                None => {}
            }
            let merged = match (before.clone(), patch.remove(name)) {
                (Some(present), Some(Value::Array(items))) => rule.merge(present, items)?,
                (Some(present), _) => present,
                (None, Some(mut items)) => {
                    drop_directives(&mut items);
                    match items {
                        Value::Array(items) => items,
                        _ => continue,
                    }
                }
                (None, None) => continue,
            };
            let before = before.unwrap_or_default();
            let ordered = ordering::enforce(merged, &order, &before, rule.key);
            original.insert(name.to_owned(), Value::Array(ordered));
        }
        Ok(())
    }
}

// === impl ListRule ===

impl ListRule<'_> {
    fn merge(&self, original: Vec<Value>, patch: Vec<Value>) -> Result<Vec<Value>, PatchError> {
        if !self.merge {
            let mut replaced = Value::Array(patch);
            drop_directives(&mut replaced);
            return Ok(match replaced {
                Value::Array(items) => items,
                _ => Vec::new(),
            });
        }
        let objects = original.iter().chain(&patch).any(Value::is_object);
        let key = match self.key {
            Some(key) if objects => key,
            None if objects => {
                return Err(malformed("cannot merge lists of objects without a merge key".to_owned()));
            }
            _ => {
                let mut known = ordering::places(&original, None);
                let mut merged = original.clone();
                for item in &patch {
                    if known.insert(ordering::identity(item, None), merged.len()).is_none() {
                        merged.push(item.clone());
                    }
                }
                return Ok(ordering::enforce(merged, &patch, &original, None));
            }
        };
        self.merge_objects(original, patch, key)
    }

    fn merge_objects(
        &self,
        mut original: Vec<Value>,
        patch: Vec<Value>,
        key: &str,
    ) -> Result<Vec<Value>, PatchError> {
        let (mut items, mut replace) = (Vec::with_capacity(patch.len()), false);
        let mut deleted = BTreeSet::new();
        for mut item in patch {
            let Value::Object(map) = &mut item else {
                return Err(malformed(format!("expected an object with merge key {key:?}, found {item}")));
            };
            match map.get(DIRECTIVE).and_then(Value::as_str) {
                None => items.push(item),
                Some("merge") => {
                    map.remove(DIRECTIVE);
                    items.push(item);
                }
                Some("replace") => replace = true,
                Some("delete") => {
                    let Some(value) = map.get(key) else {
                        return Err(malformed(format!(
                            "delete patch type with no merge key defined: {item}"
                        )));
                    };
                    deleted.insert(value.to_string());
                }
                Some(other) => return Err(malformed(format!("unknown patch type: {other}"))),
            }
        }
        if replace {
            return Ok(items);
        }
        if !deleted.is_empty() {
            original.retain(|present| !deleted.contains(&ordering::identity(present, Some(key))));
        }
        let (before, order) = (original.clone(), items.clone());
        let mut known = ordering::places(&original, Some(key));
        for item in items {
            if item.get(key).is_none() {
                return Err(malformed(format!("map: {item} does not contain declared merge key: {key}")));
            }
            let found = known.entry(ordering::identity(&item, Some(key))).or_insert(original.len());
            match (original.get_mut(*found), item) {
                (Some(Value::Object(present)), Value::Object(item)) => {
                    self.context.merge_map(present, item)?
                }
                (_, mut item) => {
                    drop_directives(&mut item);
                    original.push(item);
                }
            }
        }
        Ok(ordering::enforce(original, &order, &before, Some(key)))
    }
}

/// Holds the patch's items against the order that it names: all of them are in it, in the same sequence.
fn check_order(items: &[Value], order: &[Value], key: Option<&str>) -> Result<(), PatchError> {
    let mut ordered = order.iter().map(|item| ordering::identity(item, key));
    let stays =
        |item: &&Value| !matches!(item.get(DIRECTIVE).and_then(Value::as_str), Some("delete" | "replace"));
    let mut kept = items.iter().filter(stays);
    match kept.all(|item| ordered.any(|known| known == ordering::identity(item, key))) {
        true => Ok(()),
        false => Err(malformed(format!(
            "The order in patch list:\n{}\n doesn't match {} list:\n{}\n",
            Value::Array(items.to_vec()),
            SET_ORDER.trim_end_matches('/'),
            Value::Array(order.to_vec())
        ))),
    }
}

fn retain_keys(
    original: &mut Map<String, Value>,
    patch: &Map<String, Value>,
    retained: &Value,
) -> Result<(), PatchError> {
    let Value::Array(retained) = retained else {
        return Err(malformed(RETAIN_KEYS_WORDS.to_owned()));
    };
    let retained: BTreeSet<&str> = retained.iter().filter_map(Value::as_str).collect();
    let keeps = |name: &str| retained.contains(name);
    if patch.iter().any(|(name, value)| !value.is_null() && !name.starts_with('$') && !keeps(name)) {
        return Err(malformed(RETAIN_KEYS_WORDS.to_owned()));
    }
    original.retain(|name, _| keeps(name));
    Ok(())
}

fn delete_primitives(
    original: &mut Map<String, Value>,
    name: &str,
    values: &Value,
) -> Result<(), PatchError> {
    let Value::Array(values) = values else {
        return Err(malformed(format!("{DELETE_PRIMITIVE}{name} must be a list")));
    };
    if let Some(Value::Array(items)) = original.get_mut(name) {
        let values: BTreeSet<String> = values.iter().map(|value| ordering::identity(value, None)).collect();
        items.retain(|item| !values.contains(&ordering::identity(item, None)));
    }
    Ok(())
}

/// Leaves of a value that is taken over as it is only what is no directive and not null.
fn drop_directives(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|name, value| {
                let directive = name == DIRECTIVE
                    || name == RETAIN_KEYS
                    || name.starts_with(DELETE_PRIMITIVE)
                    || name.starts_with(SET_ORDER);
                !directive && !value.is_null()
            });
            map.values_mut().for_each(drop_directives);
        }
        Value::Array(items) => {
            items.retain(|item| {
                !matches!(item.get(DIRECTIVE).and_then(Value::as_str), Some("delete" | "replace"))
            });
            items.iter_mut().for_each(drop_directives);
        }
        _ => {}
    }
}
