//! Three-way merge: from what was applied before, what is to be applied and what is there to a patch that changes only
//! what the user says, and removes what the user no longer says.

use api::schema::{Field, Kind, Schemas, TypeId};
use serde_json::{Map, Value, json};

/// The three documents of a merge.
#[derive(Clone, Copy, Debug)]
pub struct Documents<'a> {
    /// What was applied before.
    pub original: &'a Value,
    /// What is to be applied.
    pub modified: &'a Value,
    /// What is there.
    pub current: &'a Value,
}

/// A strategic merge patch: lists are merged by the keys that the schema names. `None`: nothing is to be done.
pub fn strategic(schemas: &Schemas, id: TypeId, documents: Documents) -> Option<Value> {
    object(Some((schemas, id)), documents)
}

/// A JSON merge patch, for kinds without a known schema. `None`: nothing is to be done.
pub fn json_merge(documents: Documents) -> Option<Value> {
    object(None, documents)
}

type Schema<'a> = Option<(&'a Schemas, TypeId)>;

fn object(schema: Schema<'_>, documents: Documents<'_>) -> Option<Value> {
    let nothing = Map::new();
    let original = documents.original.as_object().unwrap_or(&nothing);
    let current = documents.current.as_object().unwrap_or(&nothing);
    let modified = documents.modified.as_object().unwrap_or(&nothing);
    let mut patch = Map::new();
    for (name, wanted) in modified {
        let field = schema.and_then(|(schemas, id)| schemas.get(id).field(name));
        match current.get(name) {
            None if wanted.is_null() => {}
            None => {
                patch.insert(name.clone(), wanted.clone());
            }
            Some(present) => {
                let before = original.get(name).unwrap_or(&Value::Null);
                let three = Documents { original: before, modified: wanted, current: present };
                member(schema, field, name, three, &mut patch);
            }
        }
    }
    for name in original.keys() {
        if !modified.contains_key(name) && current.contains_key(name) {
            patch.insert(name.clone(), Value::Null);
        }
    }
    (!patch.is_empty()).then_some(Value::Object(patch))
}

fn member(
    schema: Schema<'_>,
    field: Option<&Field>,
    name: &str,
    documents: Documents<'_>,
    patch: &mut Map<String, Value>,
) {
    let Documents { modified, current, .. } = documents;
    match (modified, current) {
        (Value::Object(wanted), Value::Object(_)) => {
            let inner = match field.map(|field| &field.kind) {
                Some(Kind::Object(id)) => schema.map(|(schemas, _)| (schemas, *id)),
                // Text by key, such as labels: merged key by key.
                _ => None,
            };
            if let Some(Value::Object(mut changes)) = object(inner, documents) {
                if field.is_some_and(|field| field.strategy.retain_keys) {
                    let keys: Vec<&String> = wanted.keys().collect();
                    changes.insert("$retainKeys".to_owned(), json!(keys));
                }
                patch.insert(name.to_owned(), Value::Object(changes));
            }
        }
        (Value::Array(_), Value::Array(_)) => match (schema, field) {
            (Some((schemas, _)), Some(field)) if field.strategy.merge => {
                match (&field.merge_key, field.kind.object()) {
                    (Some(key), Some(id)) => keyed_list((schemas, id), field, key, name, documents, patch),
                    _ => scalar_list(name, documents, patch),
                }
            }
            _ if same(modified, current) => {}
            _ => {
                patch.insert(name.to_owned(), modified.clone());
            }
        },
        (modified, current) if same(modified, current) => {}
        _ => {
            patch.insert(name.to_owned(), modified.clone());
        }
    }
}

/// Items that are known by one of their fields.
fn keyed_list(
    (schemas, id): (&Schemas, TypeId),
    field: &Field,
    key: &str,
    name: &str,
    documents: Documents<'_>,
    patch: &mut Map<String, Value>,
) {
    let (wanted, present, before) =
        (items(documents.modified), items(documents.current), items(documents.original));
    if wanted.iter().any(|item| item.get(key).is_none()) {
        // An item without its key cannot be merged: the server says so in its own words.
        if !same(documents.modified, documents.current) {
            patch.insert(name.to_owned(), documents.modified.clone());
        }
        return;
    }
    let find = |list: &[&Value], item: &Value| -> Option<Value> {
        list.iter()
            .find(|other| other.get(key).is_some_and(|value| Some(value) == item.get(key)))
            .map(|found| (*found).clone())
    };
    let mut changes = Vec::new();
    for item in &wanted {
        let Some(there) = find(&present, item) else {
            changes.push((*item).clone());
            continue;
        };
        let was = find(&before, item).unwrap_or(Value::Null);
        let three = Documents { original: &was, modified: item, current: &there };
        if let Some(Value::Object(mut change)) = object(Some((schemas, id)), three) {
            if let Some(value) = item.get(key) {
                change.insert(key.to_owned(), value.clone());
            }
            if field.strategy.retain_keys {
                let keys: Vec<&String> = item.as_object().into_iter().flat_map(Map::keys).collect();
                change.insert("$retainKeys".to_owned(), json!(keys));
            }
            changes.push(Value::Object(change));
        }
    }
    for item in &before {
        if find(&wanted, item).is_none() && find(&present, item).is_some() {
            let mut gone = Map::from_iter([("$patch".to_owned(), json!("delete"))]);
            gone.extend(item.get(key).map(|value| (key.to_owned(), value.clone())));
            changes.push(Value::Object(gone));
        }
    }
    let order: Vec<&Value> = wanted.iter().filter_map(|item| item.get(key)).collect();
    let there: Vec<&Value> =
        present.iter().filter_map(|item| item.get(key)).filter(|value| order.contains(value)).collect();
    let moved = there.len() == order.len() && there != order;
    if !changes.is_empty() || moved {
        let places: Vec<Value> = order.iter().map(|value| json!({ key: value })).collect();
        patch.insert(format!("$setElementOrder/{name}"), Value::Array(places));
    }
    if !changes.is_empty() {
        patch.insert(name.to_owned(), Value::Array(changes));
    }
}

/// Values that are merged as a set, such as finalizers.
fn scalar_list(name: &str, documents: Documents<'_>, patch: &mut Map<String, Value>) {
    let (wanted, present, before) =
        (items(documents.modified), items(documents.current), items(documents.original));
    let added: Vec<&&Value> = wanted.iter().filter(|value| !present.contains(value)).collect();
    let gone: Vec<&&Value> =
        before.iter().filter(|value| !wanted.contains(value) && present.contains(value)).collect();
    if added.is_empty() && gone.is_empty() {
        return;
    }
    patch.insert(format!("$setElementOrder/{name}"), json!(wanted));
    if !added.is_empty() {
        patch.insert(name.to_owned(), json!(added));
    }
    if !gone.is_empty() {
        patch.insert(format!("$deleteFromPrimitiveList/{name}"), json!(gone));
    }
}

fn items(list: &Value) -> Vec<&Value> {
    list.as_array().map(|items| items.iter().collect()).unwrap_or_default()
}

/// Equal, `1` and `1.0` included.
fn same(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Number(left), Value::Number(right)) => left == right || left.as_f64() == right.as_f64(),
        (Value::Array(left), Value::Array(right)) => {
            left.len() == right.len() && left.iter().zip(right).all(|(left, right)| same(left, right))
        }
        (Value::Object(left), Value::Object(right)) => {
            left.len() == right.len()
                && left.iter().all(|(name, value)| right.get(name).is_some_and(|other| same(value, other)))
        }
        _ => left == right,
    }
}

#[cfg(test)]
mod tests;
