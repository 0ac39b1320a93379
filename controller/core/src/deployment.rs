//! Rolls a Deployment from one template to the next by the sizes of its ReplicaSets.
//!
//! One plan goes as far as it can without news from the pods: it works on a copy of the sizes
//! ([`sets::Sets`]) and notes each change as its own write, in order, so that the sum of all sizes stays
//! within the surge at every moment. A write of a size tests the size that it replaces.

mod annotations;
mod rolling;
mod scale;
mod sets;
mod status;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use serde_json::json;

use crate::merge::diff_field;
use crate::object::{is_terminating, name};
use crate::ownership::claim;
use crate::plan::{EventNote, Failure, Plan, Report, Subject, merge_exact};
use crate::selector;
use crate::write::PatchKind;

use self::sets::Sets;

/// What the planner looks at.
pub struct View<'a> {
    /// The Deployment.
    pub deployment: &'a Deployment,
    /// Its ReplicaSets, and those of its namespace that nobody owns.
    pub replica_sets: Vec<Arc<ReplicaSet>>,
    /// The ReplicaSet that bears a given name in the Deployment's namespace, whoever owns it.
    pub by_name: &'a dyn Fn(&str) -> Option<Arc<ReplicaSet>>,
    /// The uids of those of its ReplicaSets that have pods which have not ended (asked only by Recreate).
    pub has_running_pods: &'a dyn Fn(&ReplicaSet) -> bool,
    /// Why the last attempt failed, if it did.
    pub failure: Option<&'a Failure>,
}

/// Plans the next writes of a Deployment.
pub fn plan(view: &View, now: Timestamp) -> (Plan, Report) {
    let deployment = view.deployment;
    let mut plan = Plan::default();
    let mut report = Report::default();
    let spec = &deployment.spec;
    if selector::selects_all(&spec.selector) {
        return refuse_to_select_all(deployment);
    }
    let claimed = claim(deployment, &spec.selector, view.replica_sets.iter().cloned());
    plan.together(claimed.patches);
    let mut sets = Sets::new(deployment, claimed.owned);
    let mut next = status::Draft::new(deployment);
    if is_terminating(deployment) {
        next.count(&sets, now);
        status::write(deployment, next, &mut plan);
        return (plan, report);
    }
    next.pause_or_resume(now);

    let paused = spec.paused.unwrap_or(false);
    let recreate = spec.strategy.as_ref().and_then(|strategy| strategy.type_.as_deref()) == Some("Recreate");
    let rollout = if paused || scale::is_due(&sets) {
        sets.sync_revision();
        scale::plan(&mut sets);
        !paused
    } else {
        true
    };
    if paused {
        sets.clean_up();
    } else if recreate {
        rolling::recreate(view, &mut sets, &mut next, now);
    } else {
        rolling::rolling_update(view, &mut sets, &mut next, now);
    }
    next.found_or_created(&sets, now);
    next.count(&sets, now);
    if rollout {
        next.progress(&sets, view.failure, now);
        if next.is_complete(&sets) {
            sets.clean_up();
        }
    }
    sets.write_into(&mut plan);
    if let Some(at) = next.deadline(now) {
        plan.look_again(at);
    }
    report.why = next.why();
    status::write(deployment, next, &mut plan);
    // After the status, whose patch holds for the very revision that was looked at.
    write_revision(deployment, &sets, &mut plan);
    (plan, report)
}

/// The Deployment carries the revision of its newest ReplicaSet. Written with the status: a change of annotations in the main
/// resource would count as a new generation.
fn write_revision(deployment: &Deployment, sets: &Sets, plan: &mut Plan) {
    let Some(revision) = sets.new_revision() else { return };
    if annotations::revision_text(&deployment.metadata) == Some(revision.as_str()) {
        return;
    }
    let body = json!({"metadata": {"annotations": {annotations::REVISION: revision}}});
    plan.one(crate::plan::patch_same::<Deployment>(
        &deployment.metadata,
        Some("status"),
        PatchKind::Merge,
        body,
    ));
}

fn refuse_to_select_all(deployment: &Deployment) -> (Plan, Report) {
    let mut plan = Plan::default();
    let message = "This deployment is selecting all pods. A non-empty selector is required.";
    let note = EventNote::warning(&Subject::of(deployment), "SelectingAll", message);
    let report = Report { events: vec![note], why: vec![format!("{}: {message}", name(deployment))] };
    let mut next = deployment.status.clone().unwrap_or_default();
    if next.observed_generation < deployment.metadata.generation {
        next.observed_generation = deployment.metadata.generation;
        if let Some(body) = diff_field("status", &deployment.status, &Some(next)) {
            plan.always(merge_exact::<Deployment>(&deployment.metadata, Some("status"), body));
        }
    }
    (plan, report)
}
