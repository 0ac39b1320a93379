use serde_json::json;

use super::*;
use crate::model::{Model, text};
use crate::world::{Controller, Key};

fn resource(group: &'static str, kind: &'static str, plural: &'static str) -> ResourceType {
    ResourceType::new(group, "v1", kind, plural, true)
}

/// A cluster in which only quotas are looked after.
fn model() -> Model {
    let mut model = Model::new(1);
    model.running = vec![Controller::ResourceQuota];
    let served = [
        resource("", "Pod", "pods"),
        resource("", "Service", "services"),
        resource("", "ConfigMap", "configmaps"),
        resource("", "PersistentVolumeClaim", "persistentvolumeclaims"),
        resource("apps", "Deployment", "deployments"),
    ];
    for each in served {
        model.world.kinds.insert((each.api_version(), each.kind.to_string()), each);
    }
    model
}

fn pod(name: &str, cpu: &str) -> Value {
    json!({"metadata": {"name": name, "generation": 1}, "spec": {"containers": [
        {"name": "c", "resources": {"requests": {"cpu": cpu}}}]}})
}

fn used(model: &Model) -> String {
    let quota = &model.of("resourcequotas")[0];
    quota::words(&quota::amounts(&quota["status"]["used"]))
}

fn quota(hard: Value) -> Value {
    json!({"metadata": {"name": "q"}, "spec": {"hard": hard}})
}

#[test]
fn what_is_there_is_added_up() {
    let mut model = model();
    model.put("pods", pod("a", "100m"));
    model.put("pods", pod("b", "200m"));
    model.put("deployments", json!({"metadata": {"name": "d"}, "spec": {"selector": {}, "template": {}}}));
    model.put(
        "resourcequotas",
        quota(json!({"pods": "5", "requests.cpu": "2", "count/deployments.apps": "3", "services": "1"})),
    );
    model.settle();
    assert_eq!(used(&model), "count/deployments.apps=1,pods=2,requests.cpu=300m,services=0");
    assert_eq!(text(&model.of("resourcequotas")[0]["status"]["hard"]["requests.cpu"]), "2");
}

#[test]
fn what_has_gone_or_ended_is_given_back() {
    let mut model = model();
    model.put("resourcequotas", quota(json!({"count/pods": "5", "pods": "5", "requests.cpu": "2"})));
    model.put("pods", pod("a", "100m"));
    model.put("pods", pod("b", "200m"));
    model.settle();
    assert_eq!(used(&model), "count/pods=2,pods=2,requests.cpu=300m");
    let mut ended = pod("a", "100m");
    ended["status"] = json!({"phase": "Succeeded"});
    ended["metadata"]["uid"] = model.of("pods")[0]["metadata"]["uid"].clone();
    model.put("pods", ended);
    model.settle();
    assert_eq!(used(&model), "count/pods=2,pods=1,requests.cpu=200m");
    model.remove("pods", &Key::new("default", "b"));
    model.settle();
    assert_eq!(used(&model), "count/pods=1,pods=0,requests.cpu=0");
}

#[test]
fn a_pod_whose_time_is_up_is_not_counted_any_more() {
    let mut model = model();
    let mut going = pod("a", "100m");
    going["metadata"]["deletionTimestamp"] = json!(model.now.to_string());
    going["metadata"]["deletionGracePeriodSeconds"] = json!(30);
    model.put("pods", going);
    model.put("resourcequotas", quota(json!({"pods": "5"})));
    model.settle();
    assert_eq!(used(&model), "pods=1");
    model.advance(32);
    model.settle();
    assert_eq!(used(&model), "pods=0");
}

#[test]
fn another_limit_takes_effect() {
    let mut model = model();
    model.put("resourcequotas", quota(json!({"pods": "5", "configmaps": "1"})));
    model.put("configmaps", json!({"metadata": {"name": "m"}}));
    model.settle();
    assert_eq!(used(&model), "configmaps=1,pods=0");
    let mut changed = model.of("resourcequotas").remove(0);
    changed["spec"]["hard"] = json!({"pods": "7"});
    model.put("resourcequotas", changed);
    model.settle();
    assert_eq!(used(&model), "pods=0");
    assert_eq!(model.of("resourcequotas")[0]["status"]["hard"], json!({"pods": "7"}));
}

/// What a cache has not seen may have been charged already.
#[test]
fn nothing_is_given_back_on_the_word_of_a_cache() {
    let stored: ResourceQuota = serde_json::from_value(json!({
        "metadata": {"name": "q", "namespace": "default", "uid": "u", "resourceVersion": "9"},
        "spec": {"hard": {"pods": "5"}}, "status": {"hard": {"pods": "5"}, "used": {"pods": "2"}}}))
    .expect("a quota");
    let typed = |name: &str, revision: u64| -> Arc<Pod> {
        let mut pod = pod(name, "1");
        pod["metadata"]["uid"] = name.into();
        pod["metadata"]["resourceVersion"] = revision.to_string().into();
        Arc::new(serde_json::from_value(pod).expect("a pod"))
    };
    let resources = [resource("", "Pod", "pods")];
    let view = View {
        quota: &stored,
        pods: vec![typed("a", 5)],
        services: Vec::new(),
        claims: Vec::new(),
        resources: &resources,
        count: &|_| 1,
    };
    let question = Question::List(resources[0].clone(), "default".to_owned());
    let (asks, _) = plan(&view, &Answers::new(), Timestamp::UNIX_EPOCH);
    assert_eq!(asks.questions, std::slice::from_ref(&question));
    let check = |live: &[(&str, u64)], writes: bool| {
        let live = live.iter().map(|(name, revision)| typed(name, *revision).metadata.clone()).collect();
        let answers = Answers::from([(question.clone(), Answer::Listed(live))]);
        let (plan, _) = plan(&view, &answers, Timestamp::UNIX_EPOCH);
        assert_eq!((plan.is_empty(), plan.look_again_at.is_some()), (!writes, !writes));
    };
    check(&[("a", 5), ("b", 8)], false);
    check(&[("a", 7)], false);
    check(&[("a", 5)], true);
    check(&[], true);
}
