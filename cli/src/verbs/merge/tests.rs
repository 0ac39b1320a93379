use super::*;

/// The patch, and what the server makes of it.
fn check(kind: &str, original: Value, modified: Value, current: Value, patch: Option<Value>, result: Value) {
    let schemas = api::schema::builtin();
    let id = schemas.by_name(kind).expect("a type");
    let documents = Documents { original: &original, modified: &modified, current: &current };
    let found = strategic(schemas, id, documents);
    assert_eq!(found, patch);
    let mut after = current.clone();
    if let Some(found) = &found {
        api::patch::strategic(schemas, id, &mut after, found).expect("the patch applies");
    }
    assert_eq!(after, result);
    let again = Documents { original: &modified, modified: &modified, current: &after };
    assert_eq!(strategic(schemas, id, again), None, "applied twice");
}

#[test]
fn what_others_set_stays() {
    check(
        "apps.v1.Deployment",
        json!({"spec": {"replicas": 2, "paused": true}, "metadata": {"labels": {"a": "1", "b": "2"}}}),
        json!({"spec": {"replicas": 3}, "metadata": {"labels": {"a": "1"}}}),
        json!({"spec": {"replicas": 2, "paused": true, "minReadySeconds": 5}, "metadata": {"labels": {"a": "1", "b": "2", "c": "3"}}}),
        Some(json!({"spec": {"replicas": 3, "paused": null}, "metadata": {"labels": {"b": null}}})),
        json!({"spec": {"replicas": 3, "minReadySeconds": 5}, "metadata": {"labels": {"a": "1", "c": "3"}}}),
    );
}

#[test]
fn lists_merge_by_key() {
    let containers = |list: Value| json!({"spec": {"containers": list}});
    check(
        "core.v1.Pod",
        containers(json!([{"name": "a", "image": "x:1"}, {"name": "old", "image": "o"}])),
        containers(json!([{"name": "a", "image": "x:2"}, {"name": "new", "image": "n"}])),
        containers(
            json!([{"name": "a", "image": "x:1", "imagePullPolicy": "Always"}, {"name": "old", "image": "o"}, {"name": "injected", "image": "i"}]),
        ),
        Some(json!({"spec": {
            "$setElementOrder/containers": [{"name": "a"}, {"name": "new"}],
            "containers": [{"name": "a", "image": "x:2"}, {"name": "new", "image": "n"}, {"name": "old", "$patch": "delete"}]}})),
        containers(
            json!([{"name": "a", "image": "x:2", "imagePullPolicy": "Always"}, {"name": "new", "image": "n"}, {"name": "injected", "image": "i"}]),
        ),
    );
}

#[test]
fn atomic_lists_are_replaced() {
    check(
        "core.v1.Pod",
        json!({"spec": {"containers": [{"name": "a", "args": ["x"]}]}}),
        json!({"spec": {"containers": [{"name": "a", "args": ["x", "y"]}]}}),
        json!({"spec": {"containers": [{"name": "a", "args": ["x"], "image": "i"}]}}),
        Some(
            json!({"spec": {"$setElementOrder/containers": [{"name": "a"}], "containers": [{"name": "a", "args": ["x", "y"]}]}}),
        ),
        json!({"spec": {"containers": [{"name": "a", "args": ["x", "y"], "image": "i"}]}}),
    );
}

#[test]
fn unions_drop_the_other_members() {
    check(
        "apps.v1.Deployment",
        json!({"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}}),
        json!({"spec": {"strategy": {"type": "Recreate"}}}),
        json!({"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": "25%"}}}}),
        Some(
            json!({"spec": {"strategy": {"type": "Recreate", "rollingUpdate": null, "$retainKeys": ["type"]}}}),
        ),
        json!({"spec": {"strategy": {"type": "Recreate"}}}),
    );
}

#[test]
fn finalizers_are_a_set() {
    check(
        "core.v1.Pod",
        json!({"metadata": {"finalizers": ["a.b/c", "a.b/d"]}}),
        json!({"metadata": {"finalizers": ["a.b/c", "a.b/e"]}}),
        json!({"metadata": {"finalizers": ["a.b/c", "a.b/d", "z.z/z"]}}),
        Some(json!({"metadata": {
            "$setElementOrder/finalizers": ["a.b/c", "a.b/e"], "$deleteFromPrimitiveList/finalizers": ["a.b/d"], "finalizers": ["a.b/e"]}})),
        json!({"metadata": {"finalizers": ["a.b/c", "a.b/e", "z.z/z"]}}),
    );
}

#[test]
fn nothing_to_do() {
    let object = json!({"spec": {"containers": [{"name": "a", "ports": [{"containerPort": 80}]}], "n": 1}});
    let current = json!({"spec": {"containers": [{"name": "a", "image": "x", "ports": [{"containerPort": 80, "protocol": "TCP"}]}], "n": 1.0}, "status": {}});
    check("core.v1.Pod", object.clone(), object, current.clone(), None, current);
}

#[test]
fn other_kinds_replace_lists() {
    let (original, modified, current) = (
        json!({"spec": {"l": [{"name": "a"}], "x": 1}}),
        json!({"spec": {"l": [{"name": "b"}]}}),
        json!({"spec": {"l": [{"name": "a"}], "x": 1, "y": 2}}),
    );
    let documents = Documents { original: &original, modified: &modified, current: &current };
    let patch = json_merge(documents).expect("changes");
    assert_eq!(patch, json!({"spec": {"l": [{"name": "b"}], "x": null}}));
}
