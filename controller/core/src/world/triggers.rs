//! Whom a change concerns. A change that no planner's answer can depend on concerns nobody: heartbeats of
//! nodes and pods cost no planning.

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet, Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::{
    ConfigMap, Endpoints, Namespace, Node, PersistentVolumeClaim, Pod, ResourceQuota, Service,
    ServiceAccount, Taint,
};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use super::quotas::is_used_otherwise;
use super::{Controller, Grouped, Key, Table, Tracked, Work, World};
use crate::endpoints::{is_relevant_change, managed_selector};
use crate::namespaced_defaults::{DEFAULT_ACCOUNT, ROOT_CA};
use crate::node_lifecycle::{condition, is_node_ready};
use crate::object::{controller_ref, is_terminating, label, name, namespace, uid};
use crate::pod::{self, node_name};
use crate::selector::{map_matches, matches};
use crate::write::ResourceType;
use crate::{taint_eviction, tolerate};

/// The group of what a controller owns, or of what nobody owns in a namespace.
fn owner_group(meta: &ObjectMeta) -> String {
    match controller_ref(meta) {
        Some(owner) => owner.uid.clone(),
        None => orphan_group(meta.namespace.as_deref().unwrap_or_default()),
    }
}

/// The group of what nobody owns in a namespace.
pub(crate) fn orphan_group(namespace: &str) -> String {
    format!("orphans/{namespace}")
}

/// The group of the slices of a Service.
pub(crate) fn service_group(namespace: &str, service: &str) -> String {
    format!("{namespace}/{service}")
}

/// The owners, before and after, of one kind.
fn owners<'a>(
    old: Option<&'a ObjectMeta>,
    new: Option<&'a ObjectMeta>,
    kind: &'a str,
) -> impl Iterator<Item = &'a OwnerReference> {
    let old = old.and_then(controller_ref);
    let new = new.and_then(controller_ref).filter(|new| old.is_none_or(|old| old.uid != new.uid));
    old.into_iter().chain(new).filter(move |owner| owner.kind == kind)
}

macro_rules! grouped_by_owner {
    ($($kind:ty),*) => {$(
        impl Grouped for $kind {
            fn group(&self) -> Option<String> {
                Some(owner_group(&self.metadata))
            }
        }
    )*};
}

grouped_by_owner!(Pod, ReplicaSet, ControllerRevision);

macro_rules! ungrouped {
    ($($kind:ty),*) => {$(impl Grouped for $kind {})*};
}

ungrouped!(
    Deployment,
    DaemonSet,
    Node,
    Service,
    Endpoints,
    Namespace,
    ServiceAccount,
    ConfigMap,
    ResourceQuota,
    PersistentVolumeClaim
);

impl Grouped for EndpointSlice {
    fn group(&self) -> Option<String> {
        let service = label(&self.metadata, "kubernetes.io/service-name")?;
        Some(service_group(namespace(self), service))
    }
}

// === impl Tracked ===

impl Tracked for Pod {
    fn table(world: &mut World) -> &mut Table<Self> {
        &mut world.pods
    }

    fn changed(
        world: &mut World,
        old: Option<&Self>,
        new: Option<&Self>,
        _now: Timestamp,
        work: &mut Vec<Work>,
    ) {
        world.pod_index.changed(old, new);
        let Some(any) = new.or(old) else { return };
        let place = namespace(any);
        if old.zip(new).is_some_and(|(old, new)| is_used_otherwise(old, new)) {
            work.extend(world.quotas_of(&ResourceType::of::<Pod>(), place));
        }
        if let (Some(old), Some(new)) = (old, new)
            && is_same_to_owners(old, new)
        {
            return pods_of_nodes(world, Some(old), Some(new), work);
        }
        let (old_meta, new_meta) = (old.map(|pod| &pod.metadata), new.map(|pod| &pod.metadata));
        for owner in owners(old_meta, new_meta, "ReplicaSet") {
            let key = Key::new(place, owner.name.as_str());
            recreated(world, &key, old, new, work);
            work.push(Work::new(Controller::ReplicaSet, key));
        }
        for owner in owners(old_meta, new_meta, "DaemonSet") {
            work.push(Work::new(Controller::DaemonSet, Key::new(place, owner.name.as_str())));
        }
        if let Some(orphan) = new.filter(|new| controller_ref(&new.metadata).is_none()) {
            adopters(world, orphan, work);
        }
        if old.zip(new).is_none_or(|(old, new)| is_relevant_change(old, new)) {
            for service in world.services.in_namespace(place) {
                let Some(selector) = managed_selector(service) else { continue };
                let selected = |pod: Option<&Pod>| {
                    pod.is_some_and(|pod| map_matches(selector, pod.metadata.labels.as_ref()))
                };
                if selected(old) || selected(new) {
                    let key = Key::new(place, name(&**service));
                    work.push(Work::new(Controller::EndpointSlice, key.clone()));
                    work.push(Work::new(Controller::Endpoint, key));
                }
            }
        }
        pods_of_nodes(world, old, new, work);
    }
}

/// Whether no owner's answer depends on the difference.
fn is_same_to_owners(old: &Pod, new: &Pod) -> bool {
    !is_relevant_change(old, new)
        && pod::phase(old) == pod::phase(new)
        && old.metadata.owner_references == new.metadata.owner_references
        && old.metadata.annotations == new.metadata.annotations
        && pod::ready_since(old) == pod::ready_since(new)
}

/// A Deployment that recreates waits for the end of its old pods.
fn recreated(world: &World, set: &Key, old: Option<&Pod>, new: Option<&Pod>, work: &mut Vec<Work>) {
    let ended = new.is_none_or(pod::is_terminal) && old.is_some_and(|old| !pod::is_terminal(old));
    if !ended {
        return;
    }
    let Some(set) = world.replica_sets.get(set) else { return };
    let Some(owner) = controller_ref(&set.metadata).filter(|owner| owner.kind == "Deployment") else {
        return;
    };
    let key = Key::new(namespace(&**set), owner.name.as_str());
    let recreates = world.deployments.get(&key).is_some_and(|deployment| {
        deployment.spec.strategy.as_ref().and_then(|strategy| strategy.type_.as_deref()) == Some("Recreate")
    });
    if recreates {
        work.push(Work::new(Controller::Deployment, key));
    }
}

fn adopters(world: &World, orphan: &Pod, work: &mut Vec<Work>) {
    let place = namespace(orphan);
    let labels = orphan.metadata.labels.as_ref();
    for set in world.replica_sets.in_namespace(place).filter(|set| matches(&set.spec.selector, labels)) {
        work.push(Work::new(Controller::ReplicaSet, Key::new(place, name(&**set))));
    }
    for set in world.daemon_sets.in_namespace(place).filter(|set| matches(&set.spec.selector, labels)) {
        work.push(Work::new(Controller::DaemonSet, Key::new(place, name(&**set))));
    }
}

/// What a pod means to those who look after nodes.
fn pods_of_nodes(world: &World, old: Option<&Pod>, new: Option<&Pod>, work: &mut Vec<Work>) {
    let Some(new) = new else { return };
    let key = Key::of_meta(&new.metadata);
    if is_terminating(new) && node_name(new).is_none() {
        work.push(Work::new(Controller::PodGarbageCollector, key));
        return;
    }
    if pod::is_terminal(new)
        && !old.is_some_and(pod::is_terminal)
        && world.pod_index.ended() > world.settings.ended_pods
    {
        work.push(Work::new(Controller::PodGarbageCollector, Key::cluster("")));
    }
    let Some(bound) = node_name(new) else { return };
    let node_key = Key::cluster(bound);
    let Some(node) = world.nodes.get(&node_key) else {
        if old.and_then(node_name).is_none() {
            work.push(Work::new(Controller::PodGarbageCollector, node_key));
        }
        return;
    };
    let turned_ready = pod::is_ready(new) && !old.is_some_and(pod::is_ready);
    if turned_ready && condition(node, "Ready").is_some_and(|ready| ready.status != "True") {
        work.push(Work::new(Controller::Node, node_key.clone()));
    }
    if old.and_then(node_name).is_none() && taint_eviction::evicts(node) {
        work.push(Work::new(Controller::TaintEviction, node_key.clone()));
    }
    if is_terminating(new) && !old.is_some_and(is_terminating) && !is_node_ready(node) {
        work.push(Work::new(Controller::PodGarbageCollector, node_key));
    }
}

impl Tracked for ReplicaSet {
    fn table(world: &mut World) -> &mut Table<Self> {
        &mut world.replica_sets
    }

    fn changed(
        world: &mut World,
        old: Option<&Self>,
        new: Option<&Self>,
        _now: Timestamp,
        work: &mut Vec<Work>,
    ) {
        let Some(any) = new.or(old) else { return };
        let place = namespace(any);
        work.push(Work::new(Controller::ReplicaSet, Key::new(place, name(any))));
        for owner in owners(old.map(|set| &set.metadata), new.map(|set| &set.metadata), "Deployment") {
            work.push(Work::new(Controller::Deployment, Key::new(place, owner.name.as_str())));
        }
        if let Some(orphan) = new.filter(|new| controller_ref(&new.metadata).is_none()) {
            let labels = orphan.metadata.labels.as_ref();
            for deployment in world.deployments.in_namespace(place) {
                if matches(&deployment.spec.selector, labels) {
                    work.push(Work::new(Controller::Deployment, Key::new(place, name(&**deployment))));
                }
            }
        }
    }
}

impl Tracked for Deployment {
    fn table(world: &mut World) -> &mut Table<Self> {
        &mut world.deployments
    }

    fn changed(_: &mut World, old: Option<&Self>, new: Option<&Self>, _now: Timestamp, work: &mut Vec<Work>) {
        if let Some(any) = new.or(old) {
            work.push(Work::new(Controller::Deployment, Key::of_meta(&any.metadata)));
        }
    }
}

impl Tracked for DaemonSet {
    fn table(world: &mut World) -> &mut Table<Self> {
        &mut world.daemon_sets
    }

    fn changed(
        world: &mut World,
        old: Option<&Self>,
        new: Option<&Self>,
        _now: Timestamp,
        work: &mut Vec<Work>,
    ) {
        match (old, new) {
            (Some(old), None) => world.backoffs.forget(uid(old)),
            (_, Some(new)) => work.push(Work::new(Controller::DaemonSet, Key::of_meta(&new.metadata))),
            (None, None) => {}
        }
    }
}

impl Tracked for ControllerRevision {
    fn table(world: &mut World) -> &mut Table<Self> {
        &mut world.revisions
    }

    fn changed(_: &mut World, old: Option<&Self>, new: Option<&Self>, _now: Timestamp, work: &mut Vec<Work>) {
        let Some(any) = new.or(old) else { return };
        for owner in owners(old.map(|each| &each.metadata), new.map(|each| &each.metadata), "DaemonSet") {
            work.push(Work::new(Controller::DaemonSet, Key::new(namespace(any), owner.name.as_str())));
        }
    }
}

impl Tracked for Node {
    fn table(world: &mut World) -> &mut Table<Self> {
        &mut world.nodes
    }

    fn changed(
        world: &mut World,
        old: Option<&Self>,
        new: Option<&Self>,
        now: Timestamp,
        work: &mut Vec<Work>,
    ) {
        let Some(any) = new.or(old) else { return };
        let key = Key::cluster(name(any));
        match new {
            Some(new) => {
                if world.monitor.observe_node(new, now) {
                    work.extend(world.nodes.iter().map(|(key, _)| Work::new(Controller::Node, key.clone())));
                }
                world.missing.found(name(new));
                if let Some(shares) = &mut world.shares {
                    shares.observe(new);
                    if new.spec.as_ref().and_then(|spec| spec.pod_cidr.as_ref()).is_none() {
                        work.push(Work::new(Controller::NodeIpam, key.clone()));
                    }
                }
            }
            None => {
                world.monitor.forget(name(any));
                if let Some(shares) = &mut world.shares {
                    shares.forget(name(any));
                }
                work.push(Work::new(Controller::PodGarbageCollector, key.clone()));
            }
        }
        if is_moved(old, new) {
            let sets = world.daemon_sets.iter().map(|(key, _)| Work::new(Controller::DaemonSet, key.clone()));
            work.extend(sets);
        }
        let zone = |node: Option<&Node>| {
            node.and_then(|node| label(&node.metadata, "topology.kubernetes.io/zone").map(str::to_owned))
        };
        if zone(old) != zone(new) {
            zone_changed(world, name(any), work);
        }
        if new.is_none() || states(old) == states(new) {
            return;
        }
        work.push(Work::new(Controller::Node, key.clone()));
        if new.is_some_and(taint_eviction::evicts) {
            work.push(Work::new(Controller::TaintEviction, key.clone()));
        }
        if new.is_some_and(|new| !is_node_ready(new)) {
            work.push(Work::new(Controller::PodGarbageCollector, key));
        }
    }
}

/// Whether other pods may belong on the node.
fn is_moved(old: Option<&Node>, new: Option<&Node>) -> bool {
    match (old, new) {
        (Some(old), Some(new)) => {
            let taints = |node: &Node| {
                let all = tolerate::taints(node).iter();
                all.map(|taint| (taint.key.clone(), taint.value.clone(), taint.effect.clone()))
                    .collect::<Vec<_>>()
            };
            old.metadata.labels != new.metadata.labels || taints(old) != taints(new)
        }
        _ => true,
    }
}

/// Conditions with their states, taints, whether it is cordoned.
type States<'a> = (Vec<(&'a str, &'a str)>, &'a [Taint], bool);

/// What the lifecycle of a node depends on, apart from heartbeats.
fn states(node: Option<&Node>) -> Option<States<'_>> {
    let node = node?;
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    let conditions = conditions.iter().map(|each| (each.type_.as_str(), each.status.as_str())).collect();
    let unschedulable = node.spec.as_ref().and_then(|spec| spec.unschedulable).unwrap_or(false);
    Some((conditions, tolerate::taints(node), unschedulable))
}

/// The slices of Services with pods on the node name its zone.
fn zone_changed(world: &World, node: &str, work: &mut Vec<Work>) {
    for pod in world.pod_index.on_node(node).filter_map(|key| world.pods.get(key)) {
        for service in world.services.in_namespace(namespace(&**pod)) {
            if managed_selector(service)
                .is_some_and(|selector| map_matches(selector, pod.metadata.labels.as_ref()))
            {
                work.push(Work::new(Controller::EndpointSlice, Key::of_meta(&service.metadata)));
            }
        }
    }
}

impl Tracked for Service {
    fn table(world: &mut World) -> &mut Table<Self> {
        &mut world.services
    }

    fn changed(
        world: &mut World,
        old: Option<&Self>,
        new: Option<&Self>,
        _now: Timestamp,
        work: &mut Vec<Work>,
    ) {
        if let Some(any) = new.or(old) {
            let key = Key::of_meta(&any.metadata);
            work.push(Work::new(Controller::EndpointSlice, key.clone()));
            work.push(Work::new(Controller::Endpoint, key));
        }
        if let (Some(_), Some(new)) = (old, new) {
            work.extend(world.quotas_of(&ResourceType::of::<Self>(), namespace(new)));
        }
    }
}

impl Tracked for ResourceQuota {
    fn table(world: &mut World) -> &mut Table<Self> {
        &mut world.quotas
    }

    fn changed(_: &mut World, _: Option<&Self>, new: Option<&Self>, _now: Timestamp, work: &mut Vec<Work>) {
        if let Some(new) = new {
            work.push(Work::new(Controller::ResourceQuota, Key::of_meta(&new.metadata)));
        }
    }
}

impl Tracked for PersistentVolumeClaim {
    fn table(world: &mut World) -> &mut Table<Self> {
        &mut world.claims
    }

    fn changed(
        world: &mut World,
        old: Option<&Self>,
        new: Option<&Self>,
        _now: Timestamp,
        work: &mut Vec<Work>,
    ) {
        if let (Some(_), Some(new)) = (old, new) {
            work.extend(world.quotas_of(&ResourceType::of::<Self>(), namespace(new)));
        }
    }
}

impl Tracked for EndpointSlice {
    fn table(world: &mut World) -> &mut Table<Self> {
        &mut world.slices
    }

    fn changed(_: &mut World, old: Option<&Self>, new: Option<&Self>, _now: Timestamp, work: &mut Vec<Work>) {
        let Some(any) = new.or(old) else { return };
        if let Some(service) = label(&any.metadata, "kubernetes.io/service-name") {
            work.push(Work::new(Controller::EndpointSlice, Key::new(namespace(any), service)));
        }
    }
}

impl Tracked for Endpoints {
    fn table(world: &mut World) -> &mut Table<Self> {
        &mut world.endpoints
    }

    fn changed(_: &mut World, old: Option<&Self>, new: Option<&Self>, _now: Timestamp, work: &mut Vec<Work>) {
        if let Some(any) = new.or(old) {
            work.push(Work::new(Controller::Endpoint, Key::of_meta(&any.metadata)));
        }
    }
}

impl Tracked for Namespace {
    fn table(world: &mut World) -> &mut Table<Self> {
        &mut world.namespaces
    }

    fn changed(_: &mut World, old: Option<&Self>, new: Option<&Self>, _now: Timestamp, work: &mut Vec<Work>) {
        let Some(new) = new else { return };
        let key = Key::cluster(name(new));
        if old.is_none() {
            work.push(Work::new(Controller::ServiceAccount, key.clone()));
            work.push(Work::new(Controller::RootCa, key.clone()));
        }
        if is_terminating(new) {
            work.push(Work::new(Controller::Namespace, key));
        }
    }
}

impl Tracked for ServiceAccount {
    fn table(world: &mut World) -> &mut Table<Self> {
        &mut world.accounts
    }

    fn changed(_: &mut World, old: Option<&Self>, new: Option<&Self>, _now: Timestamp, work: &mut Vec<Work>) {
        if let (Some(gone), None) = (old, new)
            && name(gone) == DEFAULT_ACCOUNT
        {
            work.push(Work::new(Controller::ServiceAccount, Key::cluster(namespace(gone))));
        }
    }
}

impl Tracked for ConfigMap {
    fn table(world: &mut World) -> &mut Table<Self> {
        &mut world.config_maps
    }

    fn changed(_: &mut World, old: Option<&Self>, new: Option<&Self>, _now: Timestamp, work: &mut Vec<Work>) {
        if let Some(any) = new.or(old).filter(|any| name(*any) == ROOT_CA) {
            work.push(Work::new(Controller::RootCa, Key::cluster(namespace(any))));
        }
    }
}
