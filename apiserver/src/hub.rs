//! The watch hub: takes every applied event once, and hands it to the watchers that it may concern.
//!
//! Watchers are indexed by what they watch: a resource, a namespace of it, one object, or the pods of one node. An
//! event is encoded at most once per kind of line, whoever watches; a watcher is woken once per batch. A watcher of a custom
//! resource is found by the key of its definition as well, and ends with it.
//!
//! No gap and no duplicate: a watcher is first registered, then reads the history up to the newest event, then skips
//! what the hub delivers of it a second time.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use apiserver_core::watch::{Common, EventKind, common_line, takes_footing};
use apiserver_core::{WatchPlan, scan};
use bytes::{Bytes, BytesMut};
use store_core::{Change, Event};

use crate::hub::mailbox::Mailbox;

mod mailbox;
mod watcher;

pub(crate) use watcher::{Convert, Watcher};

/// The history does not reach back that far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unavailable;

/// The watch cannot begin where it should; the line that tells the client so.
#[derive(Debug)]
pub(crate) struct Forgotten {
    pub(crate) content_type: &'static str,
    pub(crate) line: Bytes,
}

/// Where the hub reads what happened before a watcher was registered.
pub(crate) trait History: Send + Sync {
    /// All events after `revision` up to the newest applied one, in order.
    fn after(&self, revision: u64) -> Result<Vec<Arc<Event>>, Unavailable>;
}

/// The hub.
pub(crate) struct Hub {
    history: Box<dyn History>,
    topics: Mutex<Topics>,
    /// Every event up to this revision was delivered.
    delivered: AtomicU64,
}

/// What a watcher follows.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Topic {
    /// All keys with a prefix: a resource, or a namespace of it.
    Prefix(Bytes),
    /// One key.
    Key(Bytes),
    /// The pods of one node.
    Node(Box<str>),
}

/// The watchers of one topic.
type Mailboxes = Vec<Arc<Mailbox>>;

#[derive(Default)]
struct Topics {
    watchers: HashMap<Topic, Mailboxes>,
    /// Those of custom resources, by the key of the definition.
    standing: HashMap<Bytes, Mailboxes>,
    /// How many topics are nodes: pods are only looked into when someone asks.
    nodes: usize,
}

/// An event and the lines made of it.
struct Shared {
    event: Arc<Event>,
    /// By [`Common`], then by [`EventKind`].
    lines: [[OnceLock<Bytes>; 3]; 2],
}

/// Events of one topic that were applied together.
struct Batch {
    events: Vec<Arc<Shared>>,
    /// All lines for watchers without selectors, one after the other, by [`Common`].
    whole: [OnceLock<Bytes>; 2],
    bytes: usize,
}

// === impl Hub ===

impl Hub {
    /// A hub that has delivered everything up to `revision`.
    pub(crate) fn new(history: Box<dyn History>, revision: u64) -> Arc<Hub> {
        Arc::new(Hub { history, topics: Mutex::default(), delivered: AtomicU64::new(revision) })
    }

    /// Starts a watch.
    pub(crate) fn watch(self: &Arc<Self>, plan: WatchPlan) -> Result<Watcher, Forgotten> {
        let mailbox = Arc::new(Mailbox::default());
        let topic = Topic::of(&plan);
        let footing = plan.footing.as_ref().map(|footing| footing.key.clone());
        self.topics().add(topic.clone(), footing.clone(), mailbox.clone());
        let registration = Registration { hub: self.clone(), topic, footing, mailbox };
        let past = match self.history.after(plan.after) {
            Ok(past) => past,
            Err(Unavailable) => {
                return Err(Forgotten { content_type: plan.content_type, line: plan.expired() });
            }
        };
        Ok(Watcher::new(registration, plan, past))
    }

    /// Delivers events in the order in which they were applied. Called by one task only.
    pub(crate) fn deliver(&self, events: &[Arc<Event>]) {
        let Some(last) = events.last() else { return };
        let revision = last.revision;
        let topics = self.topics();
        if !topics.watchers.is_empty() {
            let mut batches: Vec<(&Mailboxes, Vec<Arc<Shared>>)> = Vec::new();
            let mut index: HashMap<*const Mailboxes, usize> = HashMap::new();
            for event in events {
                let mut shared: Option<Arc<Shared>> = None;
                topics.concerned(event, |mailboxes| {
                    let shared = shared.get_or_insert_with(|| Arc::new(Shared::new(event.clone()))).clone();
                    let at = *index.entry(std::ptr::from_ref(mailboxes)).or_insert_with(|| {
                        batches.push((mailboxes, Vec::new()));
                        batches.len() - 1
                    });
                    batches[at].1.push(shared);
                });
            }
            for (mailboxes, events) in batches {
                let batch = Arc::new(Batch::new(events));
                for mailbox in mailboxes {
                    mailbox.put(&batch);
                }
            }
        }
        if !topics.standing.is_empty() {
            for event in events.iter().filter(|event| takes_footing(event)) {
                let standing = topics.standing.get(&event.key);
                standing.into_iter().flatten().for_each(|mailbox| mailbox.close(revision));
            }
        }
        // After the mailboxes: who sees this revision finds everything up to it in its mailbox.
        self.delivered.store(revision, Ordering::Release);
    }

    /// Starts over at `revision`: no events lead there, so all watchers are cut off. Who resumes from what it saw last
    /// is told that this is forgotten.
    pub(crate) fn restart(&self, revision: u64) {
        let topics = self.topics();
        topics.watchers.values().flatten().for_each(|mailbox| mailbox.cut_off());
        self.delivered.store(revision, Ordering::Release);
    }

    fn topics(&self) -> MutexGuard<'_, Topics> {
        self.topics.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A watcher's place in the index; dropped with it.
struct Registration {
    hub: Arc<Hub>,
    topic: Topic,
    footing: Option<Bytes>,
    mailbox: Arc<Mailbox>,
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.hub.topics().remove(&self.topic, self.footing.as_ref(), &self.mailbox);
    }
}

// === impl Topic ===

impl Topic {
    fn of(plan: &WatchPlan) -> Topic {
        match (&plan.key, &plan.node) {
            (Some(key), _) => Topic::Key(key.clone()),
            (None, Some(node)) => Topic::Node(node.as_str().into()),
            (None, None) => Topic::Prefix(plan.prefix.clone()),
        }
    }
}

// === impl Topics ===

impl Topics {
    fn add(&mut self, topic: Topic, footing: Option<Bytes>, mailbox: Arc<Mailbox>) {
        if let Some(footing) = footing {
            self.standing.entry(footing).or_default().push(mailbox.clone());
        }
        let is_node = matches!(topic, Topic::Node(_));
        let mailboxes = self.watchers.entry(topic).or_default();
        if is_node && mailboxes.is_empty() {
            self.nodes += 1;
        }
        mailboxes.push(mailbox);
    }

    fn remove(&mut self, topic: &Topic, footing: Option<&Bytes>, mailbox: &Arc<Mailbox>) {
        if let Some(footing) = footing
            && let Some(standing) = self.standing.get_mut(footing)
        {
            standing.retain(|other| !Arc::ptr_eq(other, mailbox));
            if standing.is_empty() {
                self.standing.remove(footing);
            }
        }
        let Some(mailboxes) = self.watchers.get_mut(topic) else { return };
        mailboxes.retain(|other| !Arc::ptr_eq(other, mailbox));
        if mailboxes.is_empty() {
            self.watchers.remove(topic);
            if matches!(topic, Topic::Node(_)) {
                self.nodes -= 1;
            }
        }
    }

    /// Calls `found` once for every topic with watchers that the event may concern.
    fn concerned<'a>(&'a self, event: &Event, mut found: impl FnMut(&'a Mailboxes)) {
        let mut look = |topic: Topic| {
            if let Some(mailboxes) = self.watchers.get(&topic) {
                found(mailboxes);
            }
        };
        let key = &event.key;
        look(Topic::Key(key.clone()));
        // "/group/resource/" and "/group/resource/namespace/".
        for slash in slashes(key).skip(2).take(2) {
            look(Topic::Prefix(key.slice(..=slash)));
        }
        if self.nodes > 0 && key.starts_with(PODS) {
            let (now, before) = match &event.change {
                Change::Put { value, previous } => {
                    (Some(node_of(value)), previous.as_ref().map(|old| node_of(old)))
                }
                Change::Delete { previous, .. } => (None, Some(node_of(previous))),
            };
            let now = now.flatten();
            let before = before.flatten().filter(|before| Some(before) != now.as_ref());
            for node in [now, before].into_iter().flatten() {
                look(Topic::Node(node));
            }
        }
    }
}

/// The keys of pods.
const PODS: &[u8] = b"/core/pods/";

fn slashes(key: &[u8]) -> impl Iterator<Item = usize> {
    key.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at)
}

/// The node that a pod is bound to.
fn node_of(pod: &[u8]) -> Option<Box<str>> {
    let node = scan::text(pod, &["spec", "nodeName"])?;
    (!node.is_empty()).then(|| node.as_ref().into())
}

/// Where lines that are written in that way are kept.
fn place(common: Common) -> usize {
    match common {
        Common::Json => 0,
        Common::Protobuf => 1,
    }
}

// === impl Shared ===

impl Shared {
    fn new(event: Arc<Event>) -> Shared {
        Shared { event, lines: Default::default() }
    }

    /// The line that every watcher gets who sees the event as `kind` and has it written in that way.
    fn line(&self, kind: EventKind, common: Common) -> Bytes {
        let at = match kind {
            EventKind::Added => 0,
            EventKind::Modified => 1,
            EventKind::Deleted => 2,
        };
        self.lines[place(common)][at].get_or_init(|| common_line(&self.event, kind, common)).clone()
    }

    /// The line for a watcher without selectors.
    fn whole(&self, common: Common) -> Bytes {
        let kind = match &self.event.change {
            Change::Put { previous: None, .. } => EventKind::Added,
            Change::Put { .. } => EventKind::Modified,
            Change::Delete { .. } => EventKind::Deleted,
        };
        self.line(kind, common)
    }
}

// === impl Batch ===

impl Batch {
    fn new(events: Vec<Arc<Shared>>) -> Batch {
        let bytes = events.iter().map(|shared| shared.event.size()).sum();
        Batch { events, whole: Default::default(), bytes }
    }

    /// The lines of all events for a watcher without selectors.
    fn whole(&self, common: Common) -> Bytes {
        let join = || {
            if let [only] = self.events.as_slice() {
                return only.whole(common);
            }
            let mut out = BytesMut::with_capacity(self.bytes);
            for shared in &self.events {
                out.extend_from_slice(&shared.whole(common));
            }
            out.freeze()
        };
        self.whole[place(common)].get_or_init(join).clone()
    }

    fn first_revision(&self) -> u64 {
        self.events.first().map_or(0, |shared| shared.event.revision)
    }
}

#[cfg(test)]
mod tests;
