//! Where objects live in the store.

use bytes::Bytes;

/// The prefix of a resource's objects: `/apps/deployments/`.
pub fn prefix(group: &str, plural: &str) -> String {
    let group = if group.is_empty() { "core" } else { group };
    format!("/{group}/{plural}/")
}

/// The prefix of a resource's objects in one namespace; all of them when `namespace` is empty.
pub fn namespace_prefix(group: &str, plural: &str, namespace: &str) -> String {
    let mut key = prefix(group, plural);
    if !namespace.is_empty() {
        key.push_str(namespace);
        key.push('/');
    }
    key
}

/// The key of one object; `namespace` is empty for objects of the cluster.
pub fn object(group: &str, plural: &str, namespace: &str, name: &str) -> Bytes {
    let mut key = namespace_prefix(group, plural, namespace);
    key.push_str(name);
    key.into()
}

/// The prefix of all claimed service IPs.
pub const SERVICE_IPS: &[u8] = b"/claims/serviceip/";

/// The key that claims a service IP.
pub fn service_ip(address: &str) -> Bytes {
    format!("/claims/serviceip/{address}").into()
}

/// The address that a key claims, if it is one of a service IP.
pub fn claimed_ip(key: &[u8]) -> Option<&str> {
    std::str::from_utf8(key.strip_prefix(SERVICE_IPS)?).ok()
}

/// The key of the IPAddress of a service IP.
pub fn ip_address(address: &str) -> Bytes {
    object("networking.k8s.io", "ipaddresses", "", address)
}

/// The key that claims a node port.
pub fn node_port(port: u16) -> Bytes {
    format!("/claims/nodeport/{port}").into()
}

/// The key of the fence of a Lease.
pub fn fence(namespace: &str, name: &str) -> Bytes {
    format!("/fences/{namespace}/{name}").into()
}

/// The key of the fence of the Lease that is stored at `key`; `None` when no Lease is.
pub fn fence_of_lease(key: &[u8]) -> Option<Bytes> {
    let lease = std::str::from_utf8(key.strip_prefix(LEASES)?).ok()?;
    Some(format!("/fences/{lease}").into())
}

/// The keys that all servers share.
pub const KEYRING: &[u8] = b"/keyring";

/// What a server says of the keys that it has.
pub fn key_report(member: u64) -> Bytes {
    format!("/keyring-reports/{member}").into()
}

/// The prefix of all Leases.
const LEASES: &[u8] = b"/coordination.k8s.io/leases/";

/// The prefix of all claimed node ports.
pub const NODE_PORTS: &[u8] = b"/claims/nodeport/";

/// The prefix of all RBAC objects.
pub const RBAC: &[u8] = b"/rbac.authorization.k8s.io/";

/// The prefix of all configurations of admission.
pub const ADMISSION: &[u8] = b"/admissionregistration.k8s.io/";
/// The prefix of all configurations of mutating webhooks.
pub const MUTATING_WEBHOOKS: &[u8] = b"/admissionregistration.k8s.io/mutatingwebhookconfigurations/";
/// The prefix of all configurations of validating webhooks.
pub const VALIDATING_WEBHOOKS: &[u8] = b"/admissionregistration.k8s.io/validatingwebhookconfigurations/";

/// The prefix of all definitions of custom resources.
pub const DEFINITIONS: &[u8] = b"/apiextensions.k8s.io/customresourcedefinitions/";

/// The key that every change to the names of custom resources of a group writes.
pub fn custom_names(group: &str) -> Bytes {
    format!("/claims/customnames/{group}").into()
}

/// The prefix of all quotas.
pub const QUOTAS: &[u8] = b"/core/resourcequotas/";

/// The prefix of all pods.
pub const PODS: &[u8] = b"/core/pods/";
