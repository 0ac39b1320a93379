//! A Deployment's ReplicaSets while a plan is made: sizes and annotations as they will be.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::{Value, json};

use super::annotations;
use crate::hash::template_hash;
use crate::merge::{diff, to_json};
use crate::object::{controller_reference, created, is_terminating, name, namespace};
use crate::plan::{Action, EventNote, Plan, Subject, create, delete, patch_same};
use crate::scaled::{Round, scaled};
use crate::write::PatchKind;

/// The label that tells the pods of one template from those of another.
pub const TEMPLATE_HASH: &str = "pod-template-hash";

/// One ReplicaSet as it will be.
pub struct Set {
    /// As it is; None while it is only planned.
    pub object: Option<Arc<ReplicaSet>>,
    /// Name.
    pub name: String,
    /// Planned size.
    pub replicas: i32,
    annotations: BTreeMap<String, String>,
    min_ready_seconds: i32,
}

/// All of them.
pub struct Sets<'a> {
    /// Their Deployment.
    pub deployment: &'a Deployment,
    /// Oldest first.
    all: Vec<Set>,
    new: Option<usize>,
    writes: Vec<Action>,
    /// The name of the new one is taken by a stranger.
    pub collided: bool,
}

// === impl Set ===

impl Set {
    fn of(object: Arc<ReplicaSet>) -> Set {
        let spec = &object.spec;
        Set {
            name: name(&*object).to_owned(),
            replicas: spec.replicas.unwrap_or(1),
            min_ready_seconds: spec.min_ready_seconds.unwrap_or(0),
            annotations: object.metadata.annotations.clone().unwrap_or_default(),
            object: Some(object),
        }
    }

    fn counter(&self, read: impl Fn(&k8s_openapi::api::apps::v1::ReplicaSetStatus) -> Option<i32>) -> i32 {
        self.object.as_ref().and_then(|object| read(object.status.as_ref()?)).unwrap_or(0)
    }

    /// Pods that exist.
    pub fn actual(&self) -> i32 {
        self.counter(|status| Some(status.replicas))
    }

    /// Pods that are ready.
    pub fn ready(&self) -> i32 {
        self.counter(|status| status.ready_replicas)
    }

    /// Pods that are available.
    pub fn available(&self) -> i32 {
        self.counter(|status| status.available_replicas)
    }

    /// Available pods that will outlive the planned size.
    pub fn lasting(&self) -> i32 {
        self.available().min(self.replicas)
    }

    /// A size noted at an earlier scaling.
    pub fn noted(&self, key: &str) -> Option<i32> {
        annotations::noted(&self.annotations, key)
    }

    fn revision(&self) -> i64 {
        annotations::revision(&self.annotations)
    }
}

// === impl Sets ===

impl<'a> Sets<'a> {
    /// The ReplicaSets as they are.
    pub fn new(deployment: &'a Deployment, mut owned: Vec<Arc<ReplicaSet>>) -> Self {
        owned.sort_by(|a, b| created(&**a).cmp(&created(&**b)).then_with(|| name(&**a).cmp(name(&**b))));
        let new = owned.iter().position(|set| same_template(set, &deployment.spec.template));
        let all = owned.into_iter().map(Set::of).collect();
        Sets { deployment, all, new, writes: Vec::new(), collided: false }
    }

    /// The Deployment's size.
    pub fn wanted(&self) -> i32 {
        self.deployment.spec.replicas.unwrap_or(1)
    }

    /// The most pods that there may be at a time.
    pub fn most(&self) -> i32 {
        self.wanted().saturating_add(self.max_surge())
    }

    /// How many pods beyond the size a rolling update may make.
    pub fn max_surge(&self) -> i32 {
        self.fenceposts().0
    }

    /// How many pods of the size a rolling update may miss.
    pub fn max_unavailable(&self) -> i32 {
        self.fenceposts().1.min(self.wanted())
    }

    /// Whether pods are replaced a few at a time.
    pub fn is_rolling(&self) -> bool {
        let strategy = self.deployment.spec.strategy.as_ref();
        strategy.and_then(|strategy| strategy.type_.as_deref()) != Some("Recreate")
    }

    fn fenceposts(&self) -> (i32, i32) {
        if !self.is_rolling() {
            return (0, 0);
        }
        let quarter = IntOrString::String("25%".into());
        let strategy = self.deployment.spec.strategy.as_ref();
        let rolling = strategy.and_then(|strategy| strategy.rolling_update.as_ref());
        let surge = rolling.and_then(|rolling| rolling.max_surge.as_ref()).unwrap_or(&quarter);
        let unavailable = rolling.and_then(|rolling| rolling.max_unavailable.as_ref()).unwrap_or(&quarter);
        let surge = scaled(surge, self.wanted(), Round::Up).max(0);
        let unavailable = scaled(unavailable, self.wanted(), Round::Down).max(0);
        if surge == 0 && unavailable == 0 { (0, 1) } else { (surge, unavailable) }
    }

    /// Every set, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &Set> {
        self.all.iter()
    }

    /// The set at a place of [`Self::iter`].
    pub fn at(&self, place: usize) -> &Set {
        &self.all[place]
    }

    /// The set of the current template.
    pub fn new_set(&self) -> Option<&Set> {
        self.new.map(|place| &self.all[place])
    }

    /// Its place.
    pub fn new_place(&self) -> Option<usize> {
        self.new
    }

    /// The places of the sets of former templates, oldest first.
    pub fn old_places(&self) -> Vec<usize> {
        (0..self.all.len()).filter(|place| Some(*place) != self.new).collect()
    }

    /// The sum of all planned sizes.
    pub fn total(&self) -> i32 {
        self.all.iter().fold(0i32, |sum, set| sum.saturating_add(set.replicas))
    }

    /// Whether the new set is only planned.
    pub fn is_creating(&self) -> bool {
        self.new_set().is_some_and(|set| set.object.is_none())
    }

    fn next_revision(&self) -> i64 {
        self.old_places().into_iter().map(|place| self.all[place].revision()).max().unwrap_or(0) + 1
    }

    /// The revision of the new set.
    pub fn new_revision(&self) -> Option<String> {
        self.new_set()
            .map(|set| set.revision())
            .filter(|revision| *revision > 0)
            .map(|number| number.to_string())
    }

    /// The size that the new set may take now.
    pub fn next_new_size(&self) -> i32 {
        let current = self.new_set().map_or(0, |set| set.replicas);
        if !self.is_rolling() {
            return self.wanted();
        }
        let room = self.most().saturating_sub(self.total());
        if room <= 0 { current } else { current + room.min(self.wanted() - current) }
    }

    /// Brings annotations and minReadySeconds of an existing new set up to date.
    pub fn sync_revision(&mut self) {
        let revision = self.next_revision();
        let Some(place) = self.new else { return };
        let Some(object) = self.all[place].object.clone() else { return };
        let wanted_min_ready = self.deployment.spec.min_ready_seconds.unwrap_or(0);
        let set = &mut self.all[place];
        let before = set.annotations.clone();
        annotations::copy(&self.deployment.metadata, &mut set.annotations);
        annotations::raise_revision(&mut set.annotations, revision);
        let mut body = serde_json::Map::new();
        if let Some(change) = diff(&to_json(&before), &to_json(&set.annotations)) {
            body.insert("metadata".into(), json!({ "annotations": change }));
        }
        if set.min_ready_seconds != wanted_min_ready {
            set.min_ready_seconds = wanted_min_ready;
            body.insert("spec".into(), json!({ "minReadySeconds": wanted_min_ready }));
        }
        if !body.is_empty() {
            let body = Value::Object(body);
            self.writes.push(patch_same::<ReplicaSet>(&object.metadata, None, PatchKind::Merge, body));
        }
    }

    /// Finds the new set, or plans it at the size that it may have now.
    pub fn ensure_new(&mut self, by_name: &dyn Fn(&str) -> Option<Arc<ReplicaSet>>) {
        if self.new.is_some() {
            return self.sync_revision();
        }
        let spec = &self.deployment.spec;
        let collisions = self.deployment.status.as_ref().and_then(|status| status.collision_count);
        let hash = template_hash(&spec.template, collisions);
        let set_name = format!("{}-{hash}", name(self.deployment));
        if by_name(&set_name).is_some() {
            self.collided = true;
            return;
        }
        let mut notes = BTreeMap::new();
        annotations::copy(&self.deployment.metadata, &mut notes);
        annotations::raise_revision(&mut notes, self.next_revision());
        annotations::note_sizes(&mut notes, self.wanted(), self.most());
        let replicas = self.next_new_size();
        let document = self.document(&set_name, &hash, replicas, &notes);
        let subject = Subject::of(self.deployment);
        let mut action =
            create::<ReplicaSet>(Some(namespace(self.deployment)), document).otherwise(EventNote::warning(
                &subject,
                "ReplicaSetCreateError",
                format!("Failed to create new replica set \"{set_name}\": "),
            ));
        if replicas > 0 {
            let message = format!("Scaled up replica set {set_name} from 0 to {replicas}");
            action = action.then(EventNote::normal(&subject, "ScalingReplicaSet", message));
        }
        self.writes.push(action);
        let min_ready_seconds = spec.min_ready_seconds.unwrap_or(0);
        self.new = Some(self.all.len());
        self.all.push(Set { object: None, name: set_name, replicas, annotations: notes, min_ready_seconds });
    }

    fn document(&self, set_name: &str, hash: &str, replicas: i32, notes: &BTreeMap<String, String>) -> Value {
        let spec = &self.deployment.spec;
        let mut selector = spec.selector.clone();
        selector.match_labels.get_or_insert_default().insert(TEMPLATE_HASH.into(), hash.into());
        let mut template = spec.template.clone();
        let labels = template.metadata.get_or_insert_default().labels.get_or_insert_default();
        labels.insert(TEMPLATE_HASH.into(), hash.into());
        json!({
            "metadata": {
                "name": set_name,
                "namespace": namespace(self.deployment),
                "labels": labels.clone(),
                "annotations": notes,
                "ownerReferences": [to_json(&controller_reference(self.deployment))],
            },
            "spec": {
                "replicas": replicas,
                "minReadySeconds": spec.min_ready_seconds.unwrap_or(0),
                "selector": to_json(&selector),
                "template": to_json(&template),
            },
        })
    }

    /// Gives the set at `place` the size `to`. Returns whether that is a change.
    pub fn scale(&mut self, place: usize, to: i32) -> bool {
        let (wanted, max) = (self.wanted(), self.most());
        let set = &mut self.all[place];
        let from = set.replicas;
        let before = set.annotations.clone();
        annotations::note_sizes(&mut set.annotations, wanted, max);
        let notes_changed = before != set.annotations;
        if from == to && !notes_changed {
            return false;
        }
        set.replicas = to;
        let mut body = Vec::new();
        if from != to {
            body.push(json!({"op": "test", "path": "/spec/replicas", "value": from}));
            body.push(json!({"op": "replace", "path": "/spec/replicas", "value": to}));
        }
        if notes_changed {
            body.extend(patch_notes(&before, &set.annotations));
        }
        // A set that this very plan creates has no uid yet: its name and the tested size must do.
        let named = ObjectMeta {
            name: Some(set.name.clone()),
            namespace: self.deployment.metadata.namespace.clone(),
            ..ObjectMeta::default()
        };
        let meta = set.object.as_ref().map_or(&named, |object| &object.metadata);
        let mut action = patch_same::<ReplicaSet>(meta, None, PatchKind::Json, Value::Array(body));
        if from != to {
            let way = if from < to { "up" } else { "down" };
            let message = format!("Scaled {way} replica set {} from {from} to {to}", set.name);
            action =
                action.then(EventNote::normal(&Subject::of(self.deployment), "ScalingReplicaSet", message));
        }
        self.writes.push(action);
        from != to
    }

    /// Deletes the oldest empty sets beyond the history limit.
    pub fn clean_up(&mut self) {
        let limit = self.deployment.spec.revision_history_limit.unwrap_or(10);
        if limit == i32::MAX {
            return;
        }
        let mut old: Vec<&Set> = self.old_places().into_iter().map(|place| &self.all[place]).collect();
        old.retain(|set| set.object.as_ref().is_some_and(|object| !is_terminating(&**object)));
        let surplus = old.len().saturating_sub(usize::try_from(limit).unwrap_or(0));
        old.sort_by_key(|set| set.revision());
        let mut deletions = Vec::new();
        for set in old.into_iter().take(surplus) {
            let Some(object) = &set.object else { continue };
            let observed = object.status.as_ref().and_then(|status| status.observed_generation).unwrap_or(0);
            if set.actual() == 0 && set.replicas == 0 && object.metadata.generation.unwrap_or(0) <= observed {
                deletions.push(delete::<ReplicaSet>(&object.metadata));
            }
        }
        self.writes.extend(deletions);
    }

    /// Appends the noted writes, in order.
    pub fn write_into(&mut self, plan: &mut Plan) {
        for action in self.writes.drain(..) {
            plan.one(action);
        }
    }
}

/// Sets the changed notes by JSON patch (a missing map of annotations is made first).
fn patch_notes(before: &BTreeMap<String, String>, after: &BTreeMap<String, String>) -> Vec<Value> {
    if before.is_empty() {
        return vec![json!({"op": "add", "path": "/metadata/annotations", "value": after})];
    }
    let changed = after.iter().filter(|(key, value)| before.get(*key) != Some(value));
    changed
        .map(|(key, value)| {
            let path = format!("/metadata/annotations/{}", key.replace('~', "~0").replace('/', "~1"));
            json!({"op": "add", "path": path, "value": value})
        })
        .collect()
}

/// Whether the set was made from `template`: equal but for the hash label.
fn same_template(set: &ReplicaSet, template: &PodTemplateSpec) -> bool {
    let Some(have) = set.spec.template.as_ref() else { return false };
    if have.spec != template.spec {
        return false;
    }
    let (have, want) = (strip(have), strip(template));
    have == want
}

fn strip(template: &PodTemplateSpec) -> ObjectMeta {
    let mut meta = template.metadata.clone().unwrap_or_default();
    if let Some(labels) = &mut meta.labels {
        labels.remove(TEMPLATE_HASH);
    }
    meta.labels = meta.labels.filter(|labels| !labels.is_empty());
    meta.annotations = meta.annotations.filter(|annotations| !annotations.is_empty());
    meta
}
