//! The options that a query carries, checked.

use super::{Consistency, RequestInfo, Verb};
use crate::paging;
use crate::response::Response;

/// What to do about unknown and doubled fields in a body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FieldValidation {
    /// Drop them silently.
    Ignore,
    /// Drop them and send a warning.
    #[default]
    Warn,
    /// Refuse the request.
    Strict,
}

/// What happens to the dependents of a deleted object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeletionPropagation {
    /// They stay.
    Orphan,
    /// The garbage collector deletes them later.
    Background,
    /// They go first.
    Foreground,
}

// === impl DeletionPropagation ===

impl DeletionPropagation {
    /// The word in a query.
    pub fn as_str(self) -> &'static str {
        match self {
            DeletionPropagation::Orphan => "Orphan",
            DeletionPropagation::Background => "Background",
            DeletionPropagation::Foreground => "Foreground",
        }
    }
}

/// How `resourceVersion` is meant in a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VersionMatch {
    /// Exactly that revision.
    Exact,
    /// That revision or a newer one.
    NotOlderThan,
}

/// The options of a request line.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Page size, 0 for everything.
    pub limit: u64,
    /// Where the previous page ended.
    pub continue_token: String,
    /// Which labels an object must have.
    pub label_selector: String,
    /// Which fields an object must have.
    pub field_selector: String,
    /// As sent; empty, `0` or a revision.
    pub resource_version: String,
    /// How `resource_version` is meant.
    pub version_match: Option<VersionMatch>,
    /// Whether a watcher wants bookmarks.
    pub bookmarks: bool,
    /// Whether a watcher wants the state first.
    pub send_initial_events: Option<bool>,
    /// When a list or watch must be over.
    pub timeout_seconds: Option<u64>,
    /// Plan, but write nothing.
    pub dry_run: bool,
    /// Who manages the fields that this request writes.
    pub field_manager: String,
    /// What to do about unknown fields.
    pub field_validation: FieldValidation,
    /// Whether to take fields over from other managers.
    pub force: bool,
    /// Indented answers.
    pub pretty: bool,
    /// What happens to dependents.
    pub propagation: Option<DeletionPropagation>,
    /// Seconds between the decision and the end.
    pub grace_period_seconds: Option<i64>,
}

// === impl Options ===

impl Options {
    pub(super) fn parse(query: &[(String, String)]) -> Result<Options, Box<Response>> {
        let mut options = Options::default();
        for (key, value) in query {
            options.set(key, value)?;
        }
        Ok(options)
    }

    fn set(&mut self, key: &str, value: &str) -> Result<(), Box<Response>> {
        match key {
            "limit" => self.limit = number(key, value)?.unwrap_or(0).max(0) as u64,
            "continue" => self.continue_token = value.into(),
            "labelSelector" => self.label_selector = value.into(),
            "fieldSelector" => self.field_selector = value.into(),
            "resourceVersion" => self.resource_version = value.into(),
            "resourceVersionMatch" => self.version_match = version_match(value)?,
            "allowWatchBookmarks" => self.bookmarks = boolean(value),
            "sendInitialEvents" if !value.is_empty() => self.send_initial_events = Some(boolean(value)),
            "timeoutSeconds" => self.timeout_seconds = number(key, value)?.map(|s| s.max(0) as u64),
            "dryRun" => self.dry_run = dry_run(value)?,
            "fieldManager" => self.field_manager = field_manager(value)?,
            "fieldValidation" => self.field_validation = field_validation(value)?,
            "force" => self.force = boolean(value),
            "pretty" => self.pretty = boolean(value),
            "propagationPolicy" => self.propagation = propagation(value)?,
            "orphanDependents" if self.propagation.is_none() => {
                let orphan = boolean(value);
                self.propagation =
                    Some(if orphan { DeletionPropagation::Orphan } else { DeletionPropagation::Background });
            }
            "gracePeriodSeconds" => self.grace_period_seconds = number(key, value)?,
            _ => {}
        }
        Ok(())
    }
}

/// Reads a propagation policy.
pub fn propagation(value: &str) -> Result<Option<DeletionPropagation>, Box<Response>> {
    Ok(Some(match value {
        "" => return Ok(None),
        "Orphan" => DeletionPropagation::Orphan,
        "Background" => DeletionPropagation::Background,
        "Foreground" => DeletionPropagation::Foreground,
        other => {
            return Err(Box::new(Response::bad_request(&format!(
                "invalid propagationPolicy: {other:?} is not one of \"Foreground\", \"Background\", \"Orphan\""
            ))));
        }
    }))
}

/// Reads a dryRun value; only `All` is known.
pub fn dry_run(value: &str) -> Result<bool, Box<Response>> {
    match value {
        "" => Ok(false),
        "All" => Ok(true),
        other => Err(Box::new(Response::bad_request(&format!(
            "dryRun: Unsupported value: {other:?}: supported values: \"All\""
        )))),
    }
}

fn version_match(value: &str) -> Result<Option<VersionMatch>, Box<Response>> {
    Ok(Some(match value {
        "" => return Ok(None),
        "Exact" => VersionMatch::Exact,
        "NotOlderThan" => VersionMatch::NotOlderThan,
        other => {
            return Err(Box::new(Response::bad_request(&format!(
                "resourceVersionMatch: Unsupported value: {other:?}: supported values: \"Exact\", \"NotOlderThan\""
            ))));
        }
    }))
}

fn field_validation(value: &str) -> Result<FieldValidation, Box<Response>> {
    match value {
        "" | "Warn" => Ok(FieldValidation::Warn),
        "Strict" => Ok(FieldValidation::Strict),
        "Ignore" => Ok(FieldValidation::Ignore),
        other => Err(Box::new(Response::bad_request(&format!(
            "fieldValidation: Unsupported value: {other:?}: supported values: \"Ignore\", \"Strict\", \"Warn\""
        )))),
    }
}

fn field_manager(value: &str) -> Result<String, Box<Response>> {
    if value.len() > 128 {
        return Err(Box::new(Response::bad_request(
            "fieldManager: Too long: may not be more than 128 bytes",
        )));
    }
    if value.chars().any(char::is_control) {
        return Err(Box::new(Response::bad_request(
            "fieldManager: Invalid value: should only contain printable characters",
        )));
    }
    Ok(value.into())
}

fn number(key: &str, value: &str) -> Result<Option<i64>, Box<Response>> {
    if value.is_empty() {
        return Ok(None);
    }
    value.parse().map(Some).map_err(|_| {
        Box::new(Response::bad_request(&format!(
            "unable to decode query parameter {key}: {value:?} is not a number"
        )))
    })
}

/// Reads a boolean. Go's converter takes everything but "false" and "0" as true, an empty value too.
pub(super) fn boolean(value: &str) -> bool {
    !matches!(value, "false" | "0" | "False" | "FALSE" | "f" | "F")
}

/// How new the snapshot must be for a request.
pub(super) fn consistency(info: &RequestInfo) -> Consistency {
    let options = &info.options;
    if !info.is_resource || info.is_write() {
        return Consistency::Any;
    }
    if info.verb == Verb::List && !options.continue_token.is_empty() {
        return match paging::Token::parse(&options.continue_token) {
            Some(token) if token.revision > 0 => Consistency::Exact(token.revision),
            Some(_) => Consistency::Latest,
            None => Consistency::Any,
        };
    }
    match options.resource_version.as_str() {
        "" if info.verb == Verb::Watch => Consistency::Latest,
        "" => Consistency::Latest,
        "0" => Consistency::Any,
        text => match text.parse() {
            // A watch resumes from history; it needs no snapshot at that revision.
            Ok(_) if info.verb == Verb::Watch => Consistency::Any,
            Ok(revision) if exact(info) => Consistency::Exact(revision),
            Ok(revision) => Consistency::NotOlderThan(revision),
            Err(_) => Consistency::Any,
        },
    }
}

/// A list at a revision with a limit and no match rule is exact, as it was before the rule existed.
fn exact(info: &RequestInfo) -> bool {
    info.verb == Verb::List
        && match info.options.version_match {
            Some(how) => how == VersionMatch::Exact,
            None => info.options.limit > 0,
        }
}
