//! Keeps one pod of a DaemonSet on every node that it is meant for.
//!
//! A pod is pinned to its node by a node affinity on `metadata.name`; the scheduler binds it.

mod eligible;
mod history;
mod nodes;
mod status;
#[cfg(test)]
mod tests;
mod update;

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet};
use k8s_openapi::api::core::v1::{Node, Pod};
use rand::RngCore;

pub use self::eligible::pinned_node;
use crate::object::{is_terminating, name};
use crate::ownership::claim;
use crate::plan::{EventNote, Failure, Plan, Report, Subject};
use crate::pod::next_available;
use crate::selector;

/// The label that names the template a pod was made from.
pub const REVISION_HASH: &str = "controller-revision-hash";

/// What the planner looks at.
pub struct View<'a> {
    /// The DaemonSet.
    pub daemon_set: &'a DaemonSet,
    /// The pods that it owns, and those of its namespace that nobody owns.
    pub pods: Vec<Arc<Pod>>,
    /// Its history, and the revisions of its namespace that nobody owns.
    pub revisions: Vec<Arc<ControllerRevision>>,
    /// Every node of the cluster.
    pub nodes: Vec<Arc<Node>>,
    /// Why the last attempt failed, if it did.
    pub failure: Option<&'a Failure>,
}

/// How often pods of a DaemonSet failed on a node: each failure doubles the wait for the next pod.
#[derive(Default)]
pub struct Backoffs {
    waits: BTreeMap<(String, String), Wait>,
}

struct Wait {
    seconds: i64,
    until: Timestamp,
    /// The failed pod for which this wait was opened.
    pod: String,
}

/// Plans the writes that put the DaemonSet's pods where they belong.
pub fn plan(view: &View, backoffs: &mut Backoffs, now: Timestamp, rng: &mut dyn RngCore) -> (Plan, Report) {
    let set = view.daemon_set;
    let mut plan = Plan::default();
    let mut report = Report::default();
    if selector::selects_all(&set.spec.selector) {
        let message = "This daemon set is selecting all pods. A non-empty selector is required.";
        report.events.push(EventNote::warning(&Subject::of(set), "SelectingAll", message));
        report.why.push(format!("{}: {message}", name(set)));
        return (plan, report);
    }
    if is_terminating(set) {
        return (plan, report);
    }
    let pods = claim(set, &set.spec.selector, view.pods.iter().cloned());
    let revisions = claim(set, &set.spec.selector, view.revisions.iter().cloned());
    plan.together(pods.patches);
    plan.together(revisions.patches);
    let history = history::plan(set, &revisions.owned, &mut plan);
    let Some(hash) = history.hash else {
        // The name of the new revision is taken: the next plan finds another by the raised collision count.
        status::collide(set, &mut plan);
        return (plan, report);
    };

    let by_node = nodes::by_node(&pods.owned);
    let mut wants = nodes::Wants::default();
    nodes::manage(view, &by_node, &hash, backoffs, now, &mut wants);
    let on_delete =
        set.spec.update_strategy.as_ref().and_then(|strategy| strategy.type_.as_deref()) == Some("OnDelete");
    if !on_delete {
        update::rolling(view, &by_node, &hash, now, &mut wants);
    }
    report.why.extend(wants.why());
    report.events.append(&mut wants.events);
    if let Some(failure) = view.failure.filter(|_| !wants.is_settled()) {
        report.why.push(format!("{}: {}", failure.reason, failure.message));
    }
    if let Some(at) = wants.look_again_at {
        plan.look_again(at);
    }
    wants.write_into(set, &hash, rng, &mut plan);
    history::clean_up(set, &revisions.owned, &pods.owned, &hash, &mut plan);
    status::write(view, &by_node, &hash, now, &mut plan);
    let min_ready = set.spec.min_ready_seconds.unwrap_or(0);
    if let Some(at) = next_available(pods.owned.iter().map(|pod| &**pod), min_ready, now) {
        plan.look_again(at);
    }
    (plan, report)
}

// === impl Backoffs ===

impl Backoffs {
    /// Whether the failed `pod` may be replaced; if not, when.
    fn may_replace(&mut self, set: &str, node: &str, pod: &str, now: Timestamp) -> Result<(), Timestamp> {
        const FIRST: i64 = 1;
        const LONGEST: i64 = 15 * 60;
        let key = (set.to_owned(), node.to_owned());
        match self.waits.get_mut(&key) {
            Some(wait) if wait.pod == pod => {}
            Some(wait) => {
                // A node that has been quiet for twice the longest wait starts anew.
                let quiet = now > crate::object::after(wait.until, 2 * LONGEST);
                wait.seconds = if quiet { FIRST } else { (wait.seconds * 2).min(LONGEST) };
                wait.until = crate::object::after(now, wait.seconds);
                pod.clone_into(&mut wait.pod);
            }
            None => {
                let wait = Wait { seconds: FIRST, until: now, pod: pod.to_owned() };
                self.waits.insert(key, wait);
                return Ok(());
            }
        }
        match self.waits.get(&key) {
            Some(wait) if wait.until > now => Err(wait.until),
            _ => Ok(()),
        }
    }

    /// Forgets a DaemonSet that is gone.
    pub fn forget(&mut self, set_uid: &str) {
        self.waits.retain(|(uid, _), _| uid != set_uid);
    }
}
