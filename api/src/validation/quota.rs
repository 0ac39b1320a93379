//! Checks what bounds quantities: limits of single objects, and quotas of namespaces.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{Errors, Path, entries, list, text};
use crate::field::FieldError;
use crate::name;
use crate::quantity::Quantity;

const SCOPES: &[&str] = &[
    "BestEffort",
    "CrossNamespacePodAffinity",
    "NotBestEffort",
    "NotTerminating",
    "PriorityClass",
    "Terminating",
    "VolumeAttributesClass",
];

fn quantity(value: &Value) -> Option<Quantity> {
    value.as_str()?.parse().ok()
}

pub fn check_limit_range(object: &Value, errors: &mut Errors) {
    let root = Path::root("spec.limits");
    let mut seen = BTreeSet::new();
    for (at, limit) in list(&object["spec"]["limits"]).iter().enumerate() {
        let place = root.index(at);
        let kind = text(&limit["type"]);
        if !seen.insert(kind) {
            errors.duplicate(&place.field("type"), kind);
        }
        match kind {
            "Container" | "PersistentVolumeClaim" | "Pod" => {}
            other => errors.reasons(&place.field("type"), other, name::qualified_name(other)),
        }
        for field in ["default", "defaultRequest"] {
            if kind == "Pod" && limit[field].as_object().is_some_and(|map| !map.is_empty()) {
                let detail = "may not be specified when `type` is 'Pod'";
                errors.forbidden(&place.field(field), detail);
            }
        }
        if kind == "PersistentVolumeClaim"
            && limit["min"]["storage"].is_null()
            && limit["max"]["storage"].is_null()
        {
            let detail = "either minimum or maximum storage value is required, but neither was provided";
            errors.required(&place, detail);
        }
        for (lower, upper) in [
            ("min", "max"),
            ("min", "defaultRequest"),
            ("defaultRequest", "max"),
            ("min", "default"),
            ("default", "max"),
            ("defaultRequest", "default"),
        ] {
            check_order(limit, (lower, upper), &place, errors);
        }
        check_ratio(limit, &place, errors);
    }
}

/// What is said in Kubernetes of a bound.
fn word(field: &str) -> &str {
    match field {
        "min" => "min",
        "max" => "max",
        "default" => "default",
        _ => "default request",
    }
}

fn check_order(limit: &Value, (lower, upper): (&str, &str), path: &Path<'_>, errors: &mut Errors) {
    for (resource, low) in entries(&limit[lower]) {
        let high = &limit[upper][resource];
        if let (Some(small), Some(large)) = (quantity(low), quantity(high))
            && small.milli_value() > large.milli_value()
        {
            let detail = format!(
                "{} value {} is greater than {} value {}",
                word(lower),
                text(low),
                word(upper),
                text(high)
            );
            errors.invalid(&path.field(lower).entry(resource), low.clone(), detail);
        }
    }
}

fn check_ratio(limit: &Value, path: &Path<'_>, errors: &mut Errors) {
    for (resource, ratio) in entries(&limit["maxLimitRequestRatio"]) {
        let place = path.field("maxLimitRequestRatio");
        if quantity(ratio).is_some_and(|ratio| ratio.milli_value() < 1000) {
            let detail = format!("ratio {} is less than 1", text(ratio));
            errors.invalid(&place.entry(resource), ratio.clone(), detail);
        }
    }
}

pub fn check_resource_quota(object: &Value, errors: &mut Errors) {
    let root = Path::root("spec");
    let hard = root.field("hard");
    for (resource, value) in entries(&object["spec"]["hard"]) {
        errors.reasons(&hard.entry(resource), resource, name::qualified_name(resource));
        if quantity(value).is_some_and(|quantity| quantity.is_negative()) {
            errors.invalid(&hard.entry(resource), value.clone(), "must be greater than or equal to 0");
        }
        let counted = resource.starts_with("count/")
            || matches!(
                resource,
                "pods"
                    | "services"
                    | "replicationcontrollers"
                    | "resourcequotas"
                    | "secrets"
                    | "configmaps"
                    | "persistentvolumeclaims"
                    | "services.nodeports"
                    | "services.loadbalancers"
            );
        if counted && quantity(value).is_some_and(|quantity| !quantity.is_whole()) {
            errors.invalid(&hard.entry(resource), value.clone(), "must be an integer");
        }
    }
    let scopes = root.field("scopes");
    for scope in list(&object["spec"]["scopes"]).iter().filter(|scope| !SCOPES.contains(&text(scope))) {
        let detail = "unsupported scope";
        errors.invalid(&scopes, scope.clone(), detail);
    }
    let has = |wanted: &str| list(&object["spec"]["scopes"]).iter().any(|scope| scope == wanted);
    for (one, other) in [("BestEffort", "NotBestEffort"), ("Terminating", "NotTerminating")] {
        if has(one) && has(other) {
            errors.invalid(&scopes, object["spec"]["scopes"].clone(), "conflicting scopes");
        }
    }
    let place = root.field("scopeSelector");
    let place = place.field("matchExpressions");
    for (at, expression) in list(&object["spec"]["scopeSelector"]["matchExpressions"]).iter().enumerate() {
        let place = place.index(at);
        let scope = text(&expression["scopeName"]);
        if !SCOPES.contains(&scope) {
            errors.invalid(&place.field("scopeName"), scope, "unsupported scope");
        }
        let accepted = ["DoesNotExist", "Exists", "In", "NotIn"];
        let operator = text(&expression["operator"]);
        if !accepted.contains(&operator) {
            errors.invalid(&place.field("operator"), operator, "not a valid selector operator");
        }
        let values = list(&expression["values"]);
        if matches!(operator, "In" | "NotIn") && values.is_empty() {
            let detail = "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector";
            errors.required(&place.field("values"), detail);
        }
        if matches!(operator, "Exists" | "DoesNotExist") && !values.is_empty() {
            let detail = "must be no value when `operator` is 'Exists' or 'DoesNotExist' for scope selector";
            errors.invalid(&place.field("values"), expression["values"].clone(), detail);
        }
    }
}

/// What a quota must keep.
pub fn check_resource_quota_update(new: &Value, old: &Value, errors: &mut Errors) {
    let sorted = |object: &Value| -> BTreeSet<String> {
        list(&object["spec"]["scopes"]).iter().map(|scope| text(scope).to_owned()).collect()
    };
    if sorted(new) != sorted(old) {
        let shown = new["spec"]["scopes"].clone();
        errors.add(FieldError::invalid("spec.scopes", shown, "field is immutable"));
    }
    if new["spec"]["scopeSelector"] != old["spec"]["scopeSelector"] {
        let shown = new["spec"]["scopeSelector"].clone();
        errors.add(FieldError::invalid("spec.scopeSelector", shown, "field is immutable"));
    }
}
