//! One kind's objects with the lookups that keep planning cheap, true to our own writes.
//!
//! A watch lags behind the writes that its own reader makes. Planning on it again would create a pod twice.
//! Therefore the answer to every write enters the table at once, ahead of the watch. Revisions order the
//! two: an answer older than what the watch has told already is dropped (the object may be gone by now), and
//! a watch event older than an answer is too.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;

use crate::object::{Object, after, revision, uid};
use client_core::object::ObjectKey as Key;

/// How long an object known only from our own write is believed without the watch telling of it.
const UNCONFIRMED_SECONDS: i64 = 300;

/// A kind that can be grouped: by owner, by service.
pub trait Grouped: Object {
    /// The group under which the object is looked up.
    fn group(&self) -> Option<String> {
        None
    }
}

/// What an operation changed: the object before and after.
pub type Changed<K> = Option<(Option<Arc<K>>, Option<Arc<K>>)>;

/// The objects of one kind.
pub struct Table<K> {
    objects: BTreeMap<Key, Arc<K>>,
    groups: BTreeMap<String, BTreeSet<Key>>,
    /// The newest revision that the watch has told of.
    seen: u64,
    /// Written by us, not yet told of by the watch.
    unconfirmed: BTreeMap<Key, Timestamp>,
}

impl<K> Default for Table<K> {
    fn default() -> Self {
        Table { objects: BTreeMap::new(), groups: BTreeMap::new(), seen: 0, unconfirmed: BTreeMap::new() }
    }
}

impl<K: Grouped> Table<K> {
    /// The object at `key`.
    pub fn get(&self, key: &Key) -> Option<&Arc<K>> {
        self.objects.get(key)
    }

    /// The object of that name, in that namespace (empty: cluster-scoped).
    pub fn named(&self, namespace: &str, name: &str) -> Option<&Arc<K>> {
        self.objects.get(&Key::new(namespace, name))
    }

    /// All objects, by key.
    pub fn iter(&self) -> impl Iterator<Item = (&Key, &Arc<K>)> {
        self.objects.iter()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.objects.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }

    /// The objects of a namespace.
    pub fn in_namespace<'a>(&'a self, namespace: &'a str) -> impl Iterator<Item = &'a Arc<K>> {
        self.objects
            .range(Key::new(namespace, "")..)
            .take_while(move |(key, _)| *key.namespace == *namespace)
            .map(|(_, object)| object)
    }

    /// The objects of a group.
    pub fn group<'a>(&'a self, group: &str) -> impl Iterator<Item = &'a Arc<K>> {
        self.groups.get(group).into_iter().flatten().filter_map(|key| self.objects.get(key))
    }

    /// The watch (or a list) tells of an object.
    pub fn applied(&mut self, object: Arc<K>) -> Changed<K> {
        let told = revision(object.metadata()).unwrap_or(0);
        self.seen = self.seen.max(told);
        let key = key_of(&*object);
        let known = self.objects.get(&key).and_then(|known| revision(known.metadata())).unwrap_or(0);
        if told >= known {
            self.unconfirmed.remove(&key);
        }
        if told != 0 && told <= known {
            // What the watch brings is shared with the caches.
            if let Some(present) = self.objects.get_mut(&key).filter(|_| told == known) {
                *present = object;
                return None;
            }
            if told < known {
                return None;
            }
        }
        self.put(key, object)
    }

    /// The watch tells that an object is gone. A newer object of the same name stays.
    pub fn deleted(&mut self, object: &K) -> Changed<K> {
        let told = revision(object.metadata()).unwrap_or(0);
        self.seen = self.seen.max(told);
        let key = key_of(object);
        let known = self.objects.get(&key)?;
        let newer = revision(known.metadata()).is_some_and(|known| known > told);
        if newer && uid(&**known) != uid(object) {
            return None;
        }
        self.take(&key)
    }

    /// The API server answered our own write with this state of the object.
    pub fn written(&mut self, object: Arc<K>, now: Timestamp) -> Changed<K> {
        let answered = revision(object.metadata())?;
        let key = key_of(&*object);
        let known = self.objects.get(&key).and_then(|known| revision(known.metadata())).unwrap_or(0);
        if answered <= self.seen || answered <= known {
            return None;
        }
        self.unconfirmed.insert(key.clone(), after(now, UNCONFIRMED_SECONDS));
        self.put(key, object)
    }

    /// Our own deletion was answered: the object is gone for good.
    pub fn removed(&mut self, key: &Key, gone_uid: &str) -> Changed<K> {
        let known = self.objects.get(key)?;
        if uid(&**known) != gone_uid {
            return None;
        }
        self.take(key)
    }

    /// A list of this revision has been told of as a whole: what we wrote before it, and it does not have, is gone again.
    pub fn relisted(&mut self, revision: u64) -> Vec<Changed<K>> {
        self.seen = self.seen.max(revision);
        let written = |key: &Key| self.objects.get(key).and_then(|object| self::revision(object.metadata()));
        let is_older = |key: &&Key| written(key).is_none_or(|written| written <= revision);
        let gone: Vec<Key> = self.unconfirmed.keys().filter(is_older).cloned().collect();
        gone.iter().map(|key| self.take(key)).collect()
    }

    /// Forgets what only our own writes told of and the watch has not confirmed in time.
    pub fn expire(&mut self, now: Timestamp) -> Vec<Changed<K>> {
        // A moment that lies further ahead was set by a clock that has been set back since.
        let longest = after(now, UNCONFIRMED_SECONDS);
        let is_late = |until: &Timestamp| *until <= now || *until > longest;
        let late: Vec<Key> =
            self.unconfirmed.iter().filter(|(_, until)| is_late(until)).map(|(key, _)| key.clone()).collect();
        late.iter().map(|key| self.take(key)).collect()
    }

    /// Whether the watch still owes the confirmation of a write.
    pub fn has_unconfirmed(&self) -> bool {
        !self.unconfirmed.is_empty()
    }

    fn put(&mut self, key: Key, object: Arc<K>) -> Changed<K> {
        let group = object.group();
        let old = self.objects.insert(key.clone(), Arc::clone(&object));
        let old_group = old.as_ref().and_then(|old| old.group());
        if old_group != group {
            self.ungroup(old_group, &key);
        }
        if let Some(group) = group {
            self.groups.entry(group).or_default().insert(key);
        }
        Some((old, Some(object)))
    }

    fn take(&mut self, key: &Key) -> Changed<K> {
        self.unconfirmed.remove(key);
        let old = self.objects.remove(key)?;
        self.ungroup(old.group(), key);
        Some((Some(old), None))
    }

    fn ungroup(&mut self, group: Option<String>, key: &Key) {
        let Some(group) = group else { return };
        if let Some(members) = self.groups.get_mut(&group) {
            members.remove(key);
            if members.is_empty() {
                self.groups.remove(&group);
            }
        }
    }
}

fn key_of<K: Object>(object: &K) -> Key {
    Key::of_meta(object.metadata())
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ConfigMap;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

    use super::*;

    impl Table<ConfigMap> {
        fn shown(&self) -> String {
            let show = |object: &Arc<ConfigMap>| object.metadata.resource_version.clone().unwrap_or_default();
            self.objects.values().map(show).collect::<Vec<_>>().join(",")
        }
    }

    fn object(uid: &str, revision: u64) -> Arc<ConfigMap> {
        Arc::new(ConfigMap {
            metadata: ObjectMeta {
                namespace: Some("ns".into()),
                name: Some("a".into()),
                uid: Some(uid.into()),
                resource_version: Some(revision.to_string()),
                ..ObjectMeta::default()
            },
            ..ConfigMap::default()
        })
    }

    /// Steps: `w` answer to a write, `a` applied, `d` deleted, each `uid@revision`; `l@revision` a list ends; `x` five minutes
    /// pass, `b` the clock is set back by an hour.
    fn check(steps: &str, expected: &str) {
        let mut table = Table::<ConfigMap>::default();
        let mut now = Timestamp::UNIX_EPOCH;
        for step in steps.split_whitespace() {
            if step == "x" || step == "b" {
                now = after(now, if step == "x" { UNCONFIRMED_SECONDS } else { -3600 });
                table.expire(now);
                continue;
            }
            let (uid, revision) = step[1..].split_once('@').unwrap();
            let object = object(uid, revision.parse().unwrap());
            match &step[..1] {
                "w" => table.written(object, now),
                "a" => table.applied(object),
                "l" => table.relisted(revision.parse().unwrap()).pop().flatten(),
                _ => table.deleted(&object),
            };
        }
        assert_eq!(table.shown(), expected, "{steps}");
    }

    #[test]
    fn writes_are_read_at_once() {
        check("wu@5", "5");
        check("aa@3 wa@5 aa@4", "5");
    }

    #[test]
    fn a_late_answer_raises_no_ghost() {
        check("au@5 du@6 wu@5", "");
        check("au@5 du@6 wv@7", "7");
    }

    #[test]
    fn a_deletion_found_by_listing_again_counts_whatever_its_revision() {
        check("au@5 wu@9 du@5", "");
        check("au@5 wv@9 du@8", "9");
    }

    #[test]
    fn a_list_that_lacks_what_was_written_before_it_says_that_it_is_gone() {
        check("wu@5 l@6", "");
        check("wu@5 l@4", "5");
        check("au@5 l@6", "5");
        check("au@3 wu@5 au@5 l@6", "5");
        check("au@3 du@3 wv@5 l@6", "");
        check("l@6 wu@5", "");
    }

    #[test]
    fn an_unconfirmed_object_is_forgotten() {
        check("wu@5 x", "");
        check("wu@5 au@5 x", "5");
        check("wu@5 b", "");
        check("wu@5 au@5 b", "5");
    }
}
