//! The bootstrap roles and bindings, as Kubernetes has them for the kinds that are served.

use serde_json::{Value, json};

use crate::{cluster, user};

pub(super) mod namespaced;

/// Says that a role is reconciled at each start.
pub(super) const AUTO_UPDATE: &str = "rbac.authorization.kubernetes.io/autoupdate";

/// (groups, resources, verbs).
type Rule = (&'static [&'static str], &'static [&'static str], &'static [&'static str]);

const READ: &[&str] = &["get", "list", "watch"];
const WRITE: &[&str] = &["create", "delete", "deletecollection", "patch", "update"];
const EVENTS: Rule = (&["", "events.k8s.io"], &["events"], &["create", "patch", "update"]);

const VIEW: &[Rule] = &[
    (
        &[""],
        &[
            "configmaps",
            "endpoints",
            "events",
            "namespaces",
            "pods",
            "pods/log",
            "pods/status",
            "serviceaccounts",
            "services",
            "services/status",
            "bindings",
            "limitranges",
            "namespaces/status",
            "persistentvolumeclaims",
            "persistentvolumeclaims/status",
            "replicationcontrollers",
            "replicationcontrollers/scale",
            "replicationcontrollers/status",
            "resourcequotas",
            "resourcequotas/status",
        ],
        READ,
    ),
    (&["autoscaling"], &["horizontalpodautoscalers", "horizontalpodautoscalers/status"], READ),
    (&["batch"], &["cronjobs", "cronjobs/status", "jobs", "jobs/status"], READ),
    (&["networking.k8s.io"], &["ingresses", "ingresses/status", "networkpolicies"], READ),
    (&["policy"], &["poddisruptionbudgets", "poddisruptionbudgets/status"], READ),
    (&["resource.k8s.io"], &["resourceclaims", "resourceclaims/status", "resourceclaimtemplates"], READ),
    (&["discovery.k8s.io"], &["endpointslices"], READ),
    (
        &["apps"],
        &[
            "controllerrevisions",
            "daemonsets",
            "daemonsets/status",
            "deployments",
            "deployments/scale",
            "deployments/status",
            "replicasets",
            "replicasets/scale",
            "replicasets/status",
            "statefulsets",
            "statefulsets/scale",
            "statefulsets/status",
        ],
        READ,
    ),
    (&["events.k8s.io"], &["events"], READ),
];

const EDIT: &[Rule] = &[
    (
        &[""],
        &["pods/attach", "pods/exec", "pods/portforward", "pods/proxy", "secrets", "services/proxy"],
        READ,
    ),
    (&[""], &["serviceaccounts"], &["impersonate"]),
    (&[""], &["pods", "pods/attach", "pods/exec", "pods/portforward", "pods/proxy"], WRITE),
    (&[""], &["pods/eviction"], &["create"]),
    (&[""], &["configmaps", "events", "secrets", "serviceaccounts", "services", "services/proxy"], WRITE),
    (&[""], &["serviceaccounts/token"], &["create"]),
    (
        &["apps"],
        &[
            "daemonsets",
            "deployments",
            "deployments/rollback",
            "deployments/scale",
            "replicasets",
            "replicasets/scale",
            "statefulsets",
            "statefulsets/scale",
        ],
        WRITE,
    ),
    (&[""], &["persistentvolumeclaims", "replicationcontrollers", "replicationcontrollers/scale"], WRITE),
    (&["autoscaling"], &["horizontalpodautoscalers"], WRITE),
    (&["batch"], &["cronjobs", "jobs"], WRITE),
    (&["networking.k8s.io"], &["ingresses", "networkpolicies"], WRITE),
    (&["policy"], &["poddisruptionbudgets"], WRITE),
    (&["resource.k8s.io"], &["resourceclaims", "resourceclaimtemplates"], WRITE),
    (
        &["coordination.k8s.io"],
        &["leases"],
        &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"],
    ),
];

const ADMIN: &[Rule] = &[
    (&["authorization.k8s.io"], &["localsubjectaccessreviews"], &["create"]),
    (
        &["rbac.authorization.k8s.io"],
        &["rolebindings", "roles"],
        &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"],
    ),
];

const MEASURES: &[Rule] = &[(&["metrics.k8s.io"], &["nodes", "pods"], READ)];

const SCHEDULER: &[Rule] = &[
    EVENTS,
    (&["coordination.k8s.io"], &["leases"], &["create", "get", "list", "patch", "update", "watch"]),
    (&[""], &["nodes"], READ),
    (&[""], &["pods"], &["delete", "get", "list", "watch"]),
    (&[""], &["bindings", "pods/binding"], &["create"]),
    (&[""], &["pods/status"], &["patch", "update"]),
    (&[""], &["replicationcontrollers", "services", "namespaces"], READ),
    (&["apps"], &["replicasets", "statefulsets"], READ),
    (&["scheduling.k8s.io"], &["priorityclasses"], READ),
    (&["policy"], &["poddisruptionbudgets"], READ),
    (&[""], &["persistentvolumeclaims", "persistentvolumes"], READ),
    (&["storage.k8s.io"], &["storageclasses", "csinodes", "csidrivers", "csistoragecapacities"], READ),
    (&["authentication.k8s.io"], &["tokenreviews"], &["create"]),
    (&["authorization.k8s.io"], &["subjectaccessreviews"], &["create"]),
];

/// The caches that the controllers share.
const CONTROLLER_MANAGER: &[Rule] = &[
    EVENTS,
    LEADER,
    (&["*"], &["*"], &["list", "watch"]),
    (&[""], &["configmaps", "namespaces", "serviceaccounts"], &["get"]),
    (&[""], &["serviceaccounts"], &["create"]),
    (&[""], &["serviceaccounts/token"], &["create"]),
    (&["authentication.k8s.io"], &["tokenreviews"], &["create"]),
    (&["authorization.k8s.io"], &["subjectaccessreviews"], &["create"]),
];

const NODE_PROXIER: &[Rule] = &[
    (&[""], &["endpoints", "services", "nodes", "pods", "namespaces"], READ),
    (&["discovery.k8s.io"], &["endpointslices"], READ),
    EVENTS,
];

/// In kube-node-lease: a proxy tells there which revision of the services is in effect on its node.
const OBSERVED: &[Rule] = &[(&["coordination.k8s.io"], &["leases"], &["patch"])];

const DNS: &[Rule] = &[
    (&[""], &["endpoints", "services", "pods", "namespaces"], READ),
    (&["discovery.k8s.io"], &["endpointslices"], READ),
];

/// What the process needs that plays many nodes without containers: all that it writes of its nodes and their pods. It reads no
/// secrets and no configuration, for there is nobody to hand them to.
const HOLLOW_NODES: &[Rule] = &[
    EVENTS,
    (&[""], &["nodes"], &["create", "get", "patch"]),
    (&[""], &["nodes/status"], &["patch"]),
    (&["coordination.k8s.io"], &["leases"], &["create", "patch"]),
    (&[""], &["pods"], &["delete", "list", "watch"]),
    (&[""], &["pods/status"], &["patch"]),
];

/// What every controller of a cluster may do besides.
const LEADER: Rule =
    (&["coordination.k8s.io"], &["leases"], &["create", "get", "list", "patch", "update", "watch"]);

/// The controllers, each with its own identity in kube-system.
const CONTROLLERS: &[(&str, &[Rule])] = &[
    (
        "deployment-controller",
        &[
            (&["apps"], &["deployments"], &["get", "list", "patch", "update", "watch"]),
            (&["apps"], &["deployments/status"], &["patch", "update"]),
            (&["apps"], &["deployments/finalizers"], &["update"]),
            (&["apps"], &["replicasets"], &["create", "delete", "get", "list", "patch", "update", "watch"]),
            (&[""], &["pods"], &["get", "list", "update", "watch"]),
        ],
    ),
    (
        "replicaset-controller",
        &[
            (&["apps"], &["replicasets"], &["get", "list", "update", "patch", "watch"]),
            (&["apps"], &["replicasets/status"], &["patch", "update"]),
            (&["apps"], &["replicasets/finalizers"], &["update"]),
            (&[""], &["pods"], &["create", "delete", "get", "list", "patch", "update", "watch"]),
            (&[""], &["nodes"], READ),
        ],
    ),
    (
        "daemon-set-controller",
        &[
            (&["apps"], &["daemonsets"], READ),
            (&["apps"], &["daemonsets/status"], &["patch", "update"]),
            (&["apps"], &["daemonsets/finalizers"], &["update"]),
            (&[""], &["nodes"], READ),
            (&[""], &["pods"], &["create", "delete", "get", "list", "patch", "watch"]),
            (&[""], &["pods/binding"], &["create"]),
            (
                &["apps"],
                &["controllerrevisions"],
                &["create", "delete", "get", "list", "patch", "update", "watch"],
            ),
        ],
    ),
    (
        "endpoint-controller",
        &[
            (&[""], &["pods", "services"], READ),
            (&[""], &["endpoints"], &["create", "delete", "get", "list", "patch", "update", "watch"]),
            (&[""], &["endpoints/restricted"], &["create"]),
        ],
    ),
    (
        "endpointslice-controller",
        &[
            (&[""], &["nodes", "pods", "services"], READ),
            (&[""], &["services/finalizers"], &["update"]),
            (
                &["discovery.k8s.io"],
                &["endpointslices"],
                &["create", "delete", "get", "list", "patch", "update", "watch"],
            ),
        ],
    ),
    (
        "namespace-controller",
        &[
            (&[""], &["namespaces"], &["delete", "get", "list", "watch"]),
            (&[""], &["namespaces/finalize", "namespaces/status"], &["patch", "update"]),
            (&["*"], &["*"], &["delete", "deletecollection", "get", "list", "watch"]),
        ],
    ),
    (
        "custom-resource-definition-controller",
        &[
            (
                &["apiextensions.k8s.io"],
                &["customresourcedefinitions"],
                &["get", "list", "patch", "update", "watch"],
            ),
            (&["*"], &["*"], &["delete", "get", "list"]),
        ],
    ),
    (
        "generic-garbage-collector",
        &[(&["*"], &["*"], &["delete", "get", "list", "patch", "update", "watch"])],
    ),
    (
        "node-controller",
        &[
            (&[""], &["nodes"], &["delete", "get", "list", "patch", "update", "watch"]),
            (&[""], &["nodes/status"], &["patch", "update"]),
            (&[""], &["pods"], &["delete", "get", "list", "watch"]),
            (&[""], &["pods/status"], &["patch", "update"]),
            (&["coordination.k8s.io"], &["leases"], READ),
            (&["apps"], &["daemonsets"], READ),
        ],
    ),
    (
        "pod-garbage-collector",
        &[
            (&[""], &["pods"], &["delete", "list", "get", "watch"]),
            (&[""], &["nodes"], READ),
            (&[""], &["pods/status"], &["patch"]),
        ],
    ),
    (
        "service-account-controller",
        &[(&[""], &["serviceaccounts"], &["create", "get", "list", "watch"]), (&[""], &["namespaces"], READ)],
    ),
    (
        "root-ca-cert-publisher",
        &[
            (&[""], &["configmaps"], &["create", "get", "list", "update", "patch", "watch"]),
            (&[""], &["namespaces"], READ),
        ],
    ),
    (
        "taint-eviction-controller",
        &[
            (&[""], &["nodes"], READ),
            (&[""], &["pods"], &["delete", "get", "list", "watch"]),
            (&[""], &["pods/status"], &["patch"]),
        ],
    ),
    (
        "node-ipam-controller",
        &[
            (&[""], &["nodes"], &["get", "list", "patch", "update", "watch"]),
            (&[""], &["nodes/status"], &["patch"]),
        ],
    ),
    (
        "resourcequota-controller",
        &[(&["*"], &["*"], &["list", "watch"]), (&[""], &["resourcequotas/status"], &["patch", "update"])],
    ),
    (
        "clusterrole-aggregation-controller",
        &[(
            &["rbac.authorization.k8s.io"],
            &["clusterroles"],
            &["escalate", "get", "list", "patch", "update", "watch"],
        )],
    ),
];

/// Every role and binding, with its kind.
pub(super) fn all() -> Vec<(&'static str, Value)> {
    let mut all = cluster_roles();
    all.extend(bindings());
    all.extend(namespaced::all());
    for (name, rules) in CONTROLLERS {
        let role = format!("system:controller:{name}");
        let more = [EVENTS, LEADER];
        let rules = rules.iter().chain(&more).map(rule).collect();
        all.push(("ClusterRole", cluster_role(&role, rules, json!({}))));
        let subject = json!([{"kind": "ServiceAccount", "name": name, "namespace": "kube-system"}]);
        all.push(("ClusterRoleBinding", binding(&role, &role, subject)));
    }
    all
}

const DISCOVERY: &[&str] = &[
    "/api",
    "/api/*",
    "/apis",
    "/apis/*",
    "/healthz",
    "/livez",
    "/openapi",
    "/openapi/*",
    "/readyz",
    "/version",
    "/version/",
];
const MONITORING: &[&str] =
    &["/healthz", "/healthz/*", "/livez", "/livez/*", "/metrics", "/metrics/slis", "/readyz", "/readyz/*"];

fn cluster_roles() -> Vec<(&'static str, Value)> {
    let table = |rules: &[&[Rule]]| rules.iter().flat_map(|rules| rules.iter()).map(rule).collect::<Vec<_>>();
    let everything = vec![
        json!({"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}),
        json!({"nonResourceURLs": ["*"], "verbs": ["*"]}),
    ];
    let basic = vec![
        json!({"apiGroups": ["authorization.k8s.io"], "verbs": ["create"],
            "resources": ["selfsubjectaccessreviews", "selfsubjectrulesreviews"]}),
        json!({"apiGroups": ["authentication.k8s.io"], "resources": ["selfsubjectreviews"], "verbs": ["create"]}),
    ];
    let aggregate = |to: &str| json!({format!("rbac.authorization.k8s.io/aggregate-to-{to}"): "true"});
    [
        ("cluster-admin", everything, json!({})),
        ("admin", table(&[VIEW, EDIT, ADMIN, MEASURES]), json!({})),
        ("edit", table(&[VIEW, EDIT, MEASURES]), aggregate("admin")),
        ("view", table(&[VIEW, MEASURES]), aggregate("edit")),
        ("system:aggregate-to-admin", table(&[ADMIN]), aggregate("admin")),
        ("system:aggregate-to-edit", table(&[EDIT]), aggregate("edit")),
        ("system:aggregate-to-view", table(&[VIEW]), aggregate("view")),
        (
            "system:aggregated-metrics-reader",
            table(&[MEASURES]),
            json!({
                "rbac.authorization.k8s.io/aggregate-to-admin": "true",
                "rbac.authorization.k8s.io/aggregate-to-edit": "true",
                "rbac.authorization.k8s.io/aggregate-to-view": "true",
            }),
        ),
        ("system:discovery", vec![paths(DISCOVERY)], json!({})),
        (
            "system:public-info-viewer",
            vec![paths(&["/healthz", "/livez", "/readyz", "/version", "/version/", cluster::AUTHORITY])],
            json!({}),
        ),
        ("system:monitoring", vec![paths(MONITORING)], json!({})),
        (
            "system:service-account-issuer-discovery",
            vec![paths(&[
                "/.well-known/openid-configuration",
                "/.well-known/openid-configuration/",
                "/openid/v1/jwks",
                "/openid/v1/jwks/",
            ])],
            json!({}),
        ),
        ("system:basic-user", basic, json!({})),
        ("system:kube-controller-manager", table(&[CONTROLLER_MANAGER]), json!({})),
        ("system:kube-scheduler", table(&[SCHEDULER]), json!({})),
        ("system:node-proxier", table(&[NODE_PROXIER]), json!({})),
        ("system:orlop:proxy-observed", table(&[OBSERVED]), json!({})),
        ("system:kube-dns", table(&[DNS]), json!({})),
        ("system:orlop:join-node", vec![posts(cluster::JOIN_NODE)], json!({})),
        ("system:orlop:join-server", vec![posts(cluster::JOIN_SERVER)], json!({})),
        ("system:orlop:renew-certificate", vec![posts(cluster::CERTIFICATE)], json!({})),
        ("system:hollow-nodes", table(&[HOLLOW_NODES]), json!({})),
    ]
    .into_iter()
    .map(|(name, rules, labels)| ("ClusterRole", cluster_role(name, rules, labels)))
    .collect()
}

fn bindings() -> Vec<(&'static str, Value)> {
    let group =
        |name: &str| json!([{"kind": "Group", "apiGroup": "rbac.authorization.k8s.io", "name": name}]);
    let user = |name: &str| json!([{"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": name}]);
    let everyone = json!([
        {"kind": "Group", "apiGroup": "rbac.authorization.k8s.io", "name": "system:authenticated"},
        {"kind": "Group", "apiGroup": "rbac.authorization.k8s.io", "name": "system:unauthenticated"},
    ]);
    let dns = json!([{"kind": "ServiceAccount", "name": "kube-dns", "namespace": "kube-system"}]);
    [
        ("cluster-admin", "cluster-admin", group("system:masters")),
        ("system:basic-user", "system:basic-user", group("system:authenticated")),
        ("system:discovery", "system:discovery", group("system:authenticated")),
        ("system:kube-dns", "system:kube-dns", dns),
        ("system:hollow-nodes", "system:hollow-nodes", user("system:hollow-nodes")),
        (
            "system:kube-controller-manager",
            "system:kube-controller-manager",
            user("system:kube-controller-manager"),
        ),
        ("system:kube-scheduler", "system:kube-scheduler", user("system:kube-scheduler")),
        ("system:monitoring", "system:monitoring", group("system:monitoring")),
        ("system:node-proxier", "system:node-proxier", kube_proxy()),
        ("system:orlop:join-node", "system:orlop:join-node", group(cluster::NODE_BOOTSTRAPPERS)),
        ("system:orlop:join-server", "system:orlop:join-server", group(cluster::SERVER_BOOTSTRAPPERS)),
        ("system:orlop:renew-certificate", "system:orlop:renew-certificate", group(user::NODES)),
        ("system:public-info-viewer", "system:public-info-viewer", everyone),
        (
            "system:service-account-issuer-discovery",
            "system:service-account-issuer-discovery",
            group("system:serviceaccounts"),
        ),
    ]
    .into_iter()
    .map(|(name, role, subjects)| ("ClusterRoleBinding", binding(name, role, subjects)))
    .collect()
}

/// A proxy in a process of its own; that of a node agent has the node's identity.
fn kube_proxy() -> Value {
    json!([{"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": "system:kube-proxy"}])
}

fn rule((groups, resources, verbs): &Rule) -> Value {
    json!({"apiGroups": groups, "resources": resources, "verbs": verbs})
}

fn paths(urls: &[&str]) -> Value {
    json!({"nonResourceURLs": urls, "verbs": ["get"]})
}

fn posts(url: &str) -> Value {
    json!({"nonResourceURLs": [url], "verbs": ["post"]})
}

fn metadata(name: &str, labels: Value) -> Value {
    let mut labels = labels;
    labels["kubernetes.io/bootstrapping"] = "rbac-defaults".into();
    json!({"name": name, "labels": labels, "annotations": {AUTO_UPDATE: "true"}})
}

fn cluster_role(name: &str, rules: Vec<Value>, labels: Value) -> Value {
    let mut role = json!({"metadata": metadata(name, labels), "rules": rules});
    if matches!(name, "admin" | "edit" | "view") {
        let label = format!("rbac.authorization.k8s.io/aggregate-to-{name}");
        role["aggregationRule"] = json!({"clusterRoleSelectors": [{"matchLabels": {label: "true"}}]});
    }
    role
}

fn binding(name: &str, role: &str, subjects: Value) -> Value {
    json!({"metadata": metadata(name, json!({})), "subjects": subjects,
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role}})
}
