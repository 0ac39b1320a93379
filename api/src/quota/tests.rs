use serde_json::json;

use super::*;

const PODS: Counted<'static> = Counted { group: "", plural: "pods" };

fn used(resource: Counted<'_>, object: &Value) -> String {
    let now = "2026-01-01T00:01:00Z".parse().expect("time");
    words(&resource.usage(object, now).into_iter().filter(|(_, amount)| !amount.is_zero()).collect())
}

#[test]
fn a_pod_uses_what_its_containers_ask_for() {
    let pod = json!({"spec": {
        "overhead": {"cpu": "10m", "memory": "1Mi"},
        "initContainers": [
            {"name": "proxy", "restartPolicy": "Always", "resources": {"requests": {"cpu": "100m"}}},
            {"name": "setup", "resources": {"requests": {"cpu": "1"}, "limits": {"cpu": "2"}}}],
        "containers": [
            {"name": "a", "resources": {"requests": {"cpu": "250m", "example.com/gpu": "1"}, "limits": {"memory": "1Gi"}}},
            {"name": "b", "resources": {"requests": {"cpu": "250m", "hugepages-2Mi": "4Mi"}}}]}});
    assert_eq!(
        used(PODS, &pod),
        "count/pods=1,cpu=1110m,hugepages-2Mi=4Mi,limits.cpu=2010m,limits.memory=1025Mi,memory=1Mi,pods=1,\
         requests.cpu=1110m,requests.example.com/gpu=1,requests.hugepages-2Mi=4Mi,requests.memory=1Mi"
    );
}

#[test]
fn a_pod_that_has_ended_is_only_counted() {
    let ended = json!({"status": {"phase": "Failed"}, "spec": {"containers": [{"name": "a"}]}});
    assert_eq!(used(PODS, &ended), "count/pods=1");
    let going = |seconds: i64| json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z", "deletionGracePeriodSeconds": seconds}});
    assert_eq!(used(PODS, &going(30)), "count/pods=1");
    assert_eq!(used(PODS, &going(90)), "count/pods=1,pods=1");
}

#[test]
fn a_smaller_size_counts_once_it_is_in_effect() {
    let pod = |held: &str| {
        json!({"spec": {"containers": [{"name": "a", "resources": {"requests": {"cpu": "100m"}}}]},
        "status": {"containerStatuses": [{"name": "a", "resources": {"requests": {"cpu": held}}}]}})
    };
    let cpu = |held: &str| aggregate(&pod(held), "requests")["cpu"].to_string();
    assert_eq!((cpu("1").as_str(), cpu("100m").as_str(), cpu("50m").as_str()), ("1", "100m", "100m"));
}

#[test]
fn services_and_claims_use_more_than_their_count() {
    let service = |spec: Value| used(Counted { group: "", plural: "services" }, &json!({"spec": spec}));
    assert_eq!(
        service(json!({"type": "LoadBalancer", "ports": [{}, {}]})),
        "count/services=1,services=1,services.loadbalancers=1,services.nodeports=2"
    );
    assert_eq!(
        service(
            json!({"type": "LoadBalancer", "allocateLoadBalancerNodePorts": false, "ports": [{"nodePort": 30000}, {}]})
        ),
        "count/services=1,services=1,services.loadbalancers=1,services.nodeports=1"
    );
    let claim = json!({"spec": {"storageClassName": "gold", "resources": {"requests": {"storage": "1.5"}}}});
    assert_eq!(
        used(Counted { group: "", plural: "persistentvolumeclaims" }, &claim),
        "count/persistentvolumeclaims=1,gold.storageclass.storage.k8s.io/persistentvolumeclaims=1,\
         gold.storageclass.storage.k8s.io/requests.storage=2,persistentvolumeclaims=1,requests.storage=2"
    );
    assert_eq!(
        used(Counted { group: "apps", plural: "deployments" }, &json!({})),
        "count/deployments.apps=1"
    );
}

#[test]
fn limits_are_of_the_resource_that_they_name() {
    let check = |group, plural, name: &str| Counted { group, plural }.counts_as(name);
    assert!(check("", "pods", "requests.example.com/gpu"));
    assert!(!check("", "pods", "requests.storage"));
    assert!(!check("", "pods", "services"));
    assert!(check("apps", "deployments", "count/deployments.apps"));
    assert!(!check("extensions", "deployments", "count/deployments.apps"));
    assert!(check("", "secrets", "secrets"));
    assert!(!check("example.com", "secrets", "secrets"));
    assert!(check("", "persistentvolumeclaims", "gold.storageclass.storage.k8s.io/requests.storage"));
}

/// `quota`: the spec of a quota of pods; `pod`: the spec of a pod.
fn covers(quota: Value, pod: Value) -> bool {
    Quota::of(&json!({"spec": quota, "status": {"hard": {"pods": "1"}}})).covers(PODS, &json!({"spec": pod}))
}

#[test]
fn scopes_choose_pods() {
    let scope = |name: &str, operator: &str, values: &[&str]| {
        json!({"scopeSelector": {"matchExpressions": [
            {"scopeName": name, "operator": operator, "values": values}]}})
    };
    let deadline = || json!({"activeDeadlineSeconds": 5});
    assert!(covers(json!({"scopes": ["Terminating"]}), deadline()));
    assert!(!covers(json!({"scopes": ["NotTerminating"]}), deadline()));
    assert!(covers(
        json!({"scopes": ["BestEffort", "NotTerminating"]}),
        json!({"containers": [{"name": "a"}]})
    ));
    let class = || json!({"priorityClassName": "high"});
    assert!(covers(scope("PriorityClass", "In", &["high"]), class()));
    assert!(!covers(scope("PriorityClass", "NotIn", &["high"]), class()));
    assert!(covers(scope("PriorityClass", "NotIn", &["high"]), json!({})));
    assert!(!covers(scope("PriorityClass", "Exists", &[]), json!({})));
    assert!(covers(scope("PriorityClass", "DoesNotExist", &[]), json!({})));
    let affinity = json!({"affinity": {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [
        {"weight": 1, "podAffinityTerm": {"namespaceSelector": {}, "topologyKey": "zone"}}]}}});
    assert!(covers(json!({"scopes": ["CrossNamespacePodAffinity"]}), affinity));
    assert!(!covers(json!({"scopes": ["CrossNamespacePodAffinity"]}), json!({})));
}

#[test]
fn containers_name_what_is_limited() {
    let pod = json!({"spec": {"containers": [
        {"name": "b", "resources": {"limits": {"cpu": "1"}}}, {"name": "a"}]}});
    let demanded = ["limits.cpu", "memory", "requests.ephemeral-storage"];
    assert_eq!(
        missing(&pod, demanded.into_iter()).as_deref(),
        Some("must specify limits.cpu for: a; memory for: a,b")
    );
    assert_eq!(missing(&pod, ["pods"].into_iter()), None);
}
