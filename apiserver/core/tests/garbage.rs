//! Whatever a client sends, the planner answers: objects with random damage are created, updated and patched.

use apiserver_core::authn::jwt::SigningKey;
use apiserver_core::{Config, Derived, Ids, Prepared, Request, RequestInfo, User, World, genesis, prepare};
use rand::{Rng, SeedableRng, rngs::StdRng};
use serde_json::{Value, json};
use store_core::state::StateMachine;

fn samples() -> Vec<(&'static str, Value)> {
    let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [
        {"name": "c", "image": "i", "ports": [{"containerPort": 80, "name": "http"}],
            "env": [{"name": "X", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
            "resources": {"requests": {"cpu": "100m", "memory": "1Gi"}},
            "readinessProbe": {"httpGet": {"port": "http", "path": "/"}},
            "volumeMounts": [{"name": "v", "mountPath": "/v"}]}],
        "volumes": [{"name": "v", "emptyDir": {}}],
        "tolerations": [{"key": "k", "operator": "Exists"}],
        "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
            {"nodeSelectorTerms": [{"matchExpressions": [{"key": "x", "operator": "In", "values": ["y"]}]}]}}}}});
    let mut pod = template.clone();
    pod["metadata"]["name"] = "o".into();
    vec![
        ("/api/v1/namespaces/default/pods", pod),
        (
            "/api/v1/namespaces/default/services",
            json!({"metadata": {"name": "o"}, "spec": {"type": "NodePort", "selector": {"a": "b"},
                "ports": [{"port": 80, "targetPort": "http", "nodePort": 30080}]}}),
        ),
        (
            "/apis/apps/v1/namespaces/default/deployments",
            json!({"metadata": {"name": "o", "finalizers": ["a/b"]}, "spec": {"replicas": 2,
                "strategy": {"rollingUpdate": {"maxSurge": "25%"}},
                "selector": {"matchLabels": {"a": "b"}}, "template": template}}),
        ),
        (
            "/apis/rbac.authorization.k8s.io/v1/clusterroles",
            json!({"metadata": {"name": "o", "labels": {"x": "y"}},
                "aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"x": "y"}}]},
                "rules": [{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}]}),
        ),
        (
            "/api/v1/nodes",
            json!({"metadata": {"name": "o"}, "spec": {"taints": [{"key": "a", "effect": "NoSchedule"}]}}),
        ),
        ("/api/v1/namespaces", json!({"metadata": {"name": "o"}, "spec": {"finalizers": ["kubernetes"]}})),
    ]
}

/// Replaces one value somewhere in the document.
fn damage(value: &mut Value, rng: &mut StdRng) {
    let deeper = rng.random_bool(0.85);
    match value {
        Value::Object(map) if deeper && !map.is_empty() => {
            let at = rng.random_range(0..map.len());
            if let Some((_, inner)) = map.iter_mut().nth(at) {
                damage(inner, rng);
            }
        }
        Value::Array(items) if deeper && !items.is_empty() => {
            let at = rng.random_range(0..items.len());
            damage(&mut items[at], rng);
        }
        other => {
            let choices = [
                Value::Null,
                json!({}),
                json!([]),
                json!([null]),
                json!(""),
                json!("é\u{0}/.."),
                json!(-1),
                json!(i64::MAX),
                json!(1.5),
                json!(true),
                json!({"a": null}),
            ];
            *other = choices[rng.random_range(0..choices.len())].clone();
        }
    }
}

#[test]
fn damaged_objects_are_answered() {
    let config = Config::new(vec![SigningKey::from_seed(&[1; 32]).expect("key")]);
    let mut rng = StdRng::seed_from_u64(7);
    let mut machine = StateMachine::new();
    let now = "2026-01-01T00:00:00Z".parse().expect("time");
    let user = User::authenticated("admin", &["system:masters".into()]);
    for txn in genesis::plan(machine.snapshot(), &config, now, &mut Ids::new(&mut rng.clone())) {
        machine.commit(&txn);
    }
    let account = json!({"metadata": {"name": "default", "namespace": "default"}}).to_string();
    machine.commit(&store_core::Txn::put("/core/serviceaccounts/default/default", account));
    let derived = Derived::default();
    for round in 0..1500 {
        let (path, mut object) = samples().swap_remove(round % samples().len());
        for _ in 0..rng.random_range(0..3) {
            damage(&mut object, &mut rng);
        }
        let (method, path) = match rng.random_range(0..5) {
            0 | 1 => ("POST", path.to_owned()),
            2 => ("PUT", format!("{path}/o")),
            3 => ("PATCH", format!("{path}/o")),
            _ => ("DELETE", format!("{path}/o")),
        };
        let mut headers = http::HeaderMap::new();
        let media =
            if method == "PATCH" { "application/strategic-merge-patch+json" } else { "application/json" };
        headers.insert("content-type", media.parse().expect("header"));
        let body = if method == "DELETE" { String::new() } else { object.to_string() };
        let info = RequestInfo::parse(&method.parse().expect("method"), &path, "").expect("info");
        let request = Request { info, headers, body: body.into() };
        let snapshot = machine.snapshot().clone();
        let world = World { snapshot: &snapshot, derived: &derived, config: &config };
        if let Prepared::Commit(commit) = prepare(&world, &request, &user, now, &mut Ids::new(&mut rng)) {
            machine.commit(&commit.txn);
        }
    }
}
