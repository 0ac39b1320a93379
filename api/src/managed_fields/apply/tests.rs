use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::{catalogue::Catalogue, schema};

const TIME: &str = "2024-01-01T00:00:00Z";

fn resource(kind: &str) -> &'static Resource {
    let version = if kind == "Deployment" { "apps/v1" } else { "v1" };
    Catalogue::builtin().by_type(version, kind).expect(kind)
}

fn writer<'a>(manager: &'a str, operation: Operation, version: &'a str) -> Writer<'a> {
    Writer { manager, operation, subresource: "", api_version: version, time: TIME }
}

fn whole(kind: &str, content: &Value) -> Value {
    let mut object =
        json!({"apiVersion": resource(kind).api_version(), "kind": kind, "metadata": {"name": "a"}});
    for (name, value) in content.as_object().expect("an object") {
        match name.as_str() {
            "metadata" => object["metadata"]
                .as_object_mut()
                .expect("metadata")
                .extend(value.as_object().expect("metadata").clone()),
            _ => object[name] = value.clone(),
        }
    }
    object
}

fn applied(
    kind: &str,
    live: Option<&Value>,
    manager: &str,
    content: &Value,
    force: bool,
) -> Result<Value, ApplyError> {
    let version = resource(kind).api_version();
    let writer = writer(manager, Operation::Apply, &version);
    let done = apply(schema::builtin(), resource(kind), live, &whole(kind, content), &writer, force)?;
    let mut object = done.object;
    schema::builtin().prune(resource(kind).schema, &mut object);
    if !done.entries.is_empty() {
        object["metadata"]["managedFields"] = done.entries.into();
    }
    Ok(object)
}

fn updated(kind: &str, live: &Value, manager: &str, change: impl Fn(&mut Value)) -> Value {
    let version = resource(kind).api_version();
    let mut new = live.clone();
    change(&mut new);
    let writer = writer(manager, Operation::Update, &version);
    super::super::update(schema::builtin(), resource(kind), Some(live), &mut new, &writer);
    new
}

fn fields_of_manager<'a>(object: &'a Value, manager: &str) -> Option<&'a Value> {
    let entries = object["metadata"]["managedFields"].as_array()?;
    Some(&entries.iter().find(|entry| entry["manager"] == manager)?["fieldsV1"])
}

#[test]
fn an_applier_owns_what_it_names_and_what_it_no_longer_names_goes() {
    let one =
        applied("ConfigMap", None, "one", &json!({"data": {"a": "1", "b": "2"}}), false).expect("applies");
    assert_eq!(one["data"], json!({"a": "1", "b": "2"}));
    assert_eq!(fields_of_manager(&one, "one"), Some(&json!({"f:data": {"f:a": {}, "f:b": {}}})));
    let entry = &one["metadata"]["managedFields"][0];
    assert_eq!((&entry["operation"], &entry["apiVersion"]), (&json!("Apply"), &json!("v1")));
    let less = applied("ConfigMap", Some(&one), "one", &json!({"data": {"a": "1"}}), false).expect("applies");
    assert_eq!(less["data"], json!({"a": "1"}));
    assert_eq!(fields_of_manager(&less, "one"), Some(&json!({"f:data": {"f:a": {}}})));
    let none = applied("ConfigMap", Some(&less), "one", &json!({}), false).expect("applies");
    assert!(none.get("data").is_none() && none["metadata"].get("managedFields").is_none());
}

#[test]
fn what_another_owns_too_stays() {
    let one =
        applied("ConfigMap", None, "one", &json!({"data": {"a": "1", "b": "2"}}), false).expect("applies");
    let two = applied("ConfigMap", Some(&one), "two", &json!({"data": {"b": "2", "c": "3"}}), false);
    let two = two.expect("the same value is no conflict");
    let less = applied("ConfigMap", Some(&two), "one", &json!({"data": {"a": "1"}}), false).expect("applies");
    assert_eq!(less["data"], json!({"a": "1", "b": "2", "c": "3"}));
    assert_eq!(fields_of_manager(&less, "two"), Some(&json!({"f:data": {"f:b": {}, "f:c": {}}})));
}

#[test]
fn a_change_of_what_another_owns_is_a_conflict_unless_forced() {
    let one =
        applied("ConfigMap", None, "one", &json!({"data": {"a": "1", "b": "1"}}), false).expect("applies");
    let one = updated("ConfigMap", &one, "editor", |object| object["data"]["b"] = json!("2"));
    assert_eq!(fields_of_manager(&one, "one"), Some(&json!({"f:data": {"f:a": {}}})));
    let change = json!({"data": {"a": "9", "b": "9"}});
    let error = applied("ConfigMap", Some(&one), "two", &change, false).expect_err("conflicts");
    let status = error.to_status();
    assert_eq!((status.code, status.reason), (409, "Conflict"));
    assert_eq!(
        status.message,
        "Apply failed with 2 conflicts: conflicts with \"editor\" using v1:\n- .data.b\nconflicts with \"one\":\n- .data.a"
    );
    let causes = status.details.expect("details").causes;
    let causes: Vec<_> = causes.iter().map(|cause| (&*cause.message, &*cause.field)).collect();
    assert_eq!(
        causes,
        [("conflict with \"one\"", ".data.a"), ("conflict with \"editor\" using v1", ".data.b")]
    );
    let single = applied("ConfigMap", Some(&one), "two", &json!({"data": {"a": "9"}}), false);
    assert_eq!(
        single.expect_err("conflict").to_status().message,
        "Apply failed with 1 conflict: conflict with \"one\": .data.a"
    );
    let forced = applied("ConfigMap", Some(&one), "two", &change, true).expect("forced");
    assert_eq!(forced["data"], json!({"a": "9", "b": "9"}));
    assert!(fields_of_manager(&forced, "one").is_none() && fields_of_manager(&forced, "editor").is_none());
}

#[test]
fn lists_are_owned_item_by_item() {
    let one = json!({"spec": {"containers": [{"name": "c", "image": "i:1",
        "ports": [{"containerPort": 80}], "env": [{"name": "A", "value": "1"}]}]}});
    let pod = applied("Pod", None, "one", &one, false).expect("applies");
    assert_eq!(
        fields_of_manager(&pod, "one"),
        Some(
            &json!({"f:spec": {"f:containers": {"k:{\"name\":\"c\"}": {".": {}, "f:name": {}, "f:image": {},
            "f:env": {"k:{\"name\":\"A\"}": {".": {}, "f:name": {}, "f:value": {}}},
            "f:ports": {"k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {".": {}, "f:containerPort": {}}}}}}})
        )
    );
    // Defaults that nobody owns do not keep an item that its applier dropped.
    let mut live = pod.clone();
    live["spec"]["containers"][0]["ports"][0]["protocol"] = json!("TCP");
    live["spec"]["containers"][0]["terminationMessagePath"] = json!("/dev/termination-log");
    let two = json!({"spec": {"containers": [{"name": "s", "image": "sidecar"}]}});
    let both = applied("Pod", Some(&live), "two", &two, false).expect("applies");
    assert_eq!(both["spec"]["containers"].as_array().map(Vec::len), Some(2));
    let gone = applied("Pod", Some(&both), "one", &json!({}), false).expect("applies");
    assert_eq!(gone["spec"]["containers"], json!([{"name": "s", "image": "sidecar"}]));
    let error = applied(
        "Pod",
        Some(&live),
        "two",
        &json!({"spec": {"containers": [{"name": "c", "image": "i:2"}]}}),
        false,
    );
    let message = "Apply failed with 1 conflict: conflict with \"one\": .spec.containers[name=\"c\"].image";
    assert_eq!(error.expect_err("conflict").to_status().message, message);
}

#[test]
fn sets_and_atomic_values() {
    let one = applied("ConfigMap", None, "one", &json!({"metadata": {"finalizers": ["x/a", "x/b"]}}), false);
    let one = one.expect("applies");
    assert_eq!(
        fields_of_manager(&one, "one"),
        Some(&json!({"f:metadata": {"f:finalizers": {"v:\"x/a\"": {}, "v:\"x/b\"": {}}}}))
    );
    let two = applied("ConfigMap", Some(&one), "two", &json!({"metadata": {"finalizers": ["x/c"]}}), false);
    let less = json!({"metadata": {"finalizers": ["x/b"]}});
    let less = applied("ConfigMap", Some(&two.expect("applies")), "one", &less, false).expect("applies");
    assert_eq!(less["metadata"]["finalizers"], json!(["x/b", "x/c"]));
    let selector = |label: &str| json!({"spec": {"selector": {"matchLabels": {label: "x"}}}});
    let web = applied("Deployment", None, "one", &selector("a"), false).expect("applies");
    assert_eq!(fields_of_manager(&web, "one"), Some(&json!({"f:spec": {"f:selector": {}}})));
    let error = applied("Deployment", Some(&web), "two", &selector("b"), false).expect_err("conflict");
    assert!(error.to_status().message.ends_with(": .spec.selector"));
    let forced = applied("Deployment", Some(&web), "two", &selector("b"), true).expect("forced");
    assert_eq!(forced["spec"]["selector"], json!({"matchLabels": {"b": "x"}}));
}

#[test]
fn what_was_there_before_the_first_apply_has_an_owner() {
    let live = whole("ConfigMap", &json!({"data": {"a": "1", "b": "1"}}));
    let error = applied("ConfigMap", Some(&live), "one", &json!({"data": {"a": "2"}}), false);
    let message = "Apply failed with 1 conflict: conflict with \"before-first-apply\" using v1: .data.a";
    assert_eq!(error.expect_err("conflict").to_status().message, message);
    let forced =
        applied("ConfigMap", Some(&live), "one", &json!({"data": {"a": "2"}}), true).expect("forced");
    assert_eq!(
        fields_of_manager(&forced, "before-first-apply"),
        Some(&json!({"f:data": {".": {}, "f:b": {}}}))
    );
}

#[test]
fn kubectl_takes_over_what_it_applied_on_the_clients_side() {
    let last = whole("ConfigMap", &json!({"data": {"a": "1", "b": "1"}}));
    let mut new = last.clone();
    new["metadata"]["annotations"] = json!({LAST_APPLIED: last.to_string()});
    let client_side = writer("kubectl-client-side-apply", Operation::Update, "v1");
    super::super::update(schema::builtin(), resource("ConfigMap"), None, &mut new, &client_side);
    let live = updated("ConfigMap", &new, "editor", |object| object["data"]["b"] = json!("2"));
    let change = json!({"data": {"a": "3"}});
    let done = applied("ConfigMap", Some(&live), KUBECTL, &change, false).expect("upgraded");
    assert_eq!(done["data"], json!({"a": "3", "b": "2"}));
    let kept: Value =
        serde_json::from_str(done["metadata"]["annotations"][LAST_APPLIED].as_str().expect("text"))
            .expect("JSON");
    assert_eq!(kept["data"], change["data"]);
    // What another changed since is not kubectl's to take, and other managers have no such right.
    assert!(applied("ConfigMap", Some(&live), KUBECTL, &json!({"data": {"b": "3"}}), false).is_err());
    assert!(applied("ConfigMap", Some(&live), "other", &change, false).is_err());
}

#[test]
fn the_status_is_not_applied_with_the_object() {
    let config = json!({"spec": {"replicas": 1}, "status": {"replicas": 7}});
    let web = applied("Deployment", None, "one", &config, false).expect("applies");
    assert_eq!(fields_of_manager(&web, "one"), Some(&json!({"f:spec": {"f:replicas": {}}})));
    let status = Writer { subresource: "status", ..writer("two", Operation::Apply, "apps/v1") };
    let resource = resource("Deployment");
    let done = apply(schema::builtin(), resource, Some(&web), &whole("Deployment", &config), &status, false);
    let entries = done.expect("applies").entries;
    let own = entries.iter().find(|entry| entry["manager"] == "two").expect("entry");
    assert_eq!(
        (&own["subresource"], &own["fieldsV1"]),
        (&json!("status"), &json!({"f:status": {"f:replicas": {}}}))
    );
}

#[test]
fn configurations_that_make_no_sense_are_refused() {
    let refused = |kind: &str, content: Value| {
        applied(kind, None, "one", &content, false).expect_err("refused").to_string()
    };
    assert_eq!(
        refused(
            "Pod",
            json!({"spec": {"foo": 1, "containers": [{"image": "i"}, {"name": "a"}, {"name": "a"}]}})
        ),
        "failed to create typed patch object (/a; /v1, Kind=Pod): errors:\n  .spec.containers: element 0: associative list with keys has an element that omits key field \"name\" (and doesn't have default value)\n  .spec.containers: duplicate entries for key [name=\"a\"]\n  .spec.foo: field not declared in schema"
    );
    assert_eq!(
        refused("Pod", json!({"spec": {"containers": {}}})),
        "failed to create typed patch object (/a; /v1, Kind=Pod): .spec.containers: expected list, got &{map[]}"
    );
    let managed = refused("ConfigMap", json!({"metadata": {"managedFields": []}}));
    assert_eq!(managed, "metadata.managedFields must be nil");
    let pod = whole("Pod", &json!({}));
    let one = writer("one", Operation::Apply, "v1");
    let error = apply(schema::builtin(), resource("ConfigMap"), None, &pod, &one, false).expect_err("a kind");
    assert_eq!(error.to_string(), "invalid object type: /v1, Kind=Pod");
}

fn configuration() -> impl Strategy<Value = Value> {
    let name = prop::sample::select(vec!["a", "b", "c"]);
    let env = prop::collection::btree_map(name.clone(), "[12]", 0..3);
    let containers = prop::collection::btree_map(name.clone(), (prop::option::of("[xy]"), env), 0..3);
    let labels = prop::collection::btree_map(name.clone(), "[12]", 0..3);
    let finalizers = prop::collection::btree_set(name, 0..3);
    (containers, labels, finalizers, prop::option::of("[12]")).prop_map(
        |(containers, labels, finalizers, class)| {
            let containers: Vec<Value> = containers
                .into_iter()
                .map(|(name, (image, env))| {
                    let env: Vec<Value> =
                        env.into_iter().map(|(name, value)| json!({"name": name, "value": value})).collect();
                    json!({"name": name, "image": image.unwrap_or_default(), "env": env})
                })
                .collect();
            json!({"metadata": {"labels": labels, "finalizers": finalizers},
            "spec": {"containers": containers, "priorityClassName": class.unwrap_or_default()}})
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whoever applies again what was applied last changes nothing; and what all appliers name is there.
    #[test]
    fn applying_again_changes_nothing(rounds in prop::collection::vec((0..3usize, configuration()), 1..6)) {
        let managers = ["one", "two", "three"];
        let mut live: Option<Value> = None;
        for (at, config) in &rounds {
            let done = applied("Pod", live.as_ref(), managers[*at], config, true).expect("applies");
            let again = applied("Pod", Some(&done), managers[*at], config, false).expect("no conflict");
            prop_assert_eq!(&again, &done);
            for container in config["spec"]["containers"].as_array().expect("a list") {
                let found = done["spec"]["containers"].as_array().expect("a list").iter()
                    .find(|present| present["name"] == container["name"]);
                prop_assert!(found.is_some_and(|found| container["image"] == "" || found["image"] == container["image"]));
            }
            live = Some(done);
        }
        // When everyone lets go, nothing is left.
        let mut live = live.expect("applied once");
        for manager in managers {
            live = applied("Pod", Some(&live), manager, &json!({}), false).expect("no conflict");
        }
        // An empty list has no items to own: it stays.
        prop_assert_eq!(live["spec"]["containers"].as_array().map_or(0, Vec::len), 0);
        prop_assert!(live["spec"].get("priorityClassName").is_none());
        prop_assert_eq!(&live["metadata"], &json!({"name": "a"}));
    }
}
