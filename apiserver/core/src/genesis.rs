//! What every cluster has: from the start, reconciled each time a server starts ([`plan`]), and for as long as it runs ([`keep`]).
//!
//! Planned again on its own result each returns nothing.

use std::collections::BTreeSet;
use std::net::IpAddr;

use api::catalogue::{Catalogue, Resource};
use bytes::Bytes;
use jiff::Timestamp;
use serde_json::{Value, json};
use store_core::{Compare, Entry, Expect, Op, Snapshot, Txn, Value as Stored};

use crate::config::Config;
use crate::ids::Ids;
use crate::kinds::{self, Part, Writer};
use crate::object;
use crate::own::{self, MANAGER};
use crate::service::Owner;
use crate::{Derived, keys, scan, update};

mod flow_control;
mod published;
mod registrations;
mod roles;

const NAMESPACES: &[&str] = &["default", "kube-node-lease", "kube-public", "kube-system"];

/// Whatever comes or goes below these prefixes may be something that is to be kept.
const WATCHED: &[&str] = &[
    "/apiregistration.k8s.io/apiservices/",
    "/core/configmaps/kube-public/",
    "/core/configmaps/kube-system/",
    "/core/namespaces/",
    "/core/services/default/",
    "/flowcontrol.apiserver.k8s.io/flowschemas/",
    "/flowcontrol.apiserver.k8s.io/prioritylevelconfigurations/",
    "/networking.k8s.io/ipaddresses/",
    "/networking.k8s.io/servicecidrs/",
];

/// What is kept in step with more than the state of the cluster.
pub struct Kept<'a> {
    /// The settings of the cluster.
    pub config: &'a Config,
    /// Indexes of the state, or of one close to it: what is served.
    pub derived: &'a Derived,
    /// The certificates of the cluster's authority, in PEM.
    pub authority: &'a str,
}

/// What tells cheaply that something may have to be done: while it stays the same, hardly anything has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Marks(Vec<u64>);

/// The marks of a state.
pub fn marks(derived: &Derived) -> Marks {
    let counts = WATCHED.iter().map(|prefix| derived.count_of(prefix));
    Marks(std::iter::once(derived.customs().revision()).chain(counts).collect())
}

/// The transactions that bring back what a cluster must not be without, and that keep what tells of the cluster true; none when
/// nothing is to be done.
pub fn keep(snapshot: &Snapshot, kept: &Kept<'_>, now: Timestamp, ids: &mut Ids<'_>) -> Vec<Txn> {
    let mut genesis = Genesis { snapshot, now, ids, txns: Vec::new() };
    genesis.basics(kept.config);
    for (kind, role) in roles::namespaced::all() {
        genesis.role(kind, role);
    }
    genesis.registrations(registrations::wanted(&kept.derived.groups()));
    genesis.service_addresses();
    let mut published = vec![published::authentication(kept.authority)];
    published.extend(published::cluster_info(kept.config, kept.authority));
    for map in published {
        genesis.reconcile("v1", "ConfigMap", map, copy("data"));
    }
    genesis.txns
}

/// The transactions that give a cluster what it must have; none when nothing is missing.
pub fn plan(snapshot: &Snapshot, config: &Config, now: Timestamp, ids: &mut Ids<'_>) -> Vec<Txn> {
    let mut genesis = Genesis { snapshot, now, ids, txns: Vec::new() };
    genesis.basics(config);
    for class in priority_classes() {
        genesis.create("scheduling.k8s.io/v1", "PriorityClass", class);
    }
    for (kind, role) in roles::all() {
        genesis.role(kind, role);
    }
    genesis.txns
}

/// The transactions that make these addresses the endpoints of `default/kubernetes`; none when they are.
pub fn endpoints(
    snapshot: &Snapshot,
    servers: &[(IpAddr, u16)],
    now: Timestamp,
    ids: &mut Ids<'_>,
) -> Vec<Txn> {
    let mut genesis = Genesis { snapshot, now, ids, txns: Vec::new() };
    genesis.endpoints(servers);
    genesis.txns
}

/// Takes one field as it is wanted.
fn copy(field: &'static str) -> impl Fn(&mut Value, &Value) {
    move |stored, wanted| stored[field] = wanted[field].clone()
}

fn priority_classes() -> [Value; 2] {
    let class = |name: &str, value: i64, description: &str| json!({"metadata": {"name": name}, "value": value, "description": description});
    [
        class(
            "system-cluster-critical",
            2_000_000_000,
            "Used for system critical pods that must run in the cluster, but can be moved to another node if necessary.",
        ),
        class(
            "system-node-critical",
            2_000_001_000,
            "Used for system critical pods that must not be moved from their current node.",
        ),
    ]
}

struct Genesis<'a, 'i, 'r> {
    snapshot: &'a Snapshot,
    now: Timestamp,
    ids: &'i mut Ids<'r>,
    txns: Vec<Txn>,
}

// === impl Genesis ===

impl Genesis<'_, '_, '_> {
    fn basics(&mut self, config: &Config) {
        for name in NAMESPACES {
            self.create("v1", "Namespace", json!({"metadata": {"name": name}}));
        }
        self.kubernetes_service(config);
        self.service_range(config);
        self.flow_control();
    }

    /// Creates an object where its name is free.
    fn create(&mut self, api_version: &str, kind: &str, object: Value) {
        let Some(resource) = Catalogue::builtin().by_type(api_version, kind) else { return };
        if self.snapshot.get(&own::key(resource, &object)).is_none() {
            self.add(resource, object);
        }
    }

    /// Plans a new object. In a namespace that is being emptied nothing is made: it is made when the namespace has come back.
    fn add(&mut self, resource: &Resource, object: Value) {
        let namespace = keys::object("", "namespaces", "", object::meta(&object, "namespace"));
        let ends = |entry: &Entry| scan::locate(&entry.value, &["metadata", "deletionTimestamp"]).is_some();
        if self.snapshot.get(&namespace).is_some_and(ends) {
            return;
        }
        let compares = vec![Compare { key: own::key(resource, &object), expect: Expect::Absent }];
        let ops = vec![own::creation(resource, object, &self.ids.uid(), self.now)];
        self.txns.push(Txn { compares, ops });
    }

    /// Creates an object, or brings it to `change`'s result where that differs.
    fn reconcile(
        &mut self,
        api_version: &str,
        kind: &str,
        object: Value,
        change: impl Fn(&mut Value, &Value),
    ) {
        let Some(resource) = Catalogue::builtin().by_type(api_version, kind) else { return };
        let key = own::key(resource, &object);
        let Some(entry) = self.snapshot.get(&key) else { return self.add(resource, object) };
        let Some(old) = object::parse(&entry.value) else { return };
        let mut new = old.clone();
        change(&mut new, &object);
        kinds::default(resource, &mut new);
        if update::same(&new, &old) {
            return;
        }
        kinds::prepare_update(resource, Part::Main, &mut new, &old, self.now);
        kinds::track(
            resource,
            Some(&old),
            &mut new,
            &Writer { manager: MANAGER, part: Part::Main, now: self.now },
        );
        let compares = vec![Compare { key: key.clone(), expect: Expect::Revision(entry.revision) }];
        let ops = vec![Op::Put { key, value: object::encode(&mut new), expires_at_ms: None }];
        self.txns.push(Txn { compares, ops });
    }

    /// Roles and bindings keep what was added to them; what was taken away comes back, unless the object says no.
    fn role(&mut self, kind: &str, role: Value) {
        self.reconcile("rbac.authorization.k8s.io/v1", kind, role, |stored, wanted| {
            if stored["metadata"]["annotations"][roles::AUTO_UPDATE] == "false" {
                return;
            }
            for field in ["labels", "annotations"] {
                if let Some(wanted) = wanted["metadata"][field].as_object() {
                    object::map_child(object::meta_mut(stored), field).extend(wanted.clone());
                }
            }
            for list in ["rules", "subjects"] {
                let missing: Vec<Value> = object::items(&wanted[list])
                    .iter()
                    .filter(|item| !object::items(&stored[list]).contains(item))
                    .cloned()
                    .collect();
                if !missing.is_empty() {
                    if !stored[list].is_array() {
                        stored[list] = json!([]);
                    }
                    if let Value::Array(items) = &mut stored[list] {
                        items.extend(missing);
                    }
                }
            }
        });
    }

    /// The service `default/kubernetes` on the first address of the range, and the addresses set aside.
    fn kubernetes_service(&mut self, config: &Config) {
        let first = config.service_cidr.nth(1).to_string();
        let claim = keys::service_ip(&first);
        let before = self.txns.len();
        self.create(
            "v1",
            "Service",
            json!({"metadata": {"name": "kubernetes", "namespace": "default",
                    "labels": {"component": "apiserver", "provider": "kubernetes"}},
                "spec": {"type": "ClusterIP", "clusterIP": first, "clusterIPs": [first], "ipFamilies": ["IPv4"],
                    "ipFamilyPolicy": "SingleStack", "sessionAffinity": "None",
                    "ports": [{"name": "https", "port": 443, "protocol": "TCP",
                        "targetPort": config.advertise.first().map_or(6443, |(_, port)| *port)}]}}),
        );
        if let Some(txn) = self.txns.get_mut(before) {
            txn.ops.push(Op::Put {
                key: claim,
                value: Stored::plain("default/kubernetes"),
                expires_at_ms: None,
            });
        }
    }

    /// The ServiceCIDR of the cluster's range.
    fn service_range(&mut self, config: &Config) {
        self.create(
            "networking.k8s.io/v1",
            "ServiceCIDR",
            json!({"metadata": {"name": "kubernetes", "finalizers": ["networking.k8s.io/service-cidr-finalizer"]},
                "spec": {"cidrs": [config.service_cidr.to_string()]},
                "status": {"conditions": [{"type": "Ready", "status": "True", "reason": "",
                    "message": "Kubernetes Service CIDR is ready",
                    "lastTransitionTime": api::time::format(self.now)}]}}),
        );
    }

    /// The IPAddresses of claimed addresses that have none.
    fn service_addresses(&mut self) {
        let snapshot = self.snapshot;
        for (claim, entry) in snapshot.prefix(keys::SERVICE_IPS) {
            let Some(address) = keys::claimed_ip(claim) else { continue };
            let key = keys::ip_address(address);
            let owner = std::str::from_utf8(&entry.value).ok().and_then(Owner::parse);
            let (Some(owner), None) = (owner, snapshot.get(&key)) else { continue };
            let compares = vec![
                Compare { key: claim.clone(), expect: Expect::Revision(entry.revision) },
                Compare { key, expect: Expect::Absent },
            ];
            let ops = own::ip_address(address, &owner, &self.ids.uid(), self.now);
            self.txns.push(Txn { compares, ops: ops.into_iter().collect() });
        }
    }

    fn flow_control(&mut self) {
        const VERSION: &str = "flowcontrol.apiserver.k8s.io/v1";
        // What was changed by hand stays, where it may and its owner says so.
        let spec = |stored: &mut Value, wanted: &Value| {
            let is_mandatory = flow_control::MANDATORY.iter().any(|name| wanted["metadata"]["name"] == *name);
            if is_mandatory || stored["metadata"]["annotations"][flow_control::AUTO_UPDATE] == "true" {
                stored["spec"] = wanted["spec"].clone();
            }
        };
        for level in flow_control::levels() {
            self.reconcile(VERSION, "PriorityLevelConfiguration", level, spec);
        }
        for schema in flow_control::schemas(&api::time::format(self.now)) {
            self.reconcile(VERSION, "FlowSchema", schema, spec);
        }
    }

    /// Brings back missing APIServices, and takes those away whose versions are not served any more.
    fn registrations(&mut self, wanted: Vec<Value>) {
        let snapshot = self.snapshot;
        let label = |object: &Value| object["metadata"]["labels"][registrations::LABEL].clone();
        let key = |name: &str| keys::object("apiregistration.k8s.io", "apiservices", "", name);
        let names: BTreeSet<Bytes> = wanted.iter().map(|object| key(object::meta(object, "name"))).collect();
        for object in wanted {
            self.reconcile("apiregistration.k8s.io/v1", "APIService", object, |stored, wanted| {
                if label(stored).is_string() {
                    stored["spec"] = wanted["spec"].clone();
                }
            });
        }
        for (key, entry) in snapshot.prefix(&key("")).filter(|(key, _)| !names.contains(*key)) {
            let is_ours =
                object::parse(&entry.value).is_some_and(|object| label(&object) == registrations::PASSING);
            if is_ours {
                self.txns.push(Txn {
                    compares: vec![Compare { key: key.clone(), expect: Expect::Revision(entry.revision) }],
                    ops: vec![Op::Delete { key: key.clone() }],
                });
            }
        }
    }

    /// The endpoints of `default/kubernetes`. One slice has one port for all: servers with another port than the first
    /// are left out.
    fn endpoints(&mut self, servers: &[(IpAddr, u16)]) {
        let Some((_, port)) = servers.first() else { return };
        let mut addresses: Vec<String> = servers
            .iter()
            .filter(|(ip, its)| matches!(ip, IpAddr::V4(_)) && its == port)
            .map(|(ip, _)| ip.to_string())
            .collect();
        addresses.sort_unstable();
        let ips: Vec<Value> = addresses.iter().map(|ip| json!({"ip": ip})).collect();
        let ports = json!([{"name": "https", "port": port, "protocol": "TCP"}]);
        self.reconcile(
            "v1",
            "Endpoints",
            json!({"metadata": {"name": "kubernetes", "namespace": "default",
                    "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"}},
                "subsets": [{"addresses": ips, "ports": ports}]}),
            copy("subsets"),
        );
        let endpoints: Vec<Value> =
            addresses.iter().map(|ip| json!({"addresses": [ip], "conditions": {"ready": true}})).collect();
        self.reconcile(
            "discovery.k8s.io/v1",
            "EndpointSlice",
            json!({"metadata": {"name": "kubernetes", "namespace": "default",
                    "labels": {"kubernetes.io/service-name": "kubernetes"}},
                "addressType": "IPv4", "ports": ports, "endpoints": endpoints}),
            move |stored, wanted| {
                stored["endpoints"] = wanted["endpoints"].clone();
                stored["ports"] = wanted["ports"].clone();
            },
        );
    }
}
