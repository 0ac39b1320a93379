//! Follows changes: which events a watcher sees, and how each is written.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use store_core::{Change, Event};

use crate::convert::Converted;
use crate::output::Output;
use crate::response::Response;
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

    /// Whether the line of an event is the same for all such watchers: [`shared_line`] may be used.
    pub fn is_plain(&self) -> bool {
        self.output.is_plain()
    }

    /// The line for an event, newline included; `None` when it does not concern the watcher.
    pub fn line(&self, event: &Event) -> Option<Bytes> {
        self.line_of(event, &Converted::new())
    }

    /// As [`WatchPlan::line`], with what [`WatchPlan::unconverted`] has named.
    pub fn line_of(&self, event: &Event, converted: &Converted) -> Option<Bytes> {
        let kind = self.decide_of(event, converted)?;
        match self.is_plain() {
            true => Some(shared_line(event, kind)),
            false => Some(self.output.event(kind.as_str(), &object(event, kind, converted))),
        }
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

/// The line that every plain watcher who sees `event` as `kind` gets. Encode it once per event and kind.
pub fn shared_line(event: &Event, kind: EventKind) -> Bytes {
    frame(kind.as_str(), &object(event, kind, &Converted::new()))
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
