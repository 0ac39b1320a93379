//! A status patch that reads only a part of the object plans what a patch that reads the whole of it plans.

#![allow(clippy::expect_used, clippy::panic, reason = "helpers of tests")]

use apiserver_core::authn::jwt::SigningKey;
use apiserver_core::{
    Config, Derived, Ids, Prepared, Rendered, Request, RequestInfo, Response, User, World, genesis, prepare,
};
use jiff::Timestamp;
use rand::{Rng, SeedableRng, rngs::StdRng};
use serde_json::{Value, json};
use store_core::state::StateMachine;
use store_core::{Outcome, Txn};

const POD: &str = "/api/v1/namespaces/default/pods/o";

fn samples() -> Vec<(&'static str, Value)> {
    let pod = json!({"spec": {"containers": [{"name": "c", "image": "i", "ports": [{"containerPort": 80}],
        "resources": {"requests": {"cpu": "100m"}, "limits": {"memory": "1Gi"}}}]}});
    vec![
        (POD, pod.clone()),
        (
            "/apis/apps/v1/namespaces/default/deployments/o",
            json!({"spec": {"selector": {"matchLabels": {"a": "b"}},
                "template": {"metadata": {"labels": {"a": "b"}}, "spec": pod["spec"]}}}),
        ),
        ("/api/v1/nodes/o", json!({"spec": {"taints": [{"key": "a", "effect": "NoSchedule"}]}})),
        ("/api/v1/namespaces/default/services/o", json!({"spec": {"ports": [{"port": 80}]}})),
    ]
}

fn condition(rng: &mut StdRng) -> Value {
    let kind = ["Ready", "Initialized", "Available"][rng.random_range(0..3)];
    let status = ["True", "False"][rng.random_range(0..2)];
    let reason = [json!("R"), Value::Null][rng.random_range(0..2)].clone();
    match rng.random_range(0..8) {
        0 => json!({"type": kind, "$patch": "delete"}),
        1 => json!({"$patch": "replace"}),
        2 => json!({"status": "True"}),
        _ => {
            json!({"type": kind, "status": status, "reason": reason, "lastTransitionTime": "2026-01-01T00:00:00Z"})
        }
    }
}

fn status(rng: &mut StdRng) -> Value {
    let mut status = json!({});
    let mut may = |name: &str, value: Value, rng: &mut StdRng| {
        if rng.random_bool(0.4) {
            status[name] = value;
        }
    };
    let conditions: Vec<Value> = (0..rng.random_range(0..4)).map(|_| condition(rng)).collect();
    may("conditions", conditions.into(), rng);
    may(
        "phase",
        [json!("Running"), json!("Pending"), Value::Null, json!(7)][rng.random_range(0..4)].clone(),
        rng,
    );
    may("podIP", json!("10.0.0.1"), rng);
    may("podIPs", json!([{"ip": "10.0.0.1"}, {"ip": format!("10.0.0.{}", rng.random_range(1..4))}]), rng);
    may("capacity", json!({"cpu": format!("{}m", rng.random_range(1..9) * 500)}), rng);
    may("replicas", json!(rng.random_range(0..3)), rng);
    may("observedGeneration", json!(rng.random_range(0..3)), rng);
    may("loadBalancer", json!({"ingress": [{"ip": "1.2.3.4"}]}), rng);
    may("unknown", json!([1]), rng);
    may("$retainKeys", json!(["phase", "conditions"]), rng);
    status
}

fn metadata(uid: &Value, rng: &mut StdRng) -> Option<Value> {
    Some(match rng.random_range(0..8) {
        0 => json!({"labels": {"l": rng.random_range(0..3).to_string()}, "annotations": {"a": null}}),
        1 => json!({"annotations": {"a": rng.random_range(0..3).to_string()}, "finalizers": ["a/b"]}),
        2 => json!({"uid": "other"}),
        3 => json!({"name": "other"}),
        4 => json!({"labels": {"-": "x"}, "resourceVersion": "1", "selfLink": "/x"}),
        5 => return None,
        _ => json!({"uid": uid}),
    })
}

struct Cluster {
    machine: StateMachine,
    config: Config,
    now: Timestamp,
}

impl Cluster {
    fn new() -> Cluster {
        let config = Config::new(vec![SigningKey::from_seed(&[1; 32]).expect("key")]);
        let now = "2026-01-01T00:00:00Z".parse().expect("time");
        let mut machine = StateMachine::new();
        for txn in
            genesis::plan(machine.snapshot(), &config, now, &mut Ids::new(&mut StdRng::seed_from_u64(1)))
        {
            machine.commit(&txn);
        }
        let account = json!({"metadata": {"name": "default", "namespace": "default"}}).to_string();
        machine.commit(&Txn::put("/core/serviceaccounts/default/default", account));
        Cluster { machine, config, now }
    }

    fn prepare(
        &self,
        method: &str,
        path: &str,
        query: &str,
        body: &Value,
        media: &str,
        user: &User,
    ) -> Prepared {
        let mut headers = http::HeaderMap::new();
        headers.insert("content-type", media.parse().expect("header"));
        let info = RequestInfo::parse(&method.parse().expect("method"), path, query).expect("info");
        let request = Request { info, headers, body: body.to_string().into() };
        let derived = Derived::build(self.machine.snapshot());
        let world = World { snapshot: self.machine.snapshot(), derived: &derived, config: &self.config };
        prepare(&world, &request, user, self.now, &mut Ids::new(&mut StdRng::seed_from_u64(2)))
    }
}

/// The transaction, and the answer when each of its operations gets its number.
fn shown(prepared: Prepared) -> (Txn, Response) {
    match prepared {
        Prepared::Respond(response) => (Txn::default(), response),
        Prepared::Commit(commit) => {
            let revisions = (1..=commit.txn.ops.len() as u64).collect();
            match commit.reply.render(&Outcome::Committed { revisions }) {
                Rendered::Respond(response) => (commit.txn, response),
                Rendered::Retry => panic!("nothing contends"),
            }
        }
        _ => panic!("neither an answer nor a transaction"),
    }
}

#[test]
fn reading_a_part_plans_the_same() {
    let mut rng = StdRng::seed_from_u64(11);
    let mut world = Cluster::new();
    let admin = User::authenticated("admin", &["system:masters".into()]);
    let node = User::authenticated("system:node:n", &["system:nodes".into()]);
    for (path, mut object) in samples() {
        object["metadata"]["name"] = "o".into();
        let collection = path.rsplit_once('/').expect("a name").0;
        let created =
            world.prepare("POST", collection, "fieldManager=maker", &object, "application/json", &admin);
        let (txn, answer) = shown(created);
        assert!(answer.status.is_success(), "{}", String::from_utf8_lossy(&answer.body.to_bytes()));
        world.machine.commit(&txn);
        let created: Value = serde_json::from_slice(&answer.body.to_bytes()).expect("JSON");
        let (mut committed, mut refused) = (0, 0);
        for round in 0..150 {
            if round == 40 && path == POD {
                let binding = json!({"metadata": {"name": "o"}, "target": {"kind": "Node", "name": "n"}});
                let bound = world.prepare(
                    "POST",
                    &format!("{path}/binding"),
                    "",
                    &binding,
                    "application/json",
                    &admin,
                );
                world.machine.commit(&shown(bound).0);
            }
            let mut patch = json!({"status": status(&mut rng)});
            if let Some(metadata) = metadata(&created["metadata"]["uid"], &mut rng) {
                patch["metadata"] = metadata;
            }
            let mut whole = patch.clone();
            // More than metadata and status in a patch: then everything is read.
            whole["kind"] = created["kind"].clone();
            let kind = ["strategic-merge-patch", "merge-patch"][rng.random_range(0..2)];
            let media = format!("application/{kind}+json");
            let query = ["fieldManager=kubelet", "fieldManager=other", "fieldValidation=Strict"]
                [rng.random_range(0..3)];
            let user = [&admin, &node][usize::from(rng.random_bool(0.2))];
            let [part, whole] = [patch, whole].map(|patch| {
                shown(world.prepare("PATCH", &format!("{path}/status"), query, &patch, &media, user))
            });
            assert_eq!(part.0, whole.0, "{path} round {round}");
            assert_eq!(part.1.status, whole.1.status, "{path} round {round}");
            assert_eq!(part.1.headers, whole.1.headers, "{path} round {round}");
            assert_eq!(part.1.body.to_bytes(), whole.1.body.to_bytes(), "{path} round {round}");
            refused += u32::from(!part.1.status.is_success());
            committed += u32::from(!part.0.ops.is_empty());
            world.machine.commit(&part.0);
        }
        assert!(committed > 20 && refused > 20, "{path}: {committed} written, {refused} refused");
    }
}
