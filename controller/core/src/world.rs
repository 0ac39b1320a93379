//! Everything the planners look at, and which of them a change concerns.

mod pods;
mod quotas;
mod table;
mod triggers;

pub(crate) use self::quotas::counted;
pub(crate) use self::triggers::{orphan_group, service_group};

use std::collections::BTreeMap;
use std::sync::Arc;

use client_core::footprint::Footprint;
use client_core::lean::without_managed_fields;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet, Deployment, ReplicaSet};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{
    ConfigMap, Endpoints, Namespace, Node, PersistentVolumeClaim, Pod, ResourceQuota, Service, ServiceAccount,
};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

pub use client_core::object::ObjectKey as Key;

pub use self::pods::PodIndex;
pub use self::table::{Changed, Grouped, Table};
use crate::daemon_set::Backoffs;
use crate::definition;
use crate::garbage::{self, Graph};
use crate::namespace::Discovery;
use crate::node_ipam::{Pool, Shares};
use crate::node_lifecycle::{Monitor, Options};
use crate::object::{is_terminating, uid};
use crate::pod_gc::Missing;
use crate::write::{ResourceType, Write};

/// The controllers, by the names under which they act.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Controller {
    /// ReplicaSets.
    ReplicaSet,
    /// Deployments.
    Deployment,
    /// DaemonSets.
    DaemonSet,
    /// EndpointSlices of Services.
    EndpointSlice,
    /// Endpoints of Services.
    Endpoint,
    /// Namespaces being deleted.
    Namespace,
    /// Definitions of custom resources being deleted.
    Definition,
    /// Objects that have lost their owners.
    GarbageCollector,
    /// Signs of life of nodes.
    Node,
    /// Pods on tainted nodes.
    TaintEviction,
    /// Pods that nobody else removes.
    PodGarbageCollector,
    /// `default` ServiceAccounts.
    ServiceAccount,
    /// The CA certificate in each namespace.
    RootCa,
    /// Pod networks of nodes.
    NodeIpam,
    /// What is used of quotas.
    ResourceQuota,
}

/// A key that a controller should plan for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Work {
    /// Who.
    pub controller: Controller,
    /// What.
    pub key: Key,
}

/// Settings of the planners.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How patient the node lifecycle is.
    pub node_lifecycle: Options,
    /// The pod network handed out to nodes; None where someone else does.
    pub pod_network: Option<Pool>,
    /// The CA certificate (PEM) for every namespace; empty: none is published.
    pub root_ca: String,
    /// How many ended pods may stay.
    pub ended_pods: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            node_lifecycle: Options::default(),
            pod_network: None,
            root_ca: String::new(),
            ended_pods: 12_500,
        }
    }
}

/// The caches and memories of all planners.
pub struct World {
    /// Settings.
    pub settings: Settings,
    /// Pods.
    pub pods: Table<Pod>,
    /// Pods by node and labels.
    pub pod_index: PodIndex,
    /// ReplicaSets.
    pub replica_sets: Table<ReplicaSet>,
    /// Deployments.
    pub deployments: Table<Deployment>,
    /// DaemonSets.
    pub daemon_sets: Table<DaemonSet>,
    /// ControllerRevisions.
    pub revisions: Table<ControllerRevision>,
    /// Nodes.
    pub nodes: Table<Node>,
    /// Services.
    pub services: Table<Service>,
    /// EndpointSlices.
    pub slices: Table<EndpointSlice>,
    /// Endpoints.
    pub endpoints: Table<Endpoints>,
    /// Namespaces.
    pub namespaces: Table<Namespace>,
    /// `default` ServiceAccounts.
    pub accounts: Table<ServiceAccount>,
    /// Published CA certificates.
    pub config_maps: Table<ConfigMap>,
    /// Quotas.
    pub quotas: Table<ResourceQuota>,
    /// Claims of volumes.
    pub claims: Table<PersistentVolumeClaim>,
    /// Definitions of custom resources that wait for their objects to go.
    pub definitions: BTreeMap<Key, ObjectMeta>,
    /// Owners and dependents of every resource.
    pub graph: Graph,
    /// What the API server serves, for namespaces.
    pub discovery: Discovery,
    /// Resources by apiVersion and kind, for owner references.
    pub kinds: BTreeMap<(String, String), ResourceType>,
    pub(crate) monitor: Monitor,
    pub(crate) backoffs: Backoffs,
    pub(crate) missing: Missing,
    pub(crate) shares: Option<Shares>,
}

/// What a write of ours was.
#[derive(Clone, Debug)]
pub struct WriteKind {
    /// The resource written to.
    pub resource: ResourceType,
    /// Whether an object was deleted. One that is answered without a deletion timestamp is gone.
    pub is_deletion: bool,
}

/// A kind that the world keeps.
pub trait Tracked: Grouped {
    /// Its table.
    fn table(world: &mut World) -> &mut Table<Self>
    where
        Self: Sized;
    /// Keeps memories up to date and names whom the change concerns.
    fn changed(
        world: &mut World,
        old: Option<&Self>,
        new: Option<&Self>,
        now: Timestamp,
        work: &mut Vec<Work>,
    ) where
        Self: Sized;
}

// === impl Controller ===

impl Controller {
    /// All of them.
    pub const ALL: [Controller; 15] = [
        Controller::ReplicaSet,
        Controller::Deployment,
        Controller::DaemonSet,
        Controller::EndpointSlice,
        Controller::Endpoint,
        Controller::Namespace,
        Controller::Definition,
        Controller::GarbageCollector,
        Controller::Node,
        Controller::TaintEviction,
        Controller::PodGarbageCollector,
        Controller::ServiceAccount,
        Controller::RootCa,
        Controller::NodeIpam,
        Controller::ResourceQuota,
    ];

    /// The ServiceAccount in `kube-system` that it acts as.
    pub fn account(self) -> &'static str {
        match self {
            Controller::ReplicaSet => "replicaset-controller",
            Controller::Deployment => "deployment-controller",
            Controller::DaemonSet => "daemon-set-controller",
            Controller::EndpointSlice => "endpointslice-controller",
            Controller::Endpoint => "endpoint-controller",
            Controller::Namespace => "namespace-controller",
            Controller::Definition => "custom-resource-definition-controller",
            Controller::GarbageCollector => "generic-garbage-collector",
            Controller::Node => "node-controller",
            Controller::TaintEviction => "taint-eviction-controller",
            Controller::PodGarbageCollector => "pod-garbage-collector",
            Controller::ServiceAccount => "service-account-controller",
            Controller::RootCa => "root-ca-cert-publisher",
            Controller::NodeIpam => "node-ipam-controller",
            Controller::ResourceQuota => "resourcequota-controller",
        }
    }

    /// The component that its events name.
    pub fn component(self) -> &'static str {
        match self {
            Controller::DaemonSet => "daemonset-controller",
            Controller::EndpointSlice => "endpoint-slice-controller",
            Controller::NodeIpam => "cidrAllocator",
            other => other.account(),
        }
    }
}

impl Work {
    /// Work for one controller.
    pub fn new(controller: Controller, key: Key) -> Self {
        Work { controller, key }
    }
}

// === impl WriteKind ===

impl WriteKind {
    /// What `write` is. None for a write whose answer is no object of a planner.
    pub fn of(write: &Write) -> Option<Self> {
        match write {
            Write::Create { resource, .. } => {
                Some(WriteKind { resource: resource.clone(), is_deletion: false })
            }
            Write::Patch { target, .. } | Write::ReplaceSub { target, .. } => {
                Some(WriteKind { resource: target.resource.clone(), is_deletion: false })
            }
            Write::Delete { target, .. } => {
                Some(WriteKind { resource: target.resource.clone(), is_deletion: true })
            }
            Write::CreateSub { .. } | Write::Event(_) => None,
        }
    }
}

// === impl World ===

impl World {
    /// An empty world.
    pub fn new(settings: Settings) -> Self {
        World {
            monitor: Monitor::new(settings.node_lifecycle.clone()),
            shares: settings.pod_network.clone().map(Shares::new),
            settings,
            pods: Table::default(),
            pod_index: PodIndex::default(),
            replica_sets: Table::default(),
            deployments: Table::default(),
            daemon_sets: Table::default(),
            revisions: Table::default(),
            nodes: Table::default(),
            services: Table::default(),
            slices: Table::default(),
            endpoints: Table::default(),
            namespaces: Table::default(),
            accounts: Table::default(),
            config_maps: Table::default(),
            quotas: Table::default(),
            claims: Table::default(),
            definitions: BTreeMap::new(),
            graph: Graph::default(),
            discovery: Discovery::default(),
            kinds: BTreeMap::new(),
            backoffs: Backoffs::default(),
            missing: Missing::default(),
        }
    }

    /// The watch tells of an object.
    pub fn applied<K: Tracked>(&mut self, object: Arc<K>, now: Timestamp) -> Vec<Work> {
        let changed = K::table(self).applied(object);
        self.follow(changed, now)
    }

    /// The watch tells that an object is gone.
    pub fn deleted<K: Tracked>(&mut self, object: &K, now: Timestamp) -> Vec<Work> {
        let changed = K::table(self).deleted(object);
        self.follow(changed, now)
    }

    /// The watch could not go on, and a list of this version took its place.
    pub fn relisted<K: Tracked>(&mut self, resource_version: &str, now: Timestamp) -> Vec<Work> {
        let revision = resource_version.parse().unwrap_or(0);
        let gone = K::table(self).relisted(revision);
        gone.into_iter().flat_map(|changed| self.follow(changed, now)).collect()
    }

    /// The metadata watch of a resource tells of an object.
    pub fn applied_meta(&mut self, resource: &ResourceType, footprint: &Footprint) -> Vec<Work> {
        let mut work = self.observe(resource, garbage::Change::Applied(footprint.into()));
        if *resource == definition::resource() {
            let (key, meta) = (footprint.key(), footprint.metadata());
            self.definitions.remove(key);
            if definition::is_waiting(&meta) {
                self.definitions.insert(key.clone(), meta);
                work.push(Work::new(Controller::Definition, key.clone()));
            }
        }
        work
    }

    /// The metadata watch of a resource tells that an object is gone.
    pub fn deleted_meta(&mut self, resource: &ResourceType, footprint: &Footprint) -> Vec<Work> {
        let mut work = self.left(resource, footprint.into());
        if *resource == definition::resource() {
            self.definitions.remove(footprint.key());
        }
        let defined_by = Key::cluster(format!("{}.{}", resource.plural, resource.group));
        if self.definitions.contains_key(&defined_by) {
            work.push(Work::new(Controller::Definition, defined_by));
        }
        work
    }

    /// What the API server serves was looked up: namespaces that are being deleted may have waited for it.
    pub fn discovered(&mut self, discovery: Discovery) -> Vec<Work> {
        let waited = self.discovery.failure.is_some();
        self.discovery = discovery;
        let terminating =
            self.namespaces.iter().filter(|(_, namespace)| waited && is_terminating(&***namespace));
        terminating.map(|(key, _)| Work::new(Controller::Namespace, key.clone())).collect()
    }

    /// A namespace that is being deleted is looked at again when something in it is gone.
    fn emptied(&self, namespace: &str) -> Option<Work> {
        let key = Key::cluster(Some(namespace).filter(|namespace| !namespace.is_empty())?);
        let namespace = self.namespaces.get(&key)?;
        is_terminating(&**namespace).then(|| Work::new(Controller::Namespace, key))
    }

    /// A lease was seen. The leases of nodes are many and tell nothing but a sign of life: none is kept.
    pub fn lease_applied(&mut self, lease: &Lease, now: Timestamp) -> Vec<Work> {
        if lease.metadata.namespace.as_deref() == Some("kube-node-lease") {
            self.monitor.observe_lease(lease, now);
        }
        self.observe(&ResourceType::of::<Lease>(), garbage::Change::Applied((&lease.metadata).into()))
    }

    /// A lease is gone.
    pub fn lease_deleted(&mut self, lease: &Lease) -> Vec<Work> {
        self.left(&ResourceType::of::<Lease>(), (&lease.metadata).into())
    }

    /// The API server answered `write` of ours with `document`.
    ///
    /// What cannot be read, and what no planner looks at, is left to the watch.
    pub fn written(&mut self, write: &WriteKind, document: &[u8], now: Timestamp) -> Vec<Work> {
        let resource = &write.resource;
        macro_rules! take {
            ($($group:literal $plural:literal $kind:ty),* $(,)?) => {
                match (&*resource.group, &*resource.plural) {
                    $(($group, $plural) => self.written_as::<$kind>(write, document, now),)*
                    _ => Vec::new(),
                }
            };
        }
        take!(
            "" "pods" Pod,
            "apps" "replicasets" ReplicaSet,
            "apps" "deployments" Deployment,
            "apps" "daemonsets" DaemonSet,
            "apps" "controllerrevisions" ControllerRevision,
            "" "nodes" Node,
            "discovery.k8s.io" "endpointslices" EndpointSlice,
            "" "endpoints" Endpoints,
            "" "namespaces" Namespace,
            "" "resourcequotas" ResourceQuota,
        )
    }

    fn written_as<K: Tracked>(&mut self, write: &WriteKind, document: &[u8], now: Timestamp) -> Vec<Work> {
        // The answer to a deletion may be a Status: it has no uid.
        let Ok(document) = std::str::from_utf8(document) else { return Vec::new() };
        let Ok(object) = serde_json::from_str::<K>(&without_managed_fields(document)) else {
            return Vec::new();
        };
        let Some(uid) = object.metadata().uid.clone() else { return Vec::new() };
        let changed = if write.is_deletion && !is_terminating(&object) {
            K::table(self).removed(&Key::of_meta(object.metadata()), &uid)
        } else {
            K::table(self).written(Arc::new(object), now)
        };
        self.follow(changed, now)
    }

    /// Forgets what only our own writes told of and no watch has confirmed for minutes.
    pub fn expire(&mut self, now: Timestamp) -> Vec<Work> {
        let mut work = Vec::new();
        macro_rules! expire {
            ($($kind:ty),*) => {$(
                for changed in <$kind>::table(self).expire(now) {
                    work.extend(self.follow(changed, now));
                }
            )*};
        }
        expire!(
            Pod,
            ReplicaSet,
            Deployment,
            DaemonSet,
            ControllerRevision,
            Node,
            EndpointSlice,
            Endpoints,
            Namespace,
            ResourceQuota
        );
        work
    }

    /// Brings the graph up to date, and names whom that concerns: owners and dependents, and quotas when an object came or went.
    fn observe(&mut self, resource: &ResourceType, change: garbage::Change<'_>) -> Vec<Work> {
        let (garbage::Change::Applied(seen) | garbage::Change::Deleted(seen)) = &change;
        let (namespace, before) = (seen.namespace, self.graph.known());
        let mut work: Vec<Work> = garbage_work(self.graph.observe(resource, change)).collect();
        if self.graph.known() != before {
            work.extend(self.quotas_of(resource, namespace));
        }
        work
    }

    /// An object is gone.
    fn left(&mut self, resource: &ResourceType, gone: garbage::Seen<'_>) -> Vec<Work> {
        let namespace = gone.namespace;
        let mut work = self.observe(resource, garbage::Change::Deleted(gone));
        work.extend(self.emptied(namespace));
        work
    }

    fn follow<K: Tracked>(&mut self, changed: Changed<K>, now: Timestamp) -> Vec<Work> {
        let Some((old, new)) = changed else { return Vec::new() };
        let mut work = Vec::new();
        let resource = ResourceType::of::<K>();
        if let Some(new) = &new {
            work.extend(self.observe(&resource, garbage::Change::Applied(new.metadata().into())));
        }
        if let Some(gone) =
            old.as_ref().filter(|old| new.as_ref().is_none_or(|new| uid(&**new) != uid(&***old)))
        {
            work.extend(self.left(&resource, gone.metadata().into()));
        }
        K::changed(self, old.as_deref(), new.as_deref(), now, &mut work);
        work
    }
}

fn garbage_work(uids: Vec<Arc<str>>) -> impl Iterator<Item = Work> {
    uids.into_iter().map(|uid| Work::new(Controller::GarbageCollector, Key::cluster(uid)))
}
