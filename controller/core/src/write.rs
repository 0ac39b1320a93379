//! The writes that a plan is made of, as data.

use serde_json::Value;

/// A resource type by its catalogue name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Resource {
    /// API group, empty for the core group.
    pub group: String,
    /// Version.
    pub version: String,
    /// Plural name as in the URL.
    pub plural: String,
}

impl Resource {
    /// A resource type.
    pub fn new(group: &str, version: &str, plural: &str) -> Self {
        Resource { group: group.into(), version: version.into(), plural: plural.into() }
    }
}

/// The address of one object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Target {
    /// Its type.
    pub resource: Resource,
    /// Its namespace, None for a cluster-scoped one.
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
}

/// What must still be true of the target.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Precondition {
    /// Its uid.
    pub uid: Option<String>,
    /// Its revision.
    pub resource_version: Option<String>,
}

/// How the body of a patch is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PatchKind {
    /// RFC 6902.
    Json,
    /// RFC 7386.
    Merge,
    /// Kubernetes' strategic merge.
    Strategic,
}

/// What becomes of the dependents of a deleted object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    /// They go first.
    Foreground,
    /// They go afterwards.
    Background,
    /// They stay.
    Orphan,
}

/// One write to the API.
#[derive(Clone, Debug, PartialEq)]
pub enum Write {
    /// Creates an object.
    Create {
        /// Its type.
        resource: Resource,
        /// Its namespace.
        namespace: Option<String>,
        /// The whole document.
        object: Value,
    },
    /// Changes an object.
    Patch {
        /// Which.
        target: Target,
        /// `status`, `finalize`, …
        subresource: Option<String>,
        /// What must hold.
        precondition: Precondition,
        /// How the body is meant.
        kind: PatchKind,
        /// The change.
        body: Value,
    },
    /// Deletes an object.
    Delete {
        /// Which.
        target: Target,
        /// What must hold.
        precondition: Precondition,
        /// Overrides the object's own.
        grace_period_seconds: Option<i64>,
        /// Overrides the kind's own.
        propagation: Option<Propagation>,
    },
    /// Deletes all objects of a type in a namespace.
    DeleteCollection {
        /// Their type.
        resource: Resource,
        /// The namespace.
        namespace: String,
    },
    /// Replaces the finalizers of a namespace's spec through its `finalize` subresource.
    Finalize {
        /// The namespace.
        target: Target,
        /// What must hold.
        precondition: Precondition,
        /// Those that remain.
        finalizers: Vec<String>,
    },
}
