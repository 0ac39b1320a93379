//! The FlowSchemas and PriorityLevelConfigurations that kube-apiserver makes: two of each that must be there, and those that it
//! suggests. Nothing here goes by them; clients list them, and charts refer to them.
//!
//! Source: <https://kubernetes.io/docs/concepts/cluster-administration/flow-control/#defaults>.

use serde_json::{Value, json};

/// Objects that say `true` here have their `spec` kept as it is here.
pub(super) const AUTO_UPDATE: &str = "apf.kubernetes.io/autoupdate-spec";

/// Those that are kept as they are here whatever they say.
pub(super) const MANDATORY: &[&str] = &["catch-all", "exempt"];

/// Name, shares, percentage that may be lent, and queues, hand size and length of a queue.
type Level = (&'static str, u32, u32, (u32, u32, u32));

const LEVELS: &[Level] = &[
    ("global-default", 20, 50, (128, 6, 50)),
    ("leader-election", 10, 0, (16, 4, 50)),
    ("node-high", 40, 25, (64, 6, 50)),
    ("system", 30, 33, (64, 6, 50)),
    ("workload-high", 40, 50, (128, 6, 50)),
    ("workload-low", 100, 90, (128, 6, 50)),
];

/// What is told apart within a FlowSchema.
const BY_USER: &str = "ByUser";
const BY_NAMESPACE: &str = "ByNamespace";
const NOTHING: &str = "";

const MASTERS: Who = Who::Groups(&["system:masters"]);
const EVERYONE: Who = Who::Groups(&["system:unauthenticated", "system:authenticated"]);
const NODES: Who = Who::Groups(&["system:nodes"]);
const SYSTEM_ACCOUNTS: Who = Who::Accounts(&[], &["*"]);
const LEASES: Resources = (&["get", "create", "update"], "coordination.k8s.io", &["leases"], false);

/// Who sends the requests.
#[derive(Clone, Copy)]
enum Who {
    Groups(&'static [&'static str]),
    /// Users, and service accounts of kube-system.
    Accounts(&'static [&'static str], &'static [&'static str]),
}

/// Verbs, group, resources, and whether those of the cluster are meant too.
type Resources = (&'static [&'static str], &'static str, &'static [&'static str], bool);

/// Which requests are meant.
#[derive(Clone, Copy)]
enum What {
    All,
    Resources(&'static [Resources]),
    /// Reads of these paths.
    Paths(&'static [&'static str]),
}

struct Schema {
    name: &'static str,
    level: &'static str,
    precedence: u32,
    apart: &'static str,
    who: Who,
    what: What,
}

const fn schema(
    (name, level, precedence): (&'static str, &'static str, u32),
    apart: &'static str,
    who: Who,
    what: What,
) -> Schema {
    Schema { name, level, precedence, apart, who, what }
}

const SCHEMAS: &[Schema] = &[
    schema(("exempt", "exempt", 1), NOTHING, MASTERS, What::All),
    schema(("probes", "exempt", 2), NOTHING, EVERYONE, What::Paths(&["/healthz", "/readyz", "/livez"])),
    schema(
        ("system-leader-election", "leader-election", 100),
        BY_USER,
        Who::Accounts(&["system:kube-controller-manager", "system:kube-scheduler"], &["*"]),
        What::Resources(&[LEASES]),
    ),
    schema(
        ("endpoint-controller", "workload-high", 150),
        BY_USER,
        Who::Accounts(
            &["system:kube-controller-manager"],
            &["endpoint-controller", "endpointslicemirroring-controller"],
        ),
        What::Resources(&[(&["get", "create", "update"], "", &["endpoints"], false)]),
    ),
    schema(
        ("workload-leader-election", "leader-election", 200),
        BY_USER,
        SYSTEM_ACCOUNTS,
        What::Resources(&[LEASES]),
    ),
    schema(
        ("system-node-high", "node-high", 400),
        BY_USER,
        NODES,
        What::Resources(&[
            (&["*"], "", &["nodes", "nodes/status"], true),
            (&["*"], "coordination.k8s.io", &["leases"], false),
        ]),
    ),
    schema(("system-nodes", "system", 500), BY_USER, NODES, What::All),
    schema(
        ("kube-controller-manager", "workload-high", 800),
        BY_NAMESPACE,
        Who::Accounts(&["system:kube-controller-manager"], &[]),
        What::All,
    ),
    schema(
        ("kube-scheduler", "workload-high", 800),
        BY_NAMESPACE,
        Who::Accounts(&["system:kube-scheduler"], &[]),
        What::All,
    ),
    schema(("kube-system-service-accounts", "workload-high", 900), BY_NAMESPACE, SYSTEM_ACCOUNTS, What::All),
    schema(
        ("service-accounts", "workload-low", 9000),
        BY_USER,
        Who::Groups(&["system:serviceaccounts"]),
        What::All,
    ),
    schema(("global-default", "global-default", 9900), BY_USER, EVERYONE, What::All),
    schema(("catch-all", "catch-all", 10000), BY_USER, EVERYONE, What::All),
];

fn metadata(name: &str) -> Value {
    json!({"name": name, "annotations": {AUTO_UPDATE: "true"}})
}

/// The priority levels.
pub(super) fn levels() -> Vec<Value> {
    let level = |name: &str, spec: Value| json!({"metadata": metadata(name), "spec": spec});
    let limited = |shares: u32, lent: u32, response: Value| {
        json!({"type": "Limited", "limited":
            {"nominalConcurrencyShares": shares, "lendablePercent": lent, "limitResponse": response}})
    };
    let queue = |(queues, hand_size, length): (u32, u32, u32)| {
        json!({"type": "Queue", "queuing":
            {"queues": queues, "handSize": hand_size, "queueLengthLimit": length}})
    };
    let suggested = LEVELS
        .iter()
        .map(|(name, shares, lent, queues)| level(name, limited(*shares, *lent, queue(*queues))));
    let exempt = json!({"type": "Exempt", "exempt": {"nominalConcurrencyShares": 0, "lendablePercent": 0}});
    let mandatory = [level("exempt", exempt), level("catch-all", limited(5, 0, json!({"type": "Reject"})))];
    mandatory.into_iter().chain(suggested).collect()
}

/// The FlowSchemas, as of a time in the form of the API.
pub(super) fn schemas(time: &str) -> Vec<Value> {
    SCHEMAS.iter().map(|schema| schema.object(time)).collect()
}

// === impl Schema ===

impl Schema {
    fn object(&self, time: &str) -> Value {
        let mut rules = self.what.rules();
        rules["subjects"] = self.who.subjects();
        let mut spec = json!({
            "priorityLevelConfiguration": {"name": self.level},
            "matchingPrecedence": self.precedence,
            "rules": [rules],
        });
        if self.apart != NOTHING {
            spec["distinguisherMethod"] = json!({"type": self.apart});
        }
        let found = format!(
            "This FlowSchema references the PriorityLevelConfiguration object named {:?} and it exists",
            self.level
        );
        json!({"metadata": metadata(self.name), "spec": spec, "status": {"conditions": [
            {"type": "Dangling", "status": "False", "reason": "Found", "message": found,
                "lastTransitionTime": time}]}})
    }
}

// === impl Who ===

impl Who {
    fn subjects(self) -> Value {
        let user = |name: &&str| json!({"kind": "User", "user": {"name": name}});
        let group = |name: &&str| json!({"kind": "Group", "group": {"name": name}});
        let account = |name: &&str| json!({"kind": "ServiceAccount", "serviceAccount": {"name": name, "namespace": "kube-system"}});
        match self {
            Who::Groups(names) => names.iter().map(group).collect(),
            Who::Accounts(users, accounts) => {
                users.iter().map(user).chain(accounts.iter().map(account)).collect()
            }
        }
    }
}

// === impl What ===

impl What {
    fn rules(self) -> Value {
        let rule = |(verbs, group, resources, of_cluster): &Resources| {
            let mut rule = json!({"verbs": verbs, "apiGroups": [group], "resources": resources,
                "namespaces": ["*"]});
            if *of_cluster {
                rule["clusterScope"] = true.into();
            }
            rule
        };
        match self {
            What::All => json!({
                "resourceRules": [rule(&(&["*"], "*", &["*"], true))],
                "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
            }),
            What::Resources(rules) => json!({"resourceRules": rules.iter().map(rule).collect::<Vec<_>>()}),
            What::Paths(paths) => json!({"nonResourceRules": [{"verbs": ["get"], "nonResourceURLs": paths}]}),
        }
    }
}
