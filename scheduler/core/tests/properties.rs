//! What must hold whatever comes: nothing is over-committed, nobody is near whom they must not be near, and the state that
//! grew step by step decides as one that was built afresh.

#![allow(clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::sync::Arc;

use client_core::object::ObjectKey;
use proptest::prelude::*;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use scheduler_core::node::NodeInfo;
use scheduler_core::{Cluster, Decision, PodInfo};
use serde_json::json;

#[derive(Clone, Debug)]
enum Step {
    Node { name: usize, cpu: i64, zone: usize, closed: bool },
    RemoveNode(usize),
    Pod { name: usize, app: usize, cpu: i64, port: Option<i32>, shy: Option<&'static str>, spread: bool },
    RemovePod(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let shy = prop_oneof![Just(None), Just(Some("kubernetes.io/hostname")), Just(Some("zone"))];
    prop_oneof![
        2 => (0..6_usize, 1..9_i64, 0..3_usize, prop::bool::weighted(0.1))
            .prop_map(|(name, cpu, zone, closed)| Step::Node { name, cpu, zone, closed }),
        1 => (0..6_usize).prop_map(Step::RemoveNode),
        8 => (0..30_usize, 0..3_usize, 1..4_i64, prop::option::weighted(0.2, 80..82_i32), shy, prop::bool::weighted(0.3))
            .prop_map(|(name, app, cpu, port, shy, spread)| Step::Pod { name, app, cpu, port, shy, spread }),
        2 => (0..30_usize).prop_map(Step::RemovePod),
    ]
}

fn node(name: usize, cpu: i64, zone: usize, closed: bool) -> NodeInfo {
    let node = json!({
        "metadata": {"name": format!("n{name}"), "labels": {
            "kubernetes.io/hostname": format!("n{name}"), "zone": format!("z{zone}")}},
        "spec": {"unschedulable": closed},
        "status": {"allocatable": {"cpu": cpu.to_string(), "memory": "8Gi", "pods": "5"}},
    });
    NodeInfo::read(&serde_json::from_value(node).expect("a node"))
}

fn pod(
    name: usize,
    app: usize,
    cpu: i64,
    port: Option<i32>,
    shy: Option<&str>,
    spread: bool,
) -> Arc<PodInfo> {
    let selector = json!({"matchLabels": {"app": app.to_string()}});
    let ports: Vec<_> = port.iter().map(|port| json!({"containerPort": port, "hostPort": port})).collect();
    let terms: Vec<_> =
        shy.iter().map(|key| json!({"topologyKey": key, "labelSelector": selector})).collect();
    let spread: Vec<_> = spread
        .then(|| json!({"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule", "labelSelector": selector}))
        .into_iter()
        .collect();
    let pod = json!({
        "metadata": {"namespace": "d", "name": format!("p{name}"), "uid": format!("p{name}"), "labels": {"app": app.to_string()}},
        "spec": {
            "containers": [{"name": "c", "ports": ports, "resources": {"requests": {"cpu": cpu.to_string()}}}],
            "affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}},
            "topologySpreadConstraints": spread,
        },
    });
    Arc::new(PodInfo::read(&serde_json::from_value(pod).expect("a pod")))
}

/// What a test knows of a placed pod.
type Known = BTreeMap<String, (Arc<PodInfo>, Arc<str>)>;

fn check_room(nodes: &BTreeMap<String, NodeInfo>, placed: &Known, on: &str) {
    let here: Vec<&Arc<PodInfo>> =
        placed.values().filter(|(_, node)| &**node == on).map(|(pod, _)| pod).collect();
    let node = &nodes[on];
    assert!(
        here.iter().map(|pod| pod.requests.exact.cpu).sum::<i64>() <= node.allocatable.cpu,
        "cpu of {on}"
    );
    assert!(here.len() as i64 <= node.max_pods, "pods of {on}");
    for (at, pod) in here.iter().enumerate() {
        let others = here.iter().skip(at + 1).flat_map(|other| &other.ports);
        assert!(
            !others.into_iter().any(|port| pod.ports.iter().any(|own| own.conflicts(port))),
            "ports of {on}"
        );
    }
}

/// The pod just placed is near nobody whom either of them must not be near.
fn check_near(nodes: &BTreeMap<String, NodeInfo>, placed: &Known, name: &str) {
    let (pod, on) = &placed[name];
    for (other, (their, at)) in placed.iter().filter(|(other, _)| *other != name) {
        let Some(their_node) = nodes.get(&**at) else { continue };
        let same = pod.labels == their.labels;
        let terms = pod.relations.anti_affinity.iter().chain(&their.relations.anti_affinity);
        for term in terms.filter(|_| same) {
            let (mine, theirs) =
                (nodes[&**on].labels.get(&*term.topology), their_node.labels.get(&*term.topology));
            assert!(mine != theirs, "{name} on {on} is too near to {other} on {at}");
        }
    }
}

/// The same cluster, built at once.
fn afresh(nodes: &BTreeMap<String, NodeInfo>, placed: &Known) -> Cluster {
    let mut cluster = Cluster::new();
    for (pod, node) in placed.values() {
        let mut pod = PodInfo::clone(pod);
        pod.node = Some(Arc::clone(node));
        cluster.set_pod(Arc::new(pod));
    }
    for node in nodes.values() {
        cluster.set_node_info(node.clone());
    }
    cluster
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn holds(steps in prop::collection::vec(step(), 1..80)) {
        let mut cluster = Cluster::new();
        let mut nodes: BTreeMap<String, NodeInfo> = BTreeMap::new();
        let mut placed = Known::new();
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        for step in steps {
            match step {
                Step::Node { name, cpu, zone, closed } => {
                    let info = node(name, cpu, zone, closed);
                    cluster.set_node_info(info.clone());
                    nodes.insert(info.name.to_string(), info);
                }
                Step::RemoveNode(name) => {
                    cluster.remove_node(&format!("n{name}"));
                    nodes.remove(&format!("n{name}"));
                }
                Step::RemovePod(name) => {
                    cluster.remove_pod(&ObjectKey::new("d", format!("p{name}")));
                    placed.remove(&format!("p{name}"));
                }
                Step::Pod { name, app, cpu, port, shy, spread } => {
                    let key = format!("p{name}");
                    if placed.contains_key(&key) {
                        continue;
                    }
                    let pod = pod(name, app, cpu, port, shy, spread);
                    let mut other = afresh(&nodes, &placed);
                    let (decision, report) = cluster.schedule(&pod, &mut rng);
                    let (_, expected) = other.schedule(&pod, &mut ChaCha8Rng::seed_from_u64(2));
                    prop_assert_eq!(&report, &expected, "grown and built state differ");
                    let again = cluster.schedule(&pod, &mut rng).1;
                    prop_assert_eq!(&report, &again, "a decision changes nothing");
                    if let Decision::Bind { node } = decision {
                        cluster.assume(&pod, &node);
                        placed.insert(key.clone(), (pod, Arc::clone(&node)));
                        check_room(&nodes, &placed, &node);
                        check_near(&nodes, &placed, &key);
                    }
                }
            }
        }
    }
}
