//! Pods by node and by labels, beside their table.
//!
//! Pods of one owner carry equal labels, so there are few distinct sets of labels: a selector is asked once
//! per set, not once per pod.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;

use crate::object::{created, namespace};
use crate::pod::{is_terminal, node_name};
use crate::selector::Labels;
use client_core::object::ObjectKey as Key;

/// The lookups of pods that their table does not have.
#[derive(Default)]
pub struct PodIndex {
    by_node: BTreeMap<String, BTreeSet<Key>>,
    by_labels: BTreeMap<String, BTreeMap<Arc<Labels>, BTreeSet<Key>>>,
    /// Pods that have run to their end, by creation.
    ended: BTreeSet<(Timestamp, Key)>,
}

impl PodIndex {
    /// The keys of the pods bound to a node.
    pub fn on_node<'a>(&'a self, node: &str) -> impl Iterator<Item = &'a Key> {
        self.by_node.get(node).into_iter().flatten()
    }

    /// Every node name that pods are bound to.
    pub fn nodes(&self) -> impl Iterator<Item = &str> {
        self.by_node.keys().map(String::as_str)
    }

    /// The keys of the pods of a namespace whose labels satisfy `selects`.
    pub fn selected<'a>(
        &'a self,
        namespace: &str,
        selects: impl Fn(&Labels) -> bool + 'a,
    ) -> impl Iterator<Item = &'a Key> {
        let sets = self.by_labels.get(namespace).into_iter().flatten();
        sets.filter(move |(labels, _)| selects(labels)).flat_map(|(_, keys)| keys)
    }

    /// How many pods have run to their end.
    pub fn ended(&self) -> usize {
        self.ended.len()
    }

    /// The keys of the pods that have run to their end, oldest first.
    pub fn oldest_ended(&self) -> impl Iterator<Item = &Key> {
        self.ended.iter().map(|(_, key)| key)
    }

    pub(super) fn changed(&mut self, old: Option<&Pod>, new: Option<&Pod>) {
        let Some(key) = old.or(new).map(|pod| Key::of_meta(&pod.metadata)) else { return };
        if let Some(old) = old.filter(|old| is_terminal(old)) {
            self.ended.remove(&(created(old), key.clone()));
        }
        if let Some(new) = new.filter(|new| is_terminal(new)) {
            self.ended.insert((created(new), key.clone()));
        }
        let (old_node, new_node) = (old.and_then(node_name), new.and_then(node_name));
        if old_node != new_node {
            if let Some(node) = old_node {
                remove(&mut self.by_node, node, &key);
            }
            if let Some(node) = new_node {
                self.by_node.entry(node.to_owned()).or_default().insert(key.clone());
            }
        }
        let (old_labels, new_labels) = (old.map(labels_of), new.map(labels_of));
        if old_labels == new_labels {
            return;
        }
        if let (Some(labels), Some(pod)) = (old_labels, old)
            && let Some(sets) = self.by_labels.get_mut(namespace(pod))
        {
            remove(sets, labels, &key);
            if sets.is_empty() {
                self.by_labels.remove(namespace(pod));
            }
        }
        if let (Some(labels), Some(pod)) = (new_labels, new) {
            let sets = self.by_labels.entry(namespace(pod).to_owned()).or_default();
            match sets.get_mut(labels) {
                Some(keys) => {
                    keys.insert(key);
                }
                None => {
                    sets.insert(Arc::new(labels.clone()), BTreeSet::from([key]));
                }
            }
        }
    }
}

fn labels_of(pod: &Pod) -> &Labels {
    static NONE: Labels = Labels::new();
    pod.metadata.labels.as_ref().unwrap_or(&NONE)
}

fn remove<Q: Ord + ?Sized, G: Ord + std::borrow::Borrow<Q>>(
    groups: &mut BTreeMap<G, BTreeSet<Key>>,
    group: &Q,
    key: &Key,
) {
    if let Some(keys) = groups.get_mut(group) {
        keys.remove(key);
        if keys.is_empty() {
            groups.remove(group);
        }
    }
}
