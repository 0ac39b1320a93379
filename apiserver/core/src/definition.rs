//! What writes of definitions, and of the objects that they define, do besides storing them.
//!
//! Names are settled in the transaction that writes a definition, not by a controller behind it: a definition is served when its
//! write is answered, and two definitions that ask for one name at the same time meet at a key of their group.

use api::definition::{Approval, CLEANUP, Claims, GROUP, PLURAL, settle, terminating};
use api::status::Status;
use serde_json::Value;
use store_core::{Compare, Expect, Op, Txn, Value as Stored};

use crate::call::Call;
use crate::customs::Customs;
use crate::failure::{self, Refused};
use crate::keys;
use crate::object::{self, meta, meta_mut};

/// Before an object is created: a definition gets its names; a custom object stands on its definition.
///
/// What the creation stands on goes to `compares`, further writes to `claims`.
pub(crate) fn create(
    call: &Call<'_>,
    new: &mut Value,
    compares: &mut Vec<Compare>,
    claims: &mut Txn,
) -> Result<(), Refused> {
    if let Some(custom) = &call.resource.custom {
        let key = keys::object(GROUP, PLURAL, "", &custom.definition);
        let entry = call.world.snapshot.get(&key).ok_or_else(failure::no_such_path)?;
        if crate::scan::locate(&entry.value, &["metadata", "deletionTimestamp"]).is_some() {
            let mut status = Status::method_not_allowed(call.resource, "create");
            status.message = "create not allowed while custom resource definition is terminating".into();
            return Err(status.into());
        }
        compares.push(Compare { key, expect: Expect::Revision(entry.revision) });
    }
    if call.is(GROUP, PLURAL) {
        name(call, new, claims);
    }
    Ok(())
}

/// Before an object is changed: a definition may get other names, and leave those that it had.
pub(crate) fn update(call: &Call<'_>, new: &mut Value, old: &Value, txn: &mut Txn) -> Result<(), Refused> {
    let changes = || {
        new["spec"]["names"] != old["spec"]["names"]
            || new["status"]["conditions"].is_null()
            || Approval::of(new) != Approval::of(old)
    };
    if call.is(GROUP, PLURAL) && changes() {
        name(call, new, txn);
    }
    Ok(())
}

/// Before a definition goes: others may wait for its names.
pub(crate) fn release(call: &Call<'_>, shown: &Value, txn: &mut Txn) {
    if !call.is(GROUP, PLURAL) {
        return;
    }
    let group = shown["spec"]["group"].as_str().unwrap_or_default();
    let known = known(call);
    claim(call, group, txn);
    let taken = known.claimed(group, meta(shown, "name"));
    hand_on(call, &known, group, taken, meta(shown, "name"), txn);
}

/// Marks a definition whose objects are to go before it.
pub(crate) fn terminate(call: &Call<'_>, definition: &mut Value) {
    let finalizers = meta_mut(definition).entry("finalizers").or_insert_with(|| Value::Array(Vec::new()));
    if let Value::Array(finalizers) = finalizers
        && !finalizers.iter().any(|finalizer| finalizer == CLEANUP)
    {
        finalizers.push(CLEANUP.into());
    }
    terminating(definition, &api::time::format(call.now));
}

/// Gives a definition its names.
fn name(call: &Call<'_>, new: &mut Value, txn: &mut Txn) {
    let group = new["spec"]["group"].as_str().unwrap_or_default().to_owned();
    let own = meta(new, "name").to_owned();
    let known = known(call);
    let mut taken = known.claimed(&group, &own);
    settle(new, &taken, &api::time::format(call.now));
    claim(call, &group, txn);
    taken.join(&Claims::of(&new["status"]["acceptedNames"]));
    hand_on(call, &known, &group, taken, &own, txn);
}

/// The definitions at the request's snapshot, or later: what came in between is met at the key of the group.
fn known(call: &Call<'_>) -> Customs {
    let world = &call.world;
    match world.derived.revision() >= world.snapshot.revision() {
        true => Customs::clone(world.derived.customs()),
        false => Customs::build(world.snapshot),
    }
}

/// Makes the transaction one that changes the names of a group: of several at the same time one succeeds.
fn claim(call: &Call<'_>, group: &str, txn: &mut Txn) {
    let key = keys::custom_names(group);
    let expect = match call.world.snapshot.get(&key) {
        Some(entry) => Expect::Revision(entry.revision),
        None => Expect::Absent,
    };
    txn.compares.push(Compare { key: key.clone(), expect });
    let value = Stored { bytes: group.to_owned().into(), splice_at: None };
    txn.ops.push(Op::Put { key, value, expires_at_ms: None });
}

/// Gives the definitions that wait for names those that are free now. `taken` are all names but those of the definitions that
/// wait.
fn hand_on(call: &Call<'_>, known: &Customs, group: &str, taken: Claims, but: &str, txn: &mut Txn) {
    let time = api::time::format(call.now);
    let mut taken = taken;
    for (key, waiting) in known.of_group(group).filter(|(_, one)| one.waits && &*one.name != but) {
        let Some(entry) = call.world.snapshot.get(key) else { continue };
        let Some(mut object) = object::parse(&entry.value) else { continue };
        let before = object["status"].clone();
        // Its own names are no others' that it would have to wait for.
        let mut others = taken.clone();
        others.resources.retain(|name| !waiting.claims.resources.contains(name));
        others.kinds.retain(|name| !waiting.claims.kinds.contains(name));
        settle(&mut object, &others, &time);
        if object["status"] == before {
            continue;
        }
        taken.join(&Claims::of(&object["status"]["acceptedNames"]));
        txn.compares.push(Compare { key: key.clone(), expect: Expect::Revision(entry.revision) });
        let value = object::encode(&mut object);
        txn.ops.push(Op::Put { key: key.clone(), value, expires_at_ms: None });
    }
}
