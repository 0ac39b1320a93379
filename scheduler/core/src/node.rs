//! What the scheduler knows of a node.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::quantity::Quantity;
use client_core::object::Object;
use k8s_openapi::api::core::v1::Node;

use crate::resources::Amounts;
use crate::selector::Labels;

/// What matters of a node. Heartbeats do not change it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeInfo {
    /// Its name.
    pub name: Arc<str>,
    /// Its labels.
    pub labels: Labels,
    /// Its taints.
    pub taints: Vec<Taint>,
    /// Closed to new pods.
    pub unschedulable: bool,
    /// What pods may use.
    pub allocatable: Amounts,
    /// How many pods it takes.
    pub max_pods: i64,
    /// Images that it holds, and their sizes.
    pub images: BTreeMap<String, i64>,
}

/// Keeps pods away that do not tolerate it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taint {
    /// Its key.
    pub key: String,
    /// Its value, often empty.
    pub value: String,
    /// What it does.
    pub effect: Effect,
}

/// What a taint does to pods that do not tolerate it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// They are not placed here.
    NoSchedule,
    /// They are placed here only if nothing else fits.
    PreferNoSchedule,
    /// They are evicted from here.
    NoExecute,
}

// === impl NodeInfo ===

impl NodeInfo {
    /// Reads a node.
    pub fn read(node: &Node) -> Self {
        let spec = node.spec.as_ref();
        let status = node.status.as_ref();
        let allocatable = status.and_then(|status| status.allocatable.as_ref().or(status.capacity.as_ref()));
        let max_pods = allocatable
            .and_then(|list| list.get("pods"))
            .and_then(|text| text.0.parse::<Quantity>().ok())
            .map_or(0, |quantity| quantity.value());
        let taints = spec.and_then(|spec| spec.taints.as_ref()).into_iter().flatten();
        let images = status.and_then(|status| status.images.as_ref()).into_iter().flatten();
        Self {
            name: Arc::from(Object::name(node)),
            labels: node.metadata.labels.clone().unwrap_or_default(),
            taints: taints
                .filter_map(|taint| {
                    Some(Taint {
                        key: taint.key.clone(),
                        value: taint.value.clone().unwrap_or_default(),
                        effect: Effect::read(&taint.effect)?,
                    })
                })
                .collect(),
            unschedulable: spec.and_then(|spec| spec.unschedulable).unwrap_or(false),
            allocatable: Amounts::read(allocatable),
            max_pods,
            images: images
                .flat_map(|image| {
                    let size = image.size_bytes.unwrap_or(0);
                    image.names.iter().flatten().map(move |name| (name.clone(), size))
                })
                .collect(),
        }
    }
}

// === impl Effect ===

impl Effect {
    /// Reads an effect as taints spell it.
    pub fn read(text: &str) -> Option<Self> {
        match text {
            "NoSchedule" => Some(Self::NoSchedule),
            "PreferNoSchedule" => Some(Self::PreferNoSchedule),
            "NoExecute" => Some(Self::NoExecute),
            _ => None,
        }
    }
}
