//! What a cache keeps of an object that it knows by its metadata only.
//!
//! Garbage collection and the deletion of namespaces follow every object of the cluster: which one it is, who owns it, and
//! what holds it. Most objects have neither owners nor finalizers, so that a footprint takes little memory.

use std::borrow::Cow;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time};
use serde::Deserialize;

use crate::cache::Cached;
use crate::object::ObjectKey;
use crate::uid::Uid;

/// Which object it is, who owns it, and what holds it.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(from = "Document")]
pub struct Footprint {
    key: ObjectKey,
    uid: Uid,
    version: Version,
    ties: Option<Box<Ties>>,
}

/// What holds an object, and whom it depends on.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ties {
    /// When its deletion was asked for.
    pub deletion_timestamp: Option<Time>,
    /// Its finalizers.
    pub finalizers: Vec<String>,
    /// Its owners.
    pub owners: Vec<OwnerReference>,
}

/// A resource version: a number, wherever it comes from an API server.
#[derive(Clone, Debug, PartialEq)]
enum Version {
    Number(u64),
    Text(Box<str>),
}

/// The object as it comes, whole or as a `PartialObjectMetadata`.
#[derive(Deserialize)]
struct Document {
    #[serde(default)]
    metadata: Metadata,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Metadata {
    name: Option<String>,
    namespace: Option<String>,
    uid: Option<String>,
    resource_version: Option<String>,
    deletion_timestamp: Option<Time>,
    finalizers: Option<Vec<String>>,
    owner_references: Option<Vec<OwnerReference>>,
}

// === impl Footprint ===

impl Footprint {
    /// Namespace (empty when it has none) and name.
    pub fn key(&self) -> &ObjectKey {
        &self.key
    }

    /// The uid.
    pub fn uid(&self) -> &Uid {
        &self.uid
    }

    /// The resource version as a number; 0 where it is none.
    pub fn revision(&self) -> u64 {
        match self.version {
            Version::Number(number) => number,
            Version::Text(_) => 0,
        }
    }

    /// What holds it, and whom it depends on; most objects have nothing of the kind.
    pub fn ties(&self) -> Option<&Ties> {
        self.ties.as_deref()
    }

    /// The metadata that is known.
    pub fn metadata(&self) -> ObjectMeta {
        let text = |text: String| Some(text).filter(|text| !text.is_empty());
        let Ties { deletion_timestamp, finalizers, owners } = self.ties().cloned().unwrap_or_default();
        ObjectMeta {
            name: text(self.key.name.to_string()),
            namespace: text(self.key.namespace.to_string()),
            uid: text(self.uid.to_string()),
            resource_version: text(self.version().into_owned()),
            deletion_timestamp,
            finalizers: Some(finalizers).filter(|finalizers| !finalizers.is_empty()),
            owner_references: Some(owners).filter(|owners| !owners.is_empty()),
            ..ObjectMeta::default()
        }
    }
}

impl Cached for Footprint {
    fn identity(&self) -> ObjectKey {
        self.key.clone()
    }

    fn version(&self) -> Cow<'_, str> {
        match &self.version {
            Version::Number(number) => Cow::Owned(number.to_string()),
            Version::Text(text) => Cow::Borrowed(text),
        }
    }

    fn adopt(&mut self, key: &ObjectKey) {
        self.key = key.clone();
    }
}

impl From<Document> for Footprint {
    fn from(document: Document) -> Self {
        let Metadata {
            name,
            namespace,
            uid,
            resource_version,
            deletion_timestamp,
            finalizers,
            owner_references,
        } = document.metadata;
        let ties = Ties {
            deletion_timestamp,
            finalizers: finalizers.unwrap_or_default(),
            owners: owner_references.unwrap_or_default(),
        };
        Self {
            key: ObjectKey::new(namespace.unwrap_or_default(), name.unwrap_or_default()),
            uid: Uid::from(uid.as_deref().unwrap_or_default()),
            version: Version::from(resource_version.unwrap_or_default()),
            ties: (ties != Ties::default()).then(|| Box::new(ties)),
        }
    }
}

// === impl Version ===

impl From<String> for Version {
    fn from(text: String) -> Self {
        match text.parse::<u64>() {
            Ok(number) if number.to_string() == text => Self::Number(number),
            _ => Self::Text(text.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::PartialObject;

    /// Of the metadata nothing is lost but what a footprint does not keep.
    fn check(json: &str, is_tied: bool) {
        let footprint: Footprint = serde_json::from_str(json).expect("a footprint");
        let mut whole: PartialObject = serde_json::from_str(json).expect("an object");
        assert_eq!(footprint.version(), whole.metadata.resource_version.clone().unwrap_or_default());
        whole.metadata.labels = None;
        assert_eq!(footprint.metadata(), whole.metadata);
        assert_eq!(footprint.ties().is_some(), is_tied);
    }

    #[test]
    fn what_matters_is_kept() {
        check(
            r#"{"kind":"K","metadata":{"name":"a","namespace":"n","uid":"6f1e0f3a-8a3b-4c59-9f0e-2f9d8f4b7c11","resourceVersion":"7","labels":{"a":"b"}},"spec":{"x":1}}"#,
            false,
        );
        check(
            r#"{"metadata":{"name":"a","uid":"u","resourceVersion":"007","deletionTimestamp":"2026-01-02T03:04:05Z","finalizers":["f"],"ownerReferences":[{"apiVersion":"v1","kind":"K","name":"o","uid":"w"}]}}"#,
            true,
        );
        check("{}", false);
    }

    #[test]
    fn one_takes_little() {
        assert!(std::mem::size_of::<Footprint>() <= 80);
    }
}
