//! From a key to its planner: gathers what the planner looks at, and asks it.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::Pod;
use rand::RngCore;

use crate::namespaced_defaults::{DEFAULT_ACCOUNT, ROOT_CA};
use crate::object::{controller_ref, label, namespace, uid};
use crate::plan::{Answers, Failure, Plan, Report};
use crate::pod::is_terminal;
use crate::selector::map_matches;
use crate::world::{Controller, Key, Table, Work, World, orphan_group, service_group};
use crate::write::ResourceType;
use crate::{
    daemon_set, definition, deployment, endpoints, garbage, namespace as namespaces, namespaced_defaults,
    node_ipam, node_lifecycle, pod_gc, replica_set, resource_quota, taint_eviction,
};

/// What is known of earlier attempts at a key.
#[derive(Default)]
pub struct Attempt<'a> {
    /// Answers to the questions of the plan before.
    pub answers: Answers,
    /// Why the last attempt failed.
    pub failure: Option<&'a Failure>,
}

type Answered = (Plan, Report);

/// Plans one piece of work. A key whose object is gone has an empty plan.
pub fn plan(
    world: &mut World,
    work: &Work,
    attempt: &Attempt,
    now: Timestamp,
    rng: &mut dyn RngCore,
) -> Answered {
    let key = &work.key;
    let planned = match work.controller {
        Controller::ReplicaSet => plan_replica_set(world, key, attempt, now, rng),
        Controller::Deployment => plan_deployment(world, key, attempt, now),
        Controller::DaemonSet => plan_daemon_set(world, key, attempt, now, rng),
        Controller::EndpointSlice => plan_slices(world, key, now, rng),
        Controller::Endpoint => plan_endpoints(world, key),
        Controller::Namespace => world
            .namespaces
            .get(key)
            .map(|each| namespaces::plan(each, &world.discovery, &attempt.answers, now)),
        Controller::Definition => {
            world.definitions.get(key).map(|each| definition::plan(each, &attempt.answers, now))
        }
        Controller::GarbageCollector => {
            let kinds = &world.kinds;
            let resource_of =
                |version: &str, kind: &str| kinds.get(&(version.to_owned(), kind.to_owned())).cloned();
            Some(garbage::plan(&world.graph, &key.name, &resource_of, &attempt.answers, now))
        }
        Controller::Node => {
            let pods = pods_on(world, &key.name);
            let World { nodes, monitor, .. } = world;
            nodes
                .get(key)
                .map(|node| node_lifecycle::plan(&node_lifecycle::View { node, pods }, monitor, now))
        }
        Controller::TaintEviction => {
            let pods = pods_on(world, &key.name);
            world.nodes.get(key).map(|node| taint_eviction::plan(&taint_eviction::View { node, pods }, now))
        }
        Controller::PodGarbageCollector => Some(plan_pod_gc(world, key, attempt, now)),
        Controller::ServiceAccount => world.namespaces.get(key).map(|each| {
            let account = world.accounts.named(&key.name, DEFAULT_ACCOUNT);
            namespaced_defaults::plan_account(each, account.map(|account| &**account))
        }),
        Controller::RootCa => world.namespaces.get(key).map(|each| {
            let published = world.config_maps.named(&key.name, ROOT_CA);
            namespaced_defaults::plan_root_ca(each, published.map(|map| &**map), &world.settings.root_ca)
        }),
        Controller::NodeIpam => {
            let World { nodes, shares, .. } = world;
            nodes.get(key).zip(shares.as_mut()).map(|(node, shares)| node_ipam::plan(node, shares))
        }
        Controller::ResourceQuota => plan_quota(world, key, attempt, now),
    };
    planned.unwrap_or_default()
}

fn pods_on(world: &World, node: &str) -> Vec<Arc<Pod>> {
    world.pod_index.on_node(node).filter_map(|key| world.pods.get(key)).cloned().collect()
}

/// What an owner has, and what nobody has in its namespace.
fn claimable<K: crate::world::Grouped>(table: &Table<K>, owner_uid: &str, place: &str) -> Vec<Arc<K>> {
    table.group(owner_uid).chain(table.group(&orphan_group(place))).cloned().collect()
}

fn plan_replica_set(
    world: &World,
    key: &Key,
    attempt: &Attempt,
    now: Timestamp,
    rng: &mut dyn RngCore,
) -> Option<Answered> {
    let set = world.replica_sets.get(key)?;
    let pods = claimable(&world.pods, uid(&**set), &key.namespace);
    let wanted = usize::try_from(set.spec.replicas.unwrap_or(1)).unwrap_or(0);
    // Siblings matter only to the choice of pods to delete.
    let related = if pods.len() > wanted { siblings(world, set) } else { Vec::new() };
    let view = replica_set::View { replica_set: set, pods, related, failure: attempt.failure };
    Some(replica_set::plan(&view, now, rng))
}

fn siblings(world: &World, set: &ReplicaSet) -> Vec<Arc<Pod>> {
    let Some(owner) = controller_ref(&set.metadata) else {
        return world.pods.group(uid(set)).cloned().collect();
    };
    let sets = world.replica_sets.group(&owner.uid);
    sets.flat_map(|sibling| world.pods.group(uid(&**sibling))).cloned().collect()
}

fn plan_deployment(world: &World, key: &Key, attempt: &Attempt, now: Timestamp) -> Option<Answered> {
    let deployment = world.deployments.get(key)?;
    let by_name = |set: &str| world.replica_sets.named(&key.namespace, set).cloned();
    let has_running_pods = |set: &ReplicaSet| world.pods.group(uid(set)).any(|pod| !is_terminal(pod));
    let view = deployment::View {
        deployment,
        replica_sets: claimable(&world.replica_sets, uid(&**deployment), &key.namespace),
        by_name: &by_name,
        has_running_pods: &has_running_pods,
        failure: attempt.failure,
    };
    Some(deployment::plan(&view, now))
}

fn plan_daemon_set(
    world: &mut World,
    key: &Key,
    attempt: &Attempt,
    now: Timestamp,
    rng: &mut dyn RngCore,
) -> Option<Answered> {
    let set = Arc::clone(world.daemon_sets.get(key)?);
    let view = daemon_set::View {
        daemon_set: &set,
        pods: claimable(&world.pods, uid(&*set), &key.namespace),
        revisions: claimable(&world.revisions, uid(&*set), &key.namespace),
        nodes: world.nodes.iter().map(|(_, node)| Arc::clone(node)).collect(),
        failure: attempt.failure,
    };
    Some(daemon_set::plan(&view, &mut world.backoffs, now, rng))
}

fn selected(world: &World, service: &k8s_openapi::api::core::v1::Service) -> Option<Vec<Arc<Pod>>> {
    let selector = endpoints::managed_selector(service)?;
    let keys = world.pod_index.selected(namespace(service), |labels| map_matches(selector, Some(labels)));
    Some(keys.filter_map(|key| world.pods.get(key)).cloned().collect())
}

fn plan_slices(world: &World, key: &Key, now: Timestamp, rng: &mut dyn RngCore) -> Option<Answered> {
    let service = world.services.get(key)?;
    let zone_of = |node: &str| {
        let node = world.nodes.named("", node)?;
        label(&node.metadata, "topology.kubernetes.io/zone").map(str::to_owned)
    };
    let view = endpoints::SliceView {
        service,
        pods: selected(world, service)?,
        slices: world.slices.group(&service_group(&key.namespace, &key.name)).cloned().collect(),
        zone_of: &zone_of,
    };
    Some(endpoints::plan_slices(&view, now, rng))
}

fn plan_endpoints(world: &World, key: &Key) -> Option<Answered> {
    let Some(service) = world.services.get(key) else {
        return endpoints::plan_abandoned(world.endpoints.get(key)?);
    };
    let pods = selected(world, service)?;
    let endpoints = world.endpoints.get(key).cloned();
    Some(endpoints::plan_legacy(&endpoints::LegacyView { service, pods, endpoints }))
}

fn plan_quota(world: &World, key: &Key, attempt: &Attempt, now: Timestamp) -> Option<Answered> {
    let quota = world.quotas.get(key)?;
    let place = &*key.namespace;
    let resources: Vec<ResourceType> = world.kinds.values().cloned().collect();
    let view = resource_quota::View {
        quota,
        pods: world.pods.in_namespace(place).cloned().collect(),
        services: world.services.in_namespace(place).cloned().collect(),
        claims: world.claims.in_namespace(place).cloned().collect(),
        resources: &resources,
        count: &|resource| world.graph.count(resource, place),
    };
    Some(resource_quota::plan(&view, &attempt.answers, now))
}

fn plan_pod_gc(world: &mut World, key: &Key, attempt: &Attempt, now: Timestamp) -> Answered {
    if !key.namespace.is_empty() {
        return world.pods.get(key).map(|pod| pod_gc::plan_unbound(pod)).unwrap_or_default();
    }
    if key.name.is_empty() {
        let surplus = world.pod_index.ended().saturating_sub(world.settings.ended_pods);
        let oldest = world.pod_index.oldest_ended().take(surplus).filter_map(|key| world.pods.get(key));
        return pod_gc::plan_ended(oldest);
    }
    let pods = pods_on(world, &key.name);
    let World { nodes, missing, .. } = world;
    let node = nodes.get(key).map(|node| &**node);
    pod_gc::plan_node(&key.name, node, &pods, missing, &attempt.answers, now)
}
