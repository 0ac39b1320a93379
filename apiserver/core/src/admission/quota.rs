//! Quotas: a write is charged to every quota that counts its object, in the write's own transaction.
//!
//! The charge is a new `status.used` of the quota, with a compare that nobody has charged it meanwhile: of writes at the same
//! time, on whatever servers, each finds what the others have taken. What is given back is for the quota controller to find
//! out, which adds up what is there.

use api::quota::{self, Amounts, Counted, Quota};
use serde_json::Value;
use store_core::{Compare, Entry, Expect, Op, Txn};

use crate::call::Call;
use crate::failure::Refused;
use crate::keys;
use crate::object::{self, meta};

/// A quota as it is stored.
struct Stored<'a> {
    key: &'a bytes::Bytes,
    entry: &'a Entry,
    document: Value,
    quota: Quota,
}

/// Charges the quotas of the namespace with `new`, which takes the place of `old`. Refuses what they do not allow.
pub(super) fn charge(
    call: &Call<'_>,
    new: &Value,
    old: Option<&Value>,
    txn: &mut Txn,
) -> Result<(), Refused> {
    let resource = Counted { group: &call.storage().group, plural: &call.resource.plural };
    if !call.resource.namespaced() || !resource.is_counted() {
        return Ok(());
    }
    let prefix = keys::namespace_prefix("", "resourcequotas", call.namespace());
    let mut covering = Vec::new();
    for (key, entry) in call.world.snapshot.prefix(prefix.as_bytes()) {
        let document = call.parsed(entry)?;
        let quota = Quota::of(&document);
        if quota.covers(resource, new) {
            admits(call, resource, &quota, new)?;
            covering.push(Stored { key, entry, document, quota });
        }
    }
    if covering.is_empty() {
        return Ok(());
    }
    let usage = resource.usage(new, call.now);
    let negative: Vec<&str> =
        usage.iter().filter(|(_, amount)| amount.is_negative()).map(|(name, _)| name.as_str()).collect();
    if !negative.is_empty() {
        let why = format!("quota usage is negative for resource(s): {}", negative.join(","));
        return Err(call.forbidden(meta(new, "name"), why));
    }
    for stored in covering {
        let before = old.filter(|old| stored.quota.covers(resource, old));
        let added = match before {
            Some(old) => growth(&usage, &resource.usage(old, call.now)),
            None => usage.clone(),
        };
        take(call, stored, &added, new, txn)?;
    }
    Ok(())
}

/// What is used more than before.
fn growth(usage: &Amounts, before: &Amounts) -> Amounts {
    let more = |(name, amount): (&String, &api::quantity::Quantity)| {
        let grown = *amount - before.get(name).copied().unwrap_or_default();
        (!grown.is_negative()).then(|| (name.clone(), grown))
    };
    usage.iter().filter_map(more).collect()
}

/// Whether a quota can count the object at all: it has to know what is used, and the object has to say what it uses.
fn admits(call: &Call<'_>, resource: Counted<'_>, quota: &Quota, new: &Value) -> Result<(), Refused> {
    let limited = || quota.hard.keys().map(String::as_str).filter(|name| resource.counts_as(name));
    if resource.plural == "pods"
        && resource.group.is_empty()
        && let Some(missing) = quota::missing(new, limited())
    {
        return Err(call.forbidden(meta(new, "name"), format!("failed quota: {}: {missing}", quota.name)));
    }
    if limited().any(|name| !quota.used.contains_key(name)) {
        let names = limited().collect::<Vec<_>>().join(",");
        let why = format!("status unknown for quota: {}, resources: {names}", quota.name);
        return Err(call.forbidden(meta(new, "name"), why));
    }
    Ok(())
}

/// Takes an amount from a quota, if it has that much left.
fn take(
    call: &Call<'_>,
    stored: Stored<'_>,
    added: &Amounts,
    new: &Value,
    txn: &mut Txn,
) -> Result<(), Refused> {
    let Stored { key, entry, mut document, quota } = stored;
    let requested: Amounts = added
        .iter()
        .filter(|(name, amount)| !amount.is_zero() && quota.hard.contains_key(*name))
        .map(|(name, amount)| (name.clone(), *amount))
        .collect();
    if requested.is_empty() {
        return Ok(());
    }
    let mut used = quota.used.clone();
    quota::add(&mut used, &requested);
    let exceeded: Vec<&String> = requested.keys().filter(|name| used[*name] > quota.hard[*name]).collect();
    if !exceeded.is_empty() {
        let of = |amounts: &Amounts| {
            let chosen = exceeded.iter().filter_map(|name| Some(((*name).clone(), *amounts.get(*name)?)));
            quota::words(&chosen.collect())
        };
        let why = format!(
            "exceeded quota: {}, requested: {}, used: {}, limited: {}",
            quota.name,
            of(&requested),
            of(&quota.used),
            of(&quota.hard)
        );
        return Err(call.forbidden(meta(new, "name"), why));
    }
    object::child(&mut document, "status").insert("used".into(), quota::document(&used));
    txn.compares.push(Compare { key: key.clone(), expect: Expect::Revision(entry.revision) });
    let value = object::encode(&mut document);
    txn.ops.push(Op::Put { key: key.clone(), value, expires_at_ms: None });
    Ok(())
}

/// What else a transaction writes than its object, and many others may want to write at the same time: writers who take turns
/// do not make each other plan again.
pub fn contended(txn: &Txn) -> Option<&bytes::Bytes> {
    txn.ops.iter().skip(1).find_map(|op| match op {
        Op::Put { key, .. } if key.starts_with(keys::QUOTAS) => Some(key),
        _ => None,
    })
}
