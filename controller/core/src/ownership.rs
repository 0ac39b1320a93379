//! Which objects a controller manages: owned ones that its selector still selects, and orphans it may adopt.

use std::sync::Arc;

use crate::write::PatchKind;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use serde_json::json;

use crate::merge::to_json;
use crate::object::{Object, controller_ref, controller_reference, is_terminating, uid};
use crate::plan::{Action, Guard, patch_same, target_of};
use crate::selector;

/// What a controller may count on, and the patches that make it so.
pub struct Claim<K> {
    /// The objects managed once the patches are made.
    pub owned: Vec<Arc<K>>,
    /// Adoptions (guarded by a live look at the owner) and releases.
    pub patches: Vec<Action>,
}

/// Claims `candidates` (owned objects and orphans of the owner's namespace) for `owner`.
///
/// An owner that is being deleted neither adopts nor releases. Adoption asks the API server itself whether
/// the owner still lives: orphans of an owner deleted with `orphan` must not be caught again by a cache
/// that has not heard of the deletion.
pub fn claim<O: Object, K: Object>(
    owner: &O,
    selector: &LabelSelector,
    candidates: impl IntoIterator<Item = Arc<K>>,
) -> Claim<K> {
    let mut claim = Claim { owned: Vec::new(), patches: Vec::new() };
    for object in candidates {
        let meta = object.metadata();
        let selected = selector::matches(selector, meta.labels.as_ref());
        match controller_ref(meta) {
            Some(controller) if controller.uid != uid(owner) => {}
            Some(_) if selected => claim.owned.push(object),
            Some(_) if is_terminating(owner) => {}
            Some(_) => claim.patches.push(release::<O, K>(owner, &object)),
            None if is_terminating(owner) || !selected || is_terminating(&*object) => {}
            None => {
                claim.patches.push(adopt(owner, &object));
                claim.owned.push(object);
            }
        }
    }
    claim
}

fn adopt<O: Object, K: Object>(owner: &O, object: &Arc<K>) -> Action {
    let body = json!({"metadata": {"ownerReferences": [to_json(&controller_reference(owner))]}});
    let guard = Guard { target: target_of::<O>(owner.metadata()), uid: uid(owner).to_owned() };
    patch_same::<K>(object.metadata(), None, PatchKind::Strategic, body).guarded(guard)
}

fn release<O: Object, K: Object>(owner: &O, object: &Arc<K>) -> Action {
    let body = json!({"metadata": {"ownerReferences": [{"$patch": "delete", "uid": uid(owner)}]}});
    patch_same::<K>(object.metadata(), None, PatchKind::Strategic, body).tolerant()
}
