//! Deployments, replica sets, daemon sets, stateful sets.

use serde_json::Value;

use super::pod::write_template;
use super::text::{Text, long_time, number, plain};
use crate::verbs::rollout::history::selector_of;
use crate::verbs::session::text_at;

const CONDITIONS: &[(&str, &str)] = &[("Type", "/type"), ("Status", "/status"), ("Reason", "/reason")];

/// Writes a deployment; `sets` are its replica sets.
pub fn deployment(text: &mut Text, object: &Value, sets: &[Value]) {
    text.head(object);
    text.field(0, "CreationTimestamp", long_time(text_at(object, "/metadata/creationTimestamp")));
    text.pairs(0, "Labels", object.pointer("/metadata/labels"));
    text.annotations(0, object.pointer("/metadata/annotations"));
    text.field(0, "Selector", selector_of(object).unwrap_or_default());
    text.field(
        0,
        "Replicas",
        format!(
            "{} desired | {} updated | {} total | {} available | {} unavailable",
            object.pointer("/spec/replicas").and_then(Value::as_i64).unwrap_or(1),
            number(object, "/status/updatedReplicas"),
            number(object, "/status/replicas"),
            number(object, "/status/availableReplicas"),
            number(object, "/status/unavailableReplicas")
        ),
    );
    text.field(0, "StrategyType", text_at(object, "/spec/strategy/type"));
    text.field(0, "MinReadySeconds", number(object, "/spec/minReadySeconds"));
    if let Some(rolling) = object.pointer("/spec/strategy/rollingUpdate") {
        let of = |name: &str| rolling.get(name).map(plain).unwrap_or_default();
        text.field(
            0,
            "RollingUpdateStrategy",
            format!("{} max unavailable, {} max surge", of("maxUnavailable"), of("maxSurge")),
        );
    }
    write_template(text, object.pointer("/spec/template"));
    text.conditions(object, CONDITIONS);
    let revision = text_at(object, REVISION);
    let (new, old): (Vec<&Value>, Vec<&Value>) =
        sets.iter().partition(|set| text_at(set, REVISION) == revision);
    let line = |sets: &[&Value]| {
        let all: Vec<String> = sets
            .iter()
            .map(|set| {
                format!(
                    "{} ({}/{} replicas created)",
                    text_at(set, "/metadata/name"),
                    number(set, "/status/replicas"),
                    number(set, "/spec/replicas")
                )
            })
            .collect();
        all.join(", ")
    };
    text.field_or_none(0, "OldReplicaSets", &line(&old));
    text.field_or_none(0, "NewReplicaSet", &line(&new));
}

const REVISION: &str = "/metadata/annotations/deployment.kubernetes.io~1revision";

/// Writes a replica set.
pub fn replica_set(text: &mut Text, object: &Value, pods: &[Value]) {
    text.head(object);
    text.field(0, "Selector", selector_of(object).unwrap_or_default());
    text.pairs(0, "Labels", object.pointer("/metadata/labels"));
    text.annotations(0, object.pointer("/metadata/annotations"));
    controlled_by(text, object);
    text.field(
        0,
        "Replicas",
        format!(
            "{} current / {} desired",
            number(object, "/status/replicas"),
            object.pointer("/spec/replicas").and_then(Value::as_i64).unwrap_or(1)
        ),
    );
    pods_status(text, pods);
    write_template(text, object.pointer("/spec/template"));
    text.conditions(object, CONDITIONS);
}

/// Writes a daemon set.
pub fn daemon_set(text: &mut Text, object: &Value, pods: &[Value]) {
    text.head(object);
    text.field(0, "Selector", selector_of(object).unwrap_or_default());
    let selector = super::text::pairs(object.pointer("/spec/template/spec/nodeSelector"), "=");
    text.field_or_none(0, "Node-Selector", &selector.join(","));
    text.pairs(0, "Labels", object.pointer("/metadata/labels"));
    text.annotations(0, object.pointer("/metadata/annotations"));
    for (title, pointer) in [
        ("Desired Number of Nodes Scheduled", "/status/desiredNumberScheduled"),
        ("Current Number of Nodes Scheduled", "/status/currentNumberScheduled"),
        ("Number of Nodes Scheduled with Up-to-date Pods", "/status/updatedNumberScheduled"),
        ("Number of Nodes Scheduled with Available Pods", "/status/numberAvailable"),
        ("Number of Nodes Misscheduled", "/status/numberMisscheduled"),
    ] {
        text.line(0, format!("{title}: {}", number(object, pointer)));
    }
    pods_status(text, pods);
    write_template(text, object.pointer("/spec/template"));
}

/// Writes a stateful set.
pub fn stateful_set(text: &mut Text, object: &Value, pods: &[Value]) {
    text.head(object);
    text.field(0, "CreationTimestamp", long_time(text_at(object, "/metadata/creationTimestamp")));
    text.field(0, "Selector", selector_of(object).unwrap_or_default());
    text.pairs(0, "Labels", object.pointer("/metadata/labels"));
    text.annotations(0, object.pointer("/metadata/annotations"));
    let wanted = object.pointer("/spec/replicas").and_then(Value::as_i64).unwrap_or(1);
    text.field(0, "Replicas", format!("{wanted} desired | {} total", number(object, "/status/replicas")));
    text.field(0, "Update Strategy", text_at(object, "/spec/updateStrategy/type"));
    pods_status(text, pods);
    write_template(text, object.pointer("/spec/template"));
}

fn controlled_by(text: &mut Text, object: &Value) {
    let owners = object.pointer("/metadata/ownerReferences").and_then(Value::as_array);
    for owner in owners.into_iter().flatten() {
        if owner.get("controller").and_then(Value::as_bool) == Some(true) {
            text.field(
                0,
                "Controlled By",
                format!("{}/{}", text_at(owner, "/kind"), text_at(owner, "/name")),
            );
        }
    }
}

fn pods_status(text: &mut Text, pods: &[Value]) {
    let count = |phase: &str| pods.iter().filter(|pod| text_at(pod, "/status/phase") == phase).count();
    text.field(
        0,
        "Pods Status",
        format!(
            "{} Running / {} Waiting / {} Succeeded / {} Failed",
            count("Running"),
            count("Pending"),
            count("Succeeded"),
            count("Failed")
        ),
    );
}
