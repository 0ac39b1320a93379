//! `watch-exact`: a watch tells every event of what it selects, once and in order, from the version on that was asked
//! for; a list shows exactly what was there at its version; a cache holds what its version says.

use std::collections::BTreeMap;

use client_core::object::{ObjectKey, ResourceType};
use store_core::{Change, Event};

use crate::checkers::replicas::Order;
use crate::kernel::Sim;

const ID: &str = "watch-exact";

/// Which objects a client asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selection {
    /// All.
    All,
    /// Those of this name, in all namespaces.
    Named(&'static str),
    /// Pods that are bound to this node.
    OnNode(String),
}

/// One open watch.
pub struct Stream {
    prefix: String,
    selection: Selection,
    /// Everything up to this revision was told.
    at: u64,
}

/// The checker.
pub struct Watches {
    sim: Sim,
}

// === impl Selection ===

impl Selection {
    /// What is appended to the query.
    pub fn query(&self) -> String {
        match self {
            Self::All => String::new(),
            Self::Named(name) => format!("&fieldSelector=metadata.name%3D{name}"),
            Self::OnNode(node) => format!("&fieldSelector=spec.nodeName%3D{node}"),
        }
    }

    fn holds(&self, key: &[u8], value: &[u8]) -> bool {
        match self {
            Self::All => true,
            Self::Named(name) => key.rsplit(|byte| *byte == b'/').next() == Some(name.as_bytes()),
            Self::OnNode(node) => {
                let pod: serde_json::Value = serde_json::from_slice(value).unwrap_or_default();
                pod["spec"]["nodeName"].as_str() == Some(node)
            }
        }
    }

    /// What a watcher is to be told of an event.
    fn kind(&self, event: &Event) -> Option<&'static str> {
        match &event.change {
            Change::Put { value, previous } => {
                let is = self.holds(&event.key, value);
                let was = previous.as_ref().is_some_and(|previous| self.holds(&event.key, previous));
                match (was, is) {
                    (false, true) => Some("ADDED"),
                    (true, true) => Some("MODIFIED"),
                    (true, false) => Some("DELETED"),
                    (false, false) => None,
                }
            }
            Change::Delete { previous, .. } => self.holds(&event.key, previous).then_some("DELETED"),
        }
    }
}

// === impl Stream ===

impl Stream {
    /// A watch that begins behind a version.
    pub fn new(resource: &ResourceType, selection: Selection, after: &str) -> Self {
        Self { prefix: prefix(resource), selection, at: after.parse().unwrap_or(0) }
    }
}

/// Where objects of a resource live in the store.
fn prefix(resource: &ResourceType) -> String {
    apiserver_core::keys::prefix(&resource.group, &resource.plural)
}

// === impl Watches ===

impl Watches {
    /// A checker that has seen nothing.
    pub fn new(sim: &Sim) -> Self {
        Self { sim: sim.clone() }
    }

    /// A line has come.
    pub fn line(&self, order: &Order, stream: &mut Stream, kind: &str, version: &str) {
        let told: u64 = version.parse().unwrap_or(0);
        let bookmark = kind == "BOOKMARK";
        if told < stream.at || (told == stream.at && !bookmark) {
            self.report(stream, format!("{kind} {told} came after {}", stream.at));
        }
        for revision in stream.at + 1..=told {
            let Some(event) = order.event(revision) else {
                self.report(stream, format!("{kind} {told} is of the future"));
                return;
            };
            let expected = event
                .key
                .starts_with(stream.prefix.as_bytes())
                .then(|| stream.selection.kind(event))
                .flatten();
            let got = (revision == told && !bookmark).then_some(kind);
            if expected != got {
                let key = String::from_utf8_lossy(&event.key);
                self.report(stream, format!("at {revision} ({key}) {expected:?} was due, {got:?} came"));
            }
        }
        stream.at = told;
    }

    /// A whole list has come, which was asked for when `floor` was acknowledged.
    pub fn listed(
        &self,
        order: &Order,
        resource: &ResourceType,
        selection: &Selection,
        floor: u64,
        version: &str,
        shown: Vec<(ObjectKey, String)>,
    ) {
        let revision: u64 = version.parse().unwrap_or(0);
        if revision < floor {
            let message = format!(
                "a list of {} shows {revision}, but {floor} was acknowledged before",
                resource.plural
            );
            self.sim.violated(ID, message);
        }
        self.compare(order, resource, selection, revision, shown, "a list");
    }

    /// A cache shows this.
    pub fn cached(
        &self,
        order: &Order,
        resource: &ResourceType,
        selection: &Selection,
        version: &str,
        shown: Vec<(ObjectKey, String)>,
    ) {
        self.compare(order, resource, selection, version.parse().unwrap_or(0), shown, "a cache");
    }

    fn compare(
        &self,
        order: &Order,
        resource: &ResourceType,
        selection: &Selection,
        revision: u64,
        shown: Vec<(ObjectKey, String)>,
        who: &str,
    ) {
        let Some(state) = order.state(revision) else { return };
        let prefix = prefix(resource);
        let from = bytes::Bytes::from(prefix.clone());
        let expected: BTreeMap<String, String> = state
            .range(from..)
            .take_while(|(key, _)| key.starts_with(prefix.as_bytes()))
            .filter(|(key, (_, value))| selection.holds(key, value))
            .map(|(key, (revision, _))| (String::from_utf8_lossy(key).into_owned(), revision.to_string()))
            .collect();
        let shown: BTreeMap<String, String> = shown
            .into_iter()
            .map(|(key, version)| {
                let path = apiserver_core::keys::object(
                    &resource.group,
                    &resource.plural,
                    &key.namespace,
                    &key.name,
                );
                (String::from_utf8_lossy(&path).into_owned(), version)
            })
            .collect();
        if shown != expected {
            let differs = |(key, version): &(&String, &String)| expected.get(*key) != Some(*version);
            let wrong: Vec<_> = shown.iter().filter(differs).take(3).collect();
            let missing: Vec<_> = expected.keys().filter(|key| !shown.contains_key(*key)).take(3).collect();
            let message = format!(
                "{who} of {} at {revision} is wrong: {wrong:?}, missing {missing:?}",
                resource.plural
            );
            self.sim.violated(ID, message);
        }
    }

    fn report(&self, stream: &Stream, message: String) {
        let Stream { prefix, selection, .. } = stream;
        self.sim.violated(ID, format!("a watch of {prefix} {selection:?}: {message}"));
    }
}
