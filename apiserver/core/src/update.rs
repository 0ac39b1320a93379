//! PUT, and what PUT and PATCH share: an object replaced if it still is what the writer saw.

use api::conversion;
use api::status::Status;
use http::StatusCode;
use serde_json::Value;
use store_core::{Compare, Entry, Expect, Op, Txn};

use crate::admission::matching::Operation;
use crate::aside::Aside;
use crate::authz::{self, Attributes, escalation};
use crate::body::{self, Expected};
use crate::call::Call;
use crate::create::{self, respond, warnings_headers};
use crate::failure::{self, Refused};
use crate::ids::Ids;
use crate::kinds::{self, Part, Writer};
use crate::object::{self, meta, meta_mut};
use crate::policies::{self, Write};
use crate::prepare::Planned;
use crate::response::{Commit, Prepared, Reply};
use crate::{admission, definition, delete, service};

/// The stored object that a write replaces.
pub(crate) struct Old<'a> {
    pub entry: &'a Entry,
    /// What was read of it.
    pub document: Value,
    /// What was not.
    pub aside: Aside,
}

/// Kinds that PUT creates when they are missing: (group, resource).
const CREATE_ON_UPDATE: &[(&str, &str)] = &[
    ("", "endpoints"),
    ("", "events"),
    ("", "services"),
    ("coordination.k8s.io", "leases"),
    ("rbac.authorization.k8s.io", "clusterrolebindings"),
    ("rbac.authorization.k8s.io", "clusterroles"),
    ("rbac.authorization.k8s.io", "rolebindings"),
    ("rbac.authorization.k8s.io", "roles"),
    ("scheduling.k8s.io", "priorityclasses"),
];

/// Kinds that PUT does not replace unless it names the version that it saw.
const CONDITIONAL: &[(&str, &str)] = &[("coordination.k8s.io", "leases"), ("apps", "controllerrevisions")];

fn among(call: &Call<'_>, table: &[(&str, &str)]) -> bool {
    table.iter().any(|(group, plural)| call.is(group, plural))
}

/// Who owns the fields that a write leaves.
#[derive(Debug)]
pub(crate) enum Ownership {
    /// The writer takes what it changes.
    Tracked,
    /// An apply has said who: the entries of `metadata.managedFields`.
    Settled(Vec<Value>),
}

/// The part of an object that a request's path addresses.
pub(crate) fn part(call: &Call<'_>) -> Part {
    match call.subresource() {
        "" => Part::Main,
        "status" => Part::Sub("status"),
        "ephemeralcontainers" => Part::Sub("ephemeralcontainers"),
        "finalize" => Part::Sub("finalize"),
        "scale" => Part::Sub("scale"),
        "approval" => Part::Sub("approval"),
        "resize" => Part::Sub("resize"),
        _ => Part::Sub(""),
    }
}

/// PUT of an object or of its status.
pub(crate) fn plan(call: &Call<'_>, ids: &mut Ids<'_>) -> Planned {
    let mut decoded = body::read(call.request, Expected::of(call.resource))?;
    let new = &mut decoded.object;
    create::place(call, new)?;
    if meta(new, "name").is_empty() {
        return Err(failure::bad_request("name must be provided").into());
    }
    if meta(new, "name") != call.name() {
        return Err(failure::bad_request(&format!(
            "the name of the object ({}) does not match the name on the URL ({})",
            meta(new, "name"),
            call.name()
        ))
        .into());
    }
    conversion::to_stored(call.resource, new);
    let part = part(call);
    let Some(entry) = call.world.snapshot.get(&call.key(call.name())) else {
        return missing(call, ids, decoded, part);
    };
    if part == Part::Main && meta(new, "resourceVersion").is_empty() && among(call, CONDITIONAL) {
        let error =
            api::field::FieldError::invalid("metadata.resourceVersion", 0, "must be specified for an update");
        return Err(Status::invalid(&call.resource.group, &call.resource.kind, call.name(), &[error]).into());
    }
    let document = call.current(call.parsed(entry)?)?;
    let old = Old { entry, document, aside: Aside::default() };
    replace(call, ids, old, decoded.object, part, decoded.warnings)
}

/// PUT of a name that is free.
fn missing(call: &Call<'_>, ids: &mut Ids<'_>, mut decoded: body::Decoded, part: Part) -> Planned {
    let fresh = matches!(meta(&decoded.object, "resourceVersion"), "" | "0");
    if part != Part::Main || !fresh || !among(call, CREATE_ON_UPDATE) {
        return Err(Status::not_found(call.resource, call.name()).into());
    }
    let info = &call.request.info;
    authz::check(&call.world, call.user, &Attributes { verb: "create", ..Attributes::of(info, "") })?;
    meta_mut(&mut decoded.object).remove("resourceVersion");
    conversion::from_stored(call.resource, &mut decoded.object);
    create::insert(call, ids, decoded.object, decoded.warnings, Ownership::Tracked)
}

/// Plans that `new` takes the place of the stored object.
pub(crate) fn replace(
    call: &Call<'_>,
    ids: &mut Ids<'_>,
    stored: Old<'_>,
    new: Value,
    part: Part,
    warnings: Vec<String>,
) -> Planned {
    replace_owned(call, ids, stored, new, part, (warnings, Ownership::Tracked))
}

/// As [`replace`], by whomever owns what then.
pub(crate) fn replace_owned(
    call: &Call<'_>,
    ids: &mut Ids<'_>,
    stored: Old<'_>,
    mut new: Value,
    part: Part,
    (mut warnings, ownership): (Vec<String>, Ownership),
) -> Planned {
    let Old { entry, document: old, aside } = stored;
    let mut txn = Txn {
        compares: vec![Compare { key: call.key(call.name()), expect: Expect::Revision(entry.revision) }],
        ops: Vec::new(),
    };
    let changed = settle(call, ids, (&mut new, &old), (part, ownership), &mut txn, &mut warnings)?;
    let write = Write { operation: Operation::Update, name: call.name(), object: &new, old: &old };
    warnings.extend(policies::validate(call, &write)?);
    let headers = warnings_headers(&warnings);
    if !changed {
        return respond(call, StatusCode::OK, entry.value.clone(), headers);
    }
    if call.options().dry_run {
        return respond(call, StatusCode::OK, new.to_string().into(), headers);
    }
    if delete::ends_with(call, &new) {
        return delete::finish_update(call, entry, new, txn);
    }
    call.store_form(&mut new)?;
    let value = aside.encode(&mut new);
    let key = call.key(call.name());
    txn.ops.insert(0, Op::Put { key, value: value.clone(), expires_at_ms: create::expiry(call) });
    let reply: Reply = create::stored(call, 0, value, StatusCode::OK, headers)?;
    Ok(Prepared::Commit(Commit { txn, reply }))
}

/// Turns what a writer sent into what is to be stored: preconditions, metadata, strategy, admission, checks. Returns
/// whether anything changed that anyone wrote.
pub(crate) fn settle(
    call: &Call<'_>,
    ids: &mut Ids<'_>,
    (new, old): (&mut Value, &Value),
    (part, mut ownership): (Part, Ownership),
    txn: &mut Txn,
    warnings: &mut Vec<String>,
) -> Planned<bool> {
    let resource = call.storage();
    preconditions(call, new, old)?;
    carry_over(new, old);
    // First the defaults: what a writer leaves out and gets back is no change, and makes no new generation.
    kinds::default(resource, new);
    if admission::mutate_changed(call, new, old, part, &mut ownership)? {
        carry_over(new, old);
    }
    kinds::prepare_update(resource, part, new, old, call.now);
    admission::update(call, new, old, part)?;
    if part == Part::Main {
        policies::settle(call, new, Some(old));
        escalation::check(call, new, Some(old))?;
        if call.is("", "services") {
            service::update(call, ids, new, old, txn)?;
        }
        definition::update(call, new, old, txn)?;
    }
    let errors = kinds::validate_update(resource, part, new, old);
    if !errors.is_empty() {
        return Err(Status::invalid(&call.resource.group, &call.resource.kind, call.name(), &errors).into());
    }
    admission::check_update(call, (new, old), part, txn, warnings)?;
    match ownership {
        Ownership::Settled(entries) => set_owners(new, entries),
        Ownership::Tracked if !same(new, old) || renames_owners(new, old) => {
            let manager = call.manager();
            kinds::track(resource, Some(old), new, &Writer { manager: &manager, part, now: call.now });
        }
        Ownership::Tracked => {
            admission::validate_changed(call, new, old, part)?;
            return Ok(false);
        }
    }
    admission::validate_changed(call, new, old, part)?;
    Ok(!same(new, old) || !same_owners(new, old))
}

fn owners(object: &Value) -> &Value {
    &object["metadata"]["managedFields"]
}

/// Says who owns what.
pub(crate) fn set_owners(object: &mut Value, entries: Vec<Value>) {
    let entries = if entries.is_empty() { Value::Null } else { entries.into() };
    object::set(meta_mut(object), "managedFields", entries);
}

/// Whether the writer itself says who owns what, and other than it is.
fn renames_owners(new: &Value, old: &Value) -> bool {
    !object::items(owners(new)).is_empty() && !same_owners(new, old)
}

/// Whether both say that the same managers own the same fields, at whatever time.
fn same_owners(new: &Value, old: &Value) -> bool {
    let (new, old) = (object::items(owners(new)), object::items(owners(old)));
    let timeless = |entry: &Value| -> Option<Vec<(String, Value)>> {
        let fields = entry.as_object()?.iter().filter(|(name, _)| *name != "time");
        Some(fields.map(|(name, value)| (name.clone(), value.clone())).collect())
    };
    new == old
        || (new.len() == old.len() && new.iter().zip(old).all(|(new, old)| timeless(new) == timeless(old)))
}

/// Whether the object is the one that the writer believes it to be.
fn preconditions(call: &Call<'_>, new: &Value, old: &Value) -> Result<(), Refused> {
    let (version, uid) = (meta(new, "resourceVersion"), meta(new, "uid"));
    if !uid.is_empty() && uid != meta(old, "uid") {
        let why = format!(
            "Precondition failed: UID in precondition: {uid}, UID in object meta: {}",
            meta(old, "uid")
        );
        return Err(call.conflict(call.name(), why));
    }
    if !version.is_empty() && version != "0" && version != meta(old, "resourceVersion") {
        if version.parse::<u64>().is_err() {
            return Err(failure::bad_request(&format!("invalid resource version {version:?}")));
        }
        return Err(call.conflict(call.name(), api::status::MODIFIED));
    }
    Ok(())
}

/// Metadata that no writer changes comes from the stored object.
fn carry_over(new: &mut Value, old: &Value) {
    const FIXED: &[&str] = &[
        "uid",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "generation",
        "resourceVersion",
        "generateName",
    ];
    let metadata = meta_mut(new);
    metadata.remove("selfLink");
    for field in FIXED {
        let value = old["metadata"][*field].clone();
        // A changed generateName or creationTimestamp is for validation to refuse.
        if *field == "generateName" && metadata.contains_key(*field) {
            continue;
        }
        object::set(metadata, field, value);
    }
}

/// Whether nothing changed that anyone wrote.
pub(crate) fn same(new: &Value, old: &Value) -> bool {
    let (Some(new), Some(old)) = (new.as_object(), old.as_object()) else { return false };
    new.len() == old.len()
        && new.iter().all(|(key, value)| match (key.as_str(), old.get(key)) {
            ("metadata", Some(old)) => same_metadata(value, old),
            (_, old) => old == Some(value),
        })
}

fn same_metadata(new: &Value, old: &Value) -> bool {
    let (Some(new), Some(old)) = (new.as_object(), old.as_object()) else { return false };
    let written = |key: &&String| !matches!(key.as_str(), "managedFields" | "resourceVersion");
    new.keys().filter(written).all(|key| new.get(key) == old.get(key))
        && old.keys().filter(written).all(|key| new.contains_key(key))
}
