//! Verdicts that depend only on a node and on a pod's shape, remembered per shape until the node changes.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::cluster::{Images, Slot};
use crate::node::{Effect, NodeInfo, Taint};
use crate::pod::Shape;
use crate::report::Reason;

/// How many shapes are remembered; the one that was needed longest ago goes first.
const LIMIT: usize = 256;

/// Images below this size do not count, in bytes.
const IMAGE_MIN: i64 = 23 << 20;
/// Nor what a container's image is larger than this.
const IMAGE_MAX: i64 = 1000 << 20;

const UNSCHEDULABLE_TAINT: &str = "node.kubernetes.io/unschedulable";

/// All remembered verdicts.
#[derive(Debug, Default)]
pub(crate) struct Verdicts {
    shapes: BTreeMap<Arc<str>, Remembered>,
    clock: u64,
}

#[derive(Debug, Default)]
struct Remembered {
    per_slot: Vec<Verdict>,
    /// The versions up to which they are right.
    nodes: u64,
    images: u64,
    used: u64,
}

/// What a node alone means for a shape.
#[derive(Clone, Debug, Default)]
pub(crate) struct Verdict {
    version: u64,
    /// Why the pod does not fit here whatever else is here.
    pub(crate) reason: Option<Box<Reason>>,
    /// The node is one that the pod wants.
    pub(crate) wanted: bool,
    /// The pod bears all taints that keep it away.
    pub(crate) tolerated: bool,
    /// Sum of the weights of the pod's wishes that the node fulfils.
    pub(crate) preference: i64,
    /// Taints that the pod should avoid.
    pub(crate) dislikes: i64,
    /// 0 to 100: how much of the pod's images is here.
    pub(crate) images: i64,
}

// === impl Verdicts ===

impl Verdicts {
    /// Brings the verdicts of a shape up to date with the nodes, of which none has a later version than this.
    pub(crate) fn refresh(&mut self, shape: &Shape, slots: &[Slot], version: u64, images: &Images) {
        self.clock += 1;
        if !self.shapes.contains_key(&shape.id) && self.shapes.len() >= LIMIT {
            let oldest = self.shapes.iter().min_by_key(|(_, known)| known.used).map(|(id, _)| Arc::clone(id));
            oldest.and_then(|id| self.shapes.remove(&id));
        }
        let known = self.shapes.entry(Arc::clone(&shape.id)).or_default();
        known.used = self.clock;
        if known.nodes == version && known.images == images.version {
            return;
        }
        known.nodes = version;
        if known.images != images.version {
            known.images = images.version;
            known.per_slot.clear();
        }
        known.per_slot.resize_with(slots.len(), Verdict::default);
        let nodes = i64::try_from(slots.iter().filter(|slot| slot.live).count()).unwrap_or(i64::MAX);
        for (verdict, slot) in known.per_slot.iter_mut().zip(slots) {
            if slot.live && verdict.version != slot.version {
                *verdict = Verdict::of(shape, &slot.info, images, nodes);
                verdict.version = slot.version;
            }
        }
    }

    /// The verdicts of a shape, one for each slot.
    pub(crate) fn of(&self, shape: &Shape) -> &[Verdict] {
        self.shapes.get(&shape.id).map(|known| known.per_slot.as_slice()).unwrap_or_default()
    }
}

// === impl Verdict ===

impl Verdict {
    fn of(shape: &Shape, node: &NodeInfo, images: &Images, nodes: i64) -> Self {
        let wanted = wanted(shape, node);
        let taint = untolerated(shape, node);
        let fulfilled = shape.preferred.iter().filter(|(_, term)| term.matches(&node.name, &node.labels));
        let avoided = node.taints.iter().filter(|taint| taint.effect == Effect::PreferNoSchedule);
        Self {
            version: 0,
            reason: reason(shape, node).map(Box::new),
            wanted,
            tolerated: taint.is_none(),
            preference: fulfilled.map(|(weight, _)| weight).sum(),
            dislikes: i64::try_from(avoided.filter(|taint| !shape.tolerates(taint)).count())
                .unwrap_or(i64::MAX),
            images: image_score(shape, node, images, nodes),
        }
    }
}

/// Why the shape does not fit on the node whatever else is there.
pub(crate) fn reason(shape: &Shape, node: &NodeInfo) -> Option<Reason> {
    let closed =
        Taint { key: UNSCHEDULABLE_TAINT.to_owned(), value: String::new(), effect: Effect::NoSchedule };
    if node.unschedulable && !shape.tolerates(&closed) {
        return Some(Reason::NodeUnschedulable);
    }
    if let Some(taint) = untolerated(shape, node) {
        return Some(Reason::Taint { key: taint.key.clone(), value: taint.value.clone() });
    }
    (!wanted(shape, node)).then_some(Reason::NodeAffinity)
}

fn untolerated<'a>(shape: &Shape, node: &'a NodeInfo) -> Option<&'a Taint> {
    node.taints.iter().find(|taint| taint.effect != Effect::PreferNoSchedule && !shape.tolerates(taint))
}

fn wanted(shape: &Shape, node: &NodeInfo) -> bool {
    shape.node_selector.iter().all(|(key, value)| node.labels.get(key) == Some(value))
        && shape
            .required
            .as_ref()
            .is_none_or(|terms| terms.iter().any(|term| term.matches(&node.name, &node.labels)))
}

fn image_score(shape: &Shape, node: &NodeInfo, images: &Images, nodes: i64) -> i64 {
    if node.images.is_empty() || nodes == 0 {
        return 0;
    }
    let here: i64 = shape
        .images
        .iter()
        .filter_map(|image| {
            let tagged = image.rsplit('/').next().is_some_and(|last| last.contains([':', '@']));
            let name = if tagged { image.clone() } else { format!("{image}:latest") };
            let size = node.images.get(&name)?;
            let holders = images.known.get(&name).map_or(1, |(_, holders)| *holders);
            // What is nearly everywhere counts more: nodes are not to fill up with pods because they were first.
            Some(size.saturating_mul(holders) / nodes)
        })
        .sum();
    let containers = i64::try_from(shape.images.len()).unwrap_or(i64::MAX).max(1);
    let max = IMAGE_MAX.saturating_mul(containers);
    100 * (here.clamp(IMAGE_MIN, max) - IMAGE_MIN) / (max - IMAGE_MIN)
}
