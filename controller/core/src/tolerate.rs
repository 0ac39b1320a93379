//! Taints, tolerations and node affinity.

use k8s_openapi::api::core::v1::{
    Node, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, PodSpec, Taint, Toleration,
};

/// Whether `toleration` tolerates `taint`.
pub fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let text = |field: &Option<String>| field.clone().unwrap_or_default();
    if toleration.effect.as_ref().is_some_and(|effect| !effect.is_empty() && *effect != taint.effect) {
        return false;
    }
    if toleration.key.as_ref().is_some_and(|key| !key.is_empty() && *key != taint.key) {
        return false;
    }
    let numbers = || {
        let have = text(&taint.value).parse::<i64>().ok()?;
        Some((have, text(&toleration.value).parse::<i64>().ok()?))
    };
    match toleration.operator.as_deref().unwrap_or("Equal") {
        "Exists" => true,
        "" | "Equal" => text(&toleration.value) == text(&taint.value),
        "Lt" => numbers().is_some_and(|(have, limit)| have < limit),
        "Gt" => numbers().is_some_and(|(have, limit)| have > limit),
        _ => false,
    }
}

/// The node's taints.
pub fn taints(node: &Node) -> &[Taint] {
    node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default()
}

/// The first taint of one of `effects` that no toleration tolerates.
pub fn untolerated<'a>(node: &'a Node, tolerations: &[Toleration], effects: &[&str]) -> Option<&'a Taint> {
    let relevant = taints(node).iter().filter(|taint| effects.contains(&taint.effect.as_str()));
    relevant.into_iter().find(|taint| !tolerations.iter().any(|toleration| tolerates(toleration, taint)))
}

/// Whether the node satisfies nodeSelector and the required node affinity.
pub fn node_matches(spec: &PodSpec, node: &Node) -> bool {
    let labels = node.metadata.labels.as_ref();
    let plain = spec
        .node_selector
        .iter()
        .flatten()
        .all(|(key, value)| labels.and_then(|have| have.get(key)) == Some(value));
    let required = spec
        .affinity
        .as_ref()
        .and_then(|affinity| affinity.node_affinity.as_ref())
        .and_then(|affinity| affinity.required_during_scheduling_ignored_during_execution.as_ref());
    plain && required.is_none_or(|selector| selector_matches(selector, node))
}

fn selector_matches(selector: &NodeSelector, node: &Node) -> bool {
    selector.node_selector_terms.iter().any(|term| term_matches(term, node))
}

/// An empty term matches nothing.
fn term_matches(term: &NodeSelectorTerm, node: &Node) -> bool {
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    if expressions.is_empty() && fields.is_empty() {
        return false;
    }
    let labels = node.metadata.labels.as_ref();
    expressions
        .iter()
        .all(|each| requirement_holds(each, labels.and_then(|have| have.get(&each.key)).map(String::as_str)))
        && fields.iter().all(|each| {
            let value = if each.key == "metadata.name" { node.metadata.name.as_deref() } else { None };
            requirement_holds(each, value)
        })
}

fn requirement_holds(requirement: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let values = requirement.values.as_deref().unwrap_or_default();
    let listed = || value.is_some_and(|value| values.iter().any(|each| each == value));
    let numbers = || {
        let have = value?.parse::<i64>().ok()?;
        Some((have, values.first()?.parse::<i64>().ok()?))
    };
    match requirement.operator.as_str() {
        "In" => listed(),
        "NotIn" => !listed(),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => numbers().is_some_and(|(have, limit)| have > limit),
        "Lt" => numbers().is_some_and(|(have, limit)| have < limit),
        _ => false,
    }
}
