//! Which pods go, and what a failure leaves behind.

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::Pod;
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde_json::json;

use super::{View, plan};
use crate::model::Model;
use crate::object::name;
use crate::plan::Failure;
use crate::world::Controller;

/// Pods as `name[:word]…` in a ReplicaSet shrunk to `keep`; which of them go?
fn check(pods: &[&str], keep: usize, expected: &[&str]) {
    let now = Timestamp::from_second(1_700_000_000).unwrap();
    let parse = |text: &&str| {
        let mut words = text.split(':');
        let mut pod = json!({
            "metadata": {"name": words.next(), "uid": text, "annotations": {}},
            "spec": {"nodeName": "n1", "containers": []},
            "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2023-01-01T00:00:00Z"}]},
        });
        for word in words {
            match word {
                "unbound" => pod["spec"]["nodeName"] = json!(null),
                "pending" => pod["status"]["phase"] = json!("Pending"),
                "unready" => pod["status"]["conditions"][0]["status"] = json!("False"),
                "fresh" => {
                    pod["status"]["conditions"][0]["lastTransitionTime"] = json!("2023-11-14T22:13:19Z")
                }
                "restarted" => {
                    pod["status"]["containerStatuses"] =
                        json!([{"name": "c", "image": "", "imageID": "", "ready": true, "restartCount": 3}])
                }
                other => match other.split_once('=') {
                    Some(("node", node)) => pod["spec"]["nodeName"] = json!(node),
                    Some(("cost", cost)) => {
                        pod["metadata"]["annotations"]["controller.kubernetes.io/pod-deletion-cost"] =
                            json!(cost)
                    }
                    _ => panic!("{other}"),
                },
            }
        }
        std::sync::Arc::new(serde_json::from_value::<Pod>(pod).unwrap())
    };
    let pods: Vec<_> = pods.iter().map(parse).collect();
    let mut gone: Vec<String> = super::rank::worst(&pods, &pods, pods.len() - keep, now)
        .iter()
        .map(|pod| name(&**pod).to_owned())
        .collect();
    gone.sort();
    assert_eq!(gone, expected);
}

#[test]
fn the_worst_go_first() {
    check(&["a", "b:unbound:pending"], 1, &["b"]);
    check(&["a", "b:pending:unready"], 1, &["b"]);
    check(&["a", "b:unready"], 1, &["b"]);
    check(&["a:unready", "b:unbound:pending", "c"], 1, &["a", "b"]);
    check(&["a", "b:cost=-1"], 1, &["b"]);
    check(&["a:cost=5", "b:fresh:cost=9"], 1, &["a"]);
    check(&["a:node=n2", "b", "c"], 2, &["b"]);
    check(&["a", "b:fresh:node=n2", "c:node=n3"], 2, &["b"]);
    check(&["a", "b:restarted"], 1, &["b"]);
}

#[test]
fn a_failure_becomes_a_condition_and_goes_with_it() {
    let now = Timestamp::from_second(1_700_000_000).unwrap();
    let mut rng = StdRng::seed_from_u64(1);
    let mut set: ReplicaSet = serde_json::from_value(json!({
        "metadata": {"name": "web", "namespace": "default", "uid": "u"},
        "spec": {"replicas": 2, "selector": {"matchLabels": {"app": "web"}}},
    }))
    .unwrap();
    let failure = Failure { reason: "FailedCreate", message: "exceeded quota".into() };
    fn view<'a>(set: &'a ReplicaSet, failure: &'a Failure) -> View<'a> {
        View { replica_set: set, pods: Vec::new(), related: Vec::new(), failure: Some(failure) }
    }
    let (failing, report) = plan(&view(&set, &failure), now, &mut rng);
    assert_eq!(failing.actions().count(), 3);
    let told = format!("{:?}", failing.actions().last().unwrap().write);
    assert!(told.contains("ReplicaFailure") && told.contains("exceeded quota"), "{told}");
    assert!(report.why.iter().any(|line| line.contains("exceeded quota")));
    set.spec.replicas = Some(0);
    let (healed, _) = plan(&view(&set, &failure), now, &mut rng);
    assert!(!format!("{healed:?}").contains("ReplicaFailure"));
}

#[test]
fn adopts_what_it_selects_and_releases_what_it_does_not() {
    let mut model = Model::new(1);
    model.running = vec![Controller::ReplicaSet];
    model.put(
        "replicasets",
        json!({
            "metadata": {"name": "web"},
            "spec": {"replicas": 2, "selector": {"matchLabels": {"app": "web"}}, "template": {"metadata": {"labels": {"app": "web"}}}},
        }),
    );
    model.put("pods", json!({"metadata": {"name": "stray", "labels": {"app": "web"}}}));
    model.settle();
    assert_eq!(model.of("pods").len(), 2);
    let mut stray = model.of("pods").into_iter().find(|pod| pod["metadata"]["name"] == "stray").unwrap();
    assert_eq!(stray["metadata"]["ownerReferences"][0]["name"], "web");
    stray["metadata"]["labels"] = json!({"app": "other"});
    model.put("pods", stray);
    model.settle();
    assert_eq!(model.of("pods").len(), 3);
    let stray = model.of("pods").into_iter().find(|pod| pod["metadata"]["name"] == "stray").unwrap();
    assert_eq!(stray["metadata"]["ownerReferences"], json!([]));
}
