//! What goes, what stays, and in which order.

use serde_json::{Value, json};

use crate::model::{Model, text};
use crate::world::{Controller, Key};
use crate::write::ResourceType;

fn cluster() -> Model {
    let mut model = Model::new(1);
    model.running = vec![Controller::GarbageCollector];
    for (version, kind, plural) in [("v1", "Pod", "pods"), ("apps/v1", "ReplicaSet", "replicasets")] {
        let group = version.split_once('/').map_or("", |(group, _)| group);
        let resource = ResourceType::new(group, "v1", kind, plural, true);
        model.world.kinds.insert((version.into(), kind.into()), resource);
    }
    model
}

fn set(model: &mut Model, name: &str) {
    let spec = json!({"selector": {"matchLabels": {"app": name}}});
    model.put("replicasets", json!({"metadata": {"name": name, "uid": format!("u-{name}")}, "spec": spec}));
}

fn owner(name: &str) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": name, "uid": format!("u-{name}"), "blockOwnerDeletion": true})
}

fn pod(model: &mut Model, name: &str, owners: &[&str]) {
    let owners: Vec<Value> = owners.iter().map(|each| owner(each)).collect();
    model.put("pods", json!({"metadata": {"name": name, "ownerReferences": owners}}));
}

fn names(model: &Model, plural: &str) -> Vec<String> {
    model.of(plural).iter().map(|object| text(&object["metadata"]["name"])).collect()
}

/// Marks an object as being deleted, held by `finalizer`.
fn mark(model: &mut Model, name: &str, finalizer: &str) {
    let mut object = model.objects[&("replicasets".into(), Key::new("default", name))].clone();
    object["metadata"]["deletionTimestamp"] = json!(model.now.to_string());
    object["metadata"]["finalizers"] = json!([finalizer]);
    model.put("replicasets", object);
}

#[test]
fn dependents_follow_their_last_owner() {
    let mut model = cluster();
    set(&mut model, "a");
    set(&mut model, "b");
    pod(&mut model, "of-a", &["a"]);
    pod(&mut model, "of-both", &["a", "b"]);
    pod(&mut model, "of-nobody", &[]);
    model.settle();
    assert_eq!(names(&model, "pods").len(), 3);
    model.remove("replicasets", &Key::new("default", "a"));
    model.settle();
    assert_eq!(names(&model, "pods"), ["of-both", "of-nobody"]);
    let owners =
        &model.objects[&("pods".into(), Key::new("default", "of-both"))]["metadata"]["ownerReferences"];
    assert_eq!(owners.as_array().map(Vec::len), Some(1));
}

#[test]
fn an_owner_never_seen_is_asked_for() {
    let mut model = cluster();
    pod(&mut model, "lost", &["never"]);
    model.settle();
    assert!(names(&model, "pods").is_empty());
}

#[test]
fn a_question_that_failed_is_put_again() {
    let mut model = cluster();
    pod(&mut model, "lost", &["never"]);
    model.hears = false;
    model.settle();
    assert_eq!(names(&model, "pods"), ["lost"]);
    model.hears = true;
    model.advance(super::RETRY_SECONDS);
    model.settle();
    assert!(names(&model, "pods").is_empty());
}

#[test]
fn a_foreground_owner_goes_after_its_dependents() {
    let mut model = cluster();
    set(&mut model, "a");
    pod(&mut model, "p", &["a"]);
    mark(&mut model, "a", "foregroundDeletion");
    model.settle();
    assert!(names(&model, "pods").is_empty());
    let finalizers =
        &model.objects[&("replicasets".into(), Key::new("default", "a"))]["metadata"]["finalizers"];
    assert_eq!(finalizers, &json!([]));
}

#[test]
fn orphans_stay() {
    let mut model = cluster();
    set(&mut model, "a");
    pod(&mut model, "p", &["a"]);
    mark(&mut model, "a", "orphan");
    model.settle();
    model.remove("replicasets", &Key::new("default", "a"));
    model.settle();
    assert_eq!(names(&model, "pods"), ["p"]);
}

#[test]
fn an_owner_in_another_namespace_is_none() {
    let mut model = cluster();
    let spec = json!({"selector": {"matchLabels": {"app": "far"}}});
    let metadata = json!({"name": "far", "namespace": "elsewhere", "uid": "u-far"});
    model.put("replicasets", json!({"metadata": metadata, "spec": spec}));
    pod(&mut model, "p", &["far"]);
    model.settle();
    assert!(names(&model, "pods").is_empty());
}
