//! Checks what a pod asks of its node.

use serde_json::Value;

use super::{Errors, Path, entries, given, labels, list, text};
use crate::name;

const EFFECTS: [&str; 3] = ["NoSchedule", "PreferNoSchedule", "NoExecute"];

pub fn check(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    labels::check(&spec["nodeSelector"], &path.field("nodeSelector"), errors);
    check_node_affinity(
        &spec["affinity"]["nodeAffinity"],
        &path.field("affinity").field("nodeAffinity"),
        errors,
    );
    for field in ["podAffinity", "podAntiAffinity"] {
        check_pod_affinity(&spec["affinity"][field], &path.field("affinity").field(field), errors);
    }
    let tolerations = path.field("tolerations");
    for (index, toleration) in list(&spec["tolerations"]).iter().enumerate() {
        check_toleration(toleration, &tolerations.index(index), errors);
    }
    let constraints = path.field("topologySpreadConstraints");
    for (index, constraint) in list(&spec["topologySpreadConstraints"]).iter().enumerate() {
        check_spread(constraint, &constraints.index(index), errors);
    }
}

fn check_node_affinity(affinity: &Value, path: &Path<'_>, errors: &mut Errors) {
    let required = &affinity["requiredDuringSchedulingIgnoredDuringExecution"];
    let required_path = path.field("requiredDuringSchedulingIgnoredDuringExecution");
    let terms_path = required_path.field("nodeSelectorTerms");
    if !required.is_null() {
        let terms = list(&required["nodeSelectorTerms"]);
        if terms.is_empty() {
            errors.required(&terms_path, "must have at least one node selector term");
        }
        for (index, term) in terms.iter().enumerate() {
            check_node_term(term, &terms_path.index(index), errors);
        }
    }
    let preferred_path = path.field("preferredDuringSchedulingIgnoredDuringExecution");
    for (index, preferred) in
        list(&affinity["preferredDuringSchedulingIgnoredDuringExecution"]).iter().enumerate()
    {
        let place = preferred_path.index(index);
        check_weight(&preferred["weight"], &place.field("weight"), errors);
        check_node_term(&preferred["preference"], &place.field("preference"), errors);
    }
}

fn check_weight(weight: &Value, path: &Path<'_>, errors: &mut Errors) {
    if !(1..=100).contains(&weight.as_i64().unwrap_or(0)) {
        errors.invalid(path, weight.clone(), "must be in the range 1-100");
    }
}

fn check_node_term(term: &Value, path: &Path<'_>, errors: &mut Errors) {
    for field in ["matchExpressions", "matchFields"] {
        let requirements = path.field(field);
        for (index, requirement) in list(&term[field]).iter().enumerate() {
            let place = requirements.index(index);
            let count = list(&requirement["values"]).len();
            let values = place.field("values");
            match text(&requirement["operator"]) {
                "In" | "NotIn" if count == 0 => {
                    errors.required(&values, "must be specified when `operator` is 'In' or 'NotIn'")
                }
                "Exists" | "DoesNotExist" if count > 0 => errors
                    .forbidden(&values, "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"),
                "Gt" | "Lt" if count != 1 => {
                    errors.required(&values, "must be specified single value when `operator` is 'Lt' or 'Gt'")
                }
                "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => {}
                _ => errors.invalid(
                    &place.field("operator"),
                    requirement["operator"].clone(),
                    "not a valid selector operator",
                ),
            }
            let key = text(&requirement["key"]);
            if field == "matchExpressions" {
                errors.reasons(&place.field("key"), key, name::qualified_name(key));
            } else if key != "metadata.name" {
                errors.invalid(&place.field("key"), key, "not a valid field selector key");
            }
        }
    }
}

fn check_pod_affinity(affinity: &Value, path: &Path<'_>, errors: &mut Errors) {
    let required = path.field("requiredDuringSchedulingIgnoredDuringExecution");
    for (index, term) in list(&affinity["requiredDuringSchedulingIgnoredDuringExecution"]).iter().enumerate()
    {
        check_pod_term(term, &required.index(index), errors);
    }
    let preferred = path.field("preferredDuringSchedulingIgnoredDuringExecution");
    for (index, weighted) in
        list(&affinity["preferredDuringSchedulingIgnoredDuringExecution"]).iter().enumerate()
    {
        let place = preferred.index(index);
        check_weight(&weighted["weight"], &place.field("weight"), errors);
        check_pod_term(&weighted["podAffinityTerm"], &place.field("podAffinityTerm"), errors);
    }
}

fn check_pod_term(term: &Value, path: &Path<'_>, errors: &mut Errors) {
    for field in ["labelSelector", "namespaceSelector"] {
        labels::check_selector(&term[field], &path.field(field), errors);
    }
    let namespaces = path.field("namespaces");
    for (index, namespace) in list(&term["namespaces"]).iter().enumerate() {
        errors.reasons(&namespaces.index(index), text(namespace), name::dns1123_label(text(namespace)));
    }
    match text(&term["topologyKey"]) {
        "" => errors.required(&path.field("topologyKey"), "can not be empty"),
        key => errors.reasons(&path.field("topologyKey"), key, name::qualified_name(key)),
    }
}

fn check_toleration(toleration: &Value, path: &Path<'_>, errors: &mut Errors) {
    let key = text(&toleration["key"]);
    let operator = text(&toleration["operator"]);
    if !key.is_empty() {
        errors.reasons(&path.field("key"), key, name::qualified_name(key));
    } else if operator != "Exists" {
        errors.invalid(
            &path.field("operator"),
            operator,
            "operator must be Exists when `key` is empty, which means \"match all values and all keys\"",
        );
    }
    if toleration["tolerationSeconds"].is_i64() && text(&toleration["effect"]) != "NoExecute" {
        errors.invalid(
            &path.field("effect"),
            toleration["effect"].clone(),
            "effect must be 'NoExecute' when `tolerationSeconds` is set",
        );
    }
    match operator {
        "Exists" if given(&toleration["value"]) => {
            errors.invalid(
                &path.field("operator"),
                toleration["value"].clone(),
                "value must be empty when `operator` is 'Exists'",
            );
        }
        "" | "Equal" => {
            let value = text(&toleration["value"]);
            errors.reasons(&path.field("operator"), value, name::label_value(value));
        }
        _ => errors.optional_one_of(
            &path.field("operator"),
            &toleration["operator"],
            &["Equal", "Exists", "Lt", "Gt"],
        ),
    }
    errors.optional_one_of(&path.field("effect"), &toleration["effect"], &EFFECTS);
}

fn check_spread(constraint: &Value, path: &Path<'_>, errors: &mut Errors) {
    if constraint["maxSkew"].as_i64().unwrap_or(0) < 1 {
        errors.invalid(&path.field("maxSkew"), constraint["maxSkew"].clone(), "must be greater than zero");
    }
    match text(&constraint["topologyKey"]) {
        "" => errors.required(&path.field("topologyKey"), "can not be empty"),
        key => errors.reasons(&path.field("topologyKey"), key, name::qualified_name(key)),
    }
    let actions = ["DoNotSchedule", "ScheduleAnyway"];
    errors.one_of(&path.field("whenUnsatisfiable"), &constraint["whenUnsatisfiable"], &actions);
    if let Some(domains) = constraint["minDomains"].as_i64() {
        let place = path.field("minDomains");
        if domains < 1 {
            errors.invalid(&place, domains, "must be greater than zero");
        }
        if text(&constraint["whenUnsatisfiable"]) != "DoNotSchedule" {
            errors.invalid(
                &place,
                domains,
                "can only use minDomains if whenUnsatisfiable=DoNotSchedule, not ScheduleAnyway",
            );
        }
    }
    for field in ["nodeAffinityPolicy", "nodeTaintsPolicy"] {
        errors.optional_one_of(&path.field(field), &constraint[field], &["Ignore", "Honor"]);
    }
    labels::check_selector(&constraint["labelSelector"], &path.field("labelSelector"), errors);
}

/// Checks the taints of a node.
pub fn check_taints(taints: &Value, path: &Path<'_>, errors: &mut Errors) {
    let mut seen = std::collections::BTreeSet::new();
    for (index, taint) in list(taints).iter().enumerate() {
        let place = path.index(index);
        let (key, effect) = (text(&taint["key"]), text(&taint["effect"]));
        errors.reasons(&place.field("key"), key, name::qualified_name(key));
        let value = text(&taint["value"]);
        errors.reasons(&place.field("value"), value, name::label_value(value));
        errors.one_of(&place.field("effect"), &taint["effect"], &EFFECTS);
        if !seen.insert((key, effect)) {
            errors.duplicate(&place, taint.clone());
        }
    }
}

/// Checks the extended part of a node's capacity.
pub fn check_amounts(amounts: &Value, path: &Path<'_>, errors: &mut Errors) {
    for (resource, amount) in entries(amounts) {
        let negative =
            text(amount).parse::<crate::quantity::Quantity>().is_ok_and(|amount| amount.is_negative());
        if negative {
            errors.invalid(&path.entry(resource), amount.clone(), "must be greater than or equal to 0");
        }
    }
}
