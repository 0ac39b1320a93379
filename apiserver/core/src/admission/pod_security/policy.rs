//! The labels by which a namespace says what it demands of its pods.

use std::fmt;

use api::field::FieldError;
use serde_json::Value;

/// What all labels begin with.
pub(super) const PREFIX: &str = "pod-security.kubernetes.io/";

/// How strict a standard is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    Privileged,
    Baseline,
    Restricted,
}

/// Which version of a standard: the newest, or that of Kubernetes 1.x.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    Latest,
    Minor(u32),
}

/// A level as it was in a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Standard {
    pub level: Level,
    pub version: Version,
}

/// What a namespace demands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Policy {
    /// Pods that are not like this are refused.
    pub enforce: Standard,
    /// Who writes a pod or a workload that is not like this is warned.
    pub warn: Standard,
}

/// Nothing is demanded.
const ANYTHING: Standard = Standard { level: Level::Privileged, version: Version::Latest };

// === impl Policy ===

impl Policy {
    /// The policy of a namespace, and what is wrong with its labels. What cannot be read of what is enforced counts as the
    /// strictest, the rest as if it were not there.
    pub fn of(namespace: &Value) -> (Policy, Vec<FieldError>) {
        let labels = &namespace["metadata"]["labels"];
        let mut errors = Vec::new();
        let enforce = standard(labels, "enforce", Level::Restricted, &mut errors);
        standard(labels, "audit", Level::Privileged, &mut errors);
        let warn = standard(labels, "warn", Level::Privileged, &mut errors);
        (Policy { enforce, warn }, errors)
    }
}

fn standard(labels: &Value, mode: &str, unreadable: Level, errors: &mut Vec<FieldError>) -> Standard {
    let mut standard = ANYTHING;
    let mut complain = |key: &str, value: &str, why: &str| {
        errors.push(FieldError::invalid(format!("metadata.labels[{key}]"), value, why));
    };
    let key = format!("{PREFIX}{mode}");
    if let Some(value) = labels.get(&key).and_then(Value::as_str) {
        standard.level = match value {
            "privileged" => Level::Privileged,
            "baseline" => Level::Baseline,
            "restricted" => Level::Restricted,
            _ => {
                complain(&key, value, "must be one of privileged, baseline, restricted");
                unreadable
            }
        };
    }
    let key = format!("{PREFIX}{mode}-version");
    if let Some(value) = labels.get(&key).and_then(Value::as_str) {
        match version(value) {
            Some(version) => standard.version = version,
            None => complain(&key, value, "must be \"latest\" or \"v1.x\""),
        }
    }
    standard
}

fn version(text: &str) -> Option<Version> {
    if text == "latest" {
        return Some(Version::Latest);
    }
    let digits = text.strip_prefix("v1.")?;
    let plain =
        digits.bytes().all(|byte| byte.is_ascii_digit()) && (digits == "0" || !digits.starts_with('0'));
    plain.then(|| digits.parse().ok()).flatten().map(Version::Minor)
}

// === impl Standard ===

impl fmt::Display for Standard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.level {
            Level::Privileged => "privileged",
            Level::Baseline => "baseline",
            Level::Restricted => "restricted",
        })?;
        match self.version {
            Version::Latest => f.write_str(":latest"),
            Version::Minor(minor) => write!(f, ":v1.{minor}"),
        }
    }
}
