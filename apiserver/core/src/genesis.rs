//! What every cluster has from the start, reconciled each time a server starts.
//!
//! Planned again on its own result it returns nothing.

use std::net::IpAddr;

use api::catalogue::{Catalogue, Resource};
use bytes::Bytes;
use jiff::Timestamp;
use serde_json::{Value, json};
use store_core::{Compare, Expect, Op, Snapshot, Txn, Value as Stored};

use crate::config::Config;
use crate::ids::Ids;
use crate::kinds::{self, Part, Writer};
use crate::object::{self, meta};
use crate::{keys, update};

mod roles;

const NAMESPACES: &[&str] = &["default", "kube-node-lease", "kube-public", "kube-system"];
const MANAGER: &str = "orlop-apiserver";

/// The transactions that give a cluster what it must have; none when nothing is missing.
pub fn plan(snapshot: &Snapshot, config: &Config, now: Timestamp, ids: &mut Ids<'_>) -> Vec<Txn> {
    let mut genesis = Genesis { snapshot, now, ids, txns: Vec::new() };
    for name in NAMESPACES {
        genesis.create("v1", "Namespace", json!({"metadata": {"name": name}}));
    }
    for class in priority_classes() {
        genesis.create("scheduling.k8s.io/v1", "PriorityClass", class);
    }
    for (kind, role) in roles::all() {
        genesis.role(kind, role);
    }
    genesis.kubernetes_service(config);
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
    fn key(&self, resource: &Resource, object: &Value) -> Bytes {
        keys::object(&resource.group, &resource.plural, meta(object, "namespace"), meta(object, "name"))
    }

    /// Creates an object where its name is free.
    fn create(&mut self, api_version: &str, kind: &str, object: Value) {
        let Some(resource) = Catalogue::builtin().by_type(api_version, kind) else { return };
        if self.snapshot.get(&self.key(resource, &object)).is_none() {
            let txn = self.creation(resource, object);
            self.txns.push(txn);
        }
    }

    fn creation(&mut self, resource: &Resource, object: Value) -> Txn {
        let mut object = self.typed(resource, object);
        kinds::default(resource, &mut object);
        kinds::prepare_create(resource, &mut object, &self.ids.uid(), self.now);
        kinds::track(
            resource,
            None,
            &mut object,
            &Writer { manager: MANAGER, part: Part::Main, now: self.now },
        );
        let key = self.key(resource, &object);
        let compares = vec![Compare { key: key.clone(), expect: Expect::Absent }];
        let ops = vec![Op::Put { key, value: object::encode(&mut object), expires_at_ms: None }];
        Txn { compares, ops }
    }

    fn typed(&self, resource: &Resource, mut object: Value) -> Value {
        object["apiVersion"] = resource.api_version().into_owned().into();
        object["kind"] = resource.kind.clone().into_owned().into();
        object
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
        let key = self.key(resource, &object);
        let Some(entry) = self.snapshot.get(&key) else {
            let txn = self.creation(resource, object);
            return self.txns.push(txn);
        };
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
        let copy = |field: &'static str| {
            move |stored: &mut Value, wanted: &Value| stored[field] = wanted[field].clone()
        };
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
