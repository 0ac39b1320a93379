//! How far a rollout is, told from one object.

use serde_json::Value;

use super::revision_of;
use crate::verbs::error::{Result, message};
use crate::verbs::session::text_at;

/// How far it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// In words.
    pub text: String,
    /// Whether it is complete.
    pub done: bool,
}

/// How far the rollout of a workload is; an error when it failed.
pub fn of(kind: &str, object: &Value, revision: i64) -> Result<Progress> {
    match kind {
        "Deployment" => deployment(object, revision),
        "DaemonSet" => daemon_set(object),
        "StatefulSet" => stateful_set(object),
        _ => message(format!("no status viewer has been implemented for {kind}")),
    }
}

fn number(object: &Value, pointer: &str) -> i64 {
    object.pointer(pointer).and_then(Value::as_i64).unwrap_or(0)
}

fn observed(object: &Value) -> bool {
    number(object, "/metadata/generation") <= number(object, "/status/observedGeneration")
}

fn waiting(text: String) -> Result<Progress> {
    Ok(Progress { text, done: false })
}

fn done(text: String) -> Result<Progress> {
    Ok(Progress { text, done: true })
}

fn deployment(object: &Value, revision: i64) -> Result<Progress> {
    let name = text_at(object, "/metadata/name");
    let current = revision_of(object);
    if revision > 0 && revision != current {
        return message(format!(
            "desired revision ({revision}) is different from the running revision ({current})"
        ));
    }
    if !observed(object) {
        return waiting("Waiting for deployment spec update to be observed...".to_owned());
    }
    let conditions = object.pointer("/status/conditions").and_then(Value::as_array);
    let progressing =
        conditions.into_iter().flatten().find(|condition| text_at(condition, "/type") == "Progressing");
    if progressing.is_some_and(|condition| text_at(condition, "/reason") == "ProgressDeadlineExceeded") {
        return message(format!("deployment \"{name}\" exceeded its progress deadline"));
    }
    let wanted = object.pointer("/spec/replicas").and_then(Value::as_i64).unwrap_or(1);
    let updated = number(object, "/status/updatedReplicas");
    let total = number(object, "/status/replicas");
    let available = number(object, "/status/availableReplicas");
    if updated < wanted {
        return waiting(format!(
            "Waiting for deployment \"{name}\" rollout to finish: {updated} out of {wanted} new replicas have been updated..."
        ));
    }
    if total > updated {
        return waiting(format!(
            "Waiting for deployment \"{name}\" rollout to finish: {} old replicas are pending termination...",
            total - updated
        ));
    }
    if available < updated {
        return waiting(format!(
            "Waiting for deployment \"{name}\" rollout to finish: {available} of {updated} updated replicas are available..."
        ));
    }
    done(format!("deployment \"{name}\" successfully rolled out"))
}

fn daemon_set(object: &Value) -> Result<Progress> {
    let name = text_at(object, "/metadata/name");
    if text_at(object, "/spec/updateStrategy/type") == "OnDelete" {
        return message("rollout status is only available for RollingUpdate strategy type");
    }
    if !observed(object) {
        return waiting("Waiting for daemon set spec update to be observed...".to_owned());
    }
    let wanted = number(object, "/status/desiredNumberScheduled");
    let updated = number(object, "/status/updatedNumberScheduled");
    let available = number(object, "/status/numberAvailable");
    if updated < wanted {
        return waiting(format!(
            "Waiting for daemon set \"{name}\" rollout to finish: {updated} out of {wanted} new pods have been updated..."
        ));
    }
    if available < wanted {
        return waiting(format!(
            "Waiting for daemon set \"{name}\" rollout to finish: {available} of {wanted} updated pods are available..."
        ));
    }
    done(format!("daemon set \"{name}\" successfully rolled out"))
}

fn stateful_set(object: &Value) -> Result<Progress> {
    if text_at(object, "/spec/updateStrategy/type") == "OnDelete" {
        return message("rollout status is only available for RollingUpdate strategy type");
    }
    if !observed(object) {
        return waiting("Waiting for statefulset spec update to be observed...".to_owned());
    }
    let wanted = object.pointer("/spec/replicas").and_then(Value::as_i64).unwrap_or(1);
    let ready = number(object, "/status/readyReplicas");
    if ready < wanted {
        return waiting(format!("Waiting for {} pods to be ready...", wanted - ready));
    }
    let updated = number(object, "/status/updatedReplicas");
    let partition = number(object, "/spec/updateStrategy/rollingUpdate/partition");
    if partition > 0 {
        if updated < wanted - partition {
            return waiting(format!(
                "Waiting for partitioned roll out to finish: {updated} out of {} new pods have been updated...",
                wanted - partition
            ));
        }
        return done(format!("partitioned roll out complete: {updated} new pods have been updated..."));
    }
    if text_at(object, "/status/updateRevision") != text_at(object, "/status/currentRevision") {
        return waiting(format!(
            "waiting for statefulset rolling update to complete {updated} pods at revision {}...",
            text_at(object, "/status/updateRevision")
        ));
    }
    done(format!(
        "statefulset rolling update complete {} pods at revision {}...",
        number(object, "/status/currentReplicas"),
        text_at(object, "/status/currentRevision")
    ))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(kind: &str, status: Value, expected: &str) {
        let object =
            json!({"metadata": {"name": "web", "generation": 2}, "spec": {"replicas": 3}, "status": status});
        let text = match of(kind, &object, 0) {
            Ok(progress) if progress.done => format!("done: {}", progress.text),
            Ok(progress) => progress.text,
            Err(error) => error.lines().join("\n"),
        };
        assert_eq!(text, expected);
    }

    #[test]
    fn deployments() {
        check(
            "Deployment",
            json!({"observedGeneration": 1}),
            "Waiting for deployment spec update to be observed...",
        );
        check(
            "Deployment",
            json!({"observedGeneration": 2, "updatedReplicas": 1, "replicas": 3}),
            "Waiting for deployment \"web\" rollout to finish: 1 out of 3 new replicas have been updated...",
        );
        check(
            "Deployment",
            json!({"observedGeneration": 2, "updatedReplicas": 3, "replicas": 4}),
            "Waiting for deployment \"web\" rollout to finish: 1 old replicas are pending termination...",
        );
        check(
            "Deployment",
            json!({"observedGeneration": 2, "updatedReplicas": 3, "replicas": 3, "availableReplicas": 2}),
            "Waiting for deployment \"web\" rollout to finish: 2 of 3 updated replicas are available...",
        );
        check(
            "Deployment",
            json!({"observedGeneration": 2, "updatedReplicas": 3, "replicas": 3, "availableReplicas": 3}),
            "done: deployment \"web\" successfully rolled out",
        );
        check(
            "Deployment",
            json!({"observedGeneration": 2, "conditions": [{"type": "Progressing", "reason": "ProgressDeadlineExceeded"}]}),
            "error: deployment \"web\" exceeded its progress deadline",
        );
    }

    #[test]
    fn others() {
        check(
            "DaemonSet",
            json!({"observedGeneration": 2, "desiredNumberScheduled": 3, "updatedNumberScheduled": 3, "numberAvailable": 3}),
            "done: daemon set \"web\" successfully rolled out",
        );
        check("Pod", json!({}), "error: no status viewer has been implemented for Pod");
    }
}
