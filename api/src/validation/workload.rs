//! Checks what keeps pods running.

use serde_json::Value;

use super::{Errors, Path, given, labels, pod, text};
use crate::field::FieldError;
use crate::selector::LabelSelector;

pub fn check_deployment(object: &Value, errors: &mut Errors) {
    let root = Path::root("spec");
    let spec = &object["spec"];
    for field in ["replicas", "minReadySeconds", "revisionHistoryLimit", "progressDeadlineSeconds"] {
        errors.not_negative(&root.field(field), &spec[field]);
    }
    check_selector(spec, &root, "deployment", errors);
    check_template(spec, &root, errors);
    let strategy = root.field("strategy");
    errors.one_of(&strategy.field("type"), &spec["strategy"]["type"], &["Recreate", "RollingUpdate"]);
    let rolling = &spec["strategy"]["rollingUpdate"];
    match text(&spec["strategy"]["type"]) {
        "Recreate" if !rolling.is_null() => {
            errors.forbidden(
                &strategy.field("rollingUpdate"),
                "may not be specified when strategy `type` is 'Recreate'",
            );
        }
        "RollingUpdate" => check_rolling(rolling, &strategy.field("rollingUpdate"), false, errors),
        _ => {}
    }
    let (deadline, ready) =
        (spec["progressDeadlineSeconds"].as_i64(), spec["minReadySeconds"].as_i64().unwrap_or(0));
    if let Some(deadline) = deadline
        && deadline <= ready
    {
        errors.invalid(
            &root.field("progressDeadlineSeconds"),
            deadline,
            "must be greater than minReadySeconds",
        );
    }
}

pub fn check_replica_set(object: &Value, errors: &mut Errors) {
    let root = Path::root("spec");
    let spec = &object["spec"];
    for field in ["replicas", "minReadySeconds"] {
        errors.not_negative(&root.field(field), &spec[field]);
    }
    check_selector(spec, &root, "deployment", errors);
    check_template(spec, &root, errors);
}

pub fn check_daemon_set(object: &Value, errors: &mut Errors) {
    let root = Path::root("spec");
    let spec = &object["spec"];
    for field in ["minReadySeconds", "revisionHistoryLimit"] {
        errors.not_negative(&root.field(field), &spec[field]);
    }
    check_selector(spec, &root, "deployment", errors);
    check_template(spec, &root, errors);
    let strategy = root.field("updateStrategy");
    errors.one_of(&strategy.field("type"), &spec["updateStrategy"]["type"], &["RollingUpdate", "OnDelete"]);
    if text(&spec["updateStrategy"]["type"]) == "RollingUpdate" {
        check_rolling(
            &spec["updateStrategy"]["rollingUpdate"],
            &strategy.field("rollingUpdate"),
            true,
            errors,
        );
    }
}

pub(super) fn check_selector(spec: &Value, path: &Path<'_>, kind: &str, errors: &mut Errors) {
    let place = path.field("selector");
    let selector = &spec["selector"];
    if selector.is_null() {
        errors.required(&place, "");
        return;
    }
    labels::check_selector(selector, &place, errors);
    if !given(&selector["matchLabels"]) && !given(&selector["matchExpressions"]) {
        errors.invalid(&place, selector.clone(), format!("empty selector is invalid for {kind}"));
    }
}

pub(super) fn check_template(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    let place = path.field("template");
    let template = &spec["template"];
    let no_labels = serde_json::Map::new();
    let template_labels = template["metadata"]["labels"].as_object().unwrap_or(&no_labels);
    if let Ok(selector) = LabelSelector::from_object(&spec["selector"])
        && !selector.is_everything()
        && !selector.matches(template_labels)
    {
        let metadata = place.field("metadata");
        let shown = template["metadata"]["labels"].clone();
        errors.invalid(&metadata.field("labels"), shown, "`selector` does not match template `labels`");
    }
    pod::check_template(template, &place, errors);
    let policy = &template["spec"]["restartPolicy"];
    if policy.is_string() && policy != "Always" {
        let place = place.field("spec");
        errors.add(FieldError::not_supported(
            place.field("restartPolicy").to_string(),
            policy.clone(),
            &["Always"],
        ));
    }
    if template["spec"]["activeDeadlineSeconds"].is_i64() {
        errors.forbidden(
            &place.field("spec").field("activeDeadlineSeconds"),
            "activeDeadlineSeconds in ReplicaSet is not Supported",
        );
    }
}

fn check_rolling(rolling: &Value, path: &Path<'_>, daemon: bool, errors: &mut Errors) {
    for field in ["maxUnavailable", "maxSurge"] {
        let value = &rolling[field];
        let place = path.field(field);
        match value {
            Value::Number(number) if number.as_i64().is_some_and(|number| number < 0) => {
                errors.invalid(&place, value.clone(), "must be greater than or equal to 0");
            }
            Value::String(percent) => {
                match percent.strip_suffix('%').and_then(|digits| digits.parse::<u32>().ok()) {
                    None => {
                        let detail = "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')";
                        errors.invalid(&place, value.clone(), detail);
                    }
                    Some(percent) if percent > 100 && field == "maxUnavailable" => {
                        errors.invalid(&place, value.clone(), "must not be greater than 100%");
                    }
                    Some(_) => {}
                }
            }
            _ => {}
        }
    }
    let zero = |value: &Value| matches!(value.as_str(), Some("0%")) || value.as_i64() == Some(0);
    if zero(&rolling["maxUnavailable"]) && zero(&rolling["maxSurge"]) {
        let detail =
            if daemon { "cannot be 0 when `maxSurge` is 0" } else { "may not be 0 when `maxSurge` is 0" };
        errors.invalid(&path.field("maxUnavailable"), rolling["maxUnavailable"].clone(), detail);
    }
    if daemon
        && !rolling.is_null()
        && !zero(&rolling["maxUnavailable"])
        && !rolling["maxSurge"].is_null()
        && !zero(&rolling["maxSurge"])
    {
        errors.invalid(
            &path.field("maxSurge"),
            rolling["maxSurge"].clone(),
            "may not be set when maxUnavailable is non-zero",
        );
    }
}
