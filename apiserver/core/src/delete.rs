//! DELETE: at once, after a grace period, or when the last finalizer is done.

use api::conversion;
use api::status::Status;
use bytes::Bytes;
use http::StatusCode;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use store_core::{Compare, Entry, Expect, Op, Txn, Value as Stored};

use crate::admission::matching::Operation;
use crate::body;
use crate::call::Call;
use crate::create;
use crate::failure::{self, Refused};
use crate::object::{self, finalizers, is_terminating, meta, meta_mut};
use crate::policies::{self, Write};
use crate::prepare::Planned;
use crate::request::{DeletionPropagation, dry_run, propagation};
use crate::response::{Commit, Prepared, Reply, Response};
use crate::webhooks::{self, Between};
use crate::{admission, definition, service};

pub(crate) mod collection;

const ORPHAN: &str = "orphan";
const FOREGROUND: &str = "foregroundDeletion";

/// Kinds whose deletion answers with the object instead of a status.
const ANSWERS_OBJECT: &[&str] = &["pods", "services", "serviceaccounts"];

/// What the caller asked for.
#[derive(Clone, Debug, Default)]
pub(crate) struct DeleteOptions {
    pub grace: Option<i64>,
    pub propagation: Option<DeletionPropagation>,
    pub uid: Option<String>,
    pub revision: Option<String>,
    pub dry_run: bool,
}

/// What deletion does to one object.
enum Step {
    /// It goes now.
    Remove,
    /// It is marked, or its mark is changed.
    Mark(Value),
    /// It is marked already; nothing changes.
    Nothing,
}

/// DELETE of one object.
pub(crate) fn one(call: &Call<'_>) -> Planned {
    let options = options(call)?;
    if !is_watched(call) {
        return one_with(call, &options);
    }
    admission::delete(call, call.name())?;
    let (_, old) = call.stored()?;
    preconditions(call, &options, &old)?;
    let warnings = reviewed(call, old)?;
    let planned = one_with(call, &options)?;
    Ok(planned.warn(&warnings.iter().map(String::as_str).collect::<Vec<_>>()))
}

/// Whether policies or webhooks may have a say in a deletion.
fn is_watched(call: &Call<'_>) -> bool {
    policies::validates(call) || webhooks::any(call)
}

/// Puts the deletion of an object before policies and webhooks; returns what policies warn of.
fn reviewed(call: &Call<'_>, old: Value) -> Planned<Vec<String>> {
    const OPERATION: Operation = Operation::Delete;
    let name = meta(&old, "name").to_owned();
    let old = call.current(old)?;
    let mut shown = old.clone();
    conversion::from_stored(call.resource, &mut shown);
    let mut told =
        webhooks::Write { operation: OPERATION, name: name.clone(), object: Value::Null, old: shown };
    let mut unchanged = Between { renewed: &|_| Ok(()), admitted: &mut |_| Ok(()) };
    webhooks::mutate(call, &mut told, &mut unchanged)?;
    let write = Write { operation: OPERATION, name: &name, object: &Value::Null, old: &old };
    let warnings = policies::validate(call, &write)?;
    webhooks::validate(call, &told)?;
    Ok(warnings)
}

/// Deletion of the request's object with the given options.
pub(crate) fn one_with(call: &Call<'_>, options: &DeleteOptions) -> Planned {
    admission::delete(call, call.name())?;
    let (entry, old) = call.stored()?;
    preconditions(call, options, &old)?;
    let key = call.key(call.name());
    let mut txn = Txn {
        compares: vec![Compare { key: key.clone(), expect: Expect::Revision(entry.revision) }],
        ops: vec![],
    };
    match step(call, options, &old) {
        Step::Nothing => create::respond(call, StatusCode::OK, entry.value.clone(), Vec::new()),
        Step::Mark(marked) if options.dry_run => {
            create::respond(call, StatusCode::OK, marked.to_string().into(), Vec::new())
        }
        Step::Mark(mut marked) => {
            let value = object::encode(&mut marked);
            txn.ops.push(Op::Put { key, value: value.clone(), expires_at_ms: create::expiry(call) });
            let reply = create::stored(call, 0, value, StatusCode::OK, Vec::new())?;
            Ok(Prepared::Commit(Commit { txn, reply }))
        }
        Step::Remove if options.dry_run => Ok(Prepared::Respond(removed(call, entry, &old))),
        Step::Remove => finish(call, entry, &old, txn),
    }
}

/// Plans the removal of a stored object.
fn finish(call: &Call<'_>, entry: &Entry, shown: &Value, mut txn: Txn) -> Planned {
    remove(call, shown, &mut txn);
    let reply = if ANSWERS_OBJECT.contains(&&*call.resource.plural) && call.subresource() != "eviction" {
        let mut last = shown.clone();
        let value: Stored = object::encode(&mut last);
        create::stored(call, 0, value, StatusCode::OK, Vec::new())?
    } else {
        Reply::fixed(removed(call, entry, shown))
    };
    Ok(Prepared::Commit(Commit { txn, reply }))
}

/// Plans the removal of an object whose deletion waited for what an update took away. The one who made the update is
/// answered with the object, at the revision that it had, and not with a deletion.
pub(crate) fn finish_update(call: &Call<'_>, entry: &Entry, mut last: Value, mut txn: Txn) -> Planned {
    remove(call, &last, &mut txn);
    object::set(meta_mut(&mut last), "resourceVersion", entry.revision.to_string().into());
    let last = Bytes::from(last.to_string());
    let shown = call.in_version(&[&last])?.pop().unwrap_or(last);
    let reply = Reply::fixed(call.output().object(StatusCode::OK, &shown));
    Ok(Prepared::Commit(Commit { txn, reply }))
}

/// Takes an object, whose last state is `last`, and what it holds out of the store.
fn remove(call: &Call<'_>, last: &Value, txn: &mut Txn) {
    txn.ops.insert(0, Op::Delete { key: call.key(meta(last, "name")) });
    if call.is("", "services") {
        service::release(last, txn);
    }
    definition::release(call, last, txn);
}

fn removed(call: &Call<'_>, entry: &Entry, shown: &Value) -> Response {
    if ANSWERS_OBJECT.contains(&&*call.resource.plural) {
        return call.output().object(StatusCode::OK, &entry.value);
    }
    failure::response(&Status::deleted(call.resource, meta(shown, "name"), meta(shown, "uid")))
}

/// The options of body and query; the body counts where both speak.
pub(crate) fn options(call: &Call<'_>) -> Result<DeleteOptions, Refused> {
    let query = call.options();
    let mut options = DeleteOptions {
        grace: query.grace_period_seconds,
        propagation: query.propagation,
        dry_run: query.dry_run,
        ..DeleteOptions::default()
    };
    if call.request.body.is_empty() {
        return Ok(options);
    }
    let document = body::document(call.request, &mut Vec::new())?;
    merge(&mut options, &document)?;
    Ok(options)
}

/// Takes over what a DeleteOptions document says.
pub(crate) fn merge(options: &mut DeleteOptions, document: &Value) -> Result<(), Refused> {
    let kind = document["kind"].as_str().unwrap_or("DeleteOptions");
    if kind != "DeleteOptions" {
        return Err(failure::bad_request(&format!("expected a DeleteOptions, got a {kind}")));
    }
    if let Some(grace) = document["gracePeriodSeconds"].as_i64() {
        options.grace = Some(grace);
    }
    if let Some(policy) = document["propagationPolicy"].as_str() {
        options.propagation = propagation(policy)?;
    } else if let Some(orphan) = document["orphanDependents"].as_bool() {
        options.propagation =
            Some(if orphan { DeletionPropagation::Orphan } else { DeletionPropagation::Background });
    }
    for value in object::items(&document["dryRun"]) {
        options.dry_run |= dry_run(value.as_str().unwrap_or_default())?;
    }
    let text = |field: &str| document["preconditions"][field].as_str().map(str::to_owned);
    options.uid = text("uid").or(options.uid.take());
    options.revision = text("resourceVersion").or(options.revision.take());
    Ok(())
}

fn preconditions(call: &Call<'_>, options: &DeleteOptions, old: &Value) -> Result<(), Refused> {
    let check = |wanted: &Option<String>, field: &str, word: &str| match wanted {
        Some(wanted) if wanted != meta(old, field) => Err(call.conflict(
            call.name(),
            format!(
                "Precondition failed: {word} in precondition: {wanted}, {word} in object meta: {}",
                meta(old, field)
            ),
        )),
        _ => Ok(()),
    };
    check(&options.uid, "uid", "UID")?;
    check(&options.revision, "resourceVersion", "ResourceVersion")
}

/// Decides what deletion does to an object.
fn step(call: &Call<'_>, options: &DeleteOptions, old: &Value) -> Step {
    if call.is("", "namespaces") {
        return namespace_step(call, options, old);
    }
    if call.is(api::definition::GROUP, api::definition::PLURAL) {
        return definition_step(call, options, old);
    }
    let mut new = old.clone();
    let refinalized = set_finalizers(&mut new, options.propagation);
    let grace = if call.is("", "pods") { pod_grace(options, old) } else { 0 };
    if is_terminating(old) {
        let shortened = shorten(&mut new, old, options.grace, grace);
        let zero = new["metadata"]["deletionGracePeriodSeconds"].as_i64().unwrap_or(0) == 0;
        return match finalizers(&new).is_empty() && zero {
            true => Step::Remove,
            false if shortened || refinalized => Step::Mark(new),
            false => Step::Nothing,
        };
    }
    if grace == 0 && finalizers(&new).is_empty() {
        return Step::Remove;
    }
    mark(&mut new, call.now, grace);
    Step::Mark(new)
}

/// Definitions go when their objects are gone.
fn definition_step(call: &Call<'_>, options: &DeleteOptions, old: &Value) -> Step {
    let mut new = old.clone();
    let refinalized = set_finalizers(&mut new, options.propagation);
    if is_terminating(old) {
        return match finalizers(&new).is_empty() {
            true => Step::Remove,
            false if refinalized => Step::Mark(new),
            false => Step::Nothing,
        };
    }
    definition::terminate(call, &mut new);
    mark(&mut new, call.now, 0);
    Step::Mark(new)
}

/// Namespaces are emptied by their controller before they go.
fn namespace_step(call: &Call<'_>, options: &DeleteOptions, old: &Value) -> Step {
    let mut new = old.clone();
    let refinalized = set_finalizers(&mut new, options.propagation);
    let done = object::items(&new["spec"]["finalizers"]).is_empty() && finalizers(&new).is_empty();
    match (is_terminating(old), done) {
        (_, true) => Step::Remove,
        (true, false) if refinalized => Step::Mark(new),
        (true, false) => Step::Nothing,
        (false, false) => {
            mark(&mut new, call.now, 0);
            meta_mut(&mut new).remove("deletionGracePeriodSeconds");
            object::child(&mut new, "status").insert("phase".into(), "Terminating".into());
            Step::Mark(new)
        }
    }
}

/// How long a pod may take to stop.
fn pod_grace(options: &DeleteOptions, pod: &Value) -> i64 {
    let finished = matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
    let unbound = pod["spec"]["nodeName"].as_str().unwrap_or_default().is_empty();
    if finished || unbound {
        return 0;
    }
    let own = || pod["spec"]["terminationGracePeriodSeconds"].as_i64().unwrap_or(30);
    match options.grace.unwrap_or_else(own) {
        negative if negative < 0 => 1,
        grace => grace,
    }
}

/// Marks an object as being deleted; it ends `grace` seconds from `now`.
fn mark(object: &mut Value, now: Timestamp, grace: i64) {
    let end = now.saturating_add(SignedDuration::from_secs(grace)).unwrap_or(now);
    let generation = object["metadata"]["generation"].as_i64();
    let metadata = meta_mut(object);
    metadata.insert("deletionTimestamp".into(), api::time::format(end).into());
    metadata.insert("deletionGracePeriodSeconds".into(), grace.into());
    if let Some(generation) = generation.filter(|generation| *generation > 0) {
        metadata.insert("generation".into(), (generation + 1).into());
    }
}

/// A second deletion may shorten the grace period, never stretch it.
fn shorten(new: &mut Value, old: &Value, asked: Option<i64>, grace: i64) -> bool {
    let current = old["metadata"]["deletionGracePeriodSeconds"].as_i64().unwrap_or(0);
    if asked.is_none() || grace >= current {
        return false;
    }
    let Ok(end) = api::time::parse(meta(old, "deletionTimestamp")) else { return false };
    let earlier = end.saturating_sub(SignedDuration::from_secs(current - grace)).unwrap_or(end);
    let metadata = meta_mut(new);
    metadata.insert("deletionTimestamp".into(), api::time::format(earlier).into());
    metadata.insert("deletionGracePeriodSeconds".into(), grace.into());
    true
}

/// Adds and removes the garbage collector's finalizers; whether anything changed.
fn set_finalizers(object: &mut Value, policy: Option<DeletionPropagation>) -> bool {
    let Some(policy) = policy else { return false };
    let wanted = match policy {
        DeletionPropagation::Orphan => Some(ORPHAN),
        DeletionPropagation::Foreground => Some(FOREGROUND),
        DeletionPropagation::Background => None,
    };
    let before = finalizers(object).to_vec();
    let mut after: Vec<Value> =
        before.iter().filter(|f| !matches!(f.as_str(), Some(ORPHAN | FOREGROUND))).cloned().collect();
    after.extend(wanted.map(Value::from));
    let same = before.len() == after.len() && after.iter().all(|f| before.contains(f));
    if same {
        return false;
    }
    let value = if after.is_empty() { Value::Null } else { json!(after) };
    object::set(meta_mut(object), "finalizers", value);
    true
}

/// Whether an update took away what the deletion of an object waited for.
pub(crate) fn ends_with(call: &Call<'_>, new: &Value) -> bool {
    is_terminating(new)
        && finalizers(new).is_empty()
        && new["metadata"]["deletionGracePeriodSeconds"].as_i64().unwrap_or(0) == 0
        && (!call.is("", "namespaces") || object::items(&new["spec"]["finalizers"]).is_empty())
}
