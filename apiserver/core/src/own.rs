//! Objects that the server itself makes: in the form, and with the identity and the owners, of those that are sent to it.

use api::catalogue::{Catalogue, Resource};
use bytes::Bytes;
use jiff::Timestamp;
use serde_json::Value;
use store_core::Op;

use crate::kinds::{self, Part, Writer};
use crate::object::{self, meta};
use crate::{keys, service};

/// The server as a field manager.
pub(crate) const MANAGER: &str = "orlop-apiserver";

/// The key of an object of a built-in kind.
pub(crate) fn key(resource: &Resource, object: &Value) -> Bytes {
    keys::object(&resource.group, &resource.plural, meta(object, "namespace"), meta(object, "name"))
}

/// Writes a new object of a built-in kind. A status that it brings along is kept.
pub(crate) fn creation(resource: &Resource, mut object: Value, uid: &str, now: Timestamp) -> Op {
    object["apiVersion"] = resource.api_version().into_owned().into();
    object["kind"] = resource.kind.clone().into_owned().into();
    let status = object::map_of(&mut object).remove("status");
    kinds::default(resource, &mut object);
    kinds::prepare_create(resource, &mut object, uid, now);
    if let Some(status) = status {
        object["status"] = status;
    }
    kinds::track(resource, None, &mut object, &Writer { manager: MANAGER, part: Part::Main, now });
    Op::Put { key: key(resource, &object), value: object::encode(&mut object), expires_at_ms: None }
}

/// Writes the IPAddress of a service; nothing where the address is none.
pub(crate) fn ip_address(address: &str, owner: &service::Owner<'_>, uid: &str, now: Timestamp) -> Option<Op> {
    let resource = Catalogue::builtin().by_type("networking.k8s.io/v1", "IPAddress")?;
    let object = serde_json::json!({
        "metadata": {"name": address, "labels": {
            "ipaddress.kubernetes.io/ip-family": "IPv4",
            "ipaddress.kubernetes.io/managed-by": "ipallocator.k8s.io",
        }},
        "spec": {"parentRef":
            {"resource": "services", "namespace": owner.namespace, "name": owner.name}},
    });
    Some(creation(resource, object, uid, now))
}
