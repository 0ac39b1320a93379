//! The built-in resources, one entry each.

mod kept;

use super::{ALL_VERBS, Name, Resource, Scope, Subresource, Verb};
use crate::schema;

/// An entry as it is written down.
struct Entry {
    group: &'static str,
    version: &'static str,
    kind: &'static str,
    plural: &'static str,
    short_names: &'static [&'static str],
    categories: &'static [&'static str],
    scope: Scope,
    verbs: &'static [Verb],
    subresources: &'static [Sub],
    stored: bool,
    stored_as: Option<(&'static str, &'static str)>,
    idle: bool,
    deprecation: Option<&'static str>,
}

/// A subresource as it is written down; an empty kind stands for the resource's own.
struct Sub {
    name: &'static str,
    group: &'static str,
    version: &'static str,
    kind: &'static str,
    verbs: &'static [Verb],
}

const STORED: Entry = Entry {
    group: "",
    version: "v1",
    kind: "",
    plural: "",
    short_names: &[],
    categories: &[],
    scope: Scope::Namespaced,
    verbs: ALL_VERBS,
    subresources: &[],
    stored: true,
    stored_as: None,
    idle: false,
    deprecation: None,
};
const CLUSTER: Entry = Entry { scope: Scope::Cluster, ..STORED };
const REVIEW: Entry = Entry { scope: Scope::Cluster, verbs: &[Verb::Create], stored: false, ..STORED };

const READ_WRITE: &[Verb] = &[Verb::Get, Verb::Patch, Verb::Update];
const CONNECT: &[Verb] = &[Verb::Create, Verb::Get];
const PROXY: &[Verb] = &[Verb::Create, Verb::Delete, Verb::Get, Verb::Patch, Verb::Update];
const STATUS: Sub = own("status", READ_WRITE);
const SCALE: Sub = sub("scale", "autoscaling", "Scale", READ_WRITE);

const fn own(name: &'static str, verbs: &'static [Verb]) -> Sub {
    sub(name, "", "", verbs)
}

const fn sub(name: &'static str, group: &'static str, kind: &'static str, verbs: &'static [Verb]) -> Sub {
    Sub { name, group, version: "v1", kind, verbs }
}

const POD_SUBRESOURCES: &[Sub] = &[
    sub("attach", "", "PodAttachOptions", CONNECT),
    sub("binding", "", "Binding", &[Verb::Create]),
    own("ephemeralcontainers", READ_WRITE),
    sub("eviction", "policy", "Eviction", &[Verb::Create]),
    sub("exec", "", "PodExecOptions", CONNECT),
    own("log", &[Verb::Get]),
    sub("portforward", "", "PodPortForwardOptions", CONNECT),
    sub("proxy", "", "PodProxyOptions", PROXY),
    own("resize", READ_WRITE),
    STATUS,
];

const ENTRIES: &[Entry] = &[
    Entry { kind: "Binding", plural: "bindings", verbs: &[Verb::Create], stored: false, ..STORED },
    Entry { kind: "ConfigMap", plural: "configmaps", short_names: &["cm"], ..STORED },
    Entry {
        kind: "Endpoints",
        plural: "endpoints",
        short_names: &["ep"],
        deprecation: Some("v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice"),
        ..STORED
    },
    Entry { kind: "Event", plural: "events", short_names: &["ev"], ..STORED },
    Entry {
        kind: "Namespace",
        plural: "namespaces",
        short_names: &["ns"],
        verbs: &[Verb::Create, Verb::Delete, Verb::Get, Verb::List, Verb::Patch, Verb::Update, Verb::Watch],
        subresources: &[own("finalize", &[Verb::Update]), STATUS],
        ..CLUSTER
    },
    Entry {
        kind: "Node",
        plural: "nodes",
        short_names: &["no"],
        subresources: &[sub("proxy", "", "NodeProxyOptions", PROXY), STATUS],
        ..CLUSTER
    },
    Entry {
        kind: "Pod",
        plural: "pods",
        short_names: &["po"],
        categories: &["all"],
        subresources: POD_SUBRESOURCES,
        ..STORED
    },
    Entry { kind: "Secret", plural: "secrets", ..STORED },
    Entry {
        kind: "ServiceAccount",
        plural: "serviceaccounts",
        short_names: &["sa"],
        subresources: &[sub("token", "authentication.k8s.io", "TokenRequest", &[Verb::Create])],
        ..STORED
    },
    Entry {
        kind: "Service",
        plural: "services",
        short_names: &["svc"],
        categories: &["all"],
        subresources: &[sub("proxy", "", "ServiceProxyOptions", PROXY), STATUS],
        ..STORED
    },
    Entry { group: "apps", kind: "ControllerRevision", plural: "controllerrevisions", ..STORED },
    Entry {
        group: "apps",
        kind: "DaemonSet",
        plural: "daemonsets",
        short_names: &["ds"],
        categories: &["all"],
        subresources: &[STATUS],
        ..STORED
    },
    Entry {
        group: "apps",
        kind: "Deployment",
        plural: "deployments",
        short_names: &["deploy"],
        categories: &["all"],
        subresources: &[SCALE, STATUS],
        ..STORED
    },
    Entry {
        group: "apps",
        kind: "ReplicaSet",
        plural: "replicasets",
        short_names: &["rs"],
        categories: &["all"],
        subresources: &[SCALE, STATUS],
        ..STORED
    },
    Entry {
        group: "events.k8s.io",
        kind: "Event",
        plural: "events",
        short_names: &["ev"],
        stored_as: Some(("", "v1")),
        ..STORED
    },
    Entry {
        group: "authentication.k8s.io",
        kind: "SelfSubjectReview",
        plural: "selfsubjectreviews",
        ..REVIEW
    },
    Entry { group: "authentication.k8s.io", kind: "TokenReview", plural: "tokenreviews", ..REVIEW },
    Entry {
        group: "authorization.k8s.io",
        kind: "LocalSubjectAccessReview",
        plural: "localsubjectaccessreviews",
        scope: Scope::Namespaced,
        ..REVIEW
    },
    Entry {
        group: "authorization.k8s.io",
        kind: "SelfSubjectAccessReview",
        plural: "selfsubjectaccessreviews",
        ..REVIEW
    },
    Entry {
        group: "authorization.k8s.io",
        kind: "SelfSubjectRulesReview",
        plural: "selfsubjectrulesreviews",
        ..REVIEW
    },
    Entry {
        group: "authorization.k8s.io",
        kind: "SubjectAccessReview",
        plural: "subjectaccessreviews",
        ..REVIEW
    },
    Entry {
        group: "rbac.authorization.k8s.io",
        kind: "ClusterRoleBinding",
        plural: "clusterrolebindings",
        ..CLUSTER
    },
    Entry { group: "rbac.authorization.k8s.io", kind: "ClusterRole", plural: "clusterroles", ..CLUSTER },
    Entry { group: "rbac.authorization.k8s.io", kind: "RoleBinding", plural: "rolebindings", ..STORED },
    Entry { group: "rbac.authorization.k8s.io", kind: "Role", plural: "roles", ..STORED },
    Entry {
        group: "scheduling.k8s.io",
        kind: "PriorityClass",
        plural: "priorityclasses",
        short_names: &["pc"],
        ..CLUSTER
    },
    Entry { group: "coordination.k8s.io", kind: "Lease", plural: "leases", ..STORED },
    Entry { group: "discovery.k8s.io", kind: "EndpointSlice", plural: "endpointslices", ..STORED },
];

/// Every built-in resource.
pub(super) fn resources() -> impl Iterator<Item = Resource> {
    ENTRIES.iter().chain(kept::ENTRIES).map(resource)
}

fn resource(entry: &Entry) -> Resource {
    let names = |names: &[&'static str]| names.iter().copied().map(Name::Borrowed).collect();
    Resource {
        group: entry.group.into(),
        version: entry.version.into(),
        kind: entry.kind.into(),
        list_kind: format!("{}List", entry.kind).into(),
        plural: entry.plural.into(),
        singular: entry.kind.to_ascii_lowercase().into(),
        short_names: names(entry.short_names),
        categories: names(entry.categories),
        scope: entry.scope,
        verbs: entry.verbs.to_vec(),
        subresources: entry.subresources.iter().map(|sub| subresource(entry, sub)).collect(),
        schema: schema::builtin().type_of(entry.group, entry.version, entry.kind).unwrap_or_default(),
        stored: entry.stored,
        stored_as: entry.stored_as.map(|(group, version)| (group.into(), version.into())),
        idle: entry.idle,
        deprecation: entry.deprecation.map(Name::Borrowed),
        custom: None,
    }
}

fn subresource(entry: &Entry, sub: &Sub) -> Subresource {
    let (group, version, kind) = match sub.kind {
        "" => (entry.group, entry.version, entry.kind),
        kind => (sub.group, sub.version, kind),
    };
    Subresource {
        name: sub.name.into(),
        group: group.into(),
        version: version.into(),
        kind: kind.into(),
        verbs: sub.verbs.to_vec(),
        schema: schema::builtin().type_of(group, version, kind),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_entry_has_a_schema() {
        for entry in ENTRIES.iter().chain(kept::ENTRIES) {
            let found = schema::builtin().type_of(entry.group, entry.version, entry.kind);
            assert!(found.is_some(), "no schema for {}/{} {}", entry.group, entry.version, entry.kind);
        }
    }
}
