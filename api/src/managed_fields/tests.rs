use serde_json::json;

use super::*;
use crate::{catalogue::Catalogue, schema};

const TIME: &str = "2024-01-01T00:00:00Z";

fn writer<'a>(manager: &'a str, subresource: &'a str, time: &'a str) -> Writer<'a> {
    Writer { manager, operation: Operation::Update, subresource, api_version: "v1", time }
}

fn fields(object: &Value, at: usize) -> &Value {
    &object["metadata"]["managedFields"][at]["fieldsV1"]
}

fn write(plural: &str, old: Option<&Value>, mut new: Value, writer: &Writer<'_>) -> Value {
    let pods = Catalogue::builtin().resource("", "v1", plural).expect(plural);
    update(schema::builtin(), pods, old, &mut new, writer);
    new
}

fn pod() -> Value {
    json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "a", "namespace": "b", "labels": {"app": "web"}, "finalizers": ["x/y"]},
        "spec": {"containers": [{"name": "c", "image": "i", "resources": {},
            "ports": [{"containerPort": 80, "protocol": "TCP"}]}],
            "securityContext": {}, "nodeSelector": {"a": "b"}, "restartPolicy": "Always"},
        "status": {"phase": "Pending"}})
}

#[test]
fn a_creator_owns_what_it_said() {
    let created = write("pods", None, pod(), &writer("kubectl-create", "", TIME));
    let entry = &created["metadata"]["managedFields"][0];
    assert_eq!(entry["manager"], "kubectl-create");
    assert_eq!(entry["operation"], "Update");
    assert_eq!(entry["time"], TIME);
    assert_eq!(
        entry["fieldsV1"],
        json!({
            "f:metadata": {"f:finalizers": {".": {}, "v:\"x/y\"": {}}, "f:labels": {".": {}, "f:app": {}}},
            "f:spec": {
                "f:containers": {"k:{\"name\":\"c\"}": {".": {}, "f:image": {}, "f:name": {}, "f:resources": {},
                    "f:ports": {".": {}, "k:{\"containerPort\":80,\"protocol\":\"TCP\"}":
                        {".": {}, "f:containerPort": {}, "f:protocol": {}}}}},
                "f:nodeSelector": {}, "f:restartPolicy": {}, "f:securityContext": {},
            },
        })
    );
}

#[test]
fn a_change_takes_ownership_and_a_removal_drops_it() {
    let created = write("pods", None, pod(), &writer("one", "", TIME));
    let mut next = created.clone();
    next["spec"]["containers"][0]["image"] = json!("j");
    next["metadata"]["labels"] = json!({"tier": "x"});
    let updated = write("pods", Some(&created), next, &writer("two", "", "2024-01-01T00:00:01Z"));
    assert_eq!(
        fields(&updated, 1),
        &json!({"f:metadata": {"f:labels": {"f:tier": {}}},
            "f:spec": {"f:containers": {"k:{\"name\":\"c\"}": {"f:image": {}}}}})
    );
    let first = fields(&updated, 0);
    assert_eq!(first["f:metadata"]["f:labels"], json!({}));
    assert!(first["f:spec"]["f:containers"]["k:{\"name\":\"c\"}"].get("f:image").is_none());
}

#[test]
fn a_write_that_changes_nothing_leaves_the_entries() {
    let created = write("pods", None, pod(), &writer("one", "", TIME));
    let again = write("pods", Some(&created), created.clone(), &writer("two", "", "2024-01-01T00:00:01Z"));
    assert_eq!(again, created);
}

#[test]
fn items_that_are_there_twice_change_no_owner() {
    let mut twice = pod();
    twice["metadata"]["finalizers"] = json!(["x/y", "x/y"]);
    twice["spec"]["containers"] = json!([{"name": "c", "image": "i"}, {"name": "c", "image": "j"}]);
    let created = write("pods", None, twice, &writer("one", "", TIME));
    let again = write("pods", Some(&created), created.clone(), &writer("two", "", TIME));
    assert_eq!(again, created);
}

#[test]
fn status_is_owned_through_its_subresource() {
    let created = write("pods", None, pod(), &writer("one", "", TIME));
    let mut next = created.clone();
    next["status"] = json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]});
    let updated = write("pods", Some(&created), next, &writer("kubelet", "status", TIME));
    let entry = updated["metadata"]["managedFields"]
        .as_array()
        .expect("entries")
        .iter()
        .find(|entry| entry["manager"] == "kubelet");
    let entry = entry.expect("kubelet's entry");
    assert_eq!(entry["subresource"], "status");
    assert_eq!(
        entry["fieldsV1"],
        json!({"f:status": {"f:phase": {}, "f:conditions": {".": {}, "k:{\"type\":\"Ready\"}":
            {".": {}, "f:status": {}, "f:type": {}}}}})
    );
}

#[test]
fn old_entries_are_merged() {
    let mut object = write(
        "configmaps",
        None,
        json!({"metadata": {"name": "a"}, "data": {"k0": "0"}}),
        &writer("m0", "", TIME),
    );
    for at in 1..15 {
        let mut next = object.clone();
        next["data"][format!("k{at}")] = json!("1");
        let (manager, time) = (format!("m{at:02}"), format!("2024-01-01T00:00:{at:02}Z"));
        object = write("configmaps", Some(&object), next, &writer(&manager, "", &time));
    }
    let entries = object["metadata"]["managedFields"].as_array().expect("entries");
    assert_eq!(entries.len(), MAX_UPDATE_MANAGERS);
    let ancient = entries.iter().find(|entry| entry["manager"] == ANCIENT).expect("bucket");
    assert_eq!(ancient["fieldsV1"]["f:data"]["f:k3"], json!({}));
}

#[test]
fn names_managers() {
    assert_eq!(manager_name("mine", "kubectl/v1"), "mine");
    assert_eq!(manager_name("", "kubectl/v1.32.0 (linux/amd64)"), "kubectl");
    assert_eq!(manager_name("", ""), "unknown");
}

#[test]
fn one_empty_entry_asks_for_a_fresh_start() {
    let created = write("pods", None, pod(), &writer("one", "", TIME));
    let mut next = created.clone();
    next["metadata"]["managedFields"] = json!([{}]);
    let updated = write("pods", Some(&created), next, &writer("two", "", TIME));
    assert!(updated["metadata"].get("managedFields").is_none());
}
