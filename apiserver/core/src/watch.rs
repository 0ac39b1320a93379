//! Follows changes: which events a watcher sees, and how each is written.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use store_core::{Change, Event};

use crate::convert::Converted;
use crate::keys;
use crate::output::{self, Output};
use crate::response::Response;
use crate::scan;
use crate::selection::Selection;

/// What a watch is to send.
pub struct WatchPlan {
    /// All keys that the watch covers begin with this.
    pub prefix: Bytes,
    /// The one key that it covers, when it is about a single object.
    pub key: Option<Bytes>,
    /// The namespace that it covers; empty for all.
    pub namespace: String,
    /// The node whose pods it covers, when the field selector says so.
    pub node: Option<String>,
    /// Lines to send before anything else (the state, as `ADDED` events, and the bookmark that ends it).
    pub initial: Vec<Bytes>,
    /// Send the events after this revision; 410 when they are forgotten.
    pub after: u64,
    /// Whether bookmarks are wanted (about once a minute, and before the end).
    pub bookmarks: bool,
    /// When the watch ends; the shell chooses when `None`.
    pub timeout: Option<Duration>,
    /// The content type of the answer.
    pub content_type: &'static str,
    /// Which objects are shown.
    pub selection: Selection,
    /// How they are shown.
    pub output: Output,
    /// What makes the resource one that is served.
    pub footing: Option<Footing>,
}

/// The definition of a custom resource, on which a watch of it stands: when it goes or says something else, the watch ends
/// behind all that happened before. Who watches comes back and sees what is there now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Footing {
    /// The key of the definition.
    pub key: Bytes,
    /// The revision at which it was looked at.
    pub revision: u64,
}

/// Two ways of writing an event that do not depend on who watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Common {
    /// A line of JSON.
    Json,
    /// A frame of protobuf.
    Protobuf,
}

/// What a watcher is told about one event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// The object came into view.
    Added,
    /// The object changed.
    Modified,
    /// The object went, or went out of view.
    Deleted,
}

// === impl EventKind ===

impl EventKind {
    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            EventKind::Added => "ADDED",
            EventKind::Modified => "MODIFIED",
            EventKind::Deleted => "DELETED",
        }
    }
}

// === impl WatchPlan ===

impl WatchPlan {
    /// Whether the watch is about a key at all.
    pub fn covers(&self, key: &[u8]) -> bool {
        match &self.key {
            Some(only) => key == only,
            None => key.starts_with(&self.prefix),
        }
    }

    /// The stored objects that an event is about and that have to be converted before [`WatchPlan::line_of`] can tell of it.
    pub fn unconverted(&self, event: &Event) -> Vec<Bytes> {
        if !self.output.by_webhook() || !self.covers(&event.key) {
            return Vec::new();
        }
        let about = match &event.change {
            Change::Put { value, previous } => [Some(value), previous.as_ref()],
            Change::Delete { last, .. } => [Some(last), None],
        };
        about.into_iter().flatten().filter(|stored| self.output.is_unconverted(stored)).cloned().collect()
    }

    /// What the watcher is told about an event; `None` when it does not concern it.
    pub fn decide(&self, event: &Event) -> Option<EventKind> {
        self.decide_of(event, &Converted::new())
    }

    fn decide_of(&self, event: &Event, converted: &Converted) -> Option<EventKind> {
        if !self.covers(&event.key) {
            return None;
        }
        match &event.change {
            Change::Put { value, previous } => {
                let matches = |stored: &Bytes| self.selection.matches(&event.key, seen(converted, stored));
                let (is, was) = (matches(value), previous.as_ref().is_some_and(matches));
                match (was, is) {
                    (false, true) => Some(EventKind::Added),
                    (true, true) => Some(EventKind::Modified),
                    (true, false) => Some(EventKind::Deleted),
                    (false, false) => None,
                }
            }
            Change::Delete { last, previous } => {
                let was = converted.get(last).unwrap_or(previous);
                self.selection.matches(&event.key, was).then_some(EventKind::Deleted)
            }
        }
    }

    /// How the line of an event is written when it is the same for all such watchers: [`common_line`] may be used.
    pub fn common(&self) -> Option<Common> {
        self.output.common()
    }

    /// Whether the watch ends by an event.
    pub fn ends_by(&self, event: &Event) -> bool {
        self.footing.as_ref().is_some_and(|footing| {
            footing.key == event.key && footing.revision < event.revision && takes_footing(event)
        })
    }

    /// The line for an event, newline included; `None` when it does not concern the watcher.
    pub fn line(&self, event: &Event) -> Option<Bytes> {
        self.line_of(event, &Converted::new())
    }

    /// As [`WatchPlan::line`], with what [`WatchPlan::unconverted`] has named.
    pub fn line_of(&self, event: &Event, converted: &Converted) -> Option<Bytes> {
        let kind = self.decide_of(event, converted)?;
        Some(match self.common() {
            Some(common) => common_line(event, kind, common),
            None => self.output.event(kind.as_str(), &object(event, kind, converted)),
        })
    }

    /// The last line of a watch whose objects could not be converted.
    pub fn failed(&self, why: &Response) -> Bytes {
        self.output.frame("ERROR", &why.body.to_bytes())
    }

    /// Group, version and plural of what is watched.
    pub fn path(&self) -> (&str, &str, &str) {
        self.output.path()
    }

    /// A bookmark: everything up to `revision` was sent.
    pub fn bookmark(&self, revision: u64) -> Bytes {
        self.output.frame("BOOKMARK", self.output.bookmark(revision, false).to_string().as_bytes())
    }

    /// The last line of a watch whose events were forgotten.
    pub fn expired(&self) -> Bytes {
        let status = api::status::Status::expired("The resourceVersion for the provided watch is too old.");
        self.output.frame("ERROR", status.to_json().to_string().as_bytes())
    }
}

/// The line that every watcher gets who sees `event` as `kind` and has it written in that way. Encode it once.
pub fn common_line(event: &Event, kind: EventKind, common: Common) -> Bytes {
    let object = object(event, kind, &Converted::new());
    match common {
        Common::Json => frame(kind.as_str(), &object),
        Common::Protobuf => output::protobuf_frame(kind.as_str(), &object),
    }
}

/// Whether watches that stand on the key of an event end by it: a definition has gone, or defines something else.
pub fn takes_footing(event: &Event) -> bool {
    if !event.key.starts_with(keys::DEFINITIONS) {
        return false;
    }
    match &event.change {
        Change::Delete { .. } => true,
        Change::Put { previous: None, .. } => false,
        Change::Put { value, previous: Some(previous) } => {
            let versions = |definition: &Bytes| {
                scan::locate(definition, &["spec", "versions"]).map(|range| definition.slice(range))
            };
            versions(value) != versions(previous)
        }
    }
}

/// The object that an event shows. An object that leaves the view is shown as it last was in view, with the
/// revision of the event that took it out.
fn object(event: &Event, kind: EventKind, converted: &Converted) -> Bytes {
    match (&event.change, kind) {
        (Change::Put { previous: Some(previous), .. }, EventKind::Deleted) => {
            crate::object::with_revision(seen(converted, previous), event.revision)
        }
        (Change::Put { value, .. }, _) => seen(converted, value).clone(),
        (Change::Delete { last, .. }, _) => seen(converted, last).clone(),
    }
}

/// A stored object as the watcher sees it.
fn seen<'s>(converted: &'s Converted, stored: &'s Bytes) -> &'s Bytes {
    if converted.is_empty() { stored } else { converted.get(stored).unwrap_or(stored) }
}

/// One line of a watch.
pub(crate) fn frame(kind: &str, object: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(object.len() + kind.len() + 24);
    out.extend_from_slice(b"{\"type\":\"");
    out.extend_from_slice(kind.as_bytes());
    out.extend_from_slice(b"\",\"object\":");
    out.extend_from_slice(object);
    out.extend_from_slice(b"}\n");
    out.freeze()
}

#[cfg(test)]
mod tests;
