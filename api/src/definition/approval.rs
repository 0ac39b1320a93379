//! Groups that belong to Kubernetes: who defines a resource in one says that it was approved, or that it was not.
//!
//! Source: KEP-1111, "Protected Groups for CRDs".

use serde_json::Value;

use super::text;
use crate::field::{FieldError, quote};

const ANNOTATION: &str = "api-approved.kubernetes.io";
const SOURCE: &str = "https://github.com/kubernetes/enhancements/pull/1111";

/// What a definition says of its approval.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Approval<'d> {
    /// Its group is not Kubernetes'.
    NotNeeded,
    /// Approved, at that address.
    Approved(&'d str),
    /// Not approved, for that reason.
    Unapproved(&'d str),
    /// Nothing.
    Missing,
    /// Something else.
    Invalid(&'d str),
}

// === impl Approval ===

impl<'d> Approval<'d> {
    /// What `definition` says.
    pub fn of(definition: &'d Value) -> Approval<'d> {
        let group = text(&definition["spec"]["group"]);
        let of_kubernetes = ["k8s.io", "kubernetes.io"].iter().any(|domain| {
            group.strip_suffix(domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
        });
        if !of_kubernetes {
            return Approval::NotNeeded;
        }
        match text(&definition["metadata"]["annotations"][ANNOTATION]) {
            "" => Approval::Missing,
            reason if reason.starts_with("unapproved") => Approval::Unapproved(reason),
            address if is_address(address) => Approval::Approved(address),
            other => Approval::Invalid(other),
        }
    }

    /// The condition that tells of it: status, reason and message.
    pub(super) fn condition(&self) -> Option<(&'static str, &'static str, String)> {
        Some(match self {
            Approval::NotNeeded => return None,
            Approval::Approved(address) => ("True", "ApprovedAnnotation", format!("approved in {address}")),
            Approval::Unapproved(reason) => {
                ("False", "UnapprovedAnnotation", format!("not approved: {}", quote(reason)))
            }
            Approval::Missing => ("False", "MissingAnnotation", missing()),
            Approval::Invalid(_) => ("False", "InvalidAnnotation", invalid()),
        })
    }

    /// Why a definition that says so is not taken.
    pub(crate) fn fault(&self) -> Option<FieldError> {
        let field = format!("metadata.annotations[{ANNOTATION}]");
        match self {
            Approval::Missing => Some(FieldError::required(field, missing())),
            Approval::Invalid(value) => Some(FieldError::invalid(field, *value, invalid())),
            Approval::NotNeeded | Approval::Approved(_) | Approval::Unapproved(_) => None,
        }
    }
}

fn missing() -> String {
    format!("protected groups must have approval annotation {ANNOTATION:?}, see {SOURCE}")
}

fn invalid() -> String {
    format!(
        "protected groups must have approval annotation {ANNOTATION:?} with either a URL or a reason starting with \"unapproved\", see {SOURCE}"
    )
}

/// Whether a text is an address with a scheme and a host.
fn is_address(text: &str) -> bool {
    let Some((scheme, rest)) = text.split_once("://") else { return false };
    let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let is_scheme = scheme.starts_with(|letter: char| letter.is_ascii_alphabetic())
        && scheme.chars().all(|letter| letter.is_ascii_alphanumeric() || "+-.".contains(letter));
    is_scheme && !host.is_empty() && !text.contains(char::is_whitespace)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn kubernetes_groups_want_an_approval() {
        let check = |group: &str, annotation: &str, expected: Approval<'_>| {
            let definition =
                json!({"metadata": {"annotations": {ANNOTATION: annotation}}, "spec": {"group": group}});
            assert_eq!(Approval::of(&definition), expected, "{group} {annotation}");
        };
        check("example.com", "", Approval::NotNeeded);
        check("myk8s.io", "", Approval::NotNeeded);
        check("k8s.io", "", Approval::Missing);
        check("x.k8s.io", "", Approval::Missing);
        check("x.kubernetes.io", "maybe", Approval::Invalid("maybe"));
        check("x.k8s.io", "https:///x", Approval::Invalid("https:///x"));
        check("x.k8s.io", "https://example.com/1", Approval::Approved("https://example.com/1"));
        check("x.k8s.io", "unapproved, for tests", Approval::Unapproved("unapproved, for tests"));
    }
}
