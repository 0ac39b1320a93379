//! Why a decision came out as it did.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// Why a pod does not fit on a node, in Kubernetes' words.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// The node is closed to new pods.
    NodeUnschedulable,
    /// It is not the node that the pod names.
    NodeName,
    /// The node has a taint that the pod does not tolerate.
    Taint {
        /// The taint's key.
        key: String,
        /// The taint's value.
        value: String,
    },
    /// The node is not one that the pod wants.
    NodeAffinity,
    /// A port that the pod takes is taken.
    Ports,
    /// The node has as many pods as it takes.
    TooManyPods,
    /// Too little is left of a resource.
    Insufficient(Arc<str>),
    /// The domain would become too full.
    Spread,
    /// The node belongs to no domain.
    SpreadMissingLabel,
    /// The pods that this one must be near are not.
    Affinity,
    /// A pod that this one must not be near is.
    AntiAffinity,
    /// A pod that is near does not want this one.
    ExistingAntiAffinity,
}

/// A set of kinds of reasons: what a change in the cluster may help against.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Causes(u16);

/// How a decision came about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// How many nodes there are.
    pub nodes: usize,
    /// How many of them fit.
    pub feasible: usize,
    /// How many nodes do not fit, by reason. A node may have several.
    pub reasons: BTreeMap<Reason, u32>,
    /// The score of the chosen node, when there was a choice.
    pub score: Option<i64>,
}

// === impl Reason ===

impl Reason {
    /// The set of which this reason is one.
    pub fn cause(&self) -> Causes {
        match self {
            Self::NodeUnschedulable => Causes::UNSCHEDULABLE,
            Self::NodeName => Causes::NODE_NAME,
            Self::Taint { .. } => Causes::TAINT,
            Self::NodeAffinity => Causes::NODE_AFFINITY,
            Self::Ports => Causes::PORTS,
            Self::TooManyPods | Self::Insufficient(_) => Causes::RESOURCES,
            Self::Spread | Self::SpreadMissingLabel => Causes::SPREAD,
            Self::Affinity | Self::AntiAffinity | Self::ExistingAntiAffinity => Causes::POD_AFFINITY,
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NodeUnschedulable => "node(s) were unschedulable",
            Self::NodeName => "node(s) didn't match the requested node name",
            Self::Taint { key, value } => {
                return write!(f, "node(s) had untolerated taint {{{key}: {value}}}");
            }
            Self::NodeAffinity => "node(s) didn't match Pod's node affinity/selector",
            Self::Ports => "node(s) didn't have free ports for the requested pod ports",
            Self::TooManyPods => "Too many pods",
            Self::Insufficient(resource) => return write!(f, "Insufficient {resource}"),
            Self::Spread => "node(s) didn't match pod topology spread constraints",
            Self::SpreadMissingLabel => {
                "node(s) didn't match pod topology spread constraints (missing required label)"
            }
            Self::Affinity => "node(s) didn't match pod affinity rules",
            Self::AntiAffinity => "node(s) didn't match pod anti-affinity rules",
            Self::ExistingAntiAffinity => "node(s) didn't satisfy existing pods anti-affinity rules",
        })
    }
}

// === impl Causes ===

impl Causes {
    /// The node is closed.
    pub const UNSCHEDULABLE: Self = Self(1);
    /// Another node is named.
    pub const NODE_NAME: Self = Self(1 << 1);
    /// A taint.
    pub const TAINT: Self = Self(1 << 2);
    /// Labels of the node.
    pub const NODE_AFFINITY: Self = Self(1 << 3);
    /// Ports are taken.
    pub const PORTS: Self = Self(1 << 4);
    /// Resources or the number of pods.
    pub const RESOURCES: Self = Self(1 << 5);
    /// Topology spread.
    pub const SPREAD: Self = Self(1 << 6);
    /// Affinity between pods.
    pub const POD_AFFINITY: Self = Self(1 << 7);
    /// There was no node at all.
    pub const NO_NODES: Self = Self(1 << 8);

    /// None.
    pub const fn none() -> Self {
        Self(0)
    }

    /// Every one.
    pub const fn all() -> Self {
        Self(u16::MAX)
    }

    /// Those that a change of a single node can cure.
    pub const fn of_nodes() -> Self {
        Self::UNSCHEDULABLE
            .with(Self::TAINT)
            .with(Self::NODE_AFFINITY)
            .with(Self::PORTS)
            .with(Self::RESOURCES)
    }

    /// Both sets together.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether the sets have something in common.
    pub const fn meets(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Whether there is nothing in it.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

// === impl Report ===

impl Report {
    pub(crate) fn count(&mut self, reason: &Reason) {
        match self.reasons.get_mut(reason) {
            Some(count) => *count += 1,
            None => {
                self.reasons.insert(reason.clone(), 1);
            }
        }
    }

    /// What stood in the way.
    pub fn causes(&self) -> Causes {
        if self.nodes == 0 {
            return Causes::NO_NODES;
        }
        self.reasons.keys().fold(Causes::none(), |causes, reason| causes.with(reason.cause()))
    }

    /// The message of the FailedScheduling event and of the PodScheduled condition.
    pub fn message(&self) -> String {
        if self.nodes == 0 {
            return "no nodes available to schedule pods".to_owned();
        }
        let mut reasons: Vec<String> =
            self.reasons.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
        reasons.sort();
        format!("{}/{} nodes are available: {}.", self.feasible, self.nodes, reasons.join(", "))
    }
}
