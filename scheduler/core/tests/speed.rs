//! How fast decisions are. Run with `cargo test --release -p scheduler-core --test speed -- --ignored --nocapture`.

#![allow(clippy::expect_used, clippy::panic)]

use std::sync::Arc;
use std::time::Instant;

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use scheduler_core::{Cluster, Decision, PodInfo};
use serde_json::{Value, json};

fn cluster(nodes: usize) -> Cluster {
    let mut cluster = Cluster::new();
    for n in 0..nodes {
        let node = json!({
            "metadata": {"name": format!("node-{n}"), "labels": {
                "kubernetes.io/hostname": format!("node-{n}"), "zone": format!("zone-{}", n % 10)}},
            "status": {"allocatable": {"cpu": "32", "memory": "64Gi", "pods": "110"}},
        });
        cluster.set_node(&serde_json::from_value(node).expect("a node"));
    }
    cluster
}

fn pods(count: usize, spec: &Value) -> Vec<Arc<PodInfo>> {
    (0..count)
        .map(|n| {
            let mut pod = json!({
                "metadata": {"namespace": "d", "name": format!("pod-{n}"), "uid": format!("u{n}"), "labels": {"app": "web"}},
                "spec": {"containers": [{"name": "c", "image": "web",
                    "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}}}]},
            });
            for (key, value) in spec.as_object().into_iter().flatten() {
                pod["spec"][key] = value.clone();
            }
            Arc::new(PodInfo::read(&serde_json::from_value(pod).expect("a pod")))
        })
        .collect()
}

fn measure(what: &str, spec: &Value) {
    let mut cluster = cluster(1000);
    let pods = pods(5000, spec);
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let started = Instant::now();
    let mut placed = 0;
    for pod in &pods {
        if let (Decision::Bind { node }, _) = cluster.schedule(pod, &mut rng) {
            cluster.assume(pod, &node);
            placed += 1;
        }
    }
    let seconds = started.elapsed().as_secs_f64();
    println!("{what}: {placed} of {} placed, {:.0} decisions/s", pods.len(), pods.len() as f64 / seconds);
}

#[test]
#[ignore = "a measurement, for release builds"]
fn decisions_a_second() {
    let selector = json!({"matchLabels": {"app": "web"}});
    measure("plain", &json!({}));
    measure(
        "spread over zones (condition) and nodes (wish)",
        &json!({"topologySpreadConstraints": [
            {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule", "labelSelector": selector},
            {"maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "ScheduleAnyway", "labelSelector": selector},
        ]}),
    );
    measure(
        "preferred anti-affinity by node",
        &json!({"affinity": {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [
            {"weight": 100, "podAffinityTerm": {"topologyKey": "kubernetes.io/hostname", "labelSelector": selector}}]}}}),
    );
    measure(
        "required anti-affinity by node (1,000 fit)",
        &json!({"affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
            {"topologyKey": "kubernetes.io/hostname", "labelSelector": selector}]}}}),
    );
    measure(
        "required affinity by zone",
        &json!({"affinity": {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
            {"topologyKey": "zone", "labelSelector": selector}]}}}),
    );
}
