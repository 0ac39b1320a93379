//! A node falls silent and comes back.

use serde_json::{Value, json};

use crate::model::{Model, text};
use crate::world::Controller;

fn node(name: &str, ready: &str, heartbeat: &str) -> Value {
    json!({
        "metadata": {"name": name},
        "spec": {},
        "status": {"conditions": [{"type": "Ready", "status": ready, "lastHeartbeatTime": heartbeat}]},
    })
}

fn cluster() -> Model {
    let mut model = Model::new(1);
    model.running = vec![Controller::Node, Controller::TaintEviction];
    for name in ["n0", "n1", "n2"] {
        let now = model.now.to_string();
        model.put("nodes", node(name, "True", &now));
    }
    let pod = |name: &str, seconds: i64| {
        json!({
            "metadata": {"name": name},
            "spec": {
                "nodeName": "n0",
                "containers": [],
                "tolerations": [{"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": seconds}],
            },
            "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]},
        })
    };
    let (quick, patient) = (pod("quick", 5), pod("patient", 300));
    model.put("pods", quick);
    model.put("pods", patient);
    model.settle();
    model
}

fn beat(model: &mut Model, name: &str) {
    let mut current = model.of("nodes").into_iter().find(|node| node["metadata"]["name"] == name).unwrap();
    current["status"]["conditions"] =
        json!([{"type": "Ready", "status": "True", "lastHeartbeatTime": model.now.to_string()}]);
    model.put("nodes", current);
}

fn taints(model: &Model, name: &str) -> Vec<String> {
    let node = model.of("nodes").into_iter().find(|node| node["metadata"]["name"] == name).unwrap();
    let taints = node["spec"]["taints"].as_array().cloned().unwrap_or_default();
    taints.iter().map(|taint| format!("{}:{}", text(&taint["key"]), text(&taint["effect"]))).collect()
}

fn going(model: &Model) -> Vec<String> {
    let going = model.of("pods").into_iter().filter(|pod| pod["metadata"]["deletionTimestamp"].is_string());
    going.map(|pod| text(&pod["metadata"]["name"])).collect()
}

#[test]
fn a_silent_node_is_tainted_and_its_pods_go_in_their_time() {
    let mut model = cluster();
    let pass = |model: &mut Model, seconds: i64| {
        for _ in 0..seconds {
            model.advance(1);
            beat(model, "n1");
            beat(model, "n2");
            model.settle();
        }
    };
    pass(&mut model, 39);
    assert!(taints(&model, "n0").is_empty());
    pass(&mut model, 2);
    assert_eq!(
        taints(&model, "n0"),
        ["node.kubernetes.io/unreachable:NoSchedule", "node.kubernetes.io/unreachable:NoExecute"]
    );
    let ready = |model: &Model| {
        model.of("pods").iter().filter(|pod| pod["status"]["conditions"][0]["status"] == "True").count()
    };
    assert_eq!(ready(&model), 0);
    assert!(going(&model).is_empty());
    pass(&mut model, 6);
    assert_eq!(going(&model), ["quick"]);
    beat(&mut model, "n0");
    model.settle();
    assert!(taints(&model, "n0").is_empty());
    for _ in 0..30 {
        model.advance(10);
        for name in ["n0", "n1", "n2"] {
            beat(&mut model, name);
        }
        model.settle();
    }
    assert_eq!(going(&model), ["quick"]);
}

#[test]
fn when_every_node_is_silent_nothing_is_evicted() {
    let mut model = cluster();
    for _ in 0..100 {
        model.advance(1);
        model.settle();
    }
    assert_eq!(taints(&model, "n0"), ["node.kubernetes.io/unreachable:NoSchedule"]);
    assert!(going(&model).is_empty());
}

#[test]
fn a_cordoned_node_is_tainted() {
    let mut model = cluster();
    let mut current = model.of("nodes").remove(1);
    current["spec"]["unschedulable"] = json!(true);
    model.put("nodes", current);
    model.settle();
    assert_eq!(taints(&model, "n1"), ["node.kubernetes.io/unschedulable:NoSchedule"]);
}
