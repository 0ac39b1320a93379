//! What every cluster has comes back, and tells what is served, while the server runs.

use std::time::Duration;

use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::{Client, Cluster};

/// Waits until a path is answered so, no longer than a test may take.
async fn until(client: &mut Client, path: &str, expected: StatusCode) -> Value {
    for _ in 0..600 {
        let (status, answer) = client.get(path).await;
        if status == expected {
            return answer;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{path} is never answered with {expected}");
}

#[tokio::test]
async fn what_is_served_is_announced_and_what_is_taken_away_comes_back() {
    let cluster = Cluster::start().await;
    let mut admin = cluster.admin_client().await;
    let services = "/apis/apiregistration.k8s.io/v1/apiservices";
    // From the start.
    let (status, apps) = admin.get(&format!("{services}/v1.apps")).await;
    assert_eq!((status, &apps["status"]["conditions"][0]["status"]), (StatusCode::OK, &json!("True")));

    let definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    let definition = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "widgets.example.com"}, "spec": {"group": "example.com", "scope": "Namespaced",
            "names": {"plural": "widgets", "kind": "Widget"}, "versions": [{"name": "v1", "served": true,
                "storage": true, "schema": {"openAPIV3Schema": {"type": "object"}}}]}});
    let (status, answer) = admin.post(definitions, &definition).await;
    assert_eq!(status, StatusCode::CREATED, "{answer}");
    until(&mut admin, &format!("{services}/v1.example.com"), StatusCode::OK).await;

    let one = format!("{definitions}/widgets.example.com");
    admin.json(Method::DELETE, &one, &Value::Null).await;
    let (_, mut left) = admin.get(&one).await;
    // In the place of the controller.
    left["metadata"]["finalizers"] = json!([]);
    admin.json(Method::PUT, &one, &left).await;
    until(&mut admin, &format!("{services}/v1.example.com"), StatusCode::NOT_FOUND).await;

    let map = "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication";
    let (_, before) = admin.get(map).await;
    assert_eq!(before["data"]["client-ca-file"], cluster.authority.ca_pem());
    let (status, _) = admin.json(Method::DELETE, map, &Value::Null).await;
    assert_eq!(status, StatusCode::OK);
    let after = until(&mut admin, map, StatusCode::OK).await;
    assert_eq!(before["data"], after["data"]);
    assert_ne!(before["metadata"]["uid"], after["metadata"]["uid"]);
    cluster.stop().await;
}
