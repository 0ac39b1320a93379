//! Admission: what the cluster adds to, or refuses of, objects that are written.

use api::status::{ResourceName, Status};
use api::strategy;
use serde_json::Value;
use store_core::{Compare, Expect, Txn};

use crate::call::Call;
use crate::failure::Refused;
use crate::ids::Ids;
use crate::kinds::Part;
use crate::{keys, object};

mod certificate;
mod limit_range;
pub(crate) mod matching;
mod node;
mod passing;
mod pod;
mod pod_security;
mod quota;
pub(crate) mod request;
mod reviewed;
mod runtime_class;
mod storage_class;

pub(crate) use node::{may_touch_pod_of as node_may_touch_pod_of, token as node_token};
pub(crate) use passing::Passing;
pub use quota::contended;
pub(crate) use reviewed::{mutate_changed, mutate_new, validate_changed, validate_new};

const CERTIFICATES: &str = "certificates.k8s.io";

/// Namespaces that are never deleted.
const IMMORTAL: &[&str] = &["default", "kube-system", "kube-public"];

/// Completes a new object, and refuses what was not asked for rightly; conditions that it stands on are added to the
/// transaction.
pub(crate) fn create(
    call: &Call<'_>,
    ids: &mut Ids<'_>,
    new: &mut Value,
    txn: &mut Txn,
) -> Result<(), Refused> {
    namespace(call, new, txn)?;
    if call.is("", "pods") {
        node::create_pod(call, new)?;
        limit_range::default(call, new)?;
        pod::service_account(call, ids, new)?;
        pod::priority(call, new)?;
        pod::default_tolerations(new);
        runtime_class::apply(call, new)?;
        strategy::qos::write(new);
    }
    if call.is("", "nodes") {
        node::taint_new(new);
        node::create_node(call, new)?;
    }
    if call.is("", "persistentvolumeclaims") {
        storage_class::default(call, new)?;
    }
    if call.is("coordination.k8s.io", "leases") {
        node::create_lease(call, new)?;
    }
    if call.is(CERTIFICATES, "certificatesigningrequests") {
        certificate::requested_by(call, new);
    }
    Ok(())
}

/// Checks a new object that is complete and valid, last of all against quotas, which are charged in the transaction.
pub(crate) fn check_create(
    call: &Call<'_>,
    new: &Value,
    txn: &mut Txn,
    warnings: &mut Vec<String>,
) -> Result<(), Refused> {
    if call.is("", "pods") {
        limit_range::check_pod(call, new)?;
        pod_security::create_pod(call, new, warnings)?;
    } else if call.is("", "persistentvolumeclaims") {
        limit_range::check_claim(call, new)?;
    } else if call.is("", "namespaces") {
        pod_security::create_namespace(call, new)?;
    } else if call.is("scheduling.k8s.io", "priorityclasses") {
        pod::only_default(call, new)?;
    } else {
        pod_security::workload(call, new, warnings)?;
    }
    quota::charge(call, new, None, txn)
}

/// Checks a changed object that is complete and valid.
pub(crate) fn check_update(
    call: &Call<'_>,
    (new, old): (&Value, &Value),
    part: Part,
    txn: &mut Txn,
    warnings: &mut Vec<String>,
) -> Result<(), Refused> {
    if matches!(part, Part::Sub(name) if !matches!(name, "ephemeralcontainers" | "resize")) {
        return Ok(());
    }
    if call.is("", "pods") {
        pod_security::update_pod(call, new, old, part, warnings)?;
        if part != Part::Sub("resize") {
            return Ok(());
        }
        limit_range::check_pod(call, new)?;
    } else if call.is("", "persistentvolumeclaims") {
        limit_range::check_claim(call, new)?;
    } else if call.is("", "namespaces") {
        return pod_security::update_namespace(call, new, old, warnings);
    } else if call.is("scheduling.k8s.io", "priorityclasses") {
        return pod::only_default(call, new);
    } else if !call.is("", "services") {
        return pod_security::workload(call, new, warnings);
    }
    quota::charge(call, new, Some(old), txn)
}

/// Admits a changed object.
pub(crate) fn update(call: &Call<'_>, new: &mut Value, old: &Value, part: Part) -> Result<(), Refused> {
    if call.is("", "pods") {
        node::update_pod(call, new, old, part)?;
    }
    if call.is("", "nodes") {
        node::update_node(call, new, old)?;
    }
    if call.is(CERTIFICATES, "certificatesigningrequests") {
        certificate::update(call, new, old, part)?;
    }
    Ok(())
}

/// Admits a deletion.
pub(crate) fn delete(call: &Call<'_>, name: &str) -> Result<(), Refused> {
    if call.is("", "namespaces") && IMMORTAL.contains(&name) {
        return Err(call.forbidden(name, "this namespace may not be deleted"));
    }
    if call.is("", "pods")
        && call.user.node().is_some()
        && let Some(entry) = call.world.snapshot.get(&call.key(name))
    {
        node::may_touch_pod(call, &call.parsed(entry)?, "delete")?;
    }
    Ok(())
}

/// New objects need a namespace that exists and stays.
fn namespace(call: &Call<'_>, new: &Value, txn: &mut Txn) -> Result<(), Refused> {
    if !call.resource.namespaced() {
        return Ok(());
    }
    let name = call.namespace();
    let key = keys::object("", "namespaces", "", name);
    let about = ResourceName { group: "", resource: "namespaces" };
    let entry = call.world.snapshot.get(&key).ok_or_else(|| Status::not_found(about, name))?;
    if crate::scan::locate(&entry.value, &["metadata", "deletionTimestamp"]).is_some() {
        let why = format!("unable to create new content in namespace {name} because it is being terminated");
        let status = Status::forbidden(call.resource, object::meta(new, "name"), why).with_cause(
            "NamespaceTerminating",
            format!("namespace {name} is being terminated"),
            "metadata.namespace",
        );
        return Err(status.into());
    }
    txn.compares.push(Compare { key, expect: Expect::Revision(entry.revision) });
    Ok(())
}
