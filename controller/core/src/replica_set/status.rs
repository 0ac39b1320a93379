//! The status of a ReplicaSet.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetStatus};
use k8s_openapi::api::core::v1::Pod;

use crate::merge::diff_field;
use crate::object::stamp;
use crate::plan::{Action, Failure, merge_exact};
use crate::pod::{is_available, is_ready};
use crate::selector::Labels;

const REPLICA_FAILURE: &str = "ReplicaFailure";

/// The status that fits what was seen.
pub fn next(
    set: &ReplicaSet,
    active: &[Arc<Pod>],
    terminating: usize,
    failure: Option<&Failure>,
    now: Timestamp,
) -> ReplicaSetStatus {
    let spec = &set.spec;
    let min_ready = spec.min_ready_seconds.unwrap_or(0);
    let no_labels = Labels::new();
    let template_labels = spec
        .template
        .as_ref()
        .and_then(|template| template.metadata.as_ref()?.labels.as_ref())
        .unwrap_or(&no_labels);
    let fully_labeled = |pod: &Pod| {
        template_labels
            .iter()
            .all(|(key, value)| pod.metadata.labels.as_ref().and_then(|have| have.get(key)) == Some(value))
    };
    let mut status = set.status.clone().unwrap_or_default();
    status.replicas = count(active.len());
    status.fully_labeled_replicas = positive(active.iter().filter(|pod| fully_labeled(pod)).count());
    status.ready_replicas = positive(active.iter().filter(|pod| is_ready(pod)).count());
    status.available_replicas =
        positive(active.iter().filter(|pod| is_available(pod, min_ready, now)).count());
    status.terminating_replicas = Some(count(terminating));
    status.observed_generation = set.metadata.generation.filter(|generation| *generation != 0);
    condition(&mut status, failure, now);
    status
}

/// The write of a changed status.
pub fn write(set: &ReplicaSet, next: ReplicaSetStatus) -> Option<Action> {
    let body = diff_field("status", &set.status, &Some(next))?;
    Some(merge_exact::<ReplicaSet>(&set.metadata, Some("status"), body))
}

fn condition(status: &mut ReplicaSetStatus, failure: Option<&Failure>, now: Timestamp) {
    let mut conditions = status.conditions.take().unwrap_or_default();
    let known = conditions.iter().any(|condition| condition.type_.as_deref() == Some(REPLICA_FAILURE));
    match failure {
        Some(failure) if !known => conditions.push(ReplicaSetCondition {
            type_: Some(REPLICA_FAILURE.into()),
            status: Some("True".into()),
            reason: Some(failure.reason.into()),
            message: Some(failure.message.clone()),
            last_transition_time: Some(stamp(now)),
        }),
        Some(_) => {}
        None => conditions.retain(|condition| condition.type_.as_deref() != Some(REPLICA_FAILURE)),
    }
    status.conditions = Some(conditions).filter(|conditions| !conditions.is_empty());
}

fn count(number: usize) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

/// Zero is absent in the stored form.
fn positive(number: usize) -> Option<i32> {
    Some(count(number)).filter(|number| *number != 0)
}
