//! POST: a new object, named, defaulted, admitted, checked, and written if its name is free.

use api::conversion;
use api::status::Status;
use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode};
use serde_json::Value;
use store_core::{Compare, Expect, Op, Txn};

use crate::admission::{self, matching::Operation};
use crate::authz::escalation;
use crate::body::{self, Expected};
use crate::call::Call;
use crate::convert;
use crate::definition;
use crate::failure::{self, Refused};
use crate::ids::Ids;
use crate::kinds::{self, Part, Writer};
use crate::object::{self, meta, meta_mut};
use crate::policies::{self, Write};
use crate::prepare::Planned;
use crate::response::{Commit, Prepared, Reply, Response, warning};
use crate::service;
use crate::update::{self, Ownership};

/// How often a generated name is drawn anew.
const NAME_ATTEMPTS: usize = 8;
/// Letters of a generated name that are random.
const SUFFIX: usize = 5;
/// Longest base of a generated name.
const MAX_BASE: usize = 63 - SUFFIX;

/// POST of a collection.
pub(crate) fn plan(call: &Call<'_>, ids: &mut Ids<'_>) -> Planned {
    let decoded = body::read(call.request, Expected::of(call.resource))?;
    insert(call, ids, decoded.object, decoded.warnings, Ownership::Tracked)
}

/// Plans the creation of an object that was read.
pub(crate) fn insert(
    call: &Call<'_>,
    ids: &mut Ids<'_>,
    mut new: Value,
    mut warnings: Vec<String>,
    mut ownership: Ownership,
) -> Planned {
    let resource = call.storage();
    if resource.idle {
        let kind = call.resource.qualified_plural();
        warnings.push(format!("nothing in this cluster acts on {kind} yet: the object is only kept"));
    }
    place(call, &mut new)?;
    admission::mutate_new(call, ids, &mut new, &mut ownership)?;
    conversion::to_stored(call.resource, &mut new);
    place(call, &mut new)?;
    identity(call, ids, &mut new)?;
    kinds::default(resource, &mut new);
    kinds::prepare_create(resource, &mut new, &ids.uid(), call.now);
    let name = meta(&new, "name").to_owned();
    let key = call.key(&name);
    let mut txn =
        Txn { compares: vec![Compare { key: key.clone(), expect: Expect::Absent }], ops: Vec::new() };
    admission::create(call, ids, &mut new, &mut txn)?;
    policies::settle(call, &mut new, None);
    escalation::check(call, &new, None)?;
    // An existing name is told before anything is allocated for the newcomer.
    if call.world.snapshot.get(&key).is_some() {
        return Err(Status::already_exists(call.resource, &name).into());
    }
    let mut claims = Txn::default();
    definition::create(call, &mut new, &mut txn.compares, &mut claims)?;
    if call.is("", "services") {
        service::create(call, ids, &mut new, &mut claims)?;
    }
    let errors = kinds::validate_create(resource, &new);
    if !errors.is_empty() {
        let named = if name.is_empty() { meta(&new, "generateName") } else { &name };
        return Err(Status::invalid(&call.resource.group, &call.resource.kind, named, &errors).into());
    }
    let write = Write { operation: Operation::Create, name: &name, object: &new, old: &Value::Null };
    warnings.extend(policies::validate(call, &write)?);
    admission::check_create(call, &new, &mut claims, &mut warnings)?;
    match ownership {
        Ownership::Tracked => {
            let manager = call.manager();
            let writer = Writer { manager: &manager, part: Part::Main, now: call.now };
            kinds::track(resource, None, &mut new, &writer);
        }
        Ownership::Settled(entries) => update::set_owners(&mut new, entries),
    }
    admission::validate_new(call, &new)?;
    let headers = warnings_headers(&warnings);
    if call.options().dry_run {
        meta_mut(&mut new).remove("resourceVersion");
        return respond(call, StatusCode::CREATED, new.to_string().into(), headers);
    }
    call.store_form(&mut new)?;
    let value = object::encode(&mut new);
    txn.ops.push(Op::Put { key, value: value.clone(), expires_at_ms: expiry(call) });
    txn.compares.append(&mut claims.compares);
    txn.ops.append(&mut claims.ops);
    Ok(Prepared::Commit(Commit { txn, reply: stored(call, 0, value, StatusCode::CREATED, headers)? }))
}

/// The answer that shows what operation `op` stores, in the form that was asked for.
pub(crate) fn stored(
    call: &Call<'_>,
    op: usize,
    value: store_core::Value,
    status: StatusCode,
    headers: Vec<(HeaderName, HeaderValue)>,
) -> Planned<Reply> {
    if call.is_plain() {
        return Ok(Reply::stored(op, value, status, headers));
    }
    let value = shown(call, value)?;
    let output = call.output();
    Ok(Reply::made(move |revisions| {
        let revision = revisions.get(op).copied().unwrap_or_default();
        let shown = output.object(status, &crate::response::spliced(&value, revision));
        Response { headers, ..shown }
    }))
}

/// An object that gets its revision when it is written.
pub(crate) fn unversioned(bytes: &[u8]) -> Option<store_core::Value> {
    object::parse(bytes).map(|mut document| object::encode(&mut document))
}

/// A value that is to be stored, as it will be shown.
pub(crate) fn shown(call: &Call<'_>, value: store_core::Value) -> Planned<store_core::Value> {
    if !convert::by_webhook(call.resource) {
        return Ok(value);
    }
    let shown = call.in_version(&[&value.bytes])?.pop();
    Ok(shown.and_then(|bytes| unversioned(&bytes)).unwrap_or(value))
}

/// An answer that is known before any write, in the form that was asked for.
pub(crate) fn respond(
    call: &Call<'_>,
    status: StatusCode,
    bytes: Bytes,
    headers: Vec<(HeaderName, HeaderValue)>,
) -> Planned {
    let bytes = call.in_version(&[&bytes])?.pop().unwrap_or(bytes);
    Ok(Prepared::Respond(Response { headers, ..call.output().object(status, &bytes) }))
}

/// `Warning` headers: no more than what every client reads of a head.
pub(crate) fn warnings_headers(warnings: &[String]) -> Vec<(HeaderName, HeaderValue)> {
    const MAX_WARNINGS: usize = 32;
    const MAX_BYTES: usize = 4096;
    let mut told = 0;
    let fits = |text: &&String| {
        told += text.len();
        told <= MAX_BYTES
    };
    warnings.iter().take(MAX_WARNINGS).take_while(fits).filter_map(|text| warning(text)).collect()
}

/// When an object of this kind expires.
pub(crate) fn expiry(call: &Call<'_>) -> Option<i64> {
    let event = call.resource.plural == "events" && call.resource.storage_group().is_empty();
    event.then(|| call.now.as_millisecond() + call.world.config.event_ttl.as_millis() as i64)
}

/// Holds the object's namespace against the path's.
pub(crate) fn place(call: &Call<'_>, new: &mut Value) -> Result<(), Refused> {
    let namespace = call.namespace();
    let metadata = meta_mut(new);
    if !call.resource.namespaced() {
        metadata.remove("namespace");
        return Ok(());
    }
    match metadata.get("namespace").and_then(Value::as_str).unwrap_or_default() {
        "" => {
            metadata.insert("namespace".into(), namespace.into());
            Ok(())
        }
        found if found == namespace => Ok(()),
        _ => Err(failure::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        )),
    }
}

/// Gives the object its name.
fn identity(call: &Call<'_>, ids: &mut Ids<'_>, new: &mut Value) -> Result<(), Refused> {
    if !meta(new, "resourceVersion").is_empty() {
        return Err(failure::bad_request("resourceVersion should not be set on objects to be created"));
    }
    let mut name = meta(new, "name").to_owned();
    if name.is_empty() && !meta(new, "generateName").is_empty() {
        name = generated(call, ids, meta(new, "generateName"))?;
    }
    if !name.is_empty() {
        meta_mut(new).insert("name".into(), name.into());
    }
    Ok(())
}

/// A free name with the given base.
fn generated(call: &Call<'_>, ids: &mut Ids<'_>, base: &str) -> Result<String, Refused> {
    let end = base.char_indices().map(|(at, c)| at + c.len_utf8()).take_while(|end| *end <= MAX_BASE).last();
    let base = &base[..end.unwrap_or(0)];
    let mut name = String::new();
    for _ in 0..NAME_ATTEMPTS {
        name = format!("{base}{}", ids.suffix(SUFFIX));
        if call.world.snapshot.get(&call.key(&name)).is_none() {
            return Ok(name);
        }
    }
    Err(Status::no_unique_name(call.resource, &name).into())
}
