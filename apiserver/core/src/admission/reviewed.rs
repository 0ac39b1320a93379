//! Objects that are kept go before policies and webhooks: mutating ones before what is checked and minted, validating ones after
//! it.
//!
//! What they add belongs to no field manager: who owns what is settled before they are asked, as in Kubernetes, and an apply that
//! does not know of it leaves it alone.

use api::conversion;
use api::field::FieldError;
use api::status::Status;
use serde_json::Value;
use store_core::Txn;

use super::matching::Operation;
use crate::body::Expected;
use crate::call::Call;
use crate::failure::{self, Refused};
use crate::ids::Ids;
use crate::kinds::{self, Part, Writer};
use crate::object::{self, items, meta, meta_mut};
use crate::policies::{self, Round};
use crate::prepare::Planned;
use crate::update::{self, Ownership};
use crate::webhooks::{self, Between, Write};
use crate::{create, patch};

/// Whether anybody may change what a request writes.
fn may_change(call: &Call<'_>) -> bool {
    policies::mutates(call) || webhooks::may_change(call)
}

/// Puts a new object, in the version of the request, before the mutating policies and webhooks.
pub(crate) fn mutate_new(
    call: &Call<'_>,
    ids: &mut Ids<'_>,
    new: &mut Value,
    ownership: &mut Ownership,
) -> Planned<()> {
    if !may_change(call) {
        return Ok(());
    }
    let mut object = new.clone();
    let mut completed = |object: &mut Value| {
        kinds::default(call.storage(), object);
        super::create(call, ids, object, &mut Txn::default())
    };
    as_stored(call, &mut object, &mut |object| {
        completed(object)?;
        own(call, None, object, Part::Main, ownership);
        Ok(())
    })?;
    let mut write = Write {
        operation: Operation::Create,
        name: meta(&object, "name").to_owned(),
        object,
        old: Value::Null,
    };
    if !mutate(call, &mut write, &Value::Null, &mut completed)? {
        return Ok(());
    }
    if !call.name().is_empty() {
        patch::check_name(call, &write.object)?;
    }
    *ownership = Ownership::Settled(taken(&mut write.object));
    *new = write.object;
    Ok(())
}

/// Puts a write before the mutating policies, then before the mutating webhooks; whether any of them changed its object.
///
/// `old` is what was there before as it is stored; `completed` adds what the cluster itself adds to an object as it is stored.
fn mutate(
    call: &Call<'_>,
    write: &mut Write,
    old: &Value,
    completed: &mut dyn FnMut(&mut Value) -> Result<(), Refused>,
) -> Planned<bool> {
    let name = write.name.clone();
    let named = (write.operation, &*name);
    let by_policies = by_policies(call, named, (&mut write.object, old), Round::First, completed)?;
    let mut admitted = |object: &mut Value| {
        as_stored(call, object, completed)?;
        self::by_policies(call, named, (object, old), Round::Again, completed).map(drop)
    };
    let mut between = Between { renewed: &|object| renewed(call, object), admitted: &mut admitted };
    let by_webhooks = webhooks::mutate(call, write, &mut between)?;
    Ok(by_policies || by_webhooks)
}

/// Puts an object in the version of the request before the mutating policies; whether any of them changed it.
fn by_policies(
    call: &Call<'_>,
    named: (Operation, &str),
    (object, old): (&mut Value, &Value),
    round: Round,
    completed: &mut dyn FnMut(&mut Value) -> Result<(), Refused>,
) -> Result<bool, Refused> {
    let mut changed = false;
    as_stored(call, object, &mut |object| {
        changed = policies::mutate(call, named, (object, old), round, completed)?;
        Ok(())
    })?;
    if changed {
        renewed(call, object)?;
    }
    Ok(changed)
}

/// Puts a new object, as it is to be stored, before the validating webhooks.
pub(crate) fn validate_new(call: &Call<'_>, new: &Value) -> Planned<()> {
    if !webhooks::any(call) {
        return Ok(());
    }
    let mut object = new.clone();
    conversion::from_stored(call.resource, &mut object);
    meta_mut(&mut object).remove("resourceVersion");
    webhooks::validate(
        call,
        &Write { operation: Operation::Create, name: meta(new, "name").to_owned(), object, old: Value::Null },
    )
}

/// Puts a changed object before the mutating policies and webhooks; whether they changed it further.
pub(crate) fn mutate_changed(
    call: &Call<'_>,
    new: &mut Value,
    old: &Value,
    part: Part,
    ownership: &mut Ownership,
) -> Planned<bool> {
    if !may_change(call) || !is_shown(part) {
        return Ok(false);
    }
    let mut object = new.clone();
    super::update(call, &mut object, old, part)?;
    own(call, Some(old), &mut object, part, ownership);
    let mut write = change(call, object, old);
    let mut completed = |object: &mut Value| {
        kinds::default(call.storage(), object);
        super::update(call, object, old, part)
    };
    if !mutate(call, &mut write, old, &mut completed)? {
        return Ok(false);
    }
    let mut object = write.object;
    if meta(&object, "name") != call.name() {
        let error = FieldError::invalid("metadata.name", meta(&object, "name"), "field is immutable");
        return Err(Status::invalid(&call.resource.group, &call.resource.kind, call.name(), &[error]).into());
    }
    *ownership = Ownership::Settled(taken(&mut object));
    conversion::to_stored(call.resource, &mut object);
    *new = object;
    Ok(true)
}

/// Puts a changed object before the validating webhooks.
pub(crate) fn validate_changed(call: &Call<'_>, new: &Value, old: &Value, part: Part) -> Planned<()> {
    match webhooks::any(call) && is_shown(part) {
        true => webhooks::validate(call, &change(call, new.clone(), old)),
        false => Ok(()),
    }
}

/// Whether policies and webhooks are shown the object itself: of a `scale`, they are shown the `Scale`.
fn is_shown(part: Part) -> bool {
    part != Part::Sub("scale")
}

fn change(call: &Call<'_>, mut object: Value, old: &Value) -> Write {
    let mut old = old.clone();
    conversion::from_stored(call.resource, &mut object);
    conversion::from_stored(call.resource, &mut old);
    Write { operation: Operation::Update, name: call.name().to_owned(), object, old }
}

/// Does something to an object in the version in which it is stored.
fn as_stored(
    call: &Call<'_>,
    object: &mut Value,
    act: &mut dyn FnMut(&mut Value) -> Result<(), Refused>,
) -> Result<(), Refused> {
    conversion::to_stored(call.resource, object);
    act(object)?;
    conversion::from_stored(call.resource, object);
    Ok(())
}

/// Says who owns what before others add to it.
fn own(call: &Call<'_>, old: Option<&Value>, object: &mut Value, part: Part, ownership: &Ownership) {
    match ownership {
        Ownership::Settled(entries) => update::set_owners(object, entries.clone()),
        Ownership::Tracked => {
            let manager = call.manager();
            let writer = Writer { manager: &manager, part, now: call.now };
            kinds::track(call.storage(), old, object, &writer);
        }
    }
}

/// The owners that an object names, which are taken out of it.
fn taken(object: &mut Value) -> Vec<Value> {
    let entries = items(&object["metadata"]["managedFields"]).to_vec();
    meta_mut(object).remove("managedFields");
    entries
}

/// Reads an object that a webhook has patched, as if it had been sent so.
fn renewed(call: &Call<'_>, object: &mut Value) -> Result<(), Refused> {
    again(Expected::of(call.resource), object)?;
    create::place(call, object)?;
    as_stored(call, object, &mut |object| {
        kinds::default(call.storage(), object);
        Ok(())
    })
}

/// Reads a document that a webhook has patched: what its schema does not know is dropped.
pub(crate) fn again(expected: Expected<'_>, object: &mut Value) -> Result<(), Refused> {
    let map = object::map_of(object);
    map.insert("apiVersion".to_owned(), expected.api_version().into());
    map.insert("kind".to_owned(), expected.kind.into());
    let errors = expected.schemas.decode(expected.schema, object).errors;
    match errors.is_empty() {
        true => Ok(()),
        false => {
            let why: Vec<String> = errors.iter().map(ToString::to_string).collect();
            Err(failure::internal(&why.join("; ")))
        }
    }
}
