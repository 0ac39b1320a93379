//! The state of the cluster as decisions see it: nodes, and the pods that take room on them, those just decided included.

mod counts;
mod topology;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use client_core::object::ObjectKey;
use k8s_openapi::api::core::v1::{Node, Pod};

pub(crate) use self::counts::{Bearing, Counts};
pub(crate) use self::topology::{NO_DOMAIN, Topologies, Topology, domain_of};
use crate::node::NodeInfo;
use crate::pod::{HostPort, PodInfo};
use crate::report::Causes;
use crate::resources::Amounts;
use crate::selector::Labels;
use crate::shapes::Shapes;
use crate::verdict::Verdicts;

/// Nodes and placed pods. Changed by what the caches tell, and by decisions that are not carried out yet.
#[derive(Debug, Default)]
pub struct Cluster {
    pub(crate) slots: Vec<Slot>,
    pub(crate) names: BTreeMap<Arc<str>, usize>,
    free: Vec<usize>,
    pods: BTreeMap<ObjectKey, Placed>,
    /// Placed pods whose node is not known (yet).
    homeless: BTreeMap<Arc<str>, BTreeSet<ObjectKey>>,
    pub(crate) namespaces: BTreeMap<String, Labels>,
    pub(crate) counts: Counts,
    pub(crate) topologies: Topologies,
    pub(crate) verdicts: Verdicts,
    pub(crate) images: Images,
    shapes: Shapes,
    /// Grows with every change of a node.
    version: u64,
}

/// Room for one node. Vacant when its node is gone, until another takes it.
#[derive(Debug, Default)]
pub(crate) struct Slot {
    pub(crate) live: bool,
    pub(crate) info: NodeInfo,
    /// Changes with `info`.
    pub(crate) version: u64,
    pub(crate) used: Amounts,
    pub(crate) scored_cpu: i64,
    pub(crate) scored_memory: i64,
    pub(crate) pods: i64,
    pub(crate) ports: Vec<HostPort>,
}

/// A pod that takes room.
#[derive(Debug)]
pub(crate) struct Placed {
    pub(crate) info: Arc<PodInfo>,
    node: Arc<str>,
    pub(crate) slot: Option<usize>,
    /// Decided, not seen bound yet.
    assumed: bool,
}

/// Which images the nodes hold.
#[derive(Debug, Default)]
pub(crate) struct Images {
    /// Image name to size and number of nodes.
    pub(crate) known: BTreeMap<String, (i64, i64)>,
    pub(crate) version: u64,
}

/// What a change of a node may help against.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeChange {
    /// The node.
    pub node: Arc<str>,
    /// Pods that failed for these causes may fit now.
    pub helps: Causes,
}

// === impl Cluster ===

impl Cluster {
    /// No nodes, no pods.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many nodes there are.
    pub fn node_count(&self) -> usize {
        self.names.len()
    }

    /// How many pods take room.
    pub fn placed_count(&self) -> usize {
        self.pods.len()
    }

    /// The node on which a pod takes room, decided or bound.
    pub fn node_of(&self, pod: &ObjectKey) -> Option<&Arc<str>> {
        self.pods.get(pod).map(|placed| &placed.node)
    }

    /// Takes in a new or changed node.
    pub fn set_node(&mut self, node: &Node) -> NodeChange {
        self.set_node_info(NodeInfo::read(node))
    }

    /// Takes in a new or changed node, read already.
    pub fn set_node_info(&mut self, info: NodeInfo) -> NodeChange {
        let name = Arc::clone(&info.name);
        let Some(&at) = self.names.get(&name) else {
            self.add_node(info);
            return NodeChange { node: name, helps: Causes::all() };
        };
        let Some(old) = self.slots.get(at).map(|slot| &slot.info).filter(|old| **old != info) else {
            return NodeChange { node: name, helps: Causes::none() };
        };
        let helps = helps(old, &info);
        if old.images != info.images {
            let old = old.images.clone();
            self.images.change(&old, &info.images);
        }
        if old_labels_differ(self.slots.get(at), &info) {
            self.topologies.set(at, Some(&info.labels));
        }
        self.version += 1;
        if let Some(slot) = self.slots.get_mut(at) {
            slot.info = info;
            slot.version = self.version;
        }
        NodeChange { node: name, helps }
    }

    /// Takes a node away. Its pods stay known: the node may come back.
    pub fn remove_node(&mut self, name: &str) -> NodeChange {
        let helps = Causes::SPREAD.with(Causes::POD_AFFINITY);
        let Some((name, at)) = self.names.remove_entry(name) else {
            return NodeChange { node: Arc::from(name), helps: Causes::none() };
        };
        let leaving: Vec<ObjectKey> =
            self.pods.iter().filter(|(_, pod)| pod.slot == Some(at)).map(|(key, _)| key.clone()).collect();
        for key in &leaving {
            self.detach(key);
        }
        self.homeless.entry(Arc::clone(&name)).or_default().extend(leaving);
        if let Some(slot) = self.slots.get_mut(at) {
            let old = std::mem::take(slot);
            self.images.change(&old.info.images, &BTreeMap::new());
        }
        self.topologies.set(at, None);
        self.free.push(at);
        NodeChange { node: name, helps }
    }

    /// Takes in a new or changed namespace: affinity terms may select by its labels.
    pub fn set_namespace(&mut self, name: &str, labels: Labels) -> Causes {
        if self.namespaces.get(name) == Some(&labels) {
            return Causes::none();
        }
        self.namespaces.insert(name.to_owned(), labels);
        self.counts.forget_namespace_selections();
        Causes::POD_AFFINITY
    }

    /// Takes a namespace away.
    pub fn remove_namespace(&mut self, name: &str) {
        self.namespaces.remove(name);
        self.counts.forget_namespace_selections();
    }

    /// Reads a pod; what it has in common with other pods it shares with them.
    pub fn read_pod(&mut self, pod: &Pod) -> Arc<PodInfo> {
        let mut info = PodInfo::read(pod);
        info.shape = self.shapes.share(info.shape);
        Arc::new(info)
    }

    /// Takes in a pod as the cache has it. Returns what the change may help against.
    pub fn set_pod(&mut self, info: Arc<PodInfo>) -> Causes {
        let Some(node) = info.node.clone().filter(|_| info.is_placed()) else {
            // A decision that is being carried out is not undone by older news.
            let assumed = self.pods.get(&info.key).is_some_and(|placed| placed.assumed) && !info.finished;
            return if assumed { Causes::none() } else { self.remove_pod(&info.key) };
        };
        let mut helps = Causes::none();
        if let Some(placed) = self.pods.get_mut(&info.key) {
            if placed.node == node && same_weight(&placed.info, &info) {
                placed.assumed = false;
                return Causes::none();
            }
            helps = Causes::RESOURCES.with(Causes::PORTS);
            self.remove_pod(&info.key);
        }
        self.place(info, node, false);
        helps.with(Causes::SPREAD).with(Causes::POD_AFFINITY)
    }

    /// Takes a pod away. Returns what that may help against.
    pub fn remove_pod(&mut self, key: &ObjectKey) -> Causes {
        if !self.pods.contains_key(key) {
            return Causes::none();
        }
        self.detach(key);
        if let Some(placed) = self.pods.remove(key)
            && let Some(others) = self.homeless.get_mut(&placed.node)
        {
            others.remove(key);
            if others.is_empty() {
                self.homeless.remove(&placed.node);
            }
        }
        Causes::RESOURCES.with(Causes::PORTS).with(Causes::SPREAD).with(Causes::POD_AFFINITY)
    }

    /// Lets a pod take room on the node that was decided, until the cache shows it bound.
    pub fn assume(&mut self, pod: &Arc<PodInfo>, node: &Arc<str>) {
        self.remove_pod(&pod.key);
        self.place(Arc::clone(pod), Arc::clone(node), true);
    }

    /// Takes back a decision that could not be carried out; a pod that was seen bound meanwhile stays.
    pub fn forget(&mut self, key: &ObjectKey, uid: &str) -> Causes {
        let ours = self.pods.get(key).is_some_and(|placed| placed.assumed && placed.info.uid == uid);
        if ours { self.remove_pod(key) } else { Causes::none() }
    }

    fn add_node(&mut self, info: NodeInfo) {
        let at = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            self.slots.len() - 1
        });
        self.version += 1;
        self.images.change(&BTreeMap::new(), &info.images);
        self.topologies.set(at, Some(&info.labels));
        let name = Arc::clone(&info.name);
        self.names.insert(Arc::clone(&name), at);
        if let Some(slot) = self.slots.get_mut(at) {
            *slot = Slot { live: true, info, version: self.version, ..Slot::default() };
        }
        for key in self.homeless.remove(&name).unwrap_or_default() {
            self.attach(&key, at);
        }
    }

    fn place(&mut self, info: Arc<PodInfo>, node: Arc<str>, assumed: bool) {
        let key = info.key.clone();
        let at = self.names.get(&node).copied();
        if at.is_none() {
            self.homeless.entry(Arc::clone(&node)).or_default().insert(key.clone());
        }
        self.pods.insert(key.clone(), Placed { info, node, slot: None, assumed });
        if let Some(at) = at {
            self.attach(&key, at);
        }
    }

    fn attach(&mut self, key: &ObjectKey, at: usize) {
        let Some(placed) = self.pods.get_mut(key) else { return };
        let Some(slot) = self.slots.get_mut(at) else { return };
        placed.slot = Some(at);
        slot.add(&placed.info);
        self.counts.shift(&placed.info, at, 1, &self.namespaces);
    }

    fn detach(&mut self, key: &ObjectKey) {
        let Some(placed) = self.pods.get_mut(key) else { return };
        let Some(at) = placed.slot.take() else { return };
        if let Some(slot) = self.slots.get_mut(at) {
            slot.subtract(&placed.info);
        }
        self.counts.shift(&placed.info, at, -1, &self.namespaces);
    }

    /// Makes sure that everything a decision about this pod reads is counted and up to date.
    pub(crate) fn prepare(&mut self, pod: &PodInfo) {
        let relations = &pod.relations;
        let terms = relations.anti_affinity.iter().chain(relations.preferred.iter().map(|(_, term)| term));
        let terms = terms.chain(relations.spread.iter().map(|spread| &spread.term));
        for term in terms {
            self.counts.ensure(&term.pods, &self.pods, &self.namespaces);
            self.topologies.ensure(&term.topology, &self.slots);
        }
        if let Some(all) = &relations.affinity_all {
            self.counts.ensure(all, &self.pods, &self.namespaces);
        }
        for term in &relations.affinity {
            self.topologies.ensure(&term.topology, &self.slots);
        }
        for topology in self.counts.bearer_topologies() {
            self.topologies.ensure(&topology, &self.slots);
        }
        self.verdicts.refresh(&pod.shape, &self.slots, self.version, &self.images);
    }
}

fn old_labels_differ(slot: Option<&Slot>, new: &NodeInfo) -> bool {
    slot.is_some_and(|slot| slot.info.labels != new.labels)
}

/// Whether both take the same room and count the same for others.
fn same_weight(old: &PodInfo, new: &PodInfo) -> bool {
    old.uid == new.uid
        && old.terminating == new.terminating
        && old.labels == new.labels
        && old.requests == new.requests
        && old.ports == new.ports
}

fn helps(old: &NodeInfo, new: &NodeInfo) -> Causes {
    let mut helps = Causes::none();
    if old.unschedulable && !new.unschedulable {
        helps = helps.with(Causes::UNSCHEDULABLE);
    }
    if old.taints != new.taints {
        helps = helps.with(Causes::TAINT).with(Causes::SPREAD);
    }
    if old.labels != new.labels {
        helps = helps.with(Causes::NODE_AFFINITY).with(Causes::SPREAD).with(Causes::POD_AFFINITY);
    }
    if old.allocatable != new.allocatable || old.max_pods != new.max_pods {
        helps = helps.with(Causes::RESOURCES);
    }
    helps
}

// === impl Slot ===

impl Slot {
    fn add(&mut self, pod: &PodInfo) {
        self.used.add(&pod.requests.exact);
        self.scored_cpu = self.scored_cpu.saturating_add(pod.requests.scored_cpu);
        self.scored_memory = self.scored_memory.saturating_add(pod.requests.scored_memory);
        self.pods += 1;
        self.ports.extend(pod.ports.iter().cloned());
    }

    fn subtract(&mut self, pod: &PodInfo) {
        self.used.subtract(&pod.requests.exact);
        self.scored_cpu = self.scored_cpu.saturating_sub(pod.requests.scored_cpu);
        self.scored_memory = self.scored_memory.saturating_sub(pod.requests.scored_memory);
        self.pods -= 1;
        for port in &pod.ports {
            if let Some(at) = self.ports.iter().position(|taken| taken == port) {
                self.ports.swap_remove(at);
            }
        }
    }
}

// === impl Images ===

impl Images {
    fn change(&mut self, old: &BTreeMap<String, i64>, new: &BTreeMap<String, i64>) {
        if old.is_empty() && new.is_empty() {
            return;
        }
        self.version += 1;
        for (name, size) in new.iter().filter(|(name, _)| !old.contains_key(*name)) {
            let known = self.known.entry(name.clone()).or_insert((*size, 0));
            known.0 = *size;
            known.1 += 1;
        }
        for name in old.keys().filter(|name| !new.contains_key(*name)) {
            if let Some(known) = self.known.get_mut(name) {
                known.1 -= 1;
                if known.1 <= 0 {
                    self.known.remove(name);
                }
            }
        }
    }
}
