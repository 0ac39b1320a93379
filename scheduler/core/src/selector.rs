//! Selectors of typed objects, compiled: which pods a term is about, which nodes a pod wants.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;

use api::selector::{Operator, Requirement};
use k8s_openapi::api::core::v1::{NodeSelector, NodeSelectorRequirement, NodeSelectorTerm};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

/// Labels of a pod, node or namespace.
pub type Labels = BTreeMap<String, String>;

/// A conjunction of requirements on labels. Without any, it selects everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector {
    requirements: Vec<Requirement>,
    nothing: bool,
}

/// In which namespaces a term looks for pods.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Namespaces {
    named: BTreeSet<String>,
    selected: Option<Selector>,
}

/// Pods that fulfil all of these conditions. Equal ones have equal ids.
#[derive(Clone, Debug)]
pub struct PodMatch {
    conditions: Vec<(Namespaces, Selector)>,
    /// Pods that are being deleted do not count.
    pub alive_only: bool,
    /// A canonical text of all of the above.
    pub id: Arc<str>,
}

/// One alternative of a pod's wishes for its node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeTerm {
    labels: Vec<Requirement>,
    /// On `metadata.name`.
    names: Vec<Requirement>,
}

// === impl Selector ===

impl Selector {
    /// Compiles a label selector; a missing one selects nothing.
    pub fn read(selector: Option<&LabelSelector>) -> Self {
        let Some(selector) = selector else { return Self { requirements: Vec::new(), nothing: true } };
        let mut requirements: Vec<Requirement> =
            selector.match_labels.iter().flatten().map(|(key, value)| equals(key, value)).collect();
        for expression in selector.match_expressions.iter().flatten() {
            let values = expression.values.clone().unwrap_or_default();
            match requirement(&expression.key, &expression.operator, values) {
                Some(requirement) => requirements.push(requirement),
                None => return Self { requirements: Vec::new(), nothing: true },
            }
        }
        Self { requirements, nothing: false }
    }

    /// Also asks for the pod's own values of these labels, or (`same` false) for other values.
    pub fn bind_keys(&mut self, keys: Option<&Vec<String>>, labels: &Labels, same: bool) {
        for key in keys.into_iter().flatten() {
            if let Some(value) = labels.get(key) {
                let operator = if same { Operator::In } else { Operator::NotIn };
                self.requirements.push(Requirement { operator, ..equals(key, value) });
            }
        }
    }

    /// Whether labels fulfil it.
    pub fn matches(&self, labels: &Labels) -> bool {
        !self.nothing && self.requirements.iter().all(|requirement| requirement.matches(labels))
    }

    fn write(&self, out: &mut String) {
        if self.nothing {
            out.push('!');
        }
        for requirement in &self.requirements {
            // Writing to a String cannot fail.
            let _ = write!(out, "{requirement},");
        }
    }
}

// === impl Namespaces ===

impl Namespaces {
    /// Only this one.
    pub fn only(namespace: &str) -> Self {
        Self { named: BTreeSet::from([namespace.to_owned()]), selected: None }
    }

    /// As an affinity term says; without names and selector: the pod's own.
    pub fn read(named: Option<&Vec<String>>, selected: Option<&LabelSelector>, own: &str) -> Self {
        let named: BTreeSet<String> = named.into_iter().flatten().cloned().collect();
        if named.is_empty() && selected.is_none() {
            return Self::only(own);
        }
        Self { named, selected: selected.map(|selector| Selector::read(Some(selector))) }
    }

    fn contains(&self, namespace: &str, known: &BTreeMap<String, Labels>) -> bool {
        if self.named.contains(namespace) {
            return true;
        }
        let Some(selector) = &self.selected else { return false };
        match known.get(namespace) {
            Some(labels) => selector.matches(labels),
            None => selector.matches(&Labels::new()),
        }
    }
}

// === impl PodMatch ===

impl PodMatch {
    /// Pods that fulfil all conditions.
    pub fn new(conditions: Vec<(Namespaces, Selector)>, alive_only: bool) -> Self {
        let mut id = String::new();
        if alive_only {
            id.push('+');
        }
        for (namespaces, selector) in &conditions {
            for name in &namespaces.named {
                id.push_str(name);
                id.push(',');
            }
            if let Some(selected) = &namespaces.selected {
                id.push('~');
                selected.write(&mut id);
            }
            id.push('|');
            selector.write(&mut id);
            id.push(';');
        }
        Self { conditions, alive_only, id: Arc::from(id) }
    }

    /// Whether a pod with these labels in this namespace is meant.
    pub fn matches(&self, namespace: &str, labels: &Labels, known: &BTreeMap<String, Labels>) -> bool {
        self.conditions
            .iter()
            .all(|(namespaces, selector)| namespaces.contains(namespace, known) && selector.matches(labels))
    }

    /// Whether the labels of namespaces matter.
    pub fn selects_namespaces(&self) -> bool {
        self.conditions.iter().any(|(namespaces, _)| namespaces.selected.is_some())
    }
}

// === impl NodeTerm ===

impl NodeTerm {
    /// The alternatives of a node selector; none of them can be fulfilled when the list is empty.
    pub fn read_all(selector: &NodeSelector) -> Vec<Self> {
        selector.node_selector_terms.iter().filter_map(Self::read).collect()
    }

    /// One alternative; `None` for one that no node fulfils.
    pub fn read(term: &NodeSelectorTerm) -> Option<Self> {
        let compile = |list: &Option<Vec<NodeSelectorRequirement>>| -> Option<Vec<Requirement>> {
            list.iter()
                .flatten()
                .map(|one| requirement(&one.key, &one.operator, one.values.clone().unwrap_or_default()))
                .collect()
        };
        let term = Self { labels: compile(&term.match_expressions)?, names: compile(&term.match_fields)? };
        let known = term.names.iter().all(|requirement| requirement.key == "metadata.name");
        (known && !(term.labels.is_empty() && term.names.is_empty())).then_some(term)
    }

    /// Whether a node fulfils it.
    pub fn matches(&self, name: &str, labels: &Labels) -> bool {
        self.labels.iter().all(|requirement| requirement.matches(labels))
            && self.names.iter().all(|requirement| {
                let among = requirement.values.iter().any(|value| value == name);
                match requirement.operator {
                    Operator::In => among,
                    Operator::NotIn => !among,
                    _ => false,
                }
            })
    }
}

fn equals(key: &str, value: &str) -> Requirement {
    Requirement { key: key.to_owned(), operator: Operator::In, values: vec![value.to_owned()] }
}

fn requirement(key: &str, operator: &str, mut values: Vec<String>) -> Option<Requirement> {
    let operator = match operator {
        "In" => Operator::In,
        "NotIn" => Operator::NotIn,
        "Exists" => Operator::Exists,
        "DoesNotExist" => Operator::DoesNotExist,
        "Gt" => Operator::GreaterThan,
        "Lt" => Operator::LessThan,
        _ => return None,
    };
    values.sort();
    values.dedup();
    Some(Requirement { key: key.to_owned(), operator, values })
}
