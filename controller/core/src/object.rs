//! Small questions about any object: its key, its controller, whether it is going.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::Metadata;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time};
use rand::{Rng, RngCore};

/// Any typed object with standard metadata that can be read and written.
pub trait Object: client_core::object::Kind {}
impl<K: client_core::object::Kind> Object for K {}

/// The name, empty when missing.
pub fn name(object: &impl Metadata<Ty = ObjectMeta>) -> &str {
    object.metadata().name.as_deref().unwrap_or_default()
}

/// The namespace, empty for a cluster-scoped object.
pub fn namespace(object: &impl Metadata<Ty = ObjectMeta>) -> &str {
    object.metadata().namespace.as_deref().unwrap_or_default()
}

/// The uid, empty when missing.
pub fn uid(object: &impl Metadata<Ty = ObjectMeta>) -> &str {
    object.metadata().uid.as_deref().unwrap_or_default()
}

/// Whether the object is being deleted.
pub fn is_terminating(object: &impl Metadata<Ty = ObjectMeta>) -> bool {
    object.metadata().deletion_timestamp.is_some()
}

/// The value of an annotation.
pub fn annotation<'a>(meta: &'a ObjectMeta, key: &str) -> Option<&'a str> {
    meta.annotations.as_ref()?.get(key).map(String::as_str)
}

/// The value of a label.
pub fn label<'a>(meta: &'a ObjectMeta, key: &str) -> Option<&'a str> {
    meta.labels.as_ref()?.get(key).map(String::as_str)
}

/// The owner reference that manages the object.
pub fn controller_ref(meta: &ObjectMeta) -> Option<&OwnerReference> {
    meta.owner_references.as_ref()?.iter().find(|owner| owner.controller == Some(true))
}

/// Whether `owner` manages the object.
pub fn is_controlled_by(meta: &ObjectMeta, owner_uid: &str) -> bool {
    controller_ref(meta).is_some_and(|owner| owner.uid == owner_uid)
}

/// The reference by which `owner` manages what it makes.
pub fn controller_reference<K: Object>(owner: &K) -> OwnerReference {
    OwnerReference {
        api_version: K::API_VERSION.into(),
        kind: K::KIND.into(),
        name: name(owner).into(),
        uid: uid(owner).into(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// The creation time; an object without one counts as oldest.
pub fn created(object: &impl Metadata<Ty = ObjectMeta>) -> Timestamp {
    object.metadata().creation_timestamp.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0)
}

/// `now` as the API stores it: whole seconds.
pub fn stamp(now: Timestamp) -> Time {
    Time(Timestamp::from_second(now.as_second()).unwrap_or(now))
}

/// `time` plus whole seconds, kept within what a timestamp can hold.
pub fn after(time: Timestamp, seconds: i64) -> Timestamp {
    time.saturating_add(SignedDuration::from_secs(seconds)).unwrap_or(Timestamp::MAX)
}

/// The resourceVersion as the number that orders all revisions of a resource.
pub fn revision(meta: &ObjectMeta) -> Option<u64> {
    meta.resource_version.as_ref()?.parse().ok()
}

/// `base` plus a random suffix, cut so that the whole stays a name of 63 characters.
///
/// Names are minted here rather than by `generateName`: a create whose outcome is unknown is simply
/// repeated, and meets its own first attempt as AlreadyExists instead of making a second object.
pub fn random_name(base: &str, rng: &mut dyn RngCore) -> String {
    const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let mut end = base.len().min(58);
    while !base.is_char_boundary(end) {
        end -= 1;
    }
    let mut made = base[..end].to_owned();
    for _ in 0..5 {
        made.push(char::from(ALPHABET[rng.random_range(0..ALPHABET.len())]));
    }
    made
}
