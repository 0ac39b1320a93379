//! From caches into the world: which collections the controllers follow, and how their objects enter.

use client_core::cache::Change;
use client_core::footprint::Footprint;
use client_core::object::ResourceType;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet, Deployment, ReplicaSet};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{
    ConfigMap, Endpoints, Namespace, Node, PersistentVolumeClaim, Pod, ResourceQuota, Service, ServiceAccount,
};
use k8s_openapi::api::discovery::v1::EndpointSlice;

use crate::namespaced_defaults::{DEFAULT_ACCOUNT, ROOT_CA};
use crate::plan::Kind;
use crate::world::{Tracked, Work, World};

/// How a cache's objects enter the world.
pub type Take<T> = fn(&mut World, &ResourceType, Change<T>, Timestamp) -> Vec<Work>;

/// Who keeps caches and has the world follow them.
pub trait Feeds {
    /// Follows a kind: all its objects, or those of one name in all namespaces.
    fn follow<K: Kind>(&mut self, named: Option<&'static str>, take: Take<K>);
}

/// Has all kinds followed that planners look at as a whole. Returns those of which all objects are followed: of every other
/// resource the metadata is, with [`take_metadata`].
pub fn follow_all(feeds: &mut impl Feeds) -> Vec<ResourceType> {
    let mut whole = Vec::new();
    macro_rules! follow {
        ($($kind:ty),*) => {$(
            feeds.follow::<$kind>(None, take);
            whole.push(ResourceType::of::<$kind>());
        )*};
    }
    follow!(
        Pod,
        ReplicaSet,
        Deployment,
        DaemonSet,
        ControllerRevision,
        Node,
        Service,
        EndpointSlice,
        Endpoints,
        Namespace,
        ResourceQuota,
        PersistentVolumeClaim
    );
    feeds.follow::<Lease>(None, take_lease);
    whole.push(ResourceType::of::<Lease>());
    feeds.follow::<ServiceAccount>(Some(DEFAULT_ACCOUNT), take);
    feeds.follow::<ConfigMap>(Some(ROOT_CA), take);
    whole
}

fn take<K: Tracked + Kind>(
    world: &mut World,
    _: &ResourceType,
    change: Change<K>,
    now: Timestamp,
) -> Vec<Work> {
    match change {
        Change::Applied { new, .. } => world.applied(new, now),
        Change::Deleted { last } => world.deleted(&*last, now),
        Change::Synced => Vec::new(),
        Change::Relisted { resource_version } => world.relisted::<K>(&resource_version, now),
    }
}

fn take_lease(world: &mut World, _: &ResourceType, change: Change<Lease>, now: Timestamp) -> Vec<Work> {
    match change {
        Change::Applied { new, .. } => world.lease_applied(&new, now),
        Change::Deleted { last } => world.lease_deleted(&last),
        Change::Synced | Change::Relisted { .. } => Vec::new(),
    }
}

/// Takes in the metadata of a resource that is known only at run time.
pub fn take_metadata(
    world: &mut World,
    resource: &ResourceType,
    change: Change<Footprint>,
    _: Timestamp,
) -> Vec<Work> {
    match change {
        Change::Applied { new, .. } => world.applied_meta(resource, &new),
        Change::Deleted { last } => world.deleted_meta(resource, &last),
        Change::Synced | Change::Relisted { .. } => Vec::new(),
    }
}
