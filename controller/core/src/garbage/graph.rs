//! Who owns whom, in little memory: details only of objects that have owners or are held by a finalizer of
//! ours; of all others no more than that they live.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use client_core::footprint::Footprint;
use client_core::uid::Uid;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use serde_json::{Value, json};

use crate::object::revision;
use crate::write::{ObjectKey, ResourceType};

/// The finalizer of an owner that goes after its dependents.
pub const FOREGROUND: &str = "foregroundDeletion";
/// The finalizer of an owner whose dependents stay.
pub const ORPHAN: &str = "orphan";

/// An owner as its dependent names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Group and version.
    pub api_version: Arc<str>,
    /// Kind.
    pub kind: Arc<str>,
    /// Name.
    pub name: Arc<str>,
    /// Uid.
    pub uid: Arc<str>,
    /// Whether it manages the dependent.
    pub controls: bool,
    /// Whether the dependent holds it in foreground deletion.
    pub blocks: bool,
}

/// An object with owners, or held by a finalizer of ours.
#[derive(Clone, Debug)]
pub struct Node {
    /// Its resource.
    pub resource: ResourceType,
    /// Namespace and name.
    pub key: ObjectKey,
    /// Its revision.
    pub revision: u64,
    /// Whether it is being deleted.
    pub is_terminating: bool,
    /// Its finalizers.
    pub finalizers: Vec<Arc<str>>,
    /// Its owners.
    pub owners: Vec<Owner>,
}

/// What the graph looks at of an object.
#[derive(Clone, Debug)]
pub struct Seen<'a> {
    /// Its uid; empty when it has none.
    pub uid: Cow<'a, str>,
    /// Its namespace; empty when it lives in none.
    pub namespace: &'a str,
    /// Its name.
    pub name: &'a str,
    /// Its revision.
    pub revision: u64,
    /// Whether it is being deleted.
    pub is_terminating: bool,
    /// Its finalizers.
    pub finalizers: &'a [String],
    /// Its owners.
    pub owners: &'a [OwnerReference],
}

/// What was seen of an object.
#[derive(Clone, Debug)]
pub enum Change<'a> {
    /// It is there.
    Applied(Seen<'a>),
    /// It is gone.
    Deleted(Seen<'a>),
}

/// Where an object without details lives: by number of resource and of namespace.
type Place = (u16, u32);

/// The graph.
#[derive(Default)]
pub struct Graph {
    nodes: BTreeMap<Arc<str>, Node>,
    /// Objects without details, which most are.
    plain: BTreeMap<Uid, Place>,
    dependents: BTreeMap<Arc<str>, BTreeSet<Arc<str>>>,
    /// How many objects of each resource each namespace has.
    counts: BTreeMap<Place, usize>,
    resources: Vec<ResourceType>,
    /// The number of each namespace.
    namespaces: BTreeMap<Box<str>, u32>,
    /// The owners last seen to be deleted: a uid never comes back.
    gone: BTreeSet<Arc<str>>,
    gone_order: VecDeque<Arc<str>>,
}

/// How many deleted owners are remembered.
const REMEMBERED: usize = 500;

// === impl Graph ===

impl Graph {
    /// The details of an object.
    pub fn node(&self, uid: &str) -> Option<&Node> {
        self.nodes.get(uid)
    }

    /// Whether an object of that resource lives in that namespace.
    pub fn lives(&self, uid: &str, namespace: &str, resource: &ResourceType) -> bool {
        self.plain.get(&Uid::from(uid)).is_some_and(|(number, place)| {
            self.namespaces.get(namespace) == Some(place)
                && self.resources.get(usize::from(*number)) == Some(resource)
        })
    }

    /// The objects that name `uid` as an owner.
    pub fn dependents<'a>(&'a self, uid: &str) -> impl Iterator<Item = &'a Arc<str>> {
        self.dependents.get(uid).into_iter().flatten()
    }

    /// Whether the object was told to be deleted, not long ago.
    pub fn is_gone(&self, uid: &str) -> bool {
        self.gone.contains(uid)
    }

    /// How many objects it knows, with and without details.
    pub fn size(&self) -> (usize, usize) {
        (self.nodes.len(), self.plain.len())
    }

    /// How many objects it knows.
    pub fn known(&self) -> usize {
        self.nodes.len() + self.plain.len()
    }

    /// How many objects of a resource a namespace has.
    pub fn count(&self, resource: &ResourceType, namespace: &str) -> usize {
        let Some(&namespace) = self.namespaces.get(namespace) else { return 0 };
        let is_same = |known: &ResourceType| known.group == resource.group && known.plural == resource.plural;
        // In whatever version they were seen.
        let numbers = (0u16..).zip(&self.resources).filter(|(_, known)| is_same(known));
        numbers.filter_map(|(number, _)| self.counts.get(&(number, namespace))).sum()
    }

    /// Takes a change in. Returns the uids to plan for.
    pub fn observe(&mut self, resource: &ResourceType, change: Change) -> Vec<Arc<str>> {
        match change {
            Change::Applied(seen) if !seen.uid.is_empty() => self.applied(resource, &seen),
            Change::Deleted(seen) if !seen.uid.is_empty() => self.deleted(&seen),
            Change::Applied(_) | Change::Deleted(_) => Vec::new(),
        }
    }

    fn applied(&mut self, resource: &ResourceType, seen: &Seen<'_>) -> Vec<Arc<str>> {
        let (text, uid) = (&*seen.uid, Uid::from(&*seen.uid));
        let place = (self.number(resource), self.namespace(seen.namespace));
        if !self.nodes.contains_key(text) && !self.plain.contains_key(&uid) {
            *self.counts.entry(place).or_default() += 1;
        }
        if let Some(old) = self.nodes.get_mut(text) {
            if old.revision > seen.revision {
                return Vec::new();
            }
            if old.is_as(seen) {
                old.revision = seen.revision;
                return Vec::new();
            }
        }
        let is_held = seen.finalizers.iter().any(|each| each == FOREGROUND || each == ORPHAN);
        if seen.owners.is_empty() && !is_held {
            if !self.plain.contains_key(&uid) {
                self.remove_details(text);
                self.plain.insert(uid, place);
            }
            return Vec::new();
        }
        self.plain.remove(&uid);
        let old = self.nodes.get(text);
        let uid: Arc<str> = text.into();
        let owners: Vec<Owner> = seen.owners.iter().map(|owner| self.owner(owner)).collect();
        let node = Node {
            resource: resource.clone(),
            key: ObjectKey::new(seen.namespace, seen.name),
            revision: seen.revision,
            is_terminating: seen.is_terminating,
            finalizers: seen.finalizers.iter().map(|each| Arc::from(each.as_str())).collect(),
            owners,
        };
        let old_owners: Vec<Arc<str>> =
            old.iter().flat_map(|old| &old.owners).map(|owner| Arc::clone(&owner.uid)).collect();
        let mut work = self.work(&uid, &node);
        for owner in old_owners.iter().filter(|owner| node.owners.iter().all(|new| new.uid != **owner)) {
            self.unlink(owner, &uid);
            work.push(Arc::clone(owner));
        }
        for owner in &node.owners {
            self.dependents.entry(Arc::clone(&owner.uid)).or_default().insert(Arc::clone(&uid));
        }
        self.nodes.insert(uid, node);
        work
    }

    /// What an object seen like this gives to do.
    fn work(&self, uid: &Arc<str>, node: &Node) -> Vec<Arc<str>> {
        let mut work = Vec::new();
        if node.is_terminating && (node.has(FOREGROUND) || node.has(ORPHAN)) {
            work.push(Arc::clone(uid));
            let was_waiting =
                self.nodes.get(uid).is_some_and(|old| old.is_terminating && old.has(FOREGROUND));
            if node.has(FOREGROUND) && !was_waiting {
                work.extend(self.dependents(uid).cloned());
            }
        }
        let is_new_bond = |owner: &Owner| {
            self.nodes.get(uid).is_none_or(|old| old.owners.iter().all(|each| each.uid != owner.uid))
        };
        let elsewhere = |place: &str| !place.is_empty() && *place != *node.key.namespace;
        let nowhere = self.namespaces.get("");
        let own = self.namespaces.get(&*node.key.namespace);
        let ill = |owner: &Owner| match self.nodes.get(&owner.uid) {
            Some(held) => held.is_terminating || elsewhere(&held.key.namespace),
            None => self
                .plain
                .get(&Uid::from(&*owner.uid))
                .is_none_or(|(_, place)| Some(place) != nowhere && Some(place) != own),
        };
        if !node.is_terminating && node.owners.iter().any(|owner| is_new_bond(owner) && ill(owner)) {
            work.push(Arc::clone(uid));
        }
        work
    }

    fn deleted(&mut self, seen: &Seen<'_>) -> Vec<Arc<str>> {
        let uid = &*seen.uid;
        let place = self.plain.remove(&Uid::from(uid)).or_else(|| {
            let ObjectKey { namespace, .. } = self.nodes.get(uid)?.key.clone();
            let resource = self.nodes.get(uid)?.resource.clone();
            Some((self.number(&resource), self.namespace(&namespace)))
        });
        if let Some(place) = place {
            self.leave(place);
        }
        let owners: Vec<Arc<str>> = self
            .nodes
            .get(uid)
            .map(|node| node.owners.iter().map(|owner| Arc::clone(&owner.uid)).collect())
            .unwrap_or_default();
        self.remove_details(uid);
        let mut work: Vec<Arc<str>> = self.dependents(uid).cloned().collect();
        if !work.is_empty() {
            self.remember(uid);
        }
        let waits = |owner: &Arc<str>| self.nodes.get(owner).is_some_and(|owner| owner.is_terminating);
        work.extend(owners.into_iter().filter(waits));
        work
    }

    fn leave(&mut self, place: Place) {
        if let Some(count) = self.counts.get_mut(&place) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&place);
            }
        }
    }

    fn remember(&mut self, uid: &str) {
        let uid: Arc<str> = uid.into();
        if self.gone.insert(Arc::clone(&uid)) {
            self.gone_order.push_back(uid);
        }
        if self.gone_order.len() > REMEMBERED
            && let Some(oldest) = self.gone_order.pop_front()
        {
            self.gone.remove(&oldest);
        }
    }

    fn remove_details(&mut self, uid: &str) {
        if let Some((uid, node)) = self.nodes.remove_entry(uid) {
            for owner in &node.owners {
                self.unlink(&owner.uid, &uid);
            }
        }
    }

    fn unlink(&mut self, owner: &str, dependent: &Arc<str>) {
        if let Some(dependents) = self.dependents.get_mut(owner) {
            dependents.remove(dependent);
            if dependents.is_empty() {
                self.dependents.remove(owner);
            }
        }
    }

    /// Shares the text of owners that many dependents name.
    fn owner(&self, reference: &OwnerReference) -> Owner {
        let sibling = self
            .dependents
            .get_key_value(reference.uid.as_str())
            .and_then(|(_, dependents)| self.nodes.get(dependents.first()?))
            .and_then(|node| node.owners.iter().find(|owner| *owner.uid == *reference.uid));
        let share = |known: Option<&Arc<str>>, text: &str| match known {
            Some(known) if **known == *text => Arc::clone(known),
            _ => Arc::from(text),
        };
        Owner {
            api_version: share(sibling.map(|owner| &owner.api_version), &reference.api_version),
            kind: share(sibling.map(|owner| &owner.kind), &reference.kind),
            name: share(sibling.map(|owner| &owner.name), &reference.name),
            uid: share(sibling.map(|owner| &owner.uid), &reference.uid),
            controls: reference.controller == Some(true),
            blocks: reference.block_owner_deletion == Some(true),
        }
    }

    fn number(&mut self, resource: &ResourceType) -> u16 {
        let position = self.resources.iter().position(|known| known == resource).unwrap_or_else(|| {
            self.resources.push(resource.clone());
            self.resources.len() - 1
        });
        u16::try_from(position).unwrap_or(u16::MAX)
    }

    fn namespace(&mut self, namespace: &str) -> u32 {
        if let Some(known) = self.namespaces.get(namespace) {
            return *known;
        }
        let next = u32::try_from(self.namespaces.len()).unwrap_or(u32::MAX);
        self.namespaces.insert(namespace.into(), next);
        next
    }
}

// === impl Seen ===

impl<'a> From<&'a ObjectMeta> for Seen<'a> {
    fn from(meta: &'a ObjectMeta) -> Self {
        Self {
            uid: meta.uid.as_deref().unwrap_or_default().into(),
            namespace: meta.namespace.as_deref().unwrap_or_default(),
            name: meta.name.as_deref().unwrap_or_default(),
            revision: revision(meta).unwrap_or(0),
            is_terminating: meta.deletion_timestamp.is_some(),
            finalizers: meta.finalizers.as_deref().unwrap_or_default(),
            owners: meta.owner_references.as_deref().unwrap_or_default(),
        }
    }
}

impl<'a> From<&'a Footprint> for Seen<'a> {
    fn from(footprint: &'a Footprint) -> Self {
        let ties = footprint.ties();
        Self {
            uid: footprint.uid().to_string().into(),
            namespace: &footprint.key().namespace,
            name: &footprint.key().name,
            revision: footprint.revision(),
            is_terminating: ties.is_some_and(|ties| ties.deletion_timestamp.is_some()),
            finalizers: ties.map(|ties| &*ties.finalizers).unwrap_or_default(),
            owners: ties.map(|ties| &*ties.owners).unwrap_or_default(),
        }
    }
}

// === impl Node ===

impl Node {
    /// Whether nothing changed but the revision.
    fn is_as(&self, seen: &Seen<'_>) -> bool {
        self.is_terminating == seen.is_terminating
            && self.finalizers.iter().map(|each| &**each).eq(seen.finalizers.iter().map(String::as_str))
            && self.owners.len() == seen.owners.len()
            && self.owners.iter().zip(seen.owners).all(|(have, told)| {
                *have.uid == *told.uid
                    && *have.name == *told.name
                    && *have.kind == *told.kind
                    && *have.api_version == *told.api_version
                    && have.controls == (told.controller == Some(true))
                    && have.blocks == (told.block_owner_deletion == Some(true))
            })
    }

    /// Whether it is held by `finalizer`.
    pub fn has(&self, finalizer: &str) -> bool {
        self.finalizers.iter().any(|each| **each == *finalizer)
    }
}

// === impl Owner ===

impl Owner {
    /// The reference as objects carry it.
    pub fn document(&self) -> Value {
        let mut document = json!({
            "apiVersion": &*self.api_version,
            "kind": &*self.kind,
            "name": &*self.name,
            "uid": &*self.uid,
        });
        if let Value::Object(map) = &mut document {
            for (field, set) in [("controller", self.controls), ("blockOwnerDeletion", self.blocks)] {
                if set {
                    map.insert(field.into(), true.into());
                }
            }
        }
        document
    }
}
