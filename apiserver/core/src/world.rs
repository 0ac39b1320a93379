//! What a request is planned on: one revision of the state, and indexes derived from it.

use std::sync::Arc;

use bytes::Bytes;
use imbl::OrdMap;
use store_core::{Change, Event, Snapshot};

use api::catalogue::{Catalogue, Group, Resource};

use crate::authz::rbac::Rules;
use crate::customs::Customs;
use crate::lists::Lists;
use crate::policies::Policies;
use crate::served::Served;
use crate::webhooks::Hooks;
use crate::{Config, keys, metrics, scan};

/// What [`crate::prepare`] may look at.
#[derive(Clone, Copy)]
pub struct World<'a> {
    /// The state at one revision.
    pub snapshot: &'a Snapshot,
    /// Indexes over the state, of this snapshot or one close to it.
    pub derived: &'a Derived,
    /// The settings of the cluster.
    pub config: &'a Config,
}

/// Indexes that would cost too much to build for each request. A value: cheap to clone, changed only by
/// [`Derived::apply`], which the store's observer calls with each applied batch.
#[derive(Clone, Default)]
pub struct Derived {
    revision: u64,
    rules: Arc<Rules>,
    /// Key of each bound pod, with its node.
    node_of_pod: OrdMap<Bytes, Arc<str>>,
    /// (node, key of a pod on it).
    pods_of_node: OrdMap<(Arc<str>, Bytes), ()>,
    /// How many objects there are below the prefix of each resource and of each of its namespaces.
    counts: OrdMap<Bytes, u64>,
    /// What definitions of custom resources serve.
    customs: Arc<Customs>,
    /// The webhooks of admission.
    hooks: Hooks,
    /// The admission policies.
    policies: Policies,
    lists: Lists,
}

// === impl World ===

impl<'a> World<'a> {
    /// The resource at a path: a built-in one, or a custom one.
    pub(crate) fn resource(&self, group: &str, version: &str, plural: &str) -> Option<Served> {
        let builtin = || Catalogue::builtin().resource(group, version, plural);
        match builtin().or_else(|| metrics::catalogue().resource(group, version, plural)) {
            Some(resource) => Some(Served::Builtin(resource)),
            None => self.derived.customs.resource(group, version, plural).cloned().map(Served::Custom),
        }
    }

    /// The other resources that serve the same objects in other versions.
    pub(crate) fn equivalents(&self, served: &Served) -> Vec<Served> {
        match served {
            Served::Builtin(resource) => {
                let catalogue = Catalogue::builtin();
                let storage = catalogue.storage_of(resource);
                let same = |other: &&Resource| {
                    !std::ptr::eq(*other, *resource) && std::ptr::eq(catalogue.storage_of(other), storage)
                };
                catalogue.resources().filter(same).map(Served::Builtin).collect()
            }
            Served::Custom(resource) => {
                let versions = self.derived.customs.versions_of(resource);
                versions
                    .filter(|other| other.version != resource.version)
                    .cloned()
                    .map(Served::Custom)
                    .collect()
            }
        }
    }

    /// The resources of one group and version.
    pub(crate) fn of_version<'b>(
        &self,
        group: &'b str,
        version: &'b str,
    ) -> impl Iterator<Item = &'b Resource>
    where
        'a: 'b,
    {
        let customs = &self.derived.customs;
        let builtin = Catalogue::builtin().of_version(group, version);
        let measures = metrics::catalogue().of_version(group, version);
        builtin.chain(customs.of_version(group, version)).chain(measures)
    }

    /// All groups that are served: of built-in resources, of custom ones, and that of measures.
    pub(crate) fn groups(&self) -> Vec<Group> {
        self.derived.groups()
    }

    /// How many objects there are below a prefix; `None` when the indexes show another revision than the snapshot.
    pub(crate) fn counted(&self, prefix: &str) -> Option<u64> {
        (self.derived.revision() == self.snapshot.revision()).then(|| self.derived.count_of(prefix))
    }
}

// === impl Derived ===

impl Derived {
    /// The indexes of a state.
    pub fn build(snapshot: &Snapshot) -> Derived {
        let mut derived = Derived { revision: snapshot.revision(), ..Derived::default() };
        let mut rules = Rules::default();
        for (key, entry) in snapshot.prefix(keys::RBAC) {
            rules.put(key, &entry.value);
        }
        derived.rules = Arc::new(rules);
        derived.customs = Arc::new(Customs::build(snapshot));
        derived.hooks = Hooks::build(snapshot);
        derived.policies = Policies::build(snapshot);
        for (key, _) in snapshot.prefix(b"/") {
            derived.count(key, true);
        }
        for (key, entry) in snapshot.prefix(keys::PODS) {
            derived.put_pod(key, &entry.value);
        }
        derived
    }

    /// Follows applied events, in order.
    pub fn apply<'e>(&mut self, events: impl IntoIterator<Item = &'e Event>) {
        for event in events {
            self.revision = event.revision;
            match &event.change {
                Change::Put { previous: None, .. } => self.count(&event.key, true),
                Change::Put { .. } => {}
                Change::Delete { .. } => self.count(&event.key, false),
            }
            if event.key.starts_with(keys::PODS) {
                match &event.change {
                    Change::Put { value, .. } => self.put_pod(&event.key, value),
                    Change::Delete { .. } => self.remove_pod(&event.key),
                }
            } else if event.key.starts_with(keys::RBAC) {
                let rules = Arc::make_mut(&mut self.rules);
                match &event.change {
                    Change::Put { value, .. } => rules.put(&event.key, value),
                    Change::Delete { .. } => rules.remove(&event.key),
                }
            } else if event.key.starts_with(keys::ADMISSION) {
                match &event.change {
                    Change::Put { value, .. } => {
                        self.hooks.put(&event.key, value);
                        self.policies.put(&event.key, value);
                    }
                    Change::Delete { .. } => {
                        self.hooks.remove(&event.key);
                        self.policies.remove(&event.key);
                    }
                }
            } else if event.key.starts_with(keys::DEFINITIONS) {
                let customs = Arc::make_mut(&mut self.customs);
                match &event.change {
                    Change::Put { value, previous } => {
                        customs.put(&event.key, value, previous.as_ref(), event.revision);
                    }
                    Change::Delete { .. } => customs.remove(&event.key, event.revision),
                }
            }
        }
    }

    /// The revision that the indexes show.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// The RBAC rules.
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// What definitions of custom resources serve.
    pub fn customs(&self) -> &Arc<Customs> {
        &self.customs
    }

    /// All groups that are served.
    pub(crate) fn groups(&self) -> Vec<Group> {
        let mut groups = self.customs.groups();
        groups.extend(metrics::catalogue().groups().iter().cloned());
        groups
    }

    /// The webhooks of admission.
    pub(crate) fn hooks(&self) -> &Hooks {
        &self.hooks
    }

    /// The admission policies.
    pub(crate) fn policies(&self) -> &Policies {
        &self.policies
    }

    /// Bodies of lists that were made lately.
    pub(crate) fn lists(&self) -> &Lists {
        &self.lists
    }

    /// How many objects there are below the prefix of a resource or of one of its namespaces.
    pub fn count_of(&self, prefix: &str) -> u64 {
        self.counts.get(prefix.as_bytes()).copied().unwrap_or(0)
    }

    /// The keys of the pods that are bound to `node`.
    pub fn pods_of<'a>(&'a self, node: &str) -> impl Iterator<Item = &'a Bytes> + use<'a> {
        let from: (Arc<str>, Bytes) = (node.into(), Bytes::new());
        let node = from.0.clone();
        self.pods_of_node
            .range(from..)
            .map(|(key, ())| key)
            .take_while(move |(n, _)| *n == node)
            .map(|(_, key)| key)
    }

    /// The node that the pod at `key` is bound to.
    pub fn node_of(&self, key: &[u8]) -> Option<&str> {
        self.node_of_pod.get(key).map(|node| &**node)
    }

    /// Counts a key that came or went, in "/group/resource/" and, where it has one, "/group/resource/namespace/".
    fn count(&mut self, key: &Bytes, came: bool) {
        let slashes = key.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
        for slash in slashes.skip(2).take(2) {
            let prefix = &key[..=slash];
            match (self.counts.get_mut(prefix), came) {
                (Some(count), true) => *count += 1,
                (Some(count), false) if *count > 1 => *count -= 1,
                (Some(_), false) => drop(self.counts.remove(prefix)),
                (None, true) => drop(self.counts.insert(Bytes::copy_from_slice(prefix), 1)),
                (None, false) => {}
            }
        }
    }

    fn put_pod(&mut self, key: &Bytes, value: &[u8]) {
        // A pod is bound once and stays; only a pod that is not bound yet needs a look.
        if self.node_of_pod.contains_key(key) {
            return;
        }
        let Some(node) = scan::text(value, &["spec", "nodeName"]).filter(|node| !node.is_empty()) else {
            return;
        };
        let node: Arc<str> = node.as_ref().into();
        self.node_of_pod.insert(key.clone(), node.clone());
        self.pods_of_node.insert((node, key.clone()), ());
    }

    fn remove_pod(&mut self, key: &Bytes) {
        if let Some(node) = self.node_of_pod.remove(key) {
            self.pods_of_node.remove(&(node, key.clone()));
        }
    }
}
