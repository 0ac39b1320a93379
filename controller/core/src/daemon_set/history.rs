//! The ControllerRevisions of a DaemonSet: one for each template it had.

use std::collections::BTreeSet;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet};
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use super::REVISION_HASH;
use crate::hash::template_hash;
use crate::merge::to_json;
use crate::object::{controller_reference, label, name, namespace};
use crate::plan::{Plan, create, delete, patch_same};
use crate::write::PatchKind;

/// What the history says of the current template.
pub struct History {
    /// Its hash; None when another template has taken the name.
    pub hash: Option<String>,
}

/// The patch that takes a DaemonSet back to this template.
fn snapshot(set: &DaemonSet) -> Value {
    let mut template = to_json(&set.spec.template);
    if let Value::Object(map) = &mut template {
        map.insert("$patch".into(), "replace".into());
    }
    json!({"spec": {"template": template}})
}

/// Finds or makes the revision of the current template, and makes it the newest.
pub fn plan(set: &DaemonSet, revisions: &[Arc<ControllerRevision>], plan: &mut Plan) -> History {
    let data = snapshot(set);
    let newest = revisions.iter().map(|revision| revision.revision.unwrap_or(0)).max().unwrap_or(0);
    let same = revisions.iter().filter(|revision| revision.data.0 == data);
    if let Some(current) = same.max_by_key(|revision| revision.revision.unwrap_or(0)) {
        let number = current.revision.unwrap_or(0);
        let hash = label(&current.metadata, REVISION_HASH).map_or_else(|| hash_of(set), str::to_owned);
        if number < newest {
            let body = json!({ "revision": newest + 1 });
            plan.one(patch_same::<ControllerRevision>(&current.metadata, None, PatchKind::Merge, body));
        }
        return History { hash: Some(hash) };
    }
    let hash = hash_of(set);
    let revision_name = format!("{}-{hash}", name(set));
    if revisions.iter().any(|revision| name(&**revision) == revision_name) {
        return History { hash: None };
    }
    let mut labels =
        set.spec.template.metadata.as_ref().and_then(|meta| meta.labels.clone()).unwrap_or_default();
    labels.insert(REVISION_HASH.into(), hash.clone());
    let document = json!({
        "metadata": {
            "name": revision_name,
            "namespace": namespace(set),
            "labels": labels,
            "annotations": set.metadata.annotations,
            "ownerReferences": [to_json(&controller_reference(set))],
        },
        "data": data,
        "revision": newest + 1,
    });
    plan.one(create::<ControllerRevision>(Some(namespace(set)), document));
    History { hash: Some(hash) }
}

fn hash_of(set: &DaemonSet) -> String {
    template_hash(&set.spec.template, set.status.as_ref().and_then(|status| status.collision_count))
}

/// Deletes the oldest revisions beyond the limit that no pod was made from.
pub fn clean_up(
    set: &DaemonSet,
    revisions: &[Arc<ControllerRevision>],
    pods: &[Arc<Pod>],
    current: &str,
    plan: &mut Plan,
) {
    let mut live: BTreeSet<&str> =
        pods.iter().filter_map(|pod| label(&pod.metadata, REVISION_HASH)).collect();
    live.insert(current);
    let limit = usize::try_from(set.spec.revision_history_limit.unwrap_or(10)).unwrap_or(0);
    let is_live = |revision: &ControllerRevision| {
        label(&revision.metadata, REVISION_HASH).is_some_and(|hash| live.contains(hash))
    };
    let mut dead: Vec<_> = revisions.iter().filter(|revision| !is_live(revision)).collect();
    let surplus = dead.len().saturating_sub(limit);
    dead.sort_by_key(|revision| revision.revision.unwrap_or(0));
    plan.together(
        dead.into_iter()
            .take(surplus)
            .map(|revision| delete::<ControllerRevision>(&revision.metadata))
            .collect(),
    );
}
