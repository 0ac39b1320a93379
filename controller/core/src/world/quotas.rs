//! Which quotas a change concerns: those of its namespace that limit what changed.

use api::quota::Counted;
use k8s_openapi::api::core::v1::{Pod, ResourceQuota, ResourceRequirements};

use super::{Controller, Key, Work, World};
use crate::object::is_terminating;
use crate::pod;
use crate::write::ResourceType;

/// A resource as quotas tell resources apart.
pub(crate) fn counted(resource: &ResourceType) -> Counted<'_> {
    Counted { group: &resource.group, plural: &resource.plural }
}

fn limits(quota: &ResourceQuota, resource: &ResourceType) -> bool {
    let hard = quota.spec.as_ref().and_then(|spec| spec.hard.as_ref());
    hard.into_iter().flatten().any(|(name, _)| counted(resource).counts_as(name))
}

impl World {
    /// The quotas of a namespace that limit objects of a resource.
    pub(super) fn quotas_of(&self, resource: &ResourceType, namespace: &str) -> Vec<Work> {
        if namespace.is_empty() {
            return Vec::new();
        }
        let quotas = self.quotas.in_namespace(namespace).filter(|quota| limits(quota, resource));
        quotas.map(|quota| Work::new(Controller::ResourceQuota, Key::of_meta(&quota.metadata))).collect()
    }
}

/// Whether a pod uses another amount than before.
pub(super) fn is_used_otherwise(old: &Pod, new: &Pod) -> bool {
    pod::is_terminal(old) != pod::is_terminal(new)
        || is_terminating(old) != is_terminating(new)
        || old.metadata.deletion_grace_period_seconds != new.metadata.deletion_grace_period_seconds
        || old.metadata.generation != new.metadata.generation
        || held(old) != held(new)
}

/// What containers have been given.
fn held(pod: &Pod) -> Vec<Option<&ResourceRequirements>> {
    let statuses = pod.status.as_ref().and_then(|status| status.container_statuses.as_ref());
    statuses.into_iter().flatten().map(|status| status.resources.as_ref()).collect()
}
