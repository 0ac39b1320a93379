//! Scopes: which of the objects that a quota could count it does count.

use serde_json::Value;

use super::Counted;
use crate::strategy::qos;

/// One condition on the objects that a quota counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    /// What is looked at: `Terminating`, `PriorityClass`…
    pub name: String,
    /// How.
    pub operator: Operator,
    /// The values that it is compared with.
    pub values: Vec<String>,
}

/// How a scope is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    /// It is one of the values.
    In,
    /// It is none of them.
    NotIn,
    /// It is there.
    Exists,
    /// It is not there.
    DoesNotExist,
}

/// The scopes of a quota: those that are only named, and those of its selector.
pub(super) fn of(spec: &Value) -> Vec<Scope> {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let named = list(&spec["scopes"]).iter().map(|scope| Scope::exists(text(scope))).collect::<Vec<_>>();
    let selected = list(&spec["scopeSelector"]["matchExpressions"]);
    let selected = selected.iter().map(|expression| Scope {
        name: text(&expression["scopeName"]),
        operator: match expression["operator"].as_str() {
            Some("In") => Operator::In,
            Some("NotIn") => Operator::NotIn,
            Some("DoesNotExist") => Operator::DoesNotExist,
            _ => Operator::Exists,
        },
        values: list(&expression["values"]).iter().map(text).collect(),
    });
    named.into_iter().chain(selected).collect()
}

// === impl Scope ===

impl Scope {
    fn exists(name: String) -> Scope {
        Scope { name, operator: Operator::Exists, values: Vec::new() }
    }

    /// Whether the object is in this scope. Only pods and claims have scopes.
    pub fn matches(&self, resource: Counted<'_>, object: &Value) -> bool {
        match (resource.group, resource.plural) {
            ("", "pods") => self.matches_pod(object),
            ("", "persistentvolumeclaims") => {
                self.name == "VolumeAttributesClass" && self.compare(&attribute_classes(object))
            }
            _ => false,
        }
    }

    fn matches_pod(&self, pod: &Value) -> bool {
        let spec = &pod["spec"];
        match self.name.as_str() {
            "Terminating" => is_bounded(spec),
            "NotTerminating" => !is_bounded(spec),
            "BestEffort" => is_best_effort(pod),
            "NotBestEffort" => !is_best_effort(pod),
            "CrossNamespacePodAffinity" => looks_elsewhere(&spec["affinity"]),
            "PriorityClass" => {
                let class = spec["priorityClassName"].as_str().filter(|class| !class.is_empty());
                self.compare(class.as_slice())
            }
            _ => false,
        }
    }

    /// Compares with what the object has of the scope; with several, one that fits is enough.
    fn compare(&self, found: &[&str]) -> bool {
        let listed = |value: &str| self.values.iter().any(|wanted| wanted == value);
        match self.operator {
            Operator::Exists => !found.is_empty(),
            Operator::DoesNotExist => found.is_empty(),
            Operator::In => found.iter().any(|value| listed(value)),
            Operator::NotIn => found.is_empty() || found.iter().any(|value| !listed(value)),
        }
    }
}

fn is_bounded(spec: &Value) -> bool {
    spec["activeDeadlineSeconds"].as_i64().is_some_and(|seconds| seconds >= 0)
}

fn is_best_effort(pod: &Value) -> bool {
    pod.as_object().is_none_or(|pod| qos::class(pod) == "BestEffort")
}

/// Whether a pod wants to be near, or far from, pods of other namespaces.
fn looks_elsewhere(affinity: &Value) -> bool {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let elsewhere = |term: &Value| {
        !list(&term["namespaces"]).is_empty() || term.get("namespaceSelector").is_some_and(Value::is_object)
    };
    ["podAffinity", "podAntiAffinity"].into_iter().any(|kind| {
        let terms = &affinity[kind];
        list(&terms["requiredDuringSchedulingIgnoredDuringExecution"]).iter().any(elsewhere)
            || list(&terms["preferredDuringSchedulingIgnoredDuringExecution"])
                .iter()
                .any(|term| elsewhere(&term["podAffinityTerm"]))
    })
}

/// The attribute classes that a claim has, wants, or is being given.
fn attribute_classes(claim: &Value) -> Vec<&str> {
    [
        &claim["spec"]["volumeAttributesClassName"],
        &claim["status"]["currentVolumeAttributesClassName"],
        &claim["status"]["modifyVolumeStatus"]["targetVolumeAttributesClassName"],
    ]
    .into_iter()
    .filter_map(Value::as_str)
    .filter(|name| !name.is_empty())
    .collect()
}
