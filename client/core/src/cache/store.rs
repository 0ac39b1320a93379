//! The objects of a cache: an ordered map with cheap snapshots and secondary indexes.

use std::fmt;
use std::sync::Arc;

use imbl::OrdMap;

use super::Cached;
use crate::object::ObjectKey;

/// The values under which an object is found in a secondary index.
pub type IndexFn<T> = fn(&T) -> Vec<Arc<str>>;

/// Objects by key. A clone is a snapshot: it shares everything and costs next to nothing.
pub struct Store<T> {
    objects: OrdMap<ObjectKey, Arc<T>>,
    indexes: Arc<Vec<Index<T>>>,
    entries: Vec<Entries<T>>,
    resource_version: Arc<str>,
}

/// The objects of one index, by value and key.
type Entries<T> = OrdMap<(Arc<str>, ObjectKey), Arc<T>>;

struct Index<T> {
    name: &'static str,
    function: IndexFn<T>,
}

// === impl Store ===

impl<T> Default for Store<T> {
    fn default() -> Self {
        Self {
            objects: OrdMap::new(),
            indexes: Arc::new(Vec::new()),
            entries: Vec::new(),
            resource_version: Arc::from(""),
        }
    }
}

impl<T> Clone for Store<T> {
    fn clone(&self) -> Self {
        Self {
            objects: self.objects.clone(),
            indexes: Arc::clone(&self.indexes),
            entries: self.entries.clone(),
            resource_version: Arc::clone(&self.resource_version),
        }
    }
}

impl<T> fmt::Debug for Store<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store")
            .field("len", &self.objects.len())
            .field("resource_version", &self.resource_version)
            .finish_non_exhaustive()
    }
}

impl<T: Cached> FromIterator<T> for Store<T> {
    fn from_iter<I: IntoIterator<Item = T>>(objects: I) -> Self {
        let mut store = Self::default();
        for object in objects {
            store.insert(object.identity(), Arc::new(object));
        }
        store
    }
}

impl<T: Cached> Store<T> {
    /// The object with this key.
    pub fn get(&self, key: &ObjectKey) -> Option<&Arc<T>> {
        self.objects.get(key)
    }

    /// The object with this namespace (empty for cluster scope) and name.
    pub fn find(&self, namespace: &str, name: &str) -> Option<&Arc<T>> {
        self.get(&ObjectKey::new(namespace, name))
    }

    /// All objects, in order of namespace and name.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<T>> {
        self.objects.values()
    }

    /// All keys, in order.
    pub fn keys(&self) -> impl Iterator<Item = &ObjectKey> {
        self.objects.keys()
    }

    /// The objects of one namespace.
    pub fn in_namespace<'a>(&'a self, namespace: &'a str) -> impl Iterator<Item = &'a Arc<T>> {
        self.objects
            .range(ObjectKey::new(namespace, "")..)
            .take_while(move |(key, _)| &*key.namespace == namespace)
            .map(|(_, object)| object)
    }

    /// The objects that the index of this name has under this value; none when there is no such index.
    pub fn by<'a>(&'a self, index: &str, value: &'a str) -> impl Iterator<Item = &'a Arc<T>> + use<'a, T> {
        let position = self.indexes.iter().position(|candidate| candidate.name == index);
        position
            .and_then(|position| self.entries.get(position))
            .into_iter()
            .flat_map(move |entries| entries.range((Arc::from(value), ObjectKey::new("", ""))..))
            .take_while(move |((found, _), _)| &**found == value)
            .map(|(_, object)| object)
    }

    /// Whether an index of this name exists.
    pub fn has_index(&self, name: &str) -> bool {
        self.indexes.iter().any(|index| index.name == name)
    }

    /// How many objects there are.
    pub fn len(&self) -> usize {
        self.objects.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }

    /// The version of the collection up to which everything is in here.
    pub fn resource_version(&self) -> &str {
        &self.resource_version
    }

    /// The key of an object: the one that is kept of it, or a new one that shares the namespace of its neighbour.
    pub(super) fn key_of(&self, object: &T) -> ObjectKey {
        let mut key = object.identity();
        let neighbour = self.objects.get_prev(&key).or_else(|| self.objects.get_next(&key));
        match neighbour {
            Some((known, _)) if *known == key => return known.clone(),
            Some((near, _)) if near.namespace == key.namespace => key.namespace = Arc::clone(&near.namespace),
            _ => {}
        }
        key
    }

    /// Puts an object in, and returns the one that it replaces.
    pub fn insert(&mut self, key: ObjectKey, object: Arc<T>) -> Option<Arc<T>> {
        let old = self.objects.insert(key.clone(), Arc::clone(&object));
        for (index, entries) in self.indexes.iter().zip(&mut self.entries) {
            let values = (index.function)(&object);
            if let Some(old) = &old {
                for stale in (index.function)(old).into_iter().filter(|value| !values.contains(value)) {
                    entries.remove(&(stale, key.clone()));
                }
            }
            for value in values {
                entries.insert((value, key.clone()), Arc::clone(&object));
            }
        }
        old
    }

    /// Takes an object out.
    pub fn remove(&mut self, key: &ObjectKey) -> Option<Arc<T>> {
        let old = self.objects.remove(key)?;
        for (index, entries) in self.indexes.iter().zip(&mut self.entries) {
            for value in (index.function)(&old) {
                entries.remove(&(value, key.clone()));
            }
        }
        Some(old)
    }

    /// Adds an index over all objects, those to come included; a second one of the same name is ignored.
    pub fn add_index(&mut self, name: &'static str, function: IndexFn<T>) {
        if self.has_index(name) {
            return;
        }
        let mut entries = OrdMap::new();
        for (key, object) in &self.objects {
            for value in function(object) {
                entries.insert((value, key.clone()), Arc::clone(object));
            }
        }
        let mut indexes: Vec<Index<T>> =
            self.indexes.iter().map(|index| Index { name: index.name, function: index.function }).collect();
        indexes.push(Index { name, function });
        self.indexes = Arc::new(indexes);
        self.entries.push(entries);
    }

    pub(super) fn set_resource_version(&mut self, version: &str) {
        if !version.is_empty() && *self.resource_version != *version {
            self.resource_version = Arc::from(version);
        }
    }
}
