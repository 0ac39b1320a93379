//! Writes as data: what planners decide and shells carry out.

use serde_json::{Value, json};

use crate::events::EventNote;
use crate::object::{Kind, ObjectKey, ResourceType, Target};

/// One write. Leaves nothing to decide: the API server checks its preconditions again at commit.
#[derive(Clone, Debug, PartialEq)]
pub enum Write {
    /// Creates an object.
    Create {
        /// Its resource.
        resource: ResourceType,
        /// Empty for cluster-scoped objects.
        namespace: String,
        /// The whole object.
        object: Value,
    },
    /// Creates a subresource object, such as `pods/binding` or `pods/eviction`.
    CreateSub {
        /// The object that has the subresource.
        target: Target,
        /// For example `eviction`.
        subresource: &'static str,
        /// The document to post.
        object: Value,
    },
    /// Changes an object in part.
    Patch {
        /// The object.
        target: Target,
        /// For example `status`.
        subresource: Option<&'static str>,
        /// What must still be true.
        precondition: Precondition,
        /// How `body` is to be read.
        kind: PatchKind,
        /// The patch document.
        body: Value,
    },
    /// Deletes an object.
    Delete {
        /// The object.
        target: Target,
        /// What must still be true.
        precondition: Precondition,
        /// Overrides the object's own grace period.
        grace_period_seconds: Option<i64>,
        /// What becomes of its dependents.
        propagation: Option<Propagation>,
    },
    /// Tells users what happened to an object; best effort.
    Event(EventNote),
}

/// What must still be true of an object when a write to it commits. Empty: nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Precondition {
    /// It is still the same object.
    pub uid: Option<String>,
    /// It has not changed.
    pub resource_version: Option<String>,
}

/// The dialects of patches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PatchKind {
    /// RFC 6902.
    Json,
    /// RFC 7386.
    Merge,
    /// Kubernetes' own: lists merge by key.
    Strategic,
    /// Server-side apply (the field manager is the client's).
    Apply,
}

/// What becomes of the dependents of a deleted object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    /// They stay, without the owner.
    Orphan,
    /// They are collected after the owner is gone.
    Background,
    /// The owner stays until they are gone.
    Foreground,
}

// === impl Write ===

impl Write {
    /// Creates `object` of a typed kind.
    ///
    /// # Errors
    /// When the object cannot be written as JSON.
    pub fn create<K: Kind>(object: &K) -> Result<Self, serde_json::Error> {
        Ok(Self::Create {
            resource: ResourceType::of::<K>(),
            namespace: crate::object::Object::namespace(object).to_owned(),
            object: serde_json::to_value(object)?,
        })
    }

    /// A strategic merge patch of an object's status.
    pub fn patch_status<K: Kind>(object: &K, status: Value) -> Self {
        Self::Patch {
            target: Target::to(object),
            subresource: Some("status"),
            precondition: Precondition::uid_of(object),
            kind: PatchKind::Strategic,
            body: json!({ "status": status }),
        }
    }

    /// A merge patch of an object, if it is still the same one.
    pub fn patch_merge<K: Kind>(object: &K, body: Value) -> Self {
        Self::Patch {
            target: Target::to(object),
            subresource: None,
            precondition: Precondition::uid_of(object),
            kind: PatchKind::Merge,
            body,
        }
    }

    /// Deletes an object, if it is still the same one, with its defaults.
    pub fn delete<K: Kind>(object: &K) -> Self {
        Self::Delete {
            target: Target::to(object),
            precondition: Precondition::uid_of(object),
            grace_period_seconds: None,
            propagation: None,
        }
    }

    /// The key of the object that it is about (its name may be empty for a create with `generateName`).
    pub fn key(&self) -> ObjectKey {
        match self {
            Self::Create { namespace, object, .. } => {
                let name = object.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
                ObjectKey::new(namespace.as_str(), name)
            }
            Self::CreateSub { target, .. } | Self::Patch { target, .. } | Self::Delete { target, .. } => {
                target.key.clone()
            }
            Self::Event(note) => ObjectKey::new(
                note.regarding.namespace.as_deref().unwrap_or_default(),
                note.regarding.name.as_deref().unwrap_or_default(),
            ),
        }
    }
}

// === impl Precondition ===

impl Precondition {
    /// Nothing is asked.
    pub fn none() -> Self {
        Self::default()
    }

    /// It is still the same object.
    pub fn uid_of(object: &impl crate::object::Object) -> Self {
        Self { uid: object.metadata().uid.clone(), resource_version: None }
    }

    /// It is the same object and has not changed.
    pub fn unchanged(object: &impl crate::object::Object) -> Self {
        Self {
            uid: object.metadata().uid.clone(),
            resource_version: object.metadata().resource_version.clone(),
        }
    }

    /// Whether nothing is asked.
    pub fn is_empty(&self) -> bool {
        self.uid.is_none() && self.resource_version.is_none()
    }

    /// Writes the precondition into a patch: as `test` operations, or as metadata that must agree.
    pub fn add_to_patch(&self, kind: PatchKind, body: &mut Value) {
        let facts = [("uid", &self.uid), ("resourceVersion", &self.resource_version)];
        let facts = facts.iter().filter_map(|(name, value)| value.as_ref().map(|value| (*name, value)));
        match (kind, body) {
            (PatchKind::Json, Value::Array(operations)) => {
                let tests: Vec<Value> = facts
                    .map(|(name, value)| json!({"op": "test", "path": format!("/metadata/{name}"), "value": value}))
                    .collect();
                operations.splice(0..0, tests);
            }
            (_, Value::Object(body)) => {
                for (name, value) in facts {
                    let metadata = body.entry("metadata").or_insert_with(|| json!({}));
                    if let Value::Object(metadata) = metadata {
                        metadata.insert(name.to_owned(), Value::String(value.clone()));
                    }
                }
            }
            _ => {}
        }
    }
}

// === impl PatchKind ===

impl PatchKind {
    /// The media type that names the dialect.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Json => "application/json-patch+json",
            Self::Merge => "application/merge-patch+json",
            Self::Strategic => "application/strategic-merge-patch+json",
            Self::Apply => "application/apply-patch+yaml",
        }
    }
}

// === impl Propagation ===

impl Propagation {
    /// As DeleteOptions spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Orphan => "Orphan",
            Self::Background => "Background",
            Self::Foreground => "Foreground",
        }
    }
}

/// The body of a delete request.
pub fn delete_options(
    precondition: &Precondition,
    grace_period_seconds: Option<i64>,
    propagation: Option<Propagation>,
) -> Value {
    let mut options = json!({"apiVersion": "v1", "kind": "DeleteOptions"});
    if let Value::Object(map) = &mut options {
        if !precondition.is_empty() {
            let mut wanted = serde_json::Map::new();
            if let Some(uid) = &precondition.uid {
                wanted.insert("uid".to_owned(), json!(uid));
            }
            if let Some(version) = &precondition.resource_version {
                wanted.insert("resourceVersion".to_owned(), json!(version));
            }
            map.insert("preconditions".to_owned(), Value::Object(wanted));
        }
        if let Some(grace) = grace_period_seconds {
            map.insert("gracePeriodSeconds".to_owned(), json!(grace));
        }
        if let Some(propagation) = propagation {
            map.insert("propagationPolicy".to_owned(), json!(propagation.as_str()));
        }
    }
    options
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn preconditions_in_patches() {
        let precondition = Precondition { uid: Some("u".into()), resource_version: Some("7".into()) };
        let mut merge = json!({"metadata": {"labels": {"a": "b"}}});
        precondition.add_to_patch(PatchKind::Merge, &mut merge);
        assert_eq!(merge, json!({"metadata": {"labels": {"a": "b"}, "uid": "u", "resourceVersion": "7"}}));
        let mut json_patch = json!([{"op": "remove", "path": "/spec/x"}]);
        precondition.add_to_patch(PatchKind::Json, &mut json_patch);
        assert_eq!(
            json_patch,
            json!([
                {"op": "test", "path": "/metadata/uid", "value": "u"},
                {"op": "test", "path": "/metadata/resourceVersion", "value": "7"},
                {"op": "remove", "path": "/spec/x"}
            ])
        );
    }

    #[test]
    fn delete_options_say_only_what_is_asked() {
        assert_eq!(
            delete_options(&Precondition::none(), None, None),
            json!({"apiVersion": "v1", "kind": "DeleteOptions"})
        );
        let precondition = Precondition { uid: Some("u".into()), resource_version: None };
        assert_eq!(
            delete_options(&precondition, Some(0), Some(Propagation::Foreground)),
            json!({"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"uid": "u"},
                   "gracePeriodSeconds": 0, "propagationPolicy": "Foreground"})
        );
    }
}
