use serde_json::json;

use super::*;
use crate::schema;

fn check(kind: &str, document: Value, patch: Value, expected: Value) {
    let schemas = schema::builtin();
    let mut patched = document;
    strategic(schemas, schemas.by_name(kind).expect(kind), &mut patched, &patch).expect("patch applies");
    assert_eq!(patched, expected);
}

fn check_json(document: Value, patch: Value, expected: Result<Value, &str>) {
    let mut patched = document;
    let outcome = json(&mut patched, &patch).map(|()| patched).map_err(|error| error.to_string());
    assert_eq!(outcome, expected.map_err(str::to_owned));
}

#[test]
fn json_patch() {
    check_json(
        json!({"a": [1, 2]}),
        json!([{"op": "add", "path": "/a/1", "value": 3}]),
        Ok(json!({"a": [1, 3, 2]})),
    );
    check_json(
        json!({"a": [1]}),
        json!([{"op": "add", "path": "/a/-", "value": 3}]),
        Ok(json!({"a": [1, 3]})),
    );
    check_json(
        json!({"m": {"x/y": 1}}),
        json!([{"op": "move", "from": "/m/x~1y", "path": "/m/z"}, {"op": "copy", "from": "/m/z", "path": "/c"}]),
        Ok(json!({"m": {"z": 1}, "c": 1})),
    );
    check_json(
        json!({"a": 1}),
        json!([{"op": "test", "path": "/a", "value": 2}]),
        Err("testing value /a failed: test failed"),
    );
    check_json(
        json!({}),
        json!([{"op": "replace", "path": "/x", "value": 2}]),
        Err("replace operation does not apply: doc is missing key: /x: missing value"),
    );
    check_json(
        json!({}),
        json!([{"op": "remove", "path": "/x"}]),
        Err("Unable to remove nonexistent key: x: missing value"),
    );
    check_json(
        json!({}),
        json!([{"op": "add", "path": "/x/y", "value": 1}]),
        Err("add operation does not apply: doc is missing path: \"/x/y\": missing value"),
    );
    check_json(json!({}), json!([{"op": "frob", "path": "/x"}]), Err("Unexpected kind: frob"));
}

#[test]
fn merge_patch() {
    let mut document = json!({"a": {"b": 1, "c": 2}, "l": [1, 2]});
    merge(&mut document, &json!({"a": {"b": null, "d": {"e": null, "f": 1}}, "l": [3]})).expect("applies");
    assert_eq!(document, json!({"a": {"c": 2, "d": {"f": 1}}, "l": [3]}));
}

#[test]
fn containers_are_merged_by_name() {
    check(
        "core.v1.Pod",
        json!({"spec": {"containers": [{"name": "a", "image": "1", "args": ["x"]}, {"name": "b", "image": "1"}]}}),
        json!({"spec": {"containers": [{"name": "c", "image": "3"}, {"name": "b", "image": "2"},
            {"name": "a", "args": ["y"]}]}}),
        json!({"spec": {"containers": [{"name": "c", "image": "3"}, {"name": "b", "image": "2"},
            {"name": "a", "image": "1", "args": ["y"]}]}}),
    );
}

#[test]
fn directives_delete_and_replace() {
    check(
        "core.v1.Pod",
        json!({"spec": {"containers": [{"name": "a"}, {"name": "b"}], "volumes": [{"name": "v", "emptyDir": {}}]}}),
        json!({"spec": {"containers": [{"$patch": "delete", "name": "a"}], "volumes": [{"$patch": "replace"},
            {"name": "w", "emptyDir": {}}]}}),
        json!({"spec": {"containers": [{"name": "b"}], "volumes": [{"name": "w", "emptyDir": {}}]}}),
    );
    check(
        "core.v1.ConfigMap",
        json!({"data": {"a": "1", "b": "2"}}),
        json!({"data": {"$patch": "replace", "c": "3"}}),
        json!({"data": {"c": "3"}}),
    );
}

#[test]
fn retained_keys_drop_the_rest() {
    check(
        "apps.v1.Deployment",
        json!({"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}}),
        json!({"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}}),
        json!({"spec": {"strategy": {"type": "Recreate"}}}),
    );
}

#[test]
fn volumes_change_their_source() {
    let pod = |volumes: Value| json!({"spec": {"volumes": volumes}});
    check(
        "core.v1.Pod",
        pod(json!([{"name": "v", "emptyDir": {}}, {"name": "w", "emptyDir": {}}])),
        pod(json!([{"$retainKeys": ["name", "configMap"], "name": "v", "configMap": {"name": "c"}}])),
        pod(json!([{"name": "v", "configMap": {"name": "c"}}, {"name": "w", "emptyDir": {}}])),
    );
    // Null deletes and needs no place among the retained keys.
    check(
        "core.v1.Pod",
        pod(json!([{"name": "v", "emptyDir": {}}])),
        pod(json!([{"$retainKeys": ["name"], "name": "v", "emptyDir": null}])),
        pod(json!([{"name": "v"}])),
    );
}

#[test]
fn nested_lists_are_merged_by_their_own_keys() {
    let pod = |container: Value| json!({"spec": {"containers": [container]}});
    check(
        "core.v1.Pod",
        pod(json!({"name": "c", "ports": [{"containerPort": 80}, {"containerPort": 81}],
            "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]})),
        pod(json!({"name": "c", "ports": [{"containerPort": 81, "$patch": "delete"}, {"containerPort": 82}],
            "$setElementOrder/env": [{"name": "C"}, {"name": "A"}],
            "env": [{"name": "C", "value": "3"}, {"name": "B", "$patch": "delete"}]})),
        pod(json!({"name": "c", "ports": [{"containerPort": 82}, {"containerPort": 80}],
            "env": [{"name": "C", "value": "3"}, {"name": "A", "value": "1"}]})),
    );
    // The directive of an item that is there, or of a whole map.
    check(
        "core.v1.Pod",
        pod(json!({"name": "c", "image": "1", "resources": {"limits": {"cpu": "1"}}})),
        pod(
            json!({"name": "c", "$patch": "merge", "resources": {"$patch": "replace", "requests": {"cpu": "2"}}}),
        ),
        pod(json!({"name": "c", "image": "1", "resources": {"requests": {"cpu": "2"}}})),
    );
    check(
        "core.v1.Pod",
        pod(json!({"name": "c", "securityContext": {"privileged": true}})),
        pod(json!({"name": "c", "securityContext": {"$patch": "delete"}})),
        pod(json!({"name": "c", "securityContext": {}})),
    );
}

#[test]
fn what_a_patch_keeps_must_be_what_it_names() {
    let schemas = schema::builtin();
    let deployment = schemas.by_name("apps.v1.Deployment").expect("deployment");
    let mut document = json!({"metadata": {"finalizers": ["a"]}, "spec": {"strategy": {"type": "Recreate"}}});
    let patch = json!({"spec": {"strategy": {"$retainKeys": ["rollingUpdate"], "type": "RollingUpdate"}}});
    let error = strategic(schemas, deployment, &mut document, &patch).expect_err("refused");
    assert_eq!(error.to_string(), "invalid patch format of retainKeys");
    let orders = json!({"metadata": {"$setElementOrder/finalizers": "x"}});
    assert!(strategic(schemas, deployment, &mut document, &orders).is_err());
    let other = json!({"metadata": {"$setElementOrder/finalizers": ["a"], "finalizers": ["b"]}});
    let error = strategic(schemas, deployment, &mut document, &other).expect_err("refused");
    assert!(error.to_string().starts_with("The order in patch list"), "{error}");
    let primitives = json!({"metadata": {"$deleteFromPrimitiveList/finalizers": "x"}});
    assert!(strategic(schemas, deployment, &mut document, &primitives).is_err());
}

#[test]
fn lists_of_text() {
    check(
        "core.v1.Pod",
        json!({"metadata": {"finalizers": ["a", "b"]}}),
        json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["a"], "finalizers": ["c"]}}),
        json!({"metadata": {"finalizers": ["c", "b"]}}),
    );
    check(
        "core.v1.Pod",
        json!({"spec": {"containers": [{"name": "a", "args": ["1", "2"]}]}}),
        json!({"spec": {"containers": [{"name": "a", "args": ["3"]}]}}),
        json!({"spec": {"containers": [{"name": "a", "args": ["3"]}]}}),
    );
}

#[test]
fn the_patch_may_name_an_order() {
    check(
        "core.v1.Pod",
        json!({"spec": {"containers": [{"name": "a"}, {"name": "s"}, {"name": "b"}]}}),
        json!({"spec": {"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}],
            "containers": [{"name": "b", "image": "2"}]}}),
        json!({"spec": {"containers": [{"name": "s"}, {"name": "b", "image": "2"}, {"name": "a"}]}}),
    );
}

#[test]
fn what_kubectl_sends_when_a_container_is_gone() {
    check(
        "core.v1.Pod",
        json!({"spec": {"containers": [{"name": "c", "image": "i:1"}, {"name": "d", "image": "j"}]}}),
        json!({"spec": {"$setElementOrder/containers": [{"name": "c"}],
            "containers": [{"image": "i:2", "name": "c"}, {"$patch": "delete", "name": "d"}]}}),
        json!({"spec": {"containers": [{"name": "c", "image": "i:2"}]}}),
    );
}

#[test]
fn what_does_not_apply_is_told() {
    let schemas = schema::builtin();
    let pod = schemas.by_name("core.v1.Pod").expect("pod");
    let mut document = json!({"spec": {"containers": [{"name": "a"}]}});
    let error = strategic(schemas, pod, &mut document, &json!({"spec": {"containers": [{"image": "x"}]}}));
    let message = "map: {\"image\":\"x\"} does not contain declared merge key: name";
    assert_eq!(error.expect_err("no key").to_string(), message);
    assert!(strategic(schemas, pod, &mut document, &json!({"$patch": "frob"})).is_err());
}
