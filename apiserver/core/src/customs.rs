//! The custom resources that the definitions in the cluster serve: an index, kept in step with the definitions.

use std::sync::Arc;

use api::catalogue::{Catalogue, Group, Resource, by_preference};
use api::definition::{Claims, Definition};
use bytes::Bytes;
use imbl::OrdMap;
use store_core::Snapshot;

use crate::{keys, scan};

/// What the definitions serve. A value: cheap to clone.
#[derive(Clone, Default)]
pub struct Customs {
    /// By the key of the definition.
    definitions: OrdMap<Bytes, Arc<Definition>>,
    /// By group, version and plural, as a path has them.
    resources: OrdMap<Box<str>, Arc<Resource>>,
    revision: u64,
}

// === impl Customs ===

impl Customs {
    /// The index of a state.
    pub fn build(snapshot: &Snapshot) -> Customs {
        let mut customs = Customs::default();
        for (key, entry) in snapshot.prefix(keys::DEFINITIONS) {
            customs.put(key, &entry.value, None, entry.revision);
        }
        customs
    }

    /// Takes in a definition that was written.
    pub fn put(&mut self, key: &Bytes, value: &Bytes, previous: Option<&Bytes>, revision: u64) {
        let known = self.definitions.get(key).cloned();
        // A change of the status makes no other schema of the versions.
        let same = previous.is_some_and(|previous| versions(previous) == versions(value));
        let since = known.as_ref().filter(|_| same).map_or(revision, |known| known.since);
        self.take_out(key);
        self.revision = revision;
        let Some(definition) = Definition::read(value, since) else { return };
        for resource in &definition.resources {
            let path = path(&resource.group, &resource.version, &resource.plural);
            self.resources.insert(path, resource.clone());
        }
        self.definitions.insert(key.clone(), Arc::new(definition));
    }

    /// Forgets a definition.
    pub fn remove(&mut self, key: &[u8], revision: u64) {
        self.take_out(key);
        self.revision = revision;
    }

    fn take_out(&mut self, key: &[u8]) {
        let Some(known) = self.definitions.remove(key) else { return };
        for resource in &known.resources {
            self.resources.remove(&path(&resource.group, &resource.version, &resource.plural));
        }
    }

    /// The revision of the last change of any definition.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// The resource at a path.
    pub fn resource(&self, group: &str, version: &str, plural: &str) -> Option<&Arc<Resource>> {
        self.resources.get(&path(group, version, plural))
    }

    /// Every resource.
    pub fn resources(&self) -> impl Iterator<Item = &Resource> {
        self.resources.values().map(|resource| &**resource)
    }

    /// The resources of one group and version.
    pub fn of_version<'a>(
        &'a self,
        group: &'a str,
        version: &'a str,
    ) -> impl Iterator<Item = &'a Resource> + 'a {
        let from = path(group, version, "");
        self.resources
            .range(from..)
            .map(|(_, resource)| &**resource)
            .take_while(move |resource| resource.group == group && resource.version == version)
    }

    /// All groups, those of built-in resources first.
    pub fn groups(&self) -> Vec<Group> {
        let mut groups = Catalogue::builtin().groups().to_vec();
        let builtin = groups.len();
        for resource in self.resources() {
            let at = groups.iter().position(|group| group.name == resource.group).unwrap_or(groups.len());
            if at == groups.len() {
                groups.push(Group { name: resource.group.clone(), versions: Vec::new() });
            }
            let versions = &mut groups[at].versions;
            if !versions.contains(&resource.version) {
                versions.push(resource.version.clone());
                if at >= builtin {
                    versions.sort_by(|a, b| by_preference(a, b));
                }
            }
        }
        groups
    }

    /// The definitions of a group, each with its key.
    pub fn of_group<'a>(&'a self, group: &'a str) -> impl Iterator<Item = (&'a Bytes, &'a Definition)> + 'a {
        self.definitions
            .iter()
            .filter(move |(_, definition)| &*definition.group == group)
            .map(|(key, definition)| (key, &**definition))
    }

    /// All versions of a custom resource that are served.
    pub fn versions_of(&self, resource: &Resource) -> impl Iterator<Item = &Arc<Resource>> {
        let name = resource.custom.as_ref().map(|custom| custom.definition.clone()).unwrap_or_default();
        let key = keys::object(api::definition::GROUP, api::definition::PLURAL, "", &name);
        self.definitions.get(&key).into_iter().flat_map(|definition| &definition.resources)
    }

    /// The names that the definitions of a group have, but for the one of that name.
    pub fn claimed(&self, group: &str, but: &str) -> Claims {
        let mut claims = Claims::default();
        self.of_group(group)
            .filter(|(_, definition)| &*definition.name != but)
            .for_each(|(_, definition)| claims.join(&definition.claims));
        claims
    }
}

/// The bytes of the versions of a definition.
fn versions(definition: &Bytes) -> Option<&[u8]> {
    Some(&definition[scan::locate(definition, &["spec", "versions"])?])
}

/// A path; what is of one version is together in the order of paths.
fn path(group: &str, version: &str, plural: &str) -> Box<str> {
    [group, version, plural].join("/").into()
}
