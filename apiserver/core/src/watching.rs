//! Plans a watch: where it begins and what it sends first.

use std::time::Duration;

use api::definition;
use api::status::Status;
use bytes::Bytes;

use crate::call::Call;
use crate::failure::{self, Refused};
use crate::keys;
use crate::prepare::Planned;
use crate::read;
use crate::request::{Options, VersionMatch};
use crate::response::Prepared;
use crate::selection::Selection;
use crate::watch::{Footing, WatchPlan};

/// GET with `watch`.
pub(crate) fn plan(call: &Call<'_>) -> Planned {
    let options = call.options();
    let snapshot = call.world.snapshot;
    let selection = selection(call)?;
    let output = call.output();
    let (state_first, after) = begin(call)?;
    let prefix = call.prefix();
    let mut initial: Vec<Bytes> = Vec::new();
    if state_first {
        let viewed = read::viewed(call, &selection, &prefix, &prefix)?;
        let mut shown: Vec<&Bytes> = Vec::new();
        for (key, entry) in read::candidates(call, &selection, &prefix, &prefix) {
            let seen = viewed.get(&entry.value).unwrap_or(&entry.value);
            if selection.is_everything() || selection.matches(key, seen) {
                shown.push(seen);
            }
        }
        initial = call.in_version(&shown)?.iter().map(|object| output.event("ADDED", object)).collect();
        if options.send_initial_events == Some(true) && options.bookmarks {
            let bookmark = output.bookmark(snapshot.revision(), true);
            initial.push(output.frame("BOOKMARK", bookmark.to_string().as_bytes()));
        }
    }
    let single = !call.resource.namespaced() || !call.namespace().is_empty();
    let key = selection.name().filter(|_| single).map(|name| call.key(name));
    Ok(Prepared::Watch(Box::new(WatchPlan {
        prefix: prefix.into(),
        key,
        namespace: call.namespace().to_owned(),
        node: selection.node().filter(|_| call.is("", "pods")).map(str::to_owned),
        initial,
        after,
        bookmarks: options.bookmarks,
        timeout: options.timeout_seconds.filter(|s| *s > 0).map(Duration::from_secs),
        content_type: output.content_type(),
        selection,
        output,
        footing: footing(call),
    })))
}

/// The definition of a custom resource.
fn footing(call: &Call<'_>) -> Option<Footing> {
    let custom = call.resource.custom.as_ref()?;
    let key = keys::object(definition::GROUP, definition::PLURAL, "", &custom.definition);
    Some(Footing { key, revision: call.world.snapshot.revision() })
}

/// What is watched. A name in the path is the one name that was authorized: a selector may repeat it, and nothing else.
fn selection(call: &Call<'_>) -> Result<Selection, Refused> {
    let options = call.options();
    let selection = Selection::parse(call.resource, options)?;
    let name = call.name();
    if name.is_empty() || selection.name() == Some(name) {
        return Ok(selection);
    }
    if !options.field_selector.is_empty() {
        return Err(failure::bad_request("fieldSelector metadata.name doesn't match requested name"));
    }
    let field_selector = format!("metadata.name={name}");
    Selection::parse(call.resource, &Options { field_selector, ..options.clone() })
}

/// Whether the state is sent first, and the revision after which events are.
fn begin(call: &Call<'_>) -> Result<(bool, u64), Refused> {
    let options = call.options();
    let snapshot = call.world.snapshot;
    let newest = snapshot.revision();
    let version = match options.resource_version.as_str() {
        "" => None,
        text => Some(text.parse::<u64>().map_err(|_| {
            failure::bad_request(&format!("resourceVersion: Invalid value: {text:?}: must be a number"))
        })?),
    };
    match options.send_initial_events {
        Some(_) if options.version_match != Some(VersionMatch::NotOlderThan) => {
            return Err(failure::bad_request(
                "sendInitialEvents: Forbidden: resourceVersionMatch must be set to \"NotOlderThan\" with sendInitialEvents",
            ));
        }
        None if options.version_match.is_some() => {
            return Err(failure::bad_request(
                "resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
            ));
        }
        Some(true) => return Ok((true, newest)),
        Some(false) => return Ok((false, version.filter(|v| *v > 0).unwrap_or(newest))),
        None => {}
    }
    match version {
        None | Some(0) => Ok((true, newest)),
        Some(version) if version < snapshot.compacted_revision() => {
            Err(Status::too_old_resource_version(version, snapshot.compacted_revision()).into())
        }
        Some(version) => Ok((false, version)),
    }
}
