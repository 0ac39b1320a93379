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
