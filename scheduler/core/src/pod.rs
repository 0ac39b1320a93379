//! What the scheduler knows of a pod, read once when the pod comes.

use std::sync::Arc;

use client_core::object::{Object, ObjectKey, controller_of};
use k8s_openapi::api::core::v1::{Pod, PodAffinityTerm, PodSpec, Toleration, TopologySpreadConstraint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::node::{Effect, Taint};
use crate::resources::Requests;
use crate::selector::{Labels, Namespaces, NodeTerm, PodMatch, Selector};

/// What matters of a pod.
#[derive(Clone, Debug)]
pub struct PodInfo {
    /// Namespace and name.
    pub key: ObjectKey,
    /// Its uid.
    pub uid: String,
    /// Its labels.
    pub labels: Labels,
    /// Higher ones come first.
    pub priority: i32,
    /// The node that it is bound to.
    pub node: Option<Arc<str>>,
    /// It is being deleted.
    pub terminating: bool,
    /// It has run to its end, and uses nothing any more.
    pub finished: bool,
    /// It is not to be placed yet.
    pub gated: bool,
    /// Which scheduler it wants.
    pub scheduler: String,
    /// What it asks for.
    pub requests: Requests,
    /// Ports of the node that it takes.
    pub ports: Vec<HostPort>,
    /// What depends only on a node and this.
    pub shape: Arc<Shape>,
    /// Relations to other pods.
    pub relations: Relations,
}

/// A port of the node that a pod takes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostPort {
    /// The port.
    pub port: i32,
    /// `TCP`, `UDP`, `SCTP`.
    pub protocol: String,
    /// The node's address; empty for all.
    pub ip: String,
}

/// The part of a pod on which, with a node alone, verdicts depend. Pods of equal ids share them.
#[derive(Clone, Debug)]
pub struct Shape {
    /// A canonical text.
    pub id: Arc<str>,
    /// Labels that the node must have.
    pub node_selector: Labels,
    /// Alternatives, of which the node must fulfil one; `None`: any node.
    pub required: Option<Vec<NodeTerm>>,
    /// Wishes with weights.
    pub preferred: Vec<(i64, NodeTerm)>,
    /// Taints that it bears.
    pub tolerations: Vec<Toleration>,
    /// Images of its containers.
    pub images: Vec<String>,
}

/// How a pod wants to be placed relative to others.
#[derive(Clone, Debug, Default)]
pub struct Relations {
    /// Pods that must be near: each term has its topology; they are counted together.
    pub affinity: Vec<Term>,
    /// Pods that fulfil all affinity terms at once.
    pub affinity_all: Option<Arc<PodMatch>>,
    /// Pods that must not be near.
    pub anti_affinity: Vec<Term>,
    /// Pods that are welcome (weight above zero) or unwelcome nearby.
    pub preferred: Vec<(i64, Term)>,
    /// How equal pods are spread.
    pub spread: Vec<Spread>,
}

/// Pods in the same domain of a topology.
#[derive(Clone, Debug)]
pub struct Term {
    /// Which pods.
    pub pods: Arc<PodMatch>,
    /// The node label whose values are the domains.
    pub topology: Arc<str>,
}

/// One topology spread constraint.
#[derive(Clone, Debug)]
pub struct Spread {
    /// The pods that are spread, and over which topology.
    pub term: Term,
    /// How much fuller a domain may be than the emptiest.
    pub max_skew: i64,
    /// With fewer domains than this the emptiest counts as empty.
    pub min_domains: Option<i64>,
    /// A condition, not a wish.
    pub required: bool,
    /// Nodes that the pod does not want do not count.
    pub honor_affinity: bool,
    /// Nodes whose taints the pod does not tolerate do not count.
    pub honor_taints: bool,
    /// The pod itself is among those that are spread.
    pub counts_itself: bool,
}

// === impl PodInfo ===

impl PodInfo {
    /// Reads a pod.
    pub fn read(pod: &Pod) -> Self {
        let empty = PodSpec::default();
        let spec = pod.spec.as_ref().unwrap_or(&empty);
        let labels = pod.metadata.labels.clone().unwrap_or_default();
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
        let node = spec.node_name.as_deref().filter(|name| !name.is_empty()).map(Arc::from);
        Self {
            key: Object::key(pod),
            uid: Object::uid(pod).to_owned(),
            priority: spec.priority.unwrap_or(0),
            node,
            terminating: Object::is_terminating(pod),
            finished: matches!(phase, Some("Succeeded" | "Failed")),
            gated: spec.scheduling_gates.as_ref().is_some_and(|gates| !gates.is_empty()),
            scheduler: spec.scheduler_name.clone().unwrap_or_else(|| "default-scheduler".to_owned()),
            requests: Requests::of(spec),
            ports: ports(spec),
            shape: Arc::new(Shape::read(spec)),
            relations: Relations::read(spec, &pod.metadata, &labels),
            labels,
        }
    }

    /// Whether the pod takes room on a node.
    pub fn is_placed(&self) -> bool {
        self.node.is_some() && !self.finished
    }
}

fn ports(spec: &PodSpec) -> Vec<HostPort> {
    let sidecars = spec.init_containers.iter().flatten();
    let sidecars = sidecars.filter(|container| container.restart_policy.as_deref() == Some("Always"));
    let ports = spec.containers.iter().chain(sidecars).flat_map(|container| container.ports.iter().flatten());
    let mut ports: Vec<HostPort> = ports
        .filter_map(|port| {
            let number = port.host_port.filter(|number| *number > 0)?;
            let ip = port.host_ip.clone().unwrap_or_default();
            Some(HostPort {
                port: number,
                protocol: port.protocol.clone().unwrap_or_else(|| "TCP".to_owned()),
                ip: if matches!(ip.as_str(), "0.0.0.0" | "::") { String::new() } else { ip },
            })
        })
        .collect();
    ports.sort();
    ports.dedup();
    ports
}

// === impl HostPort ===

impl HostPort {
    /// Whether both cannot be on one node.
    pub fn conflicts(&self, other: &Self) -> bool {
        self.port == other.port
            && self.protocol == other.protocol
            && (self.ip == other.ip || self.ip.is_empty() || other.ip.is_empty())
    }
}

// === impl Shape ===

impl Shape {
    fn read(spec: &PodSpec) -> Self {
        let affinity = spec.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref());
        let preferred = affinity
            .and_then(|affinity| affinity.preferred_during_scheduling_ignored_during_execution.as_ref());
        let containers = spec.init_containers.iter().flatten().chain(&spec.containers);
        let mut images: Vec<String> = containers.filter_map(|container| container.image.clone()).collect();
        images.sort();
        let selector = spec.node_selector.clone().unwrap_or_default();
        let tolerations = spec.tolerations.clone().unwrap_or_default();
        // Derived documents always have a JSON form; if not, the pod shares its verdicts with none that differs.
        let id = serde_json::to_string(&(&selector, affinity, &tolerations, &images)).unwrap_or_default();
        Self {
            id: Arc::from(id),
            node_selector: selector,
            required: affinity
                .and_then(|affinity| affinity.required_during_scheduling_ignored_during_execution.as_ref())
                .map(NodeTerm::read_all),
            preferred: preferred
                .into_iter()
                .flatten()
                .filter_map(|wish| Some((i64::from(wish.weight), NodeTerm::read(&wish.preference)?)))
                .collect(),
            tolerations,
            images,
        }
    }

    /// Whether the pod bears the taint.
    pub fn tolerates(&self, taint: &Taint) -> bool {
        self.tolerations.iter().any(|toleration| tolerates(toleration, taint))
    }
}

fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let effect = toleration.effect.as_deref().filter(|effect| !effect.is_empty());
    if effect.is_some_and(|effect| Effect::read(effect) != Some(taint.effect)) {
        return false;
    }
    let key = toleration.key.as_deref().unwrap_or_default();
    if !key.is_empty() && key != taint.key {
        return false;
    }
    let value = toleration.value.as_deref().unwrap_or_default();
    let number = |text: &str| text.parse::<i64>().ok();
    match toleration.operator.as_deref().unwrap_or("Equal") {
        "Exists" => true,
        "" | "Equal" => !key.is_empty() && value == taint.value,
        "Lt" => number(&taint.value).zip(number(value)).is_some_and(|(taint, bound)| taint < bound),
        "Gt" => number(&taint.value).zip(number(value)).is_some_and(|(taint, bound)| taint > bound),
        _ => false,
    }
}

// === impl Relations ===

impl Relations {
    fn read(spec: &PodSpec, meta: &ObjectMeta, labels: &Labels) -> Self {
        let namespace = meta.namespace.as_deref().unwrap_or_default();
        let near = spec.affinity.as_ref().and_then(|affinity| affinity.pod_affinity.as_ref());
        let far = spec.affinity.as_ref().and_then(|affinity| affinity.pod_anti_affinity.as_ref());
        let condition = |term: &PodAffinityTerm| condition(term, namespace, labels);
        let read = |term: &PodAffinityTerm| Term {
            pods: Arc::new(PodMatch::new(vec![condition(term)], false)),
            topology: Arc::from(term.topology_key.as_str()),
        };
        let required =
            near.and_then(|near| near.required_during_scheduling_ignored_during_execution.as_ref());
        let affinity: Vec<Term> = required.into_iter().flatten().map(read).collect();
        let all = required
            .filter(|terms| !terms.is_empty())
            .map(|terms| Arc::new(PodMatch::new(terms.iter().map(condition).collect(), false)));
        let forbidden = far.and_then(|far| far.required_during_scheduling_ignored_during_execution.as_ref());
        let liked = near.and_then(|near| near.preferred_during_scheduling_ignored_during_execution.as_ref());
        let disliked = far.and_then(|far| far.preferred_during_scheduling_ignored_during_execution.as_ref());
        let liked =
            liked.into_iter().flatten().map(|wish| (i64::from(wish.weight), read(&wish.pod_affinity_term)));
        let disliked = disliked
            .into_iter()
            .flatten()
            .map(|wish| (-i64::from(wish.weight), read(&wish.pod_affinity_term)));
        let spread = spec.topology_spread_constraints.iter().flatten();
        let mut spread: Vec<Spread> =
            spread.map(|constraint| Spread::read(constraint, namespace, labels)).collect();
        if spread.is_empty() {
            spread.extend(Spread::of_replicas(meta, namespace, labels));
        }
        Self {
            affinity,
            affinity_all: all,
            anti_affinity: forbidden.into_iter().flatten().map(read).collect(),
            preferred: liked.chain(disliked).collect(),
            spread,
        }
    }

    /// Whether existing pods must be told apart by this pod's terms.
    pub fn has_terms(&self) -> bool {
        !self.affinity.is_empty() || !self.anti_affinity.is_empty() || !self.preferred.is_empty()
    }
}

fn condition(term: &PodAffinityTerm, namespace: &str, labels: &Labels) -> (Namespaces, Selector) {
    let mut selector = Selector::read(term.label_selector.as_ref());
    selector.bind_keys(term.match_label_keys.as_ref(), labels, true);
    selector.bind_keys(term.mismatch_label_keys.as_ref(), labels, false);
    (Namespaces::read(term.namespaces.as_ref(), term.namespace_selector.as_ref(), namespace), selector)
}

// === impl Spread ===

/// Labels in which the replicas of one workload differ.
const OF_ONE_REPLICA: [&str; 2] = ["statefulset.kubernetes.io/pod-name", "apps.kubernetes.io/pod-index"];

impl Spread {
    /// Replicas of a workload that says nothing of its own are spread over nodes as a wish.
    fn of_replicas(meta: &ObjectMeta, namespace: &str, labels: &Labels) -> Option<Self> {
        let owner = controller_of(meta)?;
        if !matches!(&*owner.kind, "ReplicaSet" | "StatefulSet" | "ReplicationController") {
            return None;
        }
        let mut selector = Selector::default();
        let common = labels.keys().filter(|key| !OF_ONE_REPLICA.contains(&key.as_str())).cloned().collect();
        selector.bind_keys(Some(&common), labels, true);
        let pods = PodMatch::new(vec![(Namespaces::only(namespace), selector)], true);
        Some(Self {
            term: Term { pods: Arc::new(pods), topology: Arc::from("kubernetes.io/hostname") },
            max_skew: 3,
            min_domains: None,
            required: false,
            honor_affinity: true,
            honor_taints: false,
            counts_itself: true,
        })
    }

    fn read(constraint: &TopologySpreadConstraint, namespace: &str, labels: &Labels) -> Self {
        let mut selector = Selector::read(constraint.label_selector.as_ref());
        selector.bind_keys(constraint.match_label_keys.as_ref(), labels, true);
        let counts_itself = selector.matches(labels);
        let pods = PodMatch::new(vec![(Namespaces::only(namespace), selector)], true);
        Self {
            term: Term { pods: Arc::new(pods), topology: Arc::from(constraint.topology_key.as_str()) },
            max_skew: i64::from(constraint.max_skew),
            min_domains: constraint.min_domains.map(i64::from),
            required: constraint.when_unsatisfiable != "ScheduleAnyway",
            honor_affinity: constraint.node_affinity_policy.as_deref() != Some("Ignore"),
            honor_taints: constraint.node_taints_policy.as_deref() == Some("Honor"),
            counts_itself,
        }
    }
}
