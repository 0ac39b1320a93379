//! Deletes the pods of a node that do not tolerate its NoExecute taints, at once or when their time is over.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod, Taint, Toleration};
use serde_json::json;

use crate::merge::to_json;
use crate::object::{after, is_terminating, name, namespace, stamp};
use crate::plan::{Action, EventNote, Plan, Report, Subject, delete, patch_same};
use crate::pod::is_terminal;
use crate::tolerate::{taints, tolerates};
use crate::write::PatchKind;

/// What the planner looks at.
pub struct View<'a> {
    /// The node.
    pub node: &'a Node,
    /// The pods bound to it.
    pub pods: Vec<Arc<Pod>>,
}

/// How long a pod may stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stay {
    /// For ever.
    Tolerated,
    /// Until then.
    Until(Timestamp),
    /// No longer.
    Intolerable,
}

/// Whether the node has a taint that evicts.
pub fn evicts(node: &Node) -> bool {
    taints(node).iter().any(|taint| taint.effect == "NoExecute")
}

/// Plans the evictions of a node.
pub fn plan(view: &View, now: Timestamp) -> (Plan, Report) {
    let mut plan = Plan::default();
    let mut report = Report::default();
    let evicting: Vec<&Taint> =
        taints(view.node).iter().filter(|taint| taint.effect == "NoExecute").collect();
    if evicting.is_empty() {
        return (plan, report);
    }
    let (mut marks, mut deletions) = (Vec::new(), Vec::new());
    for pod in view.pods.iter().filter(|pod| !is_terminating(&***pod) && !is_terminal(pod)) {
        match stay(pod, &evicting, now) {
            Stay::Tolerated => {}
            Stay::Until(at) if at > now => plan.look_again(at),
            Stay::Until(_) | Stay::Intolerable => {
                marks.push(mark(
                    pod,
                    "DeletionByTaintManager",
                    "Taint manager: deleting due to NoExecute taint",
                    now,
                ));
                let message = format!("Marking for deletion Pod {}/{}", namespace(&**pod), name(&**pod));
                let note = EventNote::normal(&Subject::of(&**pod), "TaintManagerEviction", message);
                deletions.push(delete::<Pod>(&pod.metadata).then(note));
            }
        }
    }
    if !deletions.is_empty() {
        report.why.push(format!(
            "{} pods do not tolerate the taints of node {}",
            deletions.len(),
            name(view.node)
        ));
    }
    plan.together(marks);
    plan.together(deletions);
    (plan, report)
}

/// The patch that says why a pod is about to be deleted.
pub(crate) fn mark(pod: &Pod, reason: &str, message: &str, now: Timestamp) -> Action {
    let condition = json!({
        "type": "DisruptionTarget",
        "status": "True",
        "reason": reason,
        "message": message,
        "lastTransitionTime": to_json(&stamp(now)),
    });
    let body = json!({"status": {"conditions": [condition]}});
    patch_same::<Pod>(&pod.metadata, Some("status"), PatchKind::Strategic, body).tolerant()
}

/// How long the pod tolerates all of `evicting`. Time runs from the moment the taint was added.
pub fn stay(pod: &Pod, evicting: &[&Taint], now: Timestamp) -> Stay {
    let tolerations: &[Toleration] =
        pod.spec.as_ref().and_then(|spec| spec.tolerations.as_deref()).unwrap_or_default();
    let mut until: Option<Timestamp> = None;
    for taint in evicting {
        let mut tolerated = false;
        for toleration in tolerations.iter().filter(|toleration| tolerates(toleration, taint)) {
            tolerated = true;
            if let Some(seconds) = toleration.toleration_seconds {
                let since = taint.time_added.as_ref().map_or(now, |time| time.0);
                let at = after(since, seconds.max(0));
                until = Some(until.map_or(at, |earlier| earlier.min(at)));
            }
        }
        if !tolerated {
            return Stay::Intolerable;
        }
    }
    until.map_or(Stay::Tolerated, Stay::Until)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::PodSpec;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;

    /// `taint` evicts since second 100; tolerations are `key[=seconds]`.
    fn check(tolerations: &[&str], expected: Stay) {
        let taint = Taint {
            key: "gone".into(),
            effect: "NoExecute".into(),
            value: None,
            time_added: Some(Time(Timestamp::from_second(100).unwrap())),
        };
        let parse = |text: &&str| {
            let (key, seconds) =
                text.split_once('=').map_or((*text, None), |(key, rest)| (key, rest.parse().ok()));
            Toleration {
                key: Some(key.into()),
                operator: Some("Exists".into()),
                toleration_seconds: seconds,
                ..Toleration::default()
            }
        };
        let spec =
            PodSpec { tolerations: Some(tolerations.iter().map(parse).collect()), ..PodSpec::default() };
        let pod = Pod { spec: Some(spec), ..Pod::default() };
        assert_eq!(stay(&pod, &[&taint], Timestamp::from_second(200).unwrap()), expected, "{tolerations:?}");
    }

    #[test]
    fn the_shortest_toleration_counts() {
        check(&[], Stay::Intolerable);
        check(&["other"], Stay::Intolerable);
        check(&["gone"], Stay::Tolerated);
        check(&["gone=300"], Stay::Until(Timestamp::from_second(400).unwrap()));
        check(&["gone=300", "gone=30"], Stay::Until(Timestamp::from_second(130).unwrap()));
        check(&["gone=0"], Stay::Until(Timestamp::from_second(100).unwrap()));
    }
}
