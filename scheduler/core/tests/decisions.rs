//! Decisions as text fixtures: a cluster, pods one after another, and where each goes or why not.

#![allow(clippy::expect_used, clippy::panic)]

use std::fmt::Write as _;
use std::sync::Arc;

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use scheduler_core::{Cluster, Decision, PodInfo};
use serde_json::{Map, Value, json};

/// `key=value` pairs of a line; values may be JSON without spaces.
fn fields(words: &[&str]) -> Map<String, Value> {
    let pairs = words.iter().filter_map(|word| word.split_once('='));
    pairs
        .map(|(key, value)| {
            (key.to_owned(), serde_json::from_str(value).unwrap_or_else(|_| Value::String(value.to_owned())))
        })
        .collect()
}

/// `a:1,b:2` as a map of strings.
fn map(value: Option<&Value>) -> Value {
    let text = value.and_then(Value::as_str).unwrap_or_default();
    let pairs = text.split(',').filter_map(|pair| pair.split_once(':'));
    Value::Object(pairs.map(|(key, value)| (key.to_owned(), json!(value))).collect())
}

fn text(value: &Value) -> Value {
    json!(value.as_str().map_or_else(|| value.to_string(), str::to_owned))
}

/// `node NAME cpu=4 memory=8Gi pods=110 labels=a:b taint=key:value:Effect closed=true images=name|size`
fn node(name: &str, fields: &Map<String, Value>) -> Value {
    let mut allocatable = json!({"cpu": "4", "memory": "8Gi", "pods": "110"});
    for resource in ["cpu", "memory", "pods", "ephemeral-storage", "example.com/gpu"] {
        if let Some(amount) = fields.get(resource) {
            allocatable[resource] = text(amount);
        }
    }
    let mut labels = map(fields.get("labels"));
    labels["kubernetes.io/hostname"] = json!(name);
    let taints: Vec<Value> = fields
        .get("taint")
        .and_then(Value::as_str)
        .into_iter()
        .map(|taint| {
            let parts: Vec<&str> = taint.split(':').collect();
            json!({"key": parts[0], "value": parts[1], "effect": parts[2]})
        })
        .collect();
    let images: Vec<Value> = fields
        .get("image")
        .and_then(Value::as_str)
        .and_then(|image| image.split_once('|'))
        .map(|(name, size)| json!({"names": [name], "sizeBytes": size.parse::<i64>().expect("a size")}))
        .into_iter()
        .collect();
    json!({
        "metadata": {"name": name, "labels": labels},
        "spec": {"taints": taints, "unschedulable": fields.contains_key("closed")},
        "status": {"allocatable": allocatable, "images": images},
    })
}

/// `pod NAME cpu=1 memory=1Gi labels=a:b select=a:b port=80 on=NODE ns=NAME image=x owner=KIND` and, as JSON, `affinity=…`,
/// `tolerations=…`, `spread=…`.
fn pod(name: &str, fields: &Map<String, Value>) -> PodInfo {
    let mut requests = json!({});
    for resource in ["cpu", "memory", "ephemeral-storage", "example.com/gpu"] {
        if let Some(amount) = fields.get(resource) {
            requests[resource] = text(amount);
        }
    }
    let ports: Vec<Value> =
        fields.get("port").map(|port| json!({"containerPort": port, "hostPort": port})).into_iter().collect();
    let container = json!({
        "name": "c", "ports": ports, "resources": {"requests": requests}, "image": fields.get("image"),
    });
    let owners: Vec<Value> = fields
        .get("owner")
        .map(|owner| json!({"apiVersion": "apps/v1", "kind": owner, "name": "o", "uid": "o", "controller": true}))
        .into_iter()
        .collect();
    let namespace = fields.get("ns").and_then(Value::as_str).unwrap_or("default");
    let pod = json!({
        "metadata": {"namespace": namespace, "name": name, "uid": name, "labels": map(fields.get("labels")), "ownerReferences": owners},
        "spec": {
            "containers": [container],
            "nodeName": fields.get("on"),
            "nodeSelector": map(fields.get("select")),
            "affinity": fields.get("affinity"),
            "tolerations": fields.get("tolerations"),
            "topologySpreadConstraints": fields.get("spread"),
        },
    });
    PodInfo::read(&serde_json::from_value(pod).expect("a pod"))
}

#[track_caller]
fn check(script: &str, expected: &str) {
    let mut cluster = Cluster::new();
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let mut log = String::new();
    for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (verb, name, rest) = (words[0], words[1], fields(&words[2..]));
        match verb {
            "node" => {
                let node = serde_json::from_value(node(name, &rest)).expect("a node");
                cluster.set_node(&node);
            }
            "gone" => {
                cluster.remove_node(name);
            }
            "namespace" => {
                let labels = serde_json::from_value(map(rest.get("labels"))).expect("labels");
                cluster.set_namespace(name, labels);
            }
            "deleted" => {
                cluster.remove_pod(&client_core::object::ObjectKey::new("default", name));
            }
            "pod" => {
                let info = Arc::new(pod(name, &rest));
                if info.node.is_some() {
                    cluster.set_pod(info);
                    continue;
                }
                let (decision, report) = cluster.schedule(&info, &mut rng);
                let _ = match decision {
                    Decision::Bind { node } => {
                        cluster.assume(&info, &node);
                        writeln!(log, "{name} -> {node}")
                    }
                    Decision::Unschedulable => writeln!(log, "{name}: {}", report.message()),
                };
            }
            _ => panic!("unknown line {line}"),
        }
    }
    let expected: Vec<&str> = expected.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    assert_eq!(log.lines().collect::<Vec<_>>(), expected);
}

#[test]
fn no_nodes() {
    check("pod a", "a: no nodes available to schedule pods");
}

#[test]
fn resources() {
    check(
        "node n1 cpu=2 memory=1Gi
         node n2 cpu=1 memory=4Gi pods=1
         pod a cpu=1500m memory=512Mi
         pod b cpu=600m memory=2Gi
         pod c cpu=600m memory=1Gi
         pod d example.com/gpu=1
         deleted a
         pod e cpu=2",
        "a -> n1
         b -> n2
         c: 0/2 nodes are available: 1 Insufficient memory, 1 Too many pods, 2 Insufficient cpu.
         d: 0/2 nodes are available: 1 Too many pods, 2 Insufficient example.com/gpu.
         e -> n1",
    );
}

#[test]
fn the_least_busy_node_is_taken() {
    check(
        "node n1
         node n2
         pod x on=n1 cpu=2 memory=2Gi
         pod a cpu=1 memory=1Gi
         pod b cpu=500m memory=500Mi
         node n3
         pod c cpu=500m memory=500Mi",
        "a -> n2
         b -> n2
         c -> n3",
    );
}

#[test]
fn taints_and_closed_nodes() {
    check(
        r#"node n1 taint=dedicated:db:NoSchedule
           node n2 closed=true
           node n3 taint=slow:yes:PreferNoSchedule
           pod a
           pod b tolerations=[{"key":"dedicated","operator":"Equal","value":"db","effect":"NoSchedule"}]
           gone n3
           pod c
           pod d tolerations=[{"key":"dedicated","value":"web"}]
           pod e tolerations=[{"operator":"Exists"}] select=kubernetes.io/hostname:n2"#,
        "a -> n3
         b -> n1
         c: 0/2 nodes are available: 1 node(s) had untolerated taint {dedicated: db}, 1 node(s) were unschedulable.
         d: 0/2 nodes are available: 1 node(s) had untolerated taint {dedicated: db}, 1 node(s) were unschedulable.
         e -> n2",
    );
}

#[test]
fn node_affinity() {
    check(
        r#"node n1 labels=size:3,disk:ssd
           node n2 labels=size:10
           pod a affinity={"nodeAffinity":{"requiredDuringSchedulingIgnoredDuringExecution":{"nodeSelectorTerms":[{"matchExpressions":[{"key":"size","operator":"Gt","values":["5"]}]}]}}}
           pod b affinity={"nodeAffinity":{"requiredDuringSchedulingIgnoredDuringExecution":{"nodeSelectorTerms":[{"matchExpressions":[{"key":"size","operator":"Lt","values":["2"]}]},{"matchFields":[{"key":"metadata.name","operator":"In","values":["n1"]}]}]}}}
           pod c select=disk:hdd
           pod d affinity={"nodeAffinity":{"preferredDuringSchedulingIgnoredDuringExecution":[{"weight":9,"preference":{"matchExpressions":[{"key":"disk","operator":"DoesNotExist"}]}}]}}
           pod e affinity={"nodeAffinity":{"requiredDuringSchedulingIgnoredDuringExecution":{"nodeSelectorTerms":[{}]}}}
           pod f affinity={"nodeAffinity":{"requiredDuringSchedulingIgnoredDuringExecution":{"nodeSelectorTerms":[{"matchExpressions":[{"key":"size","operator":"NotIn","values":["10"]},{"key":"disk","operator":"Exists"}]}]}}}"#,
        "a -> n2
         b -> n1
         c: 0/2 nodes are available: 2 node(s) didn't match Pod's node affinity/selector.
         d -> n2
         e: 0/2 nodes are available: 2 node(s) didn't match Pod's node affinity/selector.
         f -> n1",
    );
}

#[test]
fn host_ports() {
    check(
        "node n1
         pod a port=80
         pod b port=80
         pod c port=81",
        "a -> n1
         b: 0/1 nodes are available: 1 node(s) didn't have free ports for the requested pod ports.
         c -> n1",
    );
}

const ZONE: &str = r#""topologyKey":"zone""#;
const WEB: &str = r#""labelSelector":{"matchLabels":{"app":"web"}}"#;

#[test]
fn anti_affinity_binds_both_sides() {
    check(
        &format!(
            r#"node n1 labels=zone:a
               node n2 labels=zone:a
               node n3 labels=zone:b
               pod guard labels=app:guard on=n1 affinity={{"podAntiAffinity":{{"requiredDuringSchedulingIgnoredDuringExecution":[{{{ZONE},{WEB}}}]}}}}
               pod a labels=app:web
               pod b labels=app:web affinity={{"podAntiAffinity":{{"requiredDuringSchedulingIgnoredDuringExecution":[{{{ZONE},{WEB}}}]}}}}
               deleted guard
               pod c labels=app:web affinity={{"podAntiAffinity":{{"requiredDuringSchedulingIgnoredDuringExecution":[{{{ZONE},{WEB}}}]}}}}
               pod d labels=app:web
               pod e labels=app:web ns=other"#
        ),
        "a -> n3
         b: 0/3 nodes are available: 1 node(s) didn't match pod anti-affinity rules, 2 node(s) didn't satisfy existing pods anti-affinity rules.
         c -> n1
         d -> n3
         e -> n2",
    );
}

#[test]
fn affinity_with_the_first_of_its_kind() {
    check(
        &format!(
            r#"node n1 labels=zone:a
               node n2 labels=zone:b cpu=1
               node n3
               pod lost labels=app:other affinity={{"podAffinity":{{"requiredDuringSchedulingIgnoredDuringExecution":[{{{ZONE},{WEB}}}]}}}}
               pod a cpu=2 labels=app:web affinity={{"podAffinity":{{"requiredDuringSchedulingIgnoredDuringExecution":[{{{ZONE},{WEB}}}]}}}}
               pod b cpu=1 labels=app:other affinity={{"podAffinity":{{"requiredDuringSchedulingIgnoredDuringExecution":[{{{ZONE},{WEB}}}]}}}}
               namespace far labels=team:x
               pod c cpu=1 ns=far affinity={{"podAffinity":{{"requiredDuringSchedulingIgnoredDuringExecution":[{{{ZONE},{WEB},"namespaces":["default"]}}]}}}}
               pod d ns=far affinity={{"podAffinity":{{"requiredDuringSchedulingIgnoredDuringExecution":[{{{ZONE},{WEB},"namespaceSelector":{{"matchLabels":{{"team":"x"}}}}}}]}}}}"#
        ),
        "lost: 0/3 nodes are available: 3 node(s) didn't match pod affinity rules.
         a -> n1
         b -> n1
         c -> n1
         d: 0/3 nodes are available: 3 node(s) didn't match pod affinity rules.",
    );
}

#[test]
fn preferred_affinity_of_either_side() {
    check(
        &format!(
            r#"node n1 labels=zone:a
               node n2 labels=zone:b
               pod web labels=app:web on=n2 cpu=500m
               pod a affinity={{"podAffinity":{{"preferredDuringSchedulingIgnoredDuringExecution":[{{"weight":50,"podAffinityTerm":{{{ZONE},{WEB}}}}}]}}}}
               pod shy on=n1 affinity={{"podAntiAffinity":{{"preferredDuringSchedulingIgnoredDuringExecution":[{{"weight":50,"podAffinityTerm":{{{ZONE},{WEB}}}}}]}}}}
               pod b labels=app:web"#
        ),
        "a -> n2
         b -> n2",
    );
}

#[test]
fn spread_over_zones() {
    let spread = |extra: &str| {
        format!(
            r#"spread=[{{"maxSkew":1,"whenUnsatisfiable":"DoNotSchedule",{ZONE},{WEB}{extra}}}] labels=app:web"#
        )
    };
    check(
        &format!(
            r#"node n1 labels=zone:a
               node n2 labels=zone:b cpu=1
               node n3
               pod a cpu=800m select=zone:a {0}
               pod b cpu=800m {0}
               pod c cpu=800m select=zone:a {0}
               pod d cpu=800m {0}
               pod e cpu=800m select=zone:a {0}
               pod f {1}
               pod g {2}"#,
            spread(""),
            spread(r#","minDomains":3"#),
            spread(r#","matchLabelKeys":["app"]"#),
        ),
        "a -> n1
         b -> n2
         c -> n1
         d: 0/3 nodes are available: 1 Insufficient cpu, 1 node(s) didn't match pod topology spread constraints, 1 node(s) didn't match pod topology spread constraints (missing required label).
         e -> n1
         f: 0/3 nodes are available: 1 node(s) didn't match pod topology spread constraints (missing required label), 2 node(s) didn't match pod topology spread constraints.
         g -> n2",
    );
}

#[test]
fn spread_as_a_wish_and_taints_that_count() {
    check(
        &format!(
            r#"node n1 labels=zone:a
               node n2 labels=zone:b cpu=2 memory=2Gi
               pod x labels=app:web on=n1
               pod y labels=app:web on=n1
               pod a labels=app:web spread=[{{"maxSkew":1,"whenUnsatisfiable":"ScheduleAnyway",{ZONE},{WEB}}}]
               node n3 labels=zone:c taint=k:v:NoSchedule
               pod b labels=app:web spread=[{{"maxSkew":2,"whenUnsatisfiable":"DoNotSchedule",{ZONE},{WEB}}}] select=kubernetes.io/hostname:n1
               pod c labels=app:web spread=[{{"maxSkew":2,"whenUnsatisfiable":"DoNotSchedule","nodeAffinityPolicy":"Ignore",{ZONE},{WEB}}}] select=kubernetes.io/hostname:n1
               pod d labels=app:web spread=[{{"maxSkew":3,"whenUnsatisfiable":"DoNotSchedule","nodeAffinityPolicy":"Ignore","nodeTaintsPolicy":"Honor",{ZONE},{WEB}}}] select=kubernetes.io/hostname:n1"#
        ),
        "a -> n2
         b -> n1
         c: 0/3 nodes are available: 1 node(s) didn't match Pod's node affinity/selector, 1 node(s) didn't match pod topology spread constraints, 1 node(s) had untolerated taint {k: v}.
         d -> n1",
    );
}

#[test]
fn images_that_are_there_already() {
    check(
        "node n1
         node n2 image=big:latest|900000000
         pod x on=n2 cpu=100m memory=100Mi
         pod a image=big",
        "a -> n2",
    );
}

#[test]
fn a_node_that_comes_back_has_its_pods() {
    check(
        "node n1 cpu=1
         pod a on=n1 cpu=800m
         gone n1
         pod b cpu=800m
         node n1 cpu=1
         pod c cpu=800m",
        "b: no nodes available to schedule pods
         c: 0/1 nodes are available: 1 Insufficient cpu.",
    );
}

#[test]
fn replicas_are_spread_over_nodes_even_where_the_image_is_elsewhere() {
    check(
        "node n1 image=web:1|900000000
         node n2
         pod a image=web:1 labels=app:web owner=ReplicaSet
         pod b image=web:1 labels=app:web owner=ReplicaSet
         pod c image=web:1 labels=app:other
         pod d image=web:1 labels=app:other",
        "a -> n1
         b -> n2
         c -> n1
         d -> n1",
    );
}
