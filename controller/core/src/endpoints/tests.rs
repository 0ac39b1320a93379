//! What is published of a Service's pods.

use serde_json::{Value, json};

use crate::model::{Model, text};
use crate::world::{Controller, Key};

fn cluster(service_spec: Value) -> Model {
    let mut model = Model::new(1);
    model.running = vec![Controller::EndpointSlice, Controller::Endpoint];
    model.put("nodes", json!({"metadata": {"name": "n1", "labels": {"topology.kubernetes.io/zone": "z"}}}));
    let mut spec = json!({"selector": {"app": "web"}, "clusterIP": "10.96.0.9", "ports": [{"name": "http", "port": 80, "targetPort": "web"}]});
    for (field, value) in service_spec.as_object().unwrap() {
        spec[field.as_str()] = value.clone();
    }
    model.put("services", json!({"metadata": {"name": "web"}, "spec": spec}));
    model
}

fn pod(model: &mut Model, number: usize, ready: bool, port: u16) {
    let status = if ready { "True" } else { "False" };
    let ip = format!("10.1.{}.{}", number / 250, number % 250 + 1);
    model.put(
        "pods",
        json!({
            "metadata": {"name": format!("p{number:03}"), "labels": {"app": "web"}},
            "spec": {"nodeName": "n1", "containers": [{"name": "c", "ports": [{"name": "web", "containerPort": port}]}]},
            "status": {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}], "conditions": [{"type": "Ready", "status": status}]},
        }),
    );
}

/// Slices as `ports: address+flags…` (r ready, s serving, t terminating), Endpoints as `ports: ready | not ready`.
fn check(model: &mut Model, slices: &[&str], endpoints: &[&str]) {
    model.settle();
    let mut shown: Vec<String> = model.of("endpointslices").iter().map(show_slice).collect();
    shown.sort();
    assert_eq!(shown, slices);
    let legacy = model.of("endpoints").remove(0);
    let list = |value: &Value| {
        value.as_array().into_iter().flatten().map(|each| text(&each["ip"])).collect::<Vec<_>>().join(" ")
    };
    let subsets = legacy["subsets"].as_array().cloned().unwrap_or_default();
    let shown: Vec<String> = subsets
        .iter()
        .map(|each| {
            format!(
                "{}: {} | {}",
                each["ports"][0]["port"],
                list(&each["addresses"]),
                list(&each["notReadyAddresses"])
            )
        })
        .collect();
    assert_eq!(shown, endpoints);
}

fn show_slice(slice: &Value) -> String {
    let flag = |endpoint: &Value, name: &str| {
        if endpoint["conditions"][name] == true { &name[..1] } else { "" }.to_owned()
    };
    let endpoints = slice["endpoints"].as_array().cloned().unwrap_or_default();
    let shown = endpoints.iter().map(|each| {
        let flags: String =
            ["ready", "serving", "terminating"].into_iter().map(|name| flag(each, name)).collect();
        format!(" {}+{flags}", text(&each["addresses"][0]))
    });
    format!("{}:{}", slice["ports"][0]["port"], shown.collect::<String>())
}

#[test]
fn conditions_and_named_ports() {
    let mut model = cluster(json!({}));
    check(&mut model, &["null:"], &[]);
    pod(&mut model, 0, true, 8080);
    pod(&mut model, 1, false, 8080);
    pod(&mut model, 2, true, 9090);
    check(
        &mut model,
        &["8080: 10.1.0.1+rs 10.1.0.2+", "9090: 10.1.0.3+rs"],
        &["8080: 10.1.0.1 | 10.1.0.2", "9090: 10.1.0.3 | "],
    );
    let slice =
        model.of("endpointslices").into_iter().find(|slice| slice["ports"][0]["port"] == 8080).unwrap();
    assert_eq!(slice["endpoints"][0]["zone"], "z");
    assert_eq!(slice["endpoints"][0]["targetRef"]["name"], "p000");
    let mut going = model.objects[&("pods".into(), Key::new("default", "p000"))].clone();
    going["metadata"]["deletionTimestamp"] = json!(model.now.to_string());
    model.put("pods", going);
    check(
        &mut model,
        &["8080: 10.1.0.1+st 10.1.0.2+", "9090: 10.1.0.3+rs"],
        &["8080:  | 10.1.0.2", "9090: 10.1.0.3 | "],
    );
}

#[test]
fn unready_pods_of_a_service_that_wants_them() {
    let mut model = cluster(json!({"publishNotReadyAddresses": true, "clusterIP": "None"}));
    pod(&mut model, 0, false, 8080);
    check(&mut model, &["8080: 10.1.0.1+r"], &["8080: 10.1.0.1 | "]);
    let labels = &model.of("endpointslices")[0]["metadata"]["labels"];
    assert_eq!(labels["service.kubernetes.io/headless"], "");
}

#[test]
fn slices_hold_a_hundred_and_change_little() {
    let mut model = cluster(json!({}));
    for number in 0..250 {
        pod(&mut model, number, true, 8080);
    }
    model.settle();
    let mut sizes: Vec<usize> =
        model.of("endpointslices").iter().map(|slice| slice["endpoints"].as_array().unwrap().len()).collect();
    sizes.sort_unstable();
    assert_eq!(sizes, [50, 100, 100]);
    let before = model.of("endpointslices");
    model.remove("pods", &Key::new("default", "p007"));
    model.settle();
    let after = model.of("endpointslices");
    let changed = before.iter().filter(|slice| !after.contains(slice)).count();
    assert_eq!((changed, after.len()), (1, 3));
}

#[test]
fn endpoints_go_with_their_service() {
    let mut model = cluster(json!({}));
    model.settle();
    assert_eq!(model.of("endpoints").len(), 1);
    model.remove("services", &Key::new("default", "web"));
    model.settle();
    assert!(model.of("endpoints").is_empty());
}
