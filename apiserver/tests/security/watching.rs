//! Watches of what may not be read: whatever way it is asked for, the verb and the name are those that were authorized.

use http::{Method, StatusCode};
use http_body_util::BodyExt as _;
use serde_json::json;

use crate::support::{Client, Cluster};
use crate::wire::user_with;

const SECRETS: &str = "/api/v1/namespaces/default/secrets";

async fn cluster_with_secrets() -> Cluster {
    let cluster = Cluster::start().await;
    let mut admin = cluster.admin_client().await;
    for name in ["mine", "other"] {
        let secret = json!({"metadata": {"name": name}, "stringData": {"key": format!("{name}-key")}});
        assert_eq!(admin.post(SECRETS, &secret).await.0, StatusCode::CREATED);
    }
    cluster
}

/// The code of an answer, and what a watch says until it ends.
async fn said(client: &mut Client, target: &str) -> (u16, String) {
    let response = client.send(client.request(Method::GET, target, "")).await;
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.expect("a body").to_bytes();
    (status, String::from_utf8_lossy(&body).into_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_may_list_may_not_watch() {
    let cluster = cluster_with_secrets().await;
    let rules = json!([{"apiGroups": [""], "resources": ["secrets"], "verbs": ["get", "list"]}]);
    let mut reader = user_with(&cluster, "reader", false, rules).await;
    assert_eq!(said(&mut reader, SECRETS).await.0, 200);
    for query in ["watch=true", "watch=1", "watch", "watch=", "watch=yes", "watch=TRUE", "w%61tch=1"] {
        let (status, body) = said(&mut reader, &format!("{SECRETS}?{query}&timeoutSeconds=1")).await;
        assert_eq!(status, 403, "{query}: {body}");
        let (status, body) = said(&mut reader, &format!("{SECRETS}/mine?{query}&timeoutSeconds=1")).await;
        assert_eq!(status, 403, "{query}: {body}");
    }
    for target in [
        "/api/v1/watch/namespaces/default/secrets?timeoutSeconds=1",
        "/api/v1/watch/namespaces/default/secrets/mine?timeoutSeconds=1",
        "/api/v1/watch/secrets?timeoutSeconds=1",
    ] {
        assert_eq!(said(&mut reader, target).await.0, 403, "{target}");
    }
    // A list is one, and ends, whatever else is asked with it.
    let list = said(&mut reader, &format!("{SECRETS}?watch=false&allowWatchBookmarks=true")).await;
    assert!(list.0 == 200 && list.1.contains("SecretList"), "{list:?}");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_may_watch_one_object_watches_no_other() {
    let cluster = cluster_with_secrets().await;
    let rules =
        json!([{"apiGroups": [""], "resources": ["secrets"], "verbs": ["watch"], "resourceNames": ["mine"]}]);
    let mut watcher = user_with(&cluster, "watcher", false, rules).await;
    for target in [
        format!("{SECRETS}/mine?watch=1&timeoutSeconds=1"),
        format!("{SECRETS}/mine?watch=1&timeoutSeconds=1&fieldSelector=metadata.name=mine"),
        format!("{SECRETS}?watch=1&timeoutSeconds=1&fieldSelector=metadata.name=mine"),
        "/api/v1/watch/namespaces/default/secrets/mine?timeoutSeconds=1".to_owned(),
    ] {
        let (status, body) = said(&mut watcher, &target).await;
        assert_eq!(status, 200, "{target}: {body}");
        assert!(body.contains("\"mine\"") && !body.contains("\"other\""), "{target}: {body}");
    }
    for (target, expected) in [
        (format!("{SECRETS}?watch=1"), 403),
        (format!("{SECRETS}/other?watch=1"), 403),
        (format!("{SECRETS}?watch=1&fieldSelector=metadata.name!=mine"), 403),
        (format!("{SECRETS}?watch=1&fieldSelector=metadata.name=other"), 403),
        (format!("{SECRETS}/mine?watch=1&fieldSelector=metadata.name=other"), 400),
        (format!("{SECRETS}/mine?watch=1&fieldSelector=metadata.name!=mine"), 400),
        (format!("{SECRETS}/mine?watch=1&fieldSelector=type=Opaque"), 400),
        ("/api/v1/secrets?watch=1&fieldSelector=metadata.name=mine".to_owned(), 403),
        (SECRETS.to_owned(), 403),
        (format!("{SECRETS}/mine"), 403),
    ] {
        let (status, body) = said(&mut watcher, &target).await;
        assert_eq!(status, expected, "{target}: {body}");
        assert!(!body.contains("other-key"), "{target}: {body}");
    }
    cluster.stop().await;
}
