//! A Deployment's status and conditions.

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentCondition, DeploymentStatus, ReplicaSetCondition};

use super::sets::{Set, Sets};
use crate::merge::diff_field;
use crate::object::{after, name, stamp};
use crate::plan::{Failure, Plan, merge_exact};

const PROGRESSING: &str = "Progressing";
const AVAILABLE: &str = "Available";
const REPLICA_FAILURE: &str = "ReplicaFailure";
const NEW_SET_AVAILABLE: &str = "NewReplicaSetAvailable";
const TIMED_OUT: &str = "ProgressDeadlineExceeded";
const PAUSED: &str = "DeploymentPaused";

/// The status as it will be.
pub struct Draft<'a> {
    deployment: &'a Deployment,
    status: DeploymentStatus,
    deadline_seconds: Option<i64>,
}

// === impl Draft ===

impl<'a> Draft<'a> {
    /// Starts from the status as it is.
    pub fn new(deployment: &'a Deployment) -> Self {
        let deadline = deployment.spec.progress_deadline_seconds;
        Draft {
            deployment,
            status: deployment.status.clone().unwrap_or_default(),
            deadline_seconds: deadline.filter(|seconds| *seconds != i32::MAX).map(i64::from),
        }
    }

    fn condition(&self, kind: &str) -> Option<&DeploymentCondition> {
        self.status.conditions.as_ref()?.iter().find(|condition| condition.type_.as_deref() == Some(kind))
    }

    fn remove(&mut self, kind: &str) {
        if let Some(conditions) = &mut self.status.conditions {
            conditions.retain(|condition| condition.type_.as_deref() != Some(kind));
        }
        self.status.conditions = self.status.conditions.take().filter(|conditions| !conditions.is_empty());
    }

    /// Sets a condition. One of the same status and reason stays as it is, its times too.
    fn set(&mut self, kind: &str, status: &str, reason: &str, message: String, now: Timestamp) {
        let current = self.condition(kind);
        if current.is_some_and(|current| {
            current.status.as_deref() == Some(status) && current.reason.as_deref() == Some(reason)
        }) {
            return;
        }
        let since = current
            .filter(|current| current.status.as_deref() == Some(status))
            .and_then(|current| current.last_transition_time.clone())
            .unwrap_or_else(|| stamp(now));
        self.remove(kind);
        self.status.conditions.get_or_insert_default().push(DeploymentCondition {
            type_: Some(kind.into()),
            status: Some(status.into()),
            reason: Some(reason.into()),
            message: Some(message),
            last_update_time: Some(stamp(now)),
            last_transition_time: Some(since),
        });
    }

    /// A paused rollout does not run against its deadline.
    pub fn pause_or_resume(&mut self, now: Timestamp) {
        if self.deadline_seconds.is_none() {
            return;
        }
        let reason = self.condition(PROGRESSING).and_then(|condition| condition.reason.as_deref());
        let (was_paused, timed_out) = (reason == Some(PAUSED), reason == Some(TIMED_OUT));
        let paused = self.deployment.spec.paused.unwrap_or(false);
        if timed_out || paused == was_paused {
            return;
        }
        if paused {
            self.set(PROGRESSING, "Unknown", PAUSED, "Deployment is paused".into(), now);
        } else {
            self.set(PROGRESSING, "Unknown", "DeploymentResumed", "Deployment is resumed".into(), now);
        }
    }

    /// The name of the new set is taken: the next hash will differ.
    pub fn collide(&mut self) {
        self.status.collision_count = Some(self.status.collision_count.unwrap_or(0) + 1);
    }

    /// A rollout starts to progress when its new set is found or made.
    pub fn found_or_created(&mut self, sets: &Sets, now: Timestamp) {
        let Some(set) = sets.new_set().filter(|_| self.deadline_seconds.is_some()) else { return };
        if sets.is_creating() {
            let message = format!("Created new replica set \"{}\"", set.name);
            self.set(PROGRESSING, "True", "NewReplicaSetCreated", message, now);
        } else if self.condition(PROGRESSING).is_none() {
            let message = format!("Found new replica set \"{}\"", set.name);
            self.set(PROGRESSING, "True", "FoundNewReplicaSet", message, now);
        }
    }

    /// The counts, and whether enough pods are available.
    pub fn count(&mut self, sets: &Sets, now: Timestamp) {
        let sum = |read: fn(&Set) -> i32| sets.iter().map(read).fold(0i32, i32::saturating_add);
        let available = sum(Set::available);
        let status = &mut self.status;
        status.observed_generation =
            self.deployment.metadata.generation.filter(|generation| *generation != 0);
        status.replicas = positive(sum(Set::actual));
        status.updated_replicas = positive(sets.new_set().map_or(0, Set::actual));
        status.ready_replicas = positive(sum(Set::ready));
        status.available_replicas = positive(available);
        status.unavailable_replicas = positive((sets.total() - available).max(0));
        let terminating: Vec<i32> = sets
            .iter()
            .filter_map(|set| set.object.as_ref()?.status.as_ref()?.terminating_replicas)
            .collect();
        status.terminating_replicas = (!terminating.is_empty()).then(|| terminating.iter().sum());
        if available >= sets.wanted() - sets.max_unavailable() {
            let message = "Deployment has minimum availability.".into();
            self.set(AVAILABLE, "True", "MinimumReplicasAvailable", message, now);
        } else {
            let message = "Deployment does not have minimum availability.".into();
            self.set(AVAILABLE, "False", "MinimumReplicasUnavailable", message, now);
        }
    }

    /// Whether every pod is a new one and available.
    pub fn is_complete(&self, sets: &Sets) -> bool {
        let wanted = positive(sets.wanted());
        self.status.updated_replicas == wanted
            && self.status.replicas == wanted
            && self.status.available_replicas == wanted
            && self.status.observed_generation >= self.deployment.metadata.generation
    }

    /// Whether the rollout is done, moves, or has been still for too long.
    pub fn progress(&mut self, sets: &Sets, failure: Option<&Failure>, now: Timestamp) {
        match self.deadline_seconds {
            None => self.remove(PROGRESSING),
            Some(seconds) => self.progress_against(seconds, sets, now),
        }
        if let Some(failure) = failure.filter(|failure| failure.reason == "ReplicaSetCreateError") {
            self.set(PROGRESSING, "False", failure.reason, failure.message.clone(), now);
        }
        match replica_failure(sets) {
            Some(found) => {
                let reason = found.reason.clone().unwrap_or_default();
                let message = found.message.clone().unwrap_or_default();
                let status = found.status.clone().unwrap_or_default();
                self.set(REPLICA_FAILURE, &status, &reason, message, now);
            }
            None => self.remove(REPLICA_FAILURE),
        }
    }

    fn progress_against(&mut self, seconds: i64, sets: &Sets, now: Timestamp) {
        let current = self.condition(PROGRESSING).cloned();
        let reason = current.as_ref().and_then(|current| current.reason.as_deref());
        let all_updated = self.status.replicas == self.status.updated_replicas;
        if all_updated && reason == Some(NEW_SET_AVAILABLE) {
            return;
        }
        let told = match sets.new_set() {
            Some(set) => format!("ReplicaSet \"{}\"", set.name),
            None => format!("Deployment \"{}\"", name(self.deployment)),
        };
        if self.is_complete(sets) {
            let message = format!("{told} has successfully progressed.");
            self.set(PROGRESSING, "True", NEW_SET_AVAILABLE, message, now);
        } else if self.has_moved() {
            let since = current.filter(|current| current.status.as_deref() == Some("True"));
            self.remove(PROGRESSING);
            self.set(PROGRESSING, "True", "ReplicaSetUpdated", format!("{told} is progressing."), now);
            if let (Some(since), Some(conditions)) = (since, &mut self.status.conditions) {
                for condition in
                    conditions.iter_mut().filter(|each| each.type_.as_deref() == Some(PROGRESSING))
                {
                    condition.last_transition_time = since.last_transition_time.clone();
                }
            }
        } else if current.as_ref().is_some_and(|current| timed_out(current, seconds, now)) {
            let message = format!("{told} has timed out progressing.");
            self.set(PROGRESSING, "False", TIMED_OUT, message, now);
        }
    }

    fn has_moved(&self) -> bool {
        let none = DeploymentStatus::default();
        let (old, new) = (self.deployment.status.as_ref().unwrap_or(&none), &self.status);
        let number = |value: Option<i32>| value.unwrap_or(0);
        let outdated = |status: &DeploymentStatus| number(status.replicas) - number(status.updated_replicas);
        number(new.updated_replicas) > number(old.updated_replicas)
            || outdated(new) < outdated(old)
            || number(new.ready_replicas) > number(old.ready_replicas)
            || number(new.available_replicas) > number(old.available_replicas)
    }

    /// When an unfinished rollout will have been still for too long.
    pub fn deadline(&self, now: Timestamp) -> Option<Timestamp> {
        let current = self.condition(PROGRESSING)?;
        let reason = current.reason.as_deref().unwrap_or_default();
        if matches!(reason, NEW_SET_AVAILABLE | TIMED_OUT | PAUSED) {
            return None;
        }
        let since = current.last_update_time.as_ref()?.0;
        Some(after(since, self.deadline_seconds?.saturating_add(1))).filter(|at| *at > now)
    }

    /// The conditions in one line each, what is wrong first.
    pub fn why(&self) -> Vec<String> {
        let mut conditions: Vec<&DeploymentCondition> = self.status.conditions.iter().flatten().collect();
        conditions.sort_by_key(|condition| {
            condition.status.as_deref() == Some("True") && condition.type_.as_deref() != Some(REPLICA_FAILURE)
        });
        let line = |condition: &&DeploymentCondition| {
            let text = |field: &Option<String>| field.clone().unwrap_or_default();
            format!("{}: {}", text(&condition.reason), text(&condition.message))
        };
        conditions.iter().map(line).collect()
    }
}

/// Writes the status if it changed.
pub fn write(deployment: &Deployment, draft: Draft, plan: &mut Plan) {
    if let Some(body) = diff_field("status", &deployment.status, &Some(draft.status)) {
        plan.always(merge_exact::<Deployment>(&deployment.metadata, Some("status"), body));
    }
}

fn timed_out(current: &DeploymentCondition, seconds: i64, now: Timestamp) -> bool {
    match current.reason.as_deref() {
        Some(NEW_SET_AVAILABLE) => false,
        Some(TIMED_OUT) => true,
        _ => current.last_update_time.as_ref().is_some_and(|since| after(since.0, seconds) < now),
    }
}

/// The failure of a set, the new one's before any other.
fn replica_failure<'s>(sets: &'s Sets) -> Option<&'s ReplicaSetCondition> {
    let find = |set: &'s Set| {
        let conditions = set.object.as_ref()?.status.as_ref()?.conditions.as_ref()?;
        conditions.iter().find(|condition| condition.type_.as_deref() == Some(REPLICA_FAILURE))
    };
    sets.new_set().and_then(find).or_else(|| sets.iter().find_map(find))
}

/// Zero is absent in the stored form.
fn positive(number: i32) -> Option<i32> {
    Some(number).filter(|number| *number != 0)
}
