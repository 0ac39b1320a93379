//! Objects that are kept go before the webhooks: mutating ones before what is checked and minted, validating ones after it.
//!
//! What webhooks add belongs to no field manager: who owns what is settled before they are asked, as in Kubernetes, and an apply that
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
use crate::prepare::Planned;
use crate::update::{self, Ownership};
use crate::webhooks::{self, Between, Write};
use crate::{create, patch};

/// Puts a new object, in the version of the request, before the mutating webhooks.
pub(crate) fn mutate_new(
    call: &Call<'_>,
    ids: &mut Ids<'_>,
    new: &mut Value,
    ownership: &mut Ownership,
) -> Planned<()> {
    if !webhooks::may_change(call) {
        return Ok(());
    }
    let mut object = new.clone();
    let mut admitted = |object: &mut Value| {
        as_stored(call, object, &mut |object| {
            kinds::default(call.storage(), object);
            super::create(call, ids, object, &mut Txn::default())
        })
    };
    admitted(&mut object)?;
    as_stored(call, &mut object, &mut |object| {
        own(call, None, object, Part::Main, ownership);
        Ok(())
    })?;
    let name = meta(&object, "name").to_owned();
    let mut write = Write {
        operation: Operation::Create,
        name,
        object,
        old: Value::Null,
        options: webhooks::options(call, Operation::Create),
    };
    let mut between = Between { renewed: &|object| renewed(call, object), admitted: &mut admitted };
    if !webhooks::mutate(call, &mut write, &mut between)? {
        return Ok(());
    }
    if !call.name().is_empty() {
        patch::check_name(call, &write.object)?;
    }
    *ownership = Ownership::Settled(taken(&mut write.object));
    *new = write.object;
    Ok(())
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
        &Write {
            operation: Operation::Create,
            name: meta(new, "name").to_owned(),
            object,
            old: Value::Null,
            options: webhooks::options(call, Operation::Create),
        },
    )
}

/// Puts a changed object before the mutating webhooks; whether they changed it further.
pub(crate) fn mutate_changed(
    call: &Call<'_>,
    new: &mut Value,
    old: &Value,
    part: Part,
    ownership: &mut Ownership,
) -> Planned<bool> {
    if !webhooks::may_change(call) || !is_shown(call, part) {
        return Ok(false);
    }
    let mut object = new.clone();
    super::update(call, &mut object, old, part)?;
    own(call, Some(old), &mut object, part, ownership);
    let mut write = change(call, object, old);
    let mut admitted =
        |object: &mut Value| as_stored(call, object, &mut |object| super::update(call, object, old, part));
    let mut between = Between { renewed: &|object| renewed(call, object), admitted: &mut admitted };
    if !webhooks::mutate(call, &mut write, &mut between)? {
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
    match is_shown(call, part) {
        true => webhooks::validate(call, &change(call, new.clone(), old)),
        false => Ok(()),
    }
}

/// Whether webhooks are shown the object itself: of a `scale`, they are shown the `Scale`.
fn is_shown(call: &Call<'_>, part: Part) -> bool {
    webhooks::any(call) && part != Part::Sub("scale")
}

fn change(call: &Call<'_>, mut object: Value, old: &Value) -> Write {
    let mut old = old.clone();
    conversion::from_stored(call.resource, &mut object);
    conversion::from_stored(call.resource, &mut old);
    Write {
        operation: Operation::Update,
        name: call.name().to_owned(),
        object,
        old,
        options: webhooks::options(call, Operation::Update),
    }
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

/// Says who owns what before webhooks add to it.
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
