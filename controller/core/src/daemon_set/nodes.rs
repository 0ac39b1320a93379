//! Node by node: which pods are missing, too many, or done for.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{Node, Pod};
use rand::RngCore;

use super::eligible::{Eligible, eligible, pin, pinned_node, tolerations};
use super::{Backoffs, REVISION_HASH, View, update};
use crate::merge::to_json;
use crate::object::{annotation, created, is_terminating, label, name, namespace, random_name, uid};
use crate::plan::{EventNote, Plan, Subject, create, delete};
use crate::pod::{is_available, is_ready, node_name, phase};
use crate::replica_set::pod_from_template;

/// The most pods created or deleted by one plan.
const BURST: usize = 250;

/// The DaemonSet's pods by the node they are on or bound for, oldest first.
pub type ByNode = BTreeMap<String, Vec<Arc<Pod>>>;

/// What is to be done.
#[derive(Default)]
pub struct Wants {
    /// Nodes that need a pod.
    pub create: Vec<String>,
    /// Pods that have to go.
    pub delete: Vec<Arc<Pod>>,
    /// Events to tell.
    pub events: Vec<EventNote>,
    /// When a failed pod may be replaced.
    pub look_again_at: Option<Timestamp>,
}

/// Sorts pods by node.
pub fn by_node(pods: &[Arc<Pod>]) -> ByNode {
    let mut by_node = ByNode::new();
    for pod in pods {
        if let Some(node) = pinned_node(pod) {
            by_node.entry(node.to_owned()).or_default().push(Arc::clone(pod));
        }
    }
    for pods in by_node.values_mut() {
        pods.sort_by(|a, b| created(&**a).cmp(&created(&**b)).then_with(|| name(&**a).cmp(name(&**b))));
    }
    by_node
}

/// Every node with what it means to the DaemonSet.
pub fn judged<'a>(view: &'a View) -> impl Iterator<Item = (&'a Arc<Node>, Eligible)> {
    let spec = view.daemon_set.spec.template.spec.clone().unwrap_or_default();
    let tolerations = tolerations(&spec);
    view.nodes.iter().map(move |node| (node, eligible(&spec, &tolerations, node)))
}

/// Finds missing, failed, finished and surplus pods.
pub fn manage(
    view: &View,
    by_node: &ByNode,
    hash: &str,
    backoffs: &mut Backoffs,
    now: Timestamp,
    wants: &mut Wants,
) {
    for (node, eligible) in judged(view) {
        let node = name(&**node);
        match by_node.get(node).map(Vec::as_slice) {
            None | Some([]) if eligible.run => wants.create.push(node.to_owned()),
            Some(pods) if eligible.stay => tidy(view, node, pods, hash, backoffs, now, wants),
            Some(pods) => wants.delete.extend(pods.iter().filter(|pod| !is_terminating(&***pod)).cloned()),
            None => {}
        }
    }
    // Unbound pods pinned to a node that is gone can never be scheduled.
    let names: std::collections::BTreeSet<&str> = view.nodes.iter().map(|node| name(&**node)).collect();
    for (_, pods) in by_node.iter().filter(|(node, _)| !names.contains(node.as_str())) {
        let stranded = |pod: &&Arc<Pod>| node_name(pod).is_none() && !is_terminating(&***pod);
        wants.delete.extend(pods.iter().filter(stranded).cloned());
    }
}

fn tidy(
    view: &View,
    node: &str,
    pods: &[Arc<Pod>],
    hash: &str,
    backoffs: &mut Backoffs,
    now: Timestamp,
    wants: &mut Wants,
) {
    let set = view.daemon_set;
    let subject = Subject::of(set);
    let mut running: Vec<&Arc<Pod>> = Vec::new();
    for pod in pods.iter().filter(|pod| !is_terminating(&***pod)) {
        let told = format!("{}/{} on node {node}", namespace(&**pod), name(&**pod));
        match phase(pod) {
            "Failed" => match backoffs.may_replace(uid(set), node, uid(&**pod), now) {
                Ok(()) => {
                    let message = format!("Found failed daemon pod {told}, will try to kill it");
                    wants.events.push(EventNote::warning(&subject, "FailedDaemonPod", message));
                    wants.delete.push(Arc::clone(pod));
                }
                Err(at) => {
                    wants.look_again_at = Some(wants.look_again_at.map_or(at, |earlier| earlier.min(at)))
                }
            },
            "Succeeded" => {
                let message = format!("Found succeeded daemon pod {told}, will try to delete it");
                wants.events.push(EventNote::normal(&subject, "SucceededDaemonPod", message));
                wants.delete.push(Arc::clone(pod));
            }
            _ => running.push(pod),
        }
    }
    // Those bound to the node before those still pinned, older before younger.
    running.sort_by_key(|pod| (node_name(pod).is_none(), created(&***pod)));
    if !update::surges(view) {
        wants.delete.extend(running.into_iter().skip(1).cloned());
        return;
    }
    if running.len() < 2 {
        return;
    }
    let is_new = |pod: &&Arc<Pod>| label(&pod.metadata, REVISION_HASH) == Some(hash);
    let newest = running.iter().copied().find(is_new);
    let oldest = running.iter().copied().find(|pod| !is_new(pod));
    let kept = |pod: &Arc<Pod>| [newest, oldest].into_iter().flatten().any(|each| Arc::ptr_eq(each, pod));
    wants.delete.extend(running.iter().copied().filter(|pod| !kept(pod)).cloned());
    if let (Some(newest), Some(oldest)) = (newest, oldest) {
        let min_ready = set.spec.min_ready_seconds.unwrap_or(0);
        if !is_ready(oldest) || is_available(newest, min_ready, now) {
            wants.delete.push(Arc::clone(oldest));
        }
    }
}

// === impl Wants ===

impl Wants {
    /// Whether every node has what it should have.
    pub fn is_settled(&self) -> bool {
        self.create.is_empty() && self.delete.is_empty()
    }

    /// One line of what is to be done.
    pub fn why(&self) -> Option<String> {
        (!self.is_settled())
            .then(|| format!("{} pods to create, {} to delete", self.create.len(), self.delete.len()))
    }

    /// Turns wants into writes.
    pub fn write_into(self, set: &DaemonSet, hash: &str, rng: &mut dyn RngCore, plan: &mut Plan) {
        let subject = Subject::of(set);
        let mut template = set.spec.template.clone();
        let meta = template.metadata.get_or_insert_default();
        meta.labels.get_or_insert_default().insert(REVISION_HASH.into(), hash.into());
        if let Some(generation) = annotation(&set.metadata, "deprecated.daemonset.template.generation") {
            meta.labels.get_or_insert_default().insert("pod-template-generation".into(), generation.into());
        }
        let mut spec = template.spec.take().unwrap_or_default();
        spec.tolerations = Some(tolerations(&spec));
        let creations = self.create.iter().take(BURST).map(|node| {
            let pod_name = random_name(&format!("{}-", name(set)), rng);
            let mut pinned = spec.clone();
            pin(&mut pinned, node);
            let mut document = pod_from_template(set, Some(&template), &pod_name);
            if let Some(slot) = document.get_mut("spec") {
                *slot = to_json(&pinned);
            }
            create::<Pod>(Some(namespace(set)), document)
                .then(EventNote::normal(&subject, "SuccessfulCreate", format!("Created pod: {pod_name}")))
                .otherwise(EventNote::warning(&subject, "FailedCreate", "Error creating: "))
        });
        plan.slow_start(creations.collect());
        let deletions = self.delete.iter().take(BURST).map(|pod| {
            delete::<Pod>(&pod.metadata)
                .then(EventNote::normal(
                    &subject,
                    "SuccessfulDelete",
                    format!("Deleted pod: {}", name(&**pod)),
                ))
                .otherwise(EventNote::warning(&subject, "FailedDelete", "Error deleting: "))
        });
        plan.together(deletions.collect());
    }
}
