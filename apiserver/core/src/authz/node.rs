//! The rules for node agents: a node reads what the pods bound to it need, and writes what is its own.

use serde_json::Value;

use super::{Attributes, Decision};
use crate::world::World;
use crate::{keys, scan};

/// What every node may do besides, as (verbs, group, resource).
const ALWAYS: &[(&[&str], &str, &str)] = &[
    (&["create"], "authentication.k8s.io", "tokenreviews"),
    (&["create"], "authorization.k8s.io", "localsubjectaccessreviews"),
    (&["create"], "authorization.k8s.io", "subjectaccessreviews"),
    (&["get", "list", "watch"], "", "services"),
    (&["get", "list", "watch"], "discovery.k8s.io", "endpointslices"),
    (&["get", "list", "watch"], "", "endpoints"),
    (&["get", "list", "watch"], "", "namespaces"),
    (&["get", "list", "watch"], "", "nodes"),
    (&["create"], "", "nodes"),
    (&["create", "update", "patch"], "", "events"),
    (&["create", "update", "patch"], "events.k8s.io", "events"),
    (&["create"], "", "pods"),
    (&["create"], "", "pods/eviction"),
    (&["create"], "certificates.k8s.io", "certificatesigningrequests"),
    (&["get", "list", "watch"], "certificates.k8s.io", "certificatesigningrequests"),
    (&["get", "list", "watch"], "node.k8s.io", "runtimeclasses"),
    (&["get", "list", "watch"], "storage.k8s.io", "csidrivers"),
];

/// Decides for the agent of `node`.
pub fn authorize(world: &World<'_>, node: &str, attributes: &Attributes<'_>) -> Decision {
    if !attributes.is_resource {
        return Decision::NoOpinion(String::new());
    }
    match (attributes.group, attributes.resource) {
        ("", "secrets" | "configmaps") => reads_related(world, node, attributes),
        ("", "serviceaccounts") => service_account(world, node, attributes),
        ("", "pods") => pods(world, node, attributes),
        ("", "nodes") => own_node(node, attributes),
        ("coordination.k8s.io", "leases") => lease(node, attributes),
        _ => always(attributes),
    }
}

fn always(attributes: &Attributes<'_>) -> Decision {
    let resource = attributes.full_resource();
    let allowed = ALWAYS.iter().any(|(verbs, group, name)| {
        *group == attributes.group && *name == resource && verbs.contains(&attributes.verb)
    });
    match allowed {
        true => Decision::Allow(String::new()),
        false => Decision::NoOpinion(String::new()),
    }
}

fn no(why: impl Into<String>) -> Decision {
    Decision::NoOpinion(why.into())
}

fn yes() -> Decision {
    Decision::Allow(String::new())
}

/// Secrets and configmaps: single ones, that a pod on the node refers to.
fn reads_related(world: &World<'_>, node: &str, attributes: &Attributes<'_>) -> Decision {
    if !matches!(attributes.verb, "get" | "list" | "watch") || !attributes.subresource.is_empty() {
        return no("can only read resources of this type");
    }
    if attributes.namespace.is_empty() || attributes.name.is_empty() {
        return no("No Object name found");
    }
    let found = pods_in(world, node, attributes.namespace)
        .any(|pod| refers_to(world, &pod, attributes.namespace, attributes.resource, attributes.name));
    match found {
        true => yes(),
        false => no(format!("no relationship found between node '{node}' and this object")),
    }
}

/// Service accounts: tokens (bound to a pod, which admission checks) and reads for pods on the node.
fn service_account(world: &World<'_>, node: &str, attributes: &Attributes<'_>) -> Decision {
    let allowed = match (attributes.subresource, attributes.verb) {
        ("token", "create") | ("", "get" | "list" | "watch") => !attributes.name.is_empty(),
        _ => false,
    };
    if !allowed {
        return no("can only create tokens for individual service accounts");
    }
    let prefix = keys::namespace_prefix("", "pods", attributes.namespace);
    let used = world
        .derived
        .pods_of(node)
        .filter(|key| key.starts_with(prefix.as_bytes()))
        .filter_map(|key| world.snapshot.get(key))
        .any(|pod| {
            scan::text(&pod.value, &["spec", "serviceAccountName"]).as_deref() == Some(attributes.name)
        });
    match used {
        true => yes(),
        false => no(format!("no relationship found between node '{node}' and this object")),
    }
}

fn pods(world: &World<'_>, node: &str, attributes: &Attributes<'_>) -> Decision {
    let own = || {
        let key = keys::object("", "pods", attributes.namespace, attributes.name);
        world.derived.node_of(&key) == Some(node)
    };
    match (attributes.subresource, attributes.verb) {
        ("", "list" | "watch") if selects_node(attributes.field_selector, node) => yes(),
        ("", "list" | "watch") => no("can only list/watch pods with spec.nodeName field selector"),
        ("", "get") | ("", "delete") if own() => yes(),
        ("status", "update" | "patch") if own() => yes(),
        ("", "create") | ("eviction", "create") => yes(),
        // The object may be gone already; whoever asks learns only that.
        ("", "get" | "delete") | ("status", "update" | "patch") if !exists(world, attributes) => yes(),
        _ => no(format!("no relationship found between node '{node}' and this object")),
    }
}

fn exists(world: &World<'_>, attributes: &Attributes<'_>) -> bool {
    world.snapshot.get(&keys::object("", "pods", attributes.namespace, attributes.name)).is_some()
}

fn selects_node(selector: &str, node: &str) -> bool {
    selector.split(',').any(|term| {
        let value = term.trim().strip_prefix("spec.nodeName=");
        value.map(|value| value.strip_prefix('=').unwrap_or(value)) == Some(node)
    })
}

fn own_node(node: &str, attributes: &Attributes<'_>) -> Decision {
    match (attributes.subresource, attributes.verb) {
        ("", "get" | "list" | "watch" | "create") => yes(),
        ("" | "status", "update" | "patch") if attributes.name == node => yes(),
        ("" | "status", "update" | "patch") => {
            no(format!("node '{node}' cannot modify node '{}'", attributes.name))
        }
        _ => no(""),
    }
}

/// The node's lease: its heartbeat. All nodes read all leases: they say which revision of the services each proxy has put
/// into effect, and a pod is stopped only when all have let go of it.
fn lease(node: &str, attributes: &Attributes<'_>) -> Decision {
    if attributes.namespace != "kube-node-lease" {
        return no("can only access leases in the \"kube-node-lease\" system namespace");
    }
    match attributes.verb {
        "create" => yes(),
        "get" | "update" | "patch" | "delete" if attributes.name == node => yes(),
        _ if matches!(attributes.verb, "get" | "list" | "watch") => yes(),
        _ => no("can only access node lease with the same name as the requesting node"),
    }
}

fn pods_in<'a>(world: &World<'a>, node: &str, namespace: &str) -> impl Iterator<Item = Value> + use<'a> {
    let prefix = keys::namespace_prefix("", "pods", namespace);
    let snapshot = world.snapshot;
    world
        .derived
        .pods_of(node)
        .filter(move |key| key.starts_with(prefix.as_bytes()))
        .filter_map(|key| serde_json::from_slice(&snapshot.get(key)?.value).ok())
}

/// Whether a pod names a secret or configmap anywhere where the kubelet reads one for it.
fn refers_to(world: &World<'_>, pod: &Value, namespace: &str, resource: &str, name: &str) -> bool {
    let spec = &pod["spec"];
    let is = |value: &Value, key: &str| value[key].as_str() == Some(name);
    let secrets = resource == "secrets";
    let (env_from, env_key) =
        if secrets { ("secretRef", "secretKeyRef") } else { ("configMapRef", "configMapKeyRef") };
    let in_containers = ["containers", "initContainers", "ephemeralContainers"].iter().any(|field| {
        items(&spec[*field]).any(|container| {
            items(&container["envFrom"]).any(|source| is(&source[env_from], "name"))
                || items(&container["env"]).any(|env| is(&env["valueFrom"][env_key], "name"))
        })
    });
    let in_volumes = items(&spec["volumes"]).any(|volume| volume_names(volume, secrets, name));
    let pull = |owner: &Value| items(&owner["imagePullSecrets"]).any(|secret| is(secret, "name"));
    in_containers || in_volumes || (secrets && (pull(spec) || account_pulls(world, spec, namespace, &pull)))
}

fn volume_names(volume: &Value, secrets: bool, name: &str) -> bool {
    let direct = if secrets { &volume["secret"]["secretName"] } else { &volume["configMap"]["name"] };
    let source = if secrets { "secret" } else { "configMap" };
    direct.as_str() == Some(name)
        || items(&volume["projected"]["sources"]).any(|s| s[source]["name"].as_str() == Some(name))
}

fn account_pulls(world: &World<'_>, spec: &Value, namespace: &str, pull: &impl Fn(&Value) -> bool) -> bool {
    let Some(account) = spec["serviceAccountName"].as_str() else { return false };
    world
        .snapshot
        .get(&keys::object("", "serviceaccounts", namespace, account))
        .and_then(|entry| serde_json::from_slice::<Value>(&entry.value).ok())
        .is_some_and(|account| pull(&account))
}

fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().map(Vec::as_slice).unwrap_or_default().iter()
}
