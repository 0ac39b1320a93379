//! Removes pods that nobody else will: of nodes that are gone, too many ended ones, and those whose node is
//! declared out of service.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod};
use serde_json::json;

use crate::merge::to_json;
use crate::node_lifecycle::is_node_ready;
use crate::object::{after, is_terminating, stamp};
use crate::plan::{Action, Answer, Answers, Plan, Question, Report, delete_with, patch_same, target_of};
use crate::pod::{is_terminal, node_name};
use crate::tolerate::taints;
use crate::write::PatchKind;

/// How long a node must be missing before its pods go.
const QUARANTINE_SECONDS: i64 = 40;
const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";

/// Since when nodes are missing that pods are bound to.
#[derive(Default)]
pub struct Missing {
    since: BTreeMap<String, Timestamp>,
}

impl Missing {
    /// The node is there.
    pub fn found(&mut self, node: &str) {
        self.since.remove(node);
    }
}

/// Plans for the pods of a node that is gone or out of service.
pub fn plan_node(
    node_name: &str,
    node: Option<&Node>,
    pods: &[Arc<Pod>],
    missing: &mut Missing,
    answers: &Answers,
    now: Timestamp,
) -> (Plan, Report) {
    let Some(node) = node else { return plan_orphans(node_name, pods, missing, answers, now) };
    missing.found(node_name);
    let mut plan = Plan::default();
    let out_of_service = taints(node).iter().any(|taint| taint.key == OUT_OF_SERVICE);
    if out_of_service && !is_node_ready(node) {
        let message = "PodGC: node is out of service";
        remove(pods.iter().filter(|pod| is_terminating(&***pod)), message, now, &mut plan);
    }
    (plan, Report::default())
}

fn plan_orphans(
    node: &str,
    pods: &[Arc<Pod>],
    missing: &mut Missing,
    answers: &Answers,
    now: Timestamp,
) -> (Plan, Report) {
    let mut plan = Plan::default();
    let mut report = Report::default();
    if pods.is_empty() {
        missing.found(node);
        return (plan, report);
    }
    let since = *missing.since.entry(node.to_owned()).or_insert(now);
    let due = after(since, QUARANTINE_SECONDS);
    if now < due {
        plan.look_again(due);
        return (plan, report);
    }
    let mut wanted = Node::default();
    wanted.metadata.name = Some(node.to_owned());
    let question = Question::Get(target_of::<Node>(&wanted.metadata));
    match answers.get(&question) {
        None => return (Plan::ask(vec![question]), report),
        Some(Answer::Absent) => {
            report.why.push(format!("node {node} no longer exists; removing its {} pods", pods.len()));
            remove(pods.iter(), "PodGC: node no longer exists", now, &mut plan);
        }
        Some(_) => plan.look_again(after(now, QUARANTINE_SECONDS)),
    }
    (plan, report)
}

/// Plans for a pod that is being deleted and was never bound.
pub fn plan_unbound(pod: &Pod) -> (Plan, Report) {
    let mut plan = Plan::default();
    if is_terminating(pod) && node_name(pod).is_none() {
        plan.one(delete_with::<Pod>(&pod.metadata, Some(0), None));
    }
    (plan, Report::default())
}

/// Plans the removal of ended pods, oldest first.
pub fn plan_ended<'a>(oldest: impl Iterator<Item = &'a Arc<Pod>>) -> (Plan, Report) {
    let mut plan = Plan::default();
    plan.together(
        oldest
            .filter(|pod| is_terminal(pod) && !is_terminating(&***pod))
            .map(|pod| delete_with::<Pod>(&pod.metadata, Some(0), None))
            .collect(),
    );
    (plan, Report::default())
}

/// Marks as failed what had not ended, then deletes without grace: nobody is left to stop it gently.
fn remove<'a>(
    pods: impl Iterator<Item = &'a Arc<Pod>> + Clone,
    message: &str,
    now: Timestamp,
    plan: &mut Plan,
) {
    plan.together(pods.clone().filter(|pod| !is_terminal(pod)).map(|pod| fail(pod, message, now)).collect());
    plan.together(pods.map(|pod| delete_with::<Pod>(&pod.metadata, Some(0), None)).collect());
}

fn fail(pod: &Pod, message: &str, now: Timestamp) -> Action {
    let condition = json!({
        "type": "DisruptionTarget",
        "status": "True",
        "reason": "DeletionByPodGC",
        "message": message,
        "lastTransitionTime": to_json(&stamp(now)),
    });
    let body = json!({"status": {"phase": "Failed", "conditions": [condition]}});
    patch_same::<Pod>(&pod.metadata, Some("status"), PatchKind::Strategic, body).tolerant()
}
