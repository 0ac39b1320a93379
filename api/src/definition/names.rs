//! Which names a definition gets: its conditions, its accepted names, and the versions that it remembers.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::{Approval, items, text};

/// Names that a definition has within its group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claims {
    /// Plural, singular and short names.
    pub resources: BTreeSet<Box<str>>,
    /// Kinds of objects and of lists.
    pub kinds: BTreeSet<Box<str>>,
}

// === impl Claims ===

impl Claims {
    /// The names in `status.acceptedNames`.
    pub fn of(names: &Value) -> Claims {
        let one = |field: &str| Some(text(&names[field])).filter(|name| !name.is_empty()).map(Into::into);
        let mut resources: BTreeSet<Box<str>> = ["plural", "singular"].into_iter().filter_map(one).collect();
        resources.extend(items(&names["shortNames"]).iter().map(|name| text(name).into()));
        Claims { resources, kinds: ["kind", "listKind"].into_iter().filter_map(one).collect() }
    }

    /// Takes the names of another one in.
    pub fn join(&mut self, other: &Claims) {
        self.resources.extend(other.resources.iter().cloned());
        self.kinds.extend(other.kinds.iter().cloned());
    }
}

/// Whether a condition of a definition is true.
pub(super) fn is(definition: &Value, kind: &str) -> bool {
    items(&definition["status"]["conditions"])
        .iter()
        .any(|condition| condition["type"] == kind && condition["status"] == "True")
}

/// Gives a definition the names that it asks for, as far as no other definition of its group has them, and says so in its
/// conditions. `taken` are the names of the others, `time` is now.
///
/// Settling again what was settled changes nothing.
pub fn settle(definition: &mut Value, taken: &Claims, time: &str) {
    let wanted = definition["spec"]["names"].clone();
    let mut accepted = definition["status"]["acceptedNames"].clone();
    if !accepted.is_object() {
        accepted = Value::Object(Map::new());
    }
    let mut conflict = None;
    for (field, reason, claimed) in [
        ("plural", "PluralConflict", &taken.resources),
        ("singular", "SingularConflict", &taken.resources),
        ("shortNames", "ShortNamesConflict", &taken.resources),
        ("kind", "KindConflict", &taken.kinds),
        ("listKind", "ListKindConflict", &taken.kinds),
    ] {
        let names: Vec<&str> = match &wanted[field] {
            Value::Array(several) => several.iter().map(text).collect(),
            one => vec![text(one)],
        };
        let mut used = names.iter().filter(|name| claimed.contains(**name));
        match used.next() {
            Some(name) if accepted[field] != wanted[field] => {
                conflict = Some((reason, format!("{} is already in use", crate::field::quote(name))));
            }
            _ => set(&mut accepted, field, wanted[field].clone()),
        }
    }
    set(&mut accepted, "categories", wanted["categories"].clone());
    let (status, reason, message) = match conflict {
        None => ("True", "NoConflicts", "no conflicts found".to_owned()),
        Some((reason, message)) => ("False", reason, message),
    };
    let free = status == "True";
    condition(definition, "NamesAccepted", (status, reason, &message), time);
    if let Some((status, reason, message)) = Approval::of(definition).condition() {
        condition(definition, "KubernetesAPIApprovalPolicyConformant", (status, reason, &message), time);
    }
    if !is(definition, "Established") {
        let state = match free {
            true => ("True", "InitialNamesAccepted", "the initial names have been accepted"),
            false => ("False", "NotAccepted", "not all names are accepted"),
        };
        condition(definition, "Established", state, time);
    }
    definition["status"]["acceptedNames"] = accepted;
}

/// Says that a definition is being deleted.
pub fn terminating(definition: &mut Value, time: &str) {
    let message = "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon";
    condition(definition, "Terminating", ("True", "InstanceDeletionPending", message), time);
}

fn set(names: &mut Value, field: &str, value: Value) {
    let Value::Object(map) = names else { return };
    match value {
        Value::Null => drop(map.remove(field)),
        value => drop(map.insert(field.to_owned(), value)),
    }
}

/// Sets a condition; its time is that of its last change from true to false or back.
fn condition(definition: &mut Value, kind: &str, state: (&str, &str, &str), time: &str) {
    let (status, reason, message) = state;
    if !definition["status"].is_object() {
        definition["status"] = Value::Object(Map::new());
    }
    let mut conditions = items(&definition["status"]["conditions"]).to_vec();
    let new = |time: Value| {
        json!({"type": kind, "status": status, "reason": reason, "message": message,
        "lastTransitionTime": time})
    };
    match conditions.iter_mut().find(|condition| condition["type"] == kind) {
        Some(known) => {
            let since =
                if known["status"] == status { known["lastTransitionTime"].take() } else { time.into() };
            *known = new(since);
        }
        None => conditions.push(new(time.into())),
    }
    definition["status"]["conditions"] = conditions.into();
}
