//! Server-side apply: a configuration merged into the live object, what it no longer names taken out, and the fields
//! of others left to them.
//!
//! A manager's fields are those of the configuration that it applied last. What it named before and names no longer
//! goes, unless another manager owns it too. A field that would change although another manager owns it is a conflict;
//! forced, it changes hands.

use serde_json::{Map, Value};

use super::conflict::{self, Conflict};
use super::shape::Shape;
use super::{
    Operation, Writer, compare, entries_of, fields_of, finish, is_applied_by, join, merge, set, text, typed,
    update_type,
};
use crate::{
    catalogue::Resource,
    schema::{Schemas, TypeId},
    status::Status,
    strategy,
};

type Fields = Map<String, Value>;
type Entry = Map<String, Value>;

/// Who owns what was written before anyone applied.
const BEFORE_FIRST_APPLY: &str = "before-first-apply";
/// The manager that may take over what kubectl applied on the client's side.
const KUBECTL: &str = "kubectl";
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// All annotations of an object together may not be longer.
const MAX_ANNOTATIONS: usize = 256 * 1024;

/// What an apply comes to.
#[derive(Clone, Debug)]
pub struct Applied {
    /// The object, without managed fields and without defaults for what is new.
    pub object: Value,
    /// The entries of `metadata.managedFields`.
    pub entries: Vec<Value>,
}

/// Why a configuration is not applied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    /// It is of another kind or version than the path.
    #[error("invalid object type: {0}")]
    Kind(String),
    /// It says who manages what.
    #[error("metadata.managedFields must be nil")]
    ManagedFields,
    /// It does not fit the schema.
    #[error("failed to create typed patch object ({object}): {}", listed(.faults))]
    Faults {
        /// Which object.
        object: String,
        /// What is wrong, one line each.
        faults: Vec<String>,
    },
    /// Others own what it changes.
    #[error("{} fields are owned by others", .0.len())]
    Conflicts(Vec<Conflict>),
}

// === impl ApplyError ===

impl ApplyError {
    /// How it is answered.
    pub fn to_status(&self) -> Status {
        match self {
            Self::Kind(_) | Self::ManagedFields => Status::bad_request(self.to_string()),
            Self::Faults { .. } => Status::unexplained(self.to_string()),
            Self::Conflicts(conflicts) => conflict::status(conflicts),
        }
    }
}

fn listed(faults: &[String]) -> String {
    match faults {
        [only] => only.clone(),
        several => format!("errors:\n  {}", several.join("\n  ")),
    }
}

/// Applies `config` to the live object, or to nothing.
///
/// `live` is as it is stored; `config` is as it was sent. The result is to be decoded, defaulted and checked as any
/// other write; a status, or whatever else the path does not write, may still be in it.
pub fn apply(
    schemas: &Schemas,
    resource: &Resource,
    live: Option<&Value>,
    config: &Value,
    writer: &Writer<'_>,
    force: bool,
) -> Result<Applied, ApplyError> {
    let apply = Apply {
        schemas,
        id: resource.schema,
        writer,
        reset: strategy::reset_fields(resource, writer.subresource),
    };
    check(&apply, resource, config)?;
    let empty = Value::Object(Map::new());
    let (mut entries, mut bare) = (entries_of(live), live.unwrap_or(&empty).clone());
    if let Some(metadata) = bare.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
    }
    if let (true, Some(_)) = (entries.is_empty(), live) {
        entries = apply.before_first(resource, &bare);
    }
    let outcome = match apply.run(live.is_some(), &bare, config, &entries, force) {
        Err(conflicts) if writer.manager == KUBECTL => match apply.not_last_applied(&bare, &conflicts) {
            Some(left) if left.is_empty() => apply.run(live.is_some(), &bare, config, &entries, true),
            Some(left) => Err(left),
            None => Err(conflicts),
        },
        outcome => outcome,
    };
    let (mut object, entries) = outcome
        .map_err(|owned| ApplyError::Conflicts(owned.into_iter().flat_map(Owned::conflicts).collect()))?;
    if writer.manager == KUBECTL {
        keep_last_applied(&mut object, config);
    }
    Ok(Applied { object, entries: entries.into_iter().map(Value::Object).collect() })
}

fn check(apply: &Apply<'_>, resource: &Resource, config: &Value) -> Result<(), ApplyError> {
    let word = |name: &str| config.get(name).and_then(Value::as_str).unwrap_or_default();
    let (version, kind) = (word("apiVersion"), word("kind"));
    if version != resource.api_version() || kind != resource.kind {
        let slash = if version.contains('/') { "" } else { "/" };
        return Err(ApplyError::Kind(format!("{slash}{version}, Kind={kind}")));
    }
    let metadata = config.get("metadata");
    if metadata.and_then(|metadata| metadata.get("managedFields")).is_some_and(|fields| !fields.is_null()) {
        return Err(ApplyError::ManagedFields);
    }
    let faults = typed::faults(apply.schemas, apply.shape(), config);
    if faults.is_empty() {
        return Ok(());
    }
    let name = |name: &str| metadata.and_then(|metadata| metadata.get(name)).and_then(Value::as_str);
    let (namespace, name) = (name("namespace").unwrap_or_default(), name("name").unwrap_or_default());
    let slash = if version.contains('/') { "" } else { "/" };
    Err(ApplyError::Faults { object: format!("{namespace}/{name}; {slash}{version}, Kind={kind}"), faults })
}

/// The fields of another manager that an apply would change.
struct Owned {
    entry: Entry,
    fields: Fields,
}

impl Owned {
    fn conflicts(self) -> Vec<Conflict> {
        conflict::of(&self.entry, &self.fields)
    }
}

/// One apply.
struct Apply<'a> {
    schemas: &'a Schemas,
    id: TypeId,
    writer: &'a Writer<'a>,
    /// What the path does not write.
    reset: Fields,
}

// === impl Apply ===

impl<'a> Apply<'a> {
    fn shape(&self) -> Shape<'a> {
        Shape::Struct(self.schemas.get(self.id))
    }

    fn fields(&self, value: &Value) -> Fields {
        typed::fields(self.schemas, self.shape(), value)
    }

    fn named(&self, set: &Fields) -> Fields {
        typed::with_named_parents(self.schemas, self.shape(), set)
    }

    fn without(&self, value: &Value, set: &Fields) -> Value {
        typed::without(self.schemas, self.shape(), value, set)
    }

    /// The entry of all that was there before.
    fn before_first(&self, resource: &Resource, live: &Value) -> Vec<Entry> {
        let writer = Writer {
            manager: BEFORE_FIRST_APPLY,
            operation: Operation::Update,
            subresource: "",
            ..self.writer.clone()
        };
        let mut tracked = live.clone();
        update_type(self.schemas, self.id, resource.has_status(), None, &mut tracked, &writer);
        entries_of(Some(&tracked))
    }

    /// Merges, prunes, and settles who owns what; or says what others own.
    fn run(
        &self,
        exists: bool,
        live: &Value,
        config: &Value,
        entries: &[Entry],
        force: bool,
    ) -> Result<(Value, Vec<Entry>), Vec<Owned>> {
        let merged = merge::merge(self.schemas, self.shape(), live, config);
        let mut set = self.fields(config);
        set::remove(&mut set, &self.reset);
        let own = entries.iter().find(|entry| is_applied_by(entry, self.writer));
        let last = own.map(fields_of).unwrap_or_default();
        let others: Vec<&Entry> = entries.iter().filter(|entry| !is_applied_by(entry, self.writer)).collect();
        // With what nobody manages: the name that every configuration has keeps its metadata.
        let mut new = self.prune(merged, &set, &last, &others);
        // As it would be stored: another way to write the same value is no change. What is wrong with it is told by
        // who decodes the result.
        let _unknown = self.schemas.prune(self.id, &mut new);
        let set = finish(set);

        let old = exists.then_some(live);
        let mut changes = compare::changes(self.schemas, self.id, old, &new);
        let (mut changed, mut removed) = (
            std::mem::take(&mut changes.changed).into_map(),
            std::mem::take(&mut changes.removed).into_map(),
        );
        set::remove(&mut changed, &self.reset);
        set::remove(&mut removed, &self.reset);
        let mut owned = Vec::new();
        for entry in &others {
            let fields = set::intersection(&fields_of(entry), &changed);
            if !fields.is_empty() {
                owned.push(Owned { entry: (*entry).clone(), fields });
            }
        }
        if !force && !owned.is_empty() {
            return Err(owned);
        }
        let same = exists && changed.is_empty() && removed.is_empty();
        let mut kept: Vec<Entry> = others.into_iter().cloned().collect();
        for entry in &mut kept {
            if let Some(Value::Object(fields)) = entry.get_mut("fieldsV1") {
                set::subtract(fields, &changed);
                set::remove(fields, &removed);
            }
        }
        kept.retain(|entry| !fields_of(entry).is_empty());
        match own {
            Some(own) if same && last == set && text(own, "apiVersion") == self.writer.api_version => {
                kept.push(own.clone());
            }
            _ if set.is_empty() => {}
            _ => join(&mut kept, set.into(), self.writer),
        }
        super::cap(&mut kept);
        super::sort(&mut kept);
        Ok((if same { live.clone() } else { new }, kept))
    }

    /// Takes out of `merged` what was applied last and is not any more, unless others own it.
    fn prune(&self, merged: Value, set: &Fields, last: &Fields, others: &[&Entry]) -> Value {
        if last.is_empty() {
            return merged;
        }
        let last = self.named(last);
        let all = self.named(&self.fields(&merged));
        // What others, or the new configuration, own stays with all that leads to it.
        let mut managed = set.clone();
        for entry in others {
            set::union(&mut managed, fields_of(entry));
        }
        let pruned = self.without(&merged, &last);
        let mut stays = self.named(&self.fields(&pruned));
        set::union(&mut stays, self.named(&managed));
        let pruned = self.without(&merged, &set::difference(&all, &stays));
        // Only what was applied last goes.
        let left = self.named(&self.fields(&pruned));
        let gone = set::intersection(&set::difference(&all, &left), &last);
        self.without(&merged, &gone)
    }

    /// The conflicts that are not about what kubectl applied last on the client's side and nobody changed since; `None`
    /// where nothing was applied so.
    fn not_last_applied(&self, live: &Value, owned: &[Owned]) -> Option<Vec<Owned>> {
        let text = live.get("metadata")?.get("annotations")?.get(LAST_APPLIED)?.as_str()?;
        let last: Value = serde_json::from_str(text).ok()?;
        if last.get("apiVersion").and_then(Value::as_str) != Some(self.writer.api_version) {
            return None;
        }
        let mut allowed = self.fields(&last);
        // A field that has another value by now is not kubectl's.
        let changes = compare::changes(self.schemas, self.id, Some(&last), live);
        set::subtract(&mut allowed, changes.changed.as_map());
        set::remove(&mut allowed, changes.removed.as_map());
        let left = owned.iter().map(|owned| Owned {
            entry: owned.entry.clone(),
            fields: set::difference(&owned.fields, &allowed),
        });
        Some(left.filter(|owned| !owned.fields.is_empty()).collect())
    }
}

/// Where an object carries what kubectl applied last on the client's side, it stays true.
fn keep_last_applied(object: &mut Value, config: &Value) {
    let Some(annotations) = object.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) else {
        return;
    };
    if annotations.get(LAST_APPLIED).and_then(Value::as_str).is_none_or(str::is_empty) {
        return;
    }
    let mut config = config.clone();
    if let Some(own) = config.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) {
        own.remove(LAST_APPLIED);
    }
    // As Go writes JSON: with a newline, and without what HTML would read.
    let mut text = config.to_string();
    for (letter, escaped) in [('<', "\\u003c"), ('>', "\\u003e"), ('&', "\\u0026")] {
        text = text.replace(letter, escaped);
    }
    text.push('\n');
    let others: usize = annotations
        .iter()
        .filter(|(name, _)| *name != LAST_APPLIED)
        .map(|(name, value)| name.len() + value.as_str().map_or(0, str::len))
        .sum();
    if LAST_APPLIED.len() + text.len() + others > MAX_ANNOTATIONS {
        text.clear();
    }
    annotations.insert(LAST_APPLIED.to_owned(), text.into());
}

#[cfg(test)]
mod tests;
