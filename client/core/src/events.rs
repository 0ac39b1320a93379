//! Event correlation: many similar notes become few writes, and a noisy object cannot flood the cluster.
//!
//! A note passes three stages: *aggregation* (similar notes with ever new messages become one), *counting* (the same note again only
//! raises a count) and a *spam filter* (a token bucket for each source and object).

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;

use crate::clock::{Moment, Now};

/// Whether a note is news or trouble.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum EventType {
    /// All is well.
    Normal,
    /// Something may be wrong.
    Warning,
}

/// Something to tell users about an object.
#[derive(Clone, Debug, PartialEq)]
pub struct EventNote {
    /// The object it is about.
    pub regarding: ObjectReference,
    /// News or trouble.
    pub kind: EventType,
    /// A CamelCase word, for example `FailedScheduling`.
    pub reason: String,
    /// What was done or tried, for example `Binding`; may be empty.
    pub action: String,
    /// For people.
    pub message: String,
}

/// Which write a note has become.
#[derive(Clone, Debug, PartialEq)]
pub enum Correlated {
    /// A new Event object with this name.
    Create(EventRecord),
    /// A known one: its count, last time and message change.
    Update(EventRecord),
    /// Nothing: too many notes.
    Dropped,
}

/// The state of one Event object.
#[derive(Clone, Debug, PartialEq)]
pub struct EventRecord {
    /// What it says.
    pub note: EventNote,
    /// The object's name.
    pub name: String,
    /// How often it was noted.
    pub count: i32,
    /// The first time.
    pub first: Timestamp,
    /// The last time.
    pub last: Timestamp,
}

/// Limits, as client-go sets them.
#[derive(Clone, Debug)]
pub struct Limits {
    /// How many keys each stage remembers.
    pub remembered: usize,
    /// From so many different messages on, similar notes are combined.
    pub similar: usize,
    /// Within this time.
    pub interval: Duration,
    /// How many notes an object may have at once.
    pub burst: u32,
    /// How long until it may have one more.
    pub refill: Duration,
}

/// Correlates the notes of one source.
#[derive(Debug)]
pub struct Correlator {
    limits: Limits,
    similar: Recent<Similar>,
    known: Recent<Known>,
    buckets: Recent<Bucket>,
}

/// Stands for what counts of a note. Thousands are remembered, and their texts would be most of the memory. If two notes ever
/// had the same fingerprint, they would be counted as one.
type Fingerprint = u64;

#[derive(Debug)]
struct Similar {
    messages: Vec<Fingerprint>,
    last: Moment,
}

/// An Event object that was made; what it says comes again with the next note of its kind.
#[derive(Debug)]
struct Known {
    name: Box<str>,
    count: i32,
    first: Timestamp,
}

#[derive(Debug)]
struct Bucket {
    tokens: f64,
    at: Moment,
}

/// A map that forgets what was used longest ago.
#[derive(Debug)]
struct Recent<V> {
    limit: usize,
    values: BTreeMap<Fingerprint, (u64, V)>,
    order: BTreeMap<u64, Fingerprint>,
    clock: u64,
}

// === impl EventType ===

impl EventType {
    /// As Events spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "Normal",
            Self::Warning => "Warning",
        }
    }
}

// === impl EventNote ===

impl EventNote {
    /// A note about an object of a typed kind.
    pub fn about<K: crate::object::Kind>(
        object: &K,
        kind: EventType,
        reason: impl Into<String>,
        message: impl Into<String>,
    ) -> Self {
        Self {
            regarding: reference(object),
            kind,
            reason: reason.into(),
            action: String::new(),
            message: message.into(),
        }
    }

    /// Says what was done or tried.
    #[must_use]
    pub fn with_action(mut self, action: impl Into<String>) -> Self {
        self.action = action.into();
        self
    }
}

/// A reference to an object of a typed kind.
pub fn reference<K: crate::object::Kind>(object: &K) -> ObjectReference {
    let meta = crate::object::Object::metadata(object);
    ObjectReference {
        api_version: Some(K::API_VERSION.to_owned()),
        kind: Some(K::KIND.to_owned()),
        namespace: meta.namespace.clone(),
        name: meta.name.clone(),
        uid: meta.uid.clone(),
        resource_version: meta.resource_version.clone(),
        field_path: None,
    }
}

// === impl Limits ===

impl Default for Limits {
    fn default() -> Self {
        Self {
            remembered: 4096,
            similar: 10,
            interval: Duration::from_secs(600),
            burst: 25,
            refill: Duration::from_secs(300),
        }
    }
}

// === impl Correlator ===

impl Correlator {
    /// A correlator that has seen nothing.
    pub fn new(limits: Limits) -> Self {
        let remembered = limits.remembered.max(1);
        Self {
            limits,
            similar: Recent::new(remembered),
            known: Recent::new(remembered),
            buckets: Recent::new(remembered),
        }
    }

    /// Takes a note in and tells which write it has become.
    pub fn note(&mut self, mut note: EventNote, now: Now) -> Correlated {
        let object = identity(&note.regarding);
        if !self.admit(object, now.moment) {
            return Correlated::Dropped;
        }
        let similar = fingerprint((object, &note.reason, note.kind.as_str(), &note.action));
        let combined = self.aggregate(similar, fingerprint(&note.message), now.moment);
        let key = if combined {
            note.message = format!("(combined from similar events): {}", note.message);
            fingerprint((similar, None::<&str>))
        } else {
            fingerprint((similar, Some(&*note.message)))
        };
        if let Some(known) = self.known.get(key) {
            known.count = known.count.saturating_add(1);
            let (name, count, first) = (known.name.to_string(), known.count, known.first);
            return Correlated::Update(EventRecord { note, name, count, first, last: now.wall });
        }
        let name = event_name(&note.regarding, now.wall);
        self.known.put(key, Known { name: name.as_str().into(), count: 1, first: now.wall });
        Correlated::Create(EventRecord { note, name, count: 1, first: now.wall, last: now.wall })
    }

    /// The Event object of this record is gone: the next note of its kind creates a new one.
    pub fn forget(&mut self, record: &EventRecord) {
        self.known.remove_where(|known| *known.name == *record.name);
    }

    fn admit(&mut self, object: Fingerprint, now: Moment) -> bool {
        let burst = f64::from(self.limits.burst);
        let Some(bucket) = self.buckets.get(object) else {
            self.buckets.put(object, Bucket { tokens: burst - 1.0, at: now });
            return true;
        };
        let gained = now.saturating_sub(bucket.at).as_secs_f64() / self.limits.refill.as_secs_f64();
        bucket.tokens = (bucket.tokens + gained).min(burst);
        bucket.at = now;
        if bucket.tokens < 1.0 {
            return false;
        }
        bucket.tokens -= 1.0;
        true
    }

    /// Whether notes like this have come with so many messages that they are combined.
    fn aggregate(&mut self, key: Fingerprint, message: Fingerprint, now: Moment) -> bool {
        let limits = &self.limits;
        if let Some(similar) = self.similar.get(key) {
            if now.saturating_sub(similar.last) > limits.interval {
                similar.messages.clear();
            }
            similar.last = now;
            if similar.messages.len() < limits.similar && !similar.messages.contains(&message) {
                similar.messages.push(message);
            }
            return similar.messages.len() >= limits.similar;
        }
        self.similar.put(key, Similar { messages: vec![message], last: now });
        false
    }
}

fn identity(object: &ObjectReference) -> Fingerprint {
    fingerprint((&object.kind, &object.namespace, &object.name, &object.uid, &object.field_path))
}

fn fingerprint(of: impl Hash) -> Fingerprint {
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    hasher.finish()
}

/// `<object>.<nanoseconds in hexadecimal>`, as client-go names them.
fn event_name(object: &ObjectReference, now: Timestamp) -> String {
    let nanos = u64::try_from(now.as_nanosecond()).unwrap_or_default();
    let name = object.name.as_deref().filter(|name| !name.is_empty()).unwrap_or("unknown");
    format!("{name}.{nanos:x}")
}

// === impl Recent ===

impl<V> Recent<V> {
    fn new(limit: usize) -> Self {
        Self { limit, values: BTreeMap::new(), order: BTreeMap::new(), clock: 0 }
    }

    fn get(&mut self, key: Fingerprint) -> Option<&mut V> {
        let (used, value) = self.values.get_mut(&key)?;
        self.clock += 1;
        if let Some(key) = self.order.remove(used) {
            self.order.insert(self.clock, key);
        }
        *used = self.clock;
        Some(value)
    }

    fn put(&mut self, key: Fingerprint, value: V) {
        self.clock += 1;
        if let Some((used, _)) = self.values.insert(key, (self.clock, value)) {
            self.order.remove(&used);
        }
        self.order.insert(self.clock, key);
        while self.values.len() > self.limit {
            let Some((_, oldest)) = self.order.pop_first() else { break };
            self.values.remove(&oldest);
        }
    }

    fn remove_where(&mut self, matches: impl Fn(&V) -> bool) {
        let order = &mut self.order;
        self.values.retain(|_, (used, value)| {
            let gone = matches(value);
            if gone {
                order.remove(used);
            }
            !gone
        });
    }
}

#[cfg(test)]
mod tests;
