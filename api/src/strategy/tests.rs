use serde_json::json;

use super::*;
use crate::catalogue::Catalogue;

const MINTED: Minted<'static> = Minted { uid: "u", time: "2024-01-01T00:00:00Z" };

fn resource(group: &str, plural: &str) -> &'static Resource {
    Catalogue::builtin().resource(group, "v1", plural).expect(plural)
}

#[test]
fn a_new_pod_is_pending() {
    let mut pod = json!({"metadata": {"name": "a", "namespace": "b", "resourceVersion": "9", "generation": 4},
        "spec": {"containers": [{"resources": {"requests": {"cpu": "1"}}}]}, "status": {"phase": "Running"}});
    create(resource("", "pods"), &mut pod, &MINTED);
    assert_eq!(pod["status"], json!({"phase": "Pending", "qosClass": "Burstable"}));
    assert_eq!(
        pod["metadata"],
        json!({"name": "a", "namespace": "b", "uid": "u", "creationTimestamp": "2024-01-01T00:00:00Z", "generation": 1})
    );
}

#[test]
fn a_new_namespace_is_active() {
    let mut namespace = json!({"metadata": {"name": "a"}});
    create(resource("", "namespaces"), &mut namespace, &MINTED);
    assert_eq!(namespace["spec"]["finalizers"], json!(["kubernetes"]));
    assert_eq!(namespace["status"]["phase"], "Active");
    assert_eq!(namespace["metadata"]["labels"]["kubernetes.io/metadata.name"], "a");
}

#[test]
fn updates_count_generations_and_keep_the_status() {
    let deployments = resource("apps", "deployments");
    let old = json!({"metadata": {"name": "a", "uid": "u", "generation": 3}, "spec": {"replicas": 1},
        "status": {"replicas": 1}});
    let mut new = json!({"metadata": {"name": "a", "uid": "x", "generation": 9}, "spec": {"replicas": 2}});
    update(deployments, &mut new, &old);
    assert_eq!(new["metadata"], json!({"name": "a", "uid": "u", "generation": 4}));
    assert_eq!(new["status"], json!({"replicas": 1}));
    let mut same = json!({"metadata": {"name": "a", "labels": {"a": "b"}}, "spec": {"replicas": 1}});
    update(deployments, &mut same, &old);
    assert_eq!(same["metadata"]["generation"], 3);
}

#[test]
fn a_status_update_changes_no_spec() {
    let old = json!({"metadata": {"name": "a", "labels": {"a": "b"}}, "spec": {"x": 1}, "status": {"phase": "Pending"}});
    let mut new =
        json!({"metadata": {"name": "a", "labels": {}}, "spec": {"x": 2}, "status": {"phase": "Running"}});
    status_update(resource("apps", "deployments"), &mut new, &old);
    assert_eq!(
        new,
        json!({"metadata": {"name": "a", "labels": {"a": "b"}}, "spec": {"x": 1}, "status": {"phase": "Running"}})
    );
}

#[test]
fn services_keep_their_addresses() {
    let services = resource("", "services");
    let old = json!({"metadata": {}, "spec": {"type": "NodePort", "clusterIP": "10.96.0.7", "clusterIPs": ["10.96.0.7"],
        "ports": [{"port": 80, "protocol": "TCP", "nodePort": 30080}]}});
    let mut new =
        json!({"metadata": {}, "spec": {"type": "NodePort", "ports": [{"port": 80, "protocol": "TCP"}]}});
    update(services, &mut new, &old);
    assert_eq!(new["spec"], old["spec"]);
    let mut cluster_ip = old.clone();
    cluster_ip["spec"]["type"] = json!("ClusterIP");
    update(services, &mut cluster_ip, &old);
    assert!(cluster_ip["spec"]["ports"][0].get("nodePort").is_none());
}

#[test]
fn classes_of_service() {
    let class_of = |resources: Value| {
        let pod = json!({"spec": {"containers": [{"resources": resources}]}});
        qos::class(pod.as_object().expect("object"))
    };
    assert_eq!(class_of(json!({})), "BestEffort");
    assert_eq!(class_of(json!({"limits": {"cpu": "1", "memory": "1Gi"}})), "Guaranteed");
    assert_eq!(class_of(json!({"limits": {"cpu": "1"}})), "Burstable");
}

#[test]
fn scales() {
    let mut deployment = json!({"metadata": {"name": "a"}, "spec": {"replicas": 2, "selector":
        {"matchLabels": {"a": "b"}}}, "status": {"replicas": 1}});
    let scale = scale::of(&deployment);
    assert_eq!(scale["spec"]["replicas"], 2);
    assert_eq!(scale["status"], json!({"replicas": 1, "selector": "a=b"}));
    scale::apply(&mut deployment, &json!({"spec": {}}));
    assert_eq!(deployment["spec"]["replicas"], 0);
}
