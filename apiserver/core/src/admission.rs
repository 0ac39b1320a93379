//! Admission: what the cluster adds to, or refuses of, objects that are written.

use api::status::{ResourceName, Status};
use serde_json::Value;
use store_core::{Compare, Expect, Txn};

use crate::call::Call;
use crate::failure::Refused;
use crate::ids::Ids;
use crate::kinds::Part;
use crate::{keys, object};

mod certificate;
pub(crate) mod matching;
mod node;
mod pod;

pub(crate) use node::{may_touch_pod_of as node_may_touch_pod_of, token as node_token};

const CERTIFICATES: &str = "certificates.k8s.io";

/// Namespaces that are never deleted.
const IMMORTAL: &[&str] = &["default", "kube-system", "kube-public"];

/// Admits a new object; conditions that it stands on are added to the transaction.
pub(crate) fn create(
    call: &Call<'_>,
    ids: &mut Ids<'_>,
    new: &mut Value,
    txn: &mut Txn,
) -> Result<(), Refused> {
    namespace(call, new, txn)?;
    if call.is("", "pods") {
        node::create_pod(call, new)?;
        pod::service_account(call, ids, new)?;
        pod::priority(call, new)?;
        pod::default_tolerations(new);
    }
    if call.is("", "nodes") {
        node::taint_new(new);
        node::create_node(call, new)?;
    }
    if call.is("coordination.k8s.io", "leases") {
        node::create_lease(call, new)?;
    }
    if call.is(CERTIFICATES, "certificatesigningrequests") {
        certificate::requested_by(call, new);
    }
    Ok(())
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
