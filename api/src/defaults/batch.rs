//! Defaults of jobs, stateful sets, replication controllers and autoscalers.

use serde_json::{Value, json};

use super::{Object, child, each, pod, present, put, template, text};

pub(super) fn stateful_set(map: &mut Object) {
    let Some(spec) = child(map, "spec") else { return };
    put(spec, "podManagementPolicy", "OrderedReady");
    put(spec, "replicas", 1);
    put(spec, "revisionHistoryLimit", 10);
    if let Some(strategy) = child(spec, "updateStrategy") {
        put(strategy, "type", "RollingUpdate");
        if text(strategy, "type") == "RollingUpdate"
            && let Some(rolling) = child(strategy, "rollingUpdate")
        {
            put(rolling, "partition", 0);
        }
    }
    if let Some(policy) = child(spec, "persistentVolumeClaimRetentionPolicy") {
        put(policy, "whenDeleted", "Retain");
        put(policy, "whenScaled", "Retain");
    }
    each(spec, "volumeClaimTemplates", |claim| {
        put(claim, "apiVersion", "v1");
        put(claim, "kind", "PersistentVolumeClaim");
        super::storage::claim(claim);
    });
    template(spec);
}

/// The template's labels, where it has any.
fn template_labels(spec: &Object) -> Option<Value> {
    let labels = spec.get("template")?.get("metadata")?.get("labels")?;
    labels.as_object().filter(|labels| !labels.is_empty()).map(|labels| labels.clone().into())
}

/// Gives an object without labels those of its template.
fn labels_from_template(map: &mut Object) {
    let labels = present(map, "spec").and_then(|spec| template_labels(spec));
    if let (Some(labels), Some(metadata)) = (labels, child(map, "metadata")) {
        put(metadata, "labels", labels);
    }
}

pub(super) fn replication_controller(map: &mut Object) {
    labels_from_template(map);
    let Some(spec) = child(map, "spec") else { return };
    if let Some(labels) = template_labels(spec) {
        put(spec, "selector", labels);
    }
    put(spec, "replicas", 1);
    template(spec);
}

pub(super) fn pod_template(map: &mut Object) {
    if let Some(spec) = child(map, "template").and_then(|template| child(template, "spec")) {
        pod::pod_spec(spec);
    }
}

pub(super) fn job(map: &mut Object) {
    labels_from_template(map);
    let Some(spec) = child(map, "spec") else { return };
    // Without both, one pod runs once.
    if !spec.contains_key("completions") && !spec.contains_key("parallelism") {
        put(spec, "completions", 1);
    }
    put(spec, "parallelism", 1);
    let limit = if spec.contains_key("backoffLimitPerIndex") { i32::MAX } else { 6 };
    put(spec, "backoffLimit", limit);
    put(spec, "completionMode", "NonIndexed");
    put(spec, "suspend", false);
    put(spec, "manualSelector", false);
    let replacement = if spec.contains_key("podFailurePolicy") { "Failed" } else { "TerminatingOrFailed" };
    put(spec, "podReplacementPolicy", replacement);
    if let Some(policy) = present(spec, "podFailurePolicy") {
        each(policy, "rules", |rule| {
            each(rule, "onPodConditions", |pattern| put(pattern, "status", "True"));
        });
    }
    // The template gets labels at creation, and is there from then on.
    child(spec, "template");
    template(spec);
}

pub(super) fn cron_job(map: &mut Object) {
    let Some(spec) = child(map, "spec") else { return };
    put(spec, "concurrencyPolicy", "Allow");
    put(spec, "suspend", false);
    put(spec, "successfulJobsHistoryLimit", 3);
    put(spec, "failedJobsHistoryLimit", 1);
    if let Some(job) = child(spec, "jobTemplate").and_then(|template| child(template, "spec")) {
        template(job);
    }
}

pub(super) fn autoscaler(map: &mut Object) {
    let Some(spec) = child(map, "spec") else { return };
    put(spec, "minReplicas", 1);
    if spec.get("metrics").and_then(Value::as_array).is_none_or(Vec::is_empty) {
        let metric = json!([{"type": "Resource", "resource":
            {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}}]);
        spec.insert("metrics".to_owned(), metric);
    }
    let Some(behavior) = present(spec, "behavior") else { return };
    let percent = json!({"type": "Percent", "value": 100, "periodSeconds": 15});
    let pods = json!({"type": "Pods", "value": 4, "periodSeconds": 15});
    if let Some(up) = child(behavior, "scaleUp") {
        put(up, "stabilizationWindowSeconds", 0);
        put(up, "selectPolicy", "Max");
        put(up, "policies", json!([pods, percent]));
    }
    if let Some(down) = child(behavior, "scaleDown") {
        put(down, "selectPolicy", "Max");
        put(down, "policies", json!([percent]));
    }
}
