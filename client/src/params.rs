//! What can be asked of lists, watches and writes besides the object itself.

use client_core::plan::{PatchKind, Precondition, Propagation};
use serde_json::Value;

/// Which objects a list or watch is about.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ListParams {
    /// For example `app=web,tier!=db`.
    pub label_selector: Option<String>,
    /// For example `spec.nodeName=node-1`.
    pub field_selector: Option<String>,
    /// At most so many objects in one answer.
    pub limit: Option<u32>,
    /// Where the page before ended.
    pub continue_token: Option<String>,
    /// The least, or exact, version.
    pub resource_version: Option<String>,
    /// `NotOlderThan` or `Exact`.
    pub resource_version_match: Option<String>,
}

/// Options of a write.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WriteParams {
    /// Do everything but store.
    pub dry_run: bool,
    /// `Strict`, `Warn` or `Ignore`.
    pub field_validation: Option<String>,
    /// Overrides the client's field manager.
    pub field_manager: Option<String>,
    /// Take fields over that others own (server-side apply).
    pub force: bool,
}

/// A patch and what it goes to.
#[derive(Clone, Debug, PartialEq)]
pub struct Patch {
    /// Its dialect.
    pub kind: PatchKind,
    /// The document.
    pub body: Value,
    /// For example `status`.
    pub subresource: Option<String>,
    /// Options.
    pub params: WriteParams,
}

/// How an object is to be deleted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeleteOptions {
    /// What must still be true.
    pub precondition: Precondition,
    /// Overrides the object's own grace period.
    pub grace_period_seconds: Option<i64>,
    /// What becomes of its dependents.
    pub propagation: Option<Propagation>,
    /// Do everything but delete.
    pub dry_run: bool,
}

/// A path with a query under construction.
#[derive(Debug)]
pub(crate) struct Query {
    path: String,
    separator: char,
}

// === impl ListParams ===

impl ListParams {
    /// Everything.
    pub fn all() -> Self {
        Self::default()
    }

    /// Only objects with these labels.
    #[must_use]
    pub fn labels(mut self, selector: impl Into<String>) -> Self {
        self.label_selector = Some(selector.into());
        self
    }

    /// Only objects with these fields.
    #[must_use]
    pub fn fields(mut self, selector: impl Into<String>) -> Self {
        self.field_selector = Some(selector.into());
        self
    }

    pub(crate) fn add_to(&self, query: &mut Query) {
        query.add_opt("labelSelector", self.label_selector.as_deref());
        query.add_opt("fieldSelector", self.field_selector.as_deref());
        query.add_opt("limit", self.limit.map(|limit| limit.to_string()).as_deref());
        query.add_opt("continue", self.continue_token.as_deref());
        query.add_opt("resourceVersion", self.resource_version.as_deref());
        query.add_opt("resourceVersionMatch", self.resource_version_match.as_deref());
    }
}

// === impl WriteParams ===

impl WriteParams {
    pub(crate) fn add_to(&self, query: &mut Query, manager: Option<&str>) {
        if self.dry_run {
            query.add("dryRun", "All");
        }
        query.add_opt("fieldValidation", self.field_validation.as_deref());
        query.add_opt("fieldManager", self.field_manager.as_deref().or(manager));
        if self.force {
            query.add("force", "true");
        }
    }
}

// === impl Patch ===

impl Patch {
    /// A patch of the object itself.
    pub fn new(kind: PatchKind, body: Value) -> Self {
        Self { kind, body, subresource: None, params: WriteParams::default() }
    }

    /// A patch of a subresource.
    #[must_use]
    pub fn of(mut self, subresource: impl Into<String>) -> Self {
        self.subresource = Some(subresource.into());
        self
    }
}

// === impl Query ===

impl Query {
    pub(crate) fn new(path: String) -> Self {
        let separator = if path.contains('?') { '&' } else { '?' };
        Self { path, separator }
    }

    pub(crate) fn add(&mut self, name: &str, value: &str) {
        use std::fmt::Write as _;
        self.path.push(self.separator);
        self.separator = '&';
        self.path.push_str(name);
        self.path.push('=');
        for byte in value.bytes() {
            if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                self.path.push(char::from(byte));
            } else {
                // Writing to a String cannot fail.
                let _ = write!(self.path, "%{byte:02X}");
            }
        }
    }

    pub(crate) fn add_opt(&mut self, name: &str, value: Option<&str>) {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            self.add(name, value);
        }
    }

    pub(crate) fn finish(self) -> String {
        self.path
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_encoded() {
        let mut query = Query::new("/api/v1/pods".to_owned());
        ListParams::all().labels("app in (a, b)").fields("spec.nodeName=").add_to(&mut query);
        assert_eq!(
            query.finish(),
            "/api/v1/pods?labelSelector=app%20in%20%28a%2C%20b%29&fieldSelector=spec.nodeName%3D"
        );
    }
}
