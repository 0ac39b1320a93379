//! Keeps a ReplicaSet at its size: too few pods are created, surplus pods deleted, worst first.

mod rank;
mod status;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec};
use rand::RngCore;
use serde_json::Value;

use crate::merge::to_json;
use crate::object::{
    Object, controller_reference, is_controlled_by, is_terminating, name, namespace, random_name, uid,
};
use crate::ownership::claim;
use crate::plan::{Action, EventNote, Failure, Plan, Report, Subject, create, delete};
use crate::pod::{is_active, is_terminal, next_available};

/// The most pods created or deleted by one plan.
const BURST: usize = 500;

/// What the planner looks at.
pub struct View<'a> {
    /// The ReplicaSet.
    pub replica_set: &'a ReplicaSet,
    /// The pods that it owns, and those of its namespace that nobody owns.
    pub pods: Vec<Arc<Pod>>,
    /// The pods of all ReplicaSets with the same owner, itself included: nodes with many of them are relieved first.
    pub related: Vec<Arc<Pod>>,
    /// Why the last attempt failed, if it did.
    pub failure: Option<&'a Failure>,
}

/// Plans the writes that bring the ReplicaSet to its size, and its status.
pub fn plan(view: &View, now: Timestamp, rng: &mut dyn RngCore) -> (Plan, Report) {
    let set = view.replica_set;
    let mut plan = Plan::default();
    let mut report = Report::default();
    let spec = &set.spec;
    let candidates = view.pods.iter().filter(|pod| is_active(pod)).cloned();
    let claimed = claim(set, &spec.selector, candidates);
    plan.together(claimed.patches);
    let active = claimed.owned;

    let wanted = usize::try_from(spec.replicas.unwrap_or(1)).unwrap_or(0);
    let subject = Subject::of(set);
    if !is_terminating(set) {
        if active.len() < wanted {
            let missing = (wanted - active.len()).min(BURST);
            report.why.push(format!("{} of {wanted} pods exist; creating {missing}", active.len()));
            plan.slow_start((0..missing).map(|_| new_pod(set, &subject, rng)).collect());
        } else if active.len() > wanted {
            let surplus = (active.len() - wanted).min(BURST);
            report.why.push(format!("{} pods exist, {wanted} wanted; deleting {surplus}", active.len()));
            let doomed = rank::worst(&active, &view.related, surplus, now);
            plan.together(doomed.iter().map(|pod| doomed_pod(pod, &subject)).collect());
        }
    }
    let managing = active.len() != wanted && !is_terminating(set);
    let failure = view.failure.filter(|_| managing);
    if let Some(failure) = failure {
        report.why.push(format!("{}: {}", failure.reason, failure.message));
    }
    let terminating = view.pods.iter().filter(|pod| is_terminating(&***pod) && !is_terminal(pod));
    let terminating = terminating.filter(|pod| is_controlled_by(&pod.metadata, uid(set)));
    // Pods that come or go bring another plan, and that one the status; a failure is told at once.
    let soon_outdated = managing && failure.is_none() && active.len().abs_diff(wanted) <= BURST;
    if !soon_outdated {
        let status = status::next(set, &active, terminating.count(), failure, now);
        if let Some(action) = status::write(set, status) {
            plan.always(action);
        }
    }
    let min_ready = spec.min_ready_seconds.unwrap_or(0);
    if let Some(at) = next_available(active.iter().map(|pod| &**pod), min_ready, now) {
        plan.look_again(at);
    }
    (plan, report)
}

fn new_pod(set: &ReplicaSet, subject: &Subject, rng: &mut dyn RngCore) -> Action {
    let pod_name = random_name(&format!("{}-", name(set)), rng);
    let template = set.spec.template.as_ref();
    let document = pod_from_template(set, template, &pod_name);
    create::<Pod>(Some(namespace(set)), document)
        .then(EventNote::normal(subject, "SuccessfulCreate", format!("Created pod: {pod_name}")))
        .otherwise(EventNote::warning(subject, "FailedCreate", "Error creating: "))
}

fn doomed_pod(pod: &Pod, subject: &Subject) -> Action {
    delete::<Pod>(&pod.metadata)
        .then(EventNote::normal(subject, "SuccessfulDelete", format!("Deleted pod: {}", name(pod))))
        .otherwise(EventNote::warning(subject, "FailedDelete", "Error deleting: "))
}

/// The document of a pod made from `template` and managed by `owner`.
pub(crate) fn pod_from_template<O: Object>(
    owner: &O,
    template: Option<&PodTemplateSpec>,
    pod_name: &str,
) -> Value {
    let template_meta = template.and_then(|template| template.metadata.as_ref());
    let mut meta = serde_json::Map::new();
    meta.insert("name".into(), pod_name.into());
    meta.insert("namespace".into(), namespace(owner).into());
    meta.insert("generateName".into(), format!("{}-", name(owner)).into());
    meta.insert("ownerReferences".into(), Value::Array(vec![to_json(&controller_reference(owner))]));
    if let Some(template_meta) = template_meta {
        if let Some(labels) = &template_meta.labels {
            meta.insert("labels".into(), to_json(labels));
        }
        if let Some(annotations) = &template_meta.annotations {
            meta.insert("annotations".into(), to_json(annotations));
        }
        if let Some(finalizers) = &template_meta.finalizers {
            meta.insert("finalizers".into(), to_json(finalizers));
        }
    }
    let spec = template.and_then(|template| template.spec.as_ref()).map_or(Value::Null, to_json);
    serde_json::json!({ "metadata": meta, "spec": spec })
}
