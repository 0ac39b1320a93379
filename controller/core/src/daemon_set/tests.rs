//! DaemonSets on a small cluster.

use serde_json::{Value, json};

use crate::model::{Model, text};
use crate::world::Controller;

fn node(name: &str, labels: Value, taints: Value) -> Value {
    json!({
        "metadata": {"name": name, "labels": labels},
        "spec": {"taints": taints},
        "status": {"conditions": [{"type": "Ready", "status": "True"}]},
    })
}

fn set(image: &str, strategy: Value) -> Value {
    json!({
        "metadata": {"name": "agent"},
        "spec": {
            "selector": {"matchLabels": {"app": "agent"}},
            "updateStrategy": strategy,
            "template": {
                "metadata": {"labels": {"app": "agent"}},
                "spec": {"nodeSelector": {"kind": "worker"}, "containers": [{"name": "c", "image": image}]},
            },
        },
    })
}

fn cluster(seed: u64, nodes: usize) -> Model {
    let mut model = Model::new(seed);
    model.running = vec![Controller::DaemonSet];
    for number in 0..nodes {
        model.put("nodes", node(&format!("n{number}"), json!({"kind": "worker"}), json!([])));
    }
    model
}

fn play(model: &mut Model, rounds: usize, chance: u32) {
    for _ in 0..rounds {
        model.settle();
        model.run_pods(chance, |_| true);
        model.advance(1);
    }
    model.settle();
}

fn set_image(model: &mut Model, image: &str) {
    let mut current = model.of("daemonsets").remove(0);
    current["spec"]["template"]["spec"]["containers"][0]["image"] = json!(image);
    model.put("daemonsets", current);
}

fn images(model: &Model) -> Vec<String> {
    model.of("pods").iter().map(|pod| text(&pod["spec"]["containers"][0]["image"])).collect()
}

fn nodes_of_pods(model: &Model) -> Vec<String> {
    let mut nodes: Vec<String> = model.of("pods").iter().map(|pod| text(&pod["spec"]["nodeName"])).collect();
    nodes.sort();
    nodes
}

fn serving(model: &Model) -> usize {
    let ready = |pod: &&Value| {
        pod["status"]["conditions"][0]["status"] == "True"
            && !pod["metadata"]["deletionTimestamp"].is_string()
    };
    model.of("pods").iter().filter(ready).count()
}

#[test]
fn one_pod_on_each_eligible_node() {
    let mut model = cluster(1, 2);
    model.put("nodes", node("other", json!({}), json!([])));
    model.put(
        "nodes",
        node("tainted", json!({"kind": "worker"}), json!([{"key": "x", "effect": "NoSchedule"}])),
    );
    let cordoned = json!([{"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}]);
    model.put("nodes", node("cordoned", json!({"kind": "worker"}), cordoned));
    model.put("daemonsets", set("v1", json!({"type": "RollingUpdate"})));
    play(&mut model, 6, 100);
    assert_eq!(nodes_of_pods(&model), ["cordoned", "n0", "n1"]);
    let status = &model.of("daemonsets")[0]["status"];
    assert_eq!((&status["desiredNumberScheduled"], &status["numberAvailable"]), (&json!(3), &json!(3)));

    model.put("nodes", node("late", json!({"kind": "worker"}), json!([])));
    play(&mut model, 6, 100);
    assert_eq!(nodes_of_pods(&model), ["cordoned", "late", "n0", "n1"]);

    let mut moved = node("n0", json!({}), json!([]));
    moved["metadata"]["uid"] = json!("same");
    model.put("nodes", moved);
    play(&mut model, 6, 100);
    assert_eq!(nodes_of_pods(&model), ["cordoned", "late", "n1"]);
}

#[test]
fn a_rolling_update_replaces_a_few_at_a_time() {
    fn most_serve(model: &Model) {
        assert!(serving(model) >= 4, "{:#?}", model.log);
    }
    for seed in 0..6 {
        let mut model = cluster(seed, 6);
        let strategy = json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 2}});
        model.put("daemonsets", set("v1", strategy));
        play(&mut model, 6, 100);
        model.invariant = Some(most_serve);
        set_image(&mut model, "v2");
        play(&mut model, 60, 40);
        assert_eq!(images(&model), ["v2"; 6]);
        assert_eq!(model.of("daemonsets")[0]["status"]["updatedNumberScheduled"], 6);
        assert_eq!(model.of("controllerrevisions").len(), 2);
    }
}

#[test]
fn a_surge_starts_new_pods_beside_old_ones() {
    fn all_serve(model: &Model) {
        assert!(serving(model) >= 4, "{:#?}", model.log);
        assert!(model.of("pods").len() <= 4 + 4, "{:#?}", model.log);
    }
    for seed in 0..6 {
        let mut model = cluster(seed, 4);
        let rolling = json!({"maxUnavailable": 0, "maxSurge": 2});
        model.put("daemonsets", set("v1", json!({"type": "RollingUpdate", "rollingUpdate": rolling})));
        play(&mut model, 6, 100);
        model.invariant = Some(all_serve);
        set_image(&mut model, "v2");
        play(&mut model, 60, 40);
        assert_eq!(images(&model), ["v2"; 4]);
    }
}

#[test]
fn on_delete_waits_for_the_deletion_and_going_back_finds_the_old_revision() {
    let mut model = cluster(2, 2);
    model.put("daemonsets", set("v1", json!({"type": "OnDelete"})));
    play(&mut model, 6, 100);
    set_image(&mut model, "v2");
    play(&mut model, 6, 100);
    assert_eq!(images(&model), ["v1", "v1"]);
    set_image(&mut model, "v1");
    play(&mut model, 6, 100);
    let mut numbers: Vec<i64> =
        model.of("controllerrevisions").iter().map(|each| each["revision"].as_i64().unwrap()).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, [2, 3]);
}
