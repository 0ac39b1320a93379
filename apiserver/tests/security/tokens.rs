//! Token confusion: what is almost a token, or was one, proves nothing.

use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::{Cluster, POD, cluster_with_pod};
use crate::wire::{codes, exchange};

/// A token of an account in the namespace `default`, which is made for it.
pub async fn token(cluster: &Cluster, account: &str, spec: &Value) -> String {
    let mut admin = cluster.admin_client().await;
    let path = "/api/v1/namespaces/default/serviceaccounts";
    let (status, body) = admin.post(path, &json!({"metadata": {"name": account}})).await;
    assert!(matches!(status, StatusCode::CREATED | StatusCode::CONFLICT), "{body}");
    let (status, body) = admin.post(&format!("{path}/{account}/token"), &json!({"spec": spec})).await;
    assert_eq!(status, StatusCode::CREATED, "{body}");
    body["status"]["token"].as_str().expect("a token").to_owned()
}

/// What `GET /api` is answered, asked with these header lines.
async fn code(cluster: &Cluster, headers: &str) -> u16 {
    let request = format!("GET /api HTTP/1.1\r\nhost: k\r\nconnection: close\r\n{headers}\r\n");
    let answer = exchange(cluster, None, request).await;
    *codes(&answer).first().expect("an answer")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_almost_a_token_proves_nothing() {
    let cluster = Cluster::start().await;
    let token = token(&cluster, "robot", &json!({})).await;
    let (claims, signature) = token.rsplit_once('.').expect("a signature");
    for good in [format!("Bearer {token}"), format!("bearer {token}"), format!("BEARER {token} ")] {
        assert_eq!(code(&cluster, &format!("authorization: {good}\r\n")).await, 200, "{good}");
    }
    let short = &token[..token.len() - 4];
    for bad in [
        String::new(),
        token.clone(),
        "Bearer".to_owned(),
        "Bearer ".to_owned(),
        format!("Bearer{token}"),
        format!("Bearer  {token}"),
        format!("Bearer {token} {token}"),
        format!("Bearer {token},Bearer {token}"),
        format!("Bearer Bearer {token}"),
        format!("Basic {token}"),
        format!("Bearer {short}"),
        format!("Bearer {token}A"),
        format!("Bearer {token}="),
        format!("Bearer {claims}."),
        format!("Bearer {claims}"),
        format!("Bearer {claims}.{}", signature.chars().rev().collect::<String>()),
        // {"alg":"none"}, and an algorithm whose key would be what is public.
        format!("Bearer eyJhbGciOiJub25lIn0.{}.", claims.split_once('.').expect("claims").1),
        format!("Bearer eyJhbGciOiJIUzI1NiJ9.{}.{signature}", claims.split_once('.').expect("claims").1),
    ] {
        assert_eq!(code(&cluster, &format!("authorization: {bad}\r\n")).await, 401, "{bad}");
    }
    let header = format!("authorization: Bearer {token}\r\n");
    assert_eq!(code(&cluster, &header.repeat(2)).await, 401, "which of two counts is for nobody to guess");
    assert_eq!(code(&cluster, &format!("authorization: Bearer x\r\n{header}")).await, 401);
    // Headers that a proxy in front of a server would set prove nothing: there is none.
    for claimed in
        ["x-remote-user: admin\r\nx-remote-group: system:masters\r\n", "x-forwarded-user: admin\r\n"]
    {
        assert_eq!(code(&cluster, claimed).await, 401, "{claimed}");
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_ends_with_what_it_is_bound_to() {
    let cluster = cluster_with_pod().await;
    let mut admin = cluster.admin_client().await;
    let bound =
        |kind: &str, name: &str| json!({"boundObjectRef": {"kind": kind, "apiVersion": "v1", "name": name}});
    let secret = json!({"metadata": {"name": "binding"}});
    admin.post("/api/v1/namespaces/default/secrets", &secret).await;
    let of_pod = token(&cluster, "default", &bound("Pod", "web")).await;
    let of_node = token(&cluster, "default", &bound("Node", "node-1")).await;
    let of_secret = token(&cluster, "default", &bound("Secret", "binding")).await;
    let elsewhere = token(&cluster, "default", &json!({"audiences": ["vault"]})).await;
    let unbound = token(&cluster, "default", &json!({})).await;
    let proves =
        async |token: &str| code(&cluster, &format!("authorization: Bearer {token}\r\n")).await == 200;
    assert!(proves(&of_pod).await && proves(&of_node).await && proves(&of_secret).await);
    assert!(!proves(&elsewhere).await, "it is for another audience");
    for (path, token) in [
        (format!("{POD}?gracePeriodSeconds=0"), &of_pod),
        ("/api/v1/namespaces/default/secrets/binding".to_owned(), &of_secret),
        ("/api/v1/nodes/node-1".to_owned(), &of_node),
    ] {
        let (status, body) = admin.text(Method::DELETE, &path, "").await;
        assert_eq!(status, StatusCode::OK, "{body}");
        assert!(!proves(token).await, "{path} is gone");
    }
    // Another object of the same name is another object.
    admin.post("/api/v1/namespaces/default/secrets", &secret).await;
    admin.post("/api/v1/nodes", &json!({"metadata": {"name": "node-1"}})).await;
    assert!(!proves(&of_secret).await && !proves(&of_node).await && proves(&unbound).await);
    cluster.stop().await;
}
