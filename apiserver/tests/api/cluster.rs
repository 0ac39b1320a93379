//! `/orlop/v1`: servers that join, and keys that are rotated.

use std::time::Duration;

use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::{Client, Cluster};

const KEYS: &str = "/orlop/v1/keyring";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_whose_join_broke_off_joins_again_under_its_name() {
    let cluster = Cluster::start().await;
    let mut admin = cluster.admin_client().await;
    let request = json!({"name": "s2", "address": "127.0.0.1:1"});
    let mut ids = Vec::new();
    for _ in 0..2 {
        let (status, answer) = admin.post("/orlop/v1/join/server", &request).await;
        assert_eq!(status, StatusCode::OK, "{answer}");
        ids.push(answer["member"].as_u64().expect("an id"));
    }
    assert_ne!(ids[0], ids[1], "an id is given once");
    let (_, members) = admin.get("/orlop/v1/members").await;
    let of_name = members.as_array().expect("a list").iter().filter(|member| member["name"] == "s2");
    let of_name: Vec<(Option<u64>, Option<&str>)> =
        of_name.map(|member| (member["id"].as_u64(), member["role"].as_str())).collect();
    assert_eq!(of_name, [(Some(ids[1]), Some("learner"))]);

    // It never came: as a voter it would stop the cluster.
    let (status, refused) = admin.post(&format!("/orlop/v1/members/{}/promote", ids[1]), &Value::Null).await;
    assert_eq!(status, StatusCode::CONFLICT, "{refused}");
    let message = refused["message"].as_str().unwrap_or_default();
    assert!(message.contains("cannot be reached"), "{message}");
    cluster.stop().await;
}

/// Waits until what the keys look like fits.
async fn until(client: &mut Client, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
    let mut seen = Value::Null;
    for _ in 0..600 {
        seen = client.get(KEYS).await.1;
        if fits(&seen) {
            return seen;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{what}: {seen}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_authority_is_rotated_under_clients_that_know_only_the_one_before() {
    let cluster = Cluster::start().await;
    let (before, roots) = (cluster.admin(), cluster.authority.roots().expect("roots"));
    let mut admin = cluster.client(Some(&before)).await;
    let rotate = format!("{KEYS}/authority/rotate");
    let first = cluster.authority.keyring().authority.current.id;
    let (status, body) = admin.post(&rotate, &json!({"keepOldSeconds": 3600})).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    until(&mut admin, "the new authority is in use", |keys| {
        keys["authority"]["current"] != json!(first) && keys["authority"]["waitsFor"].is_null()
    })
    .await;

    // New connections by the old authority alone, with a certificate of it; and by the new one with a new certificate.
    let mut old = cluster.client_trusting(roots.clone(), Some(&before)).await;
    assert_eq!(old.get("/api/v1/namespaces/default").await.0, StatusCode::OK);
    let mut new = cluster.admin_client().await;
    assert_eq!(new.get("/api/v1/namespaces/default").await.0, StatusCode::OK);
    let (_, bundle) = new.text(Method::GET, "/orlop/v1/authority", "").await;
    assert_eq!(apiserver::pki::ids(&bundle).len(), 2);

    let (status, _) = new.post(&format!("{KEYS}/authority/drop-old"), &Value::Null).await;
    assert_eq!(status, StatusCode::OK);
    until(&mut new, "the old authority is dropped", |keys| keys["authority"]["former"].is_null()).await;
    assert!(cluster.try_connect(roots, Some(&before)).await.is_err(), "who knows only the one before");
    assert_eq!(cluster.admin_client().await.get("/api").await.0, StatusCode::OK);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_are_good_until_the_key_that_signed_them_is_dropped() {
    let cluster = Cluster::start().await;
    let mut admin = cluster.admin_client().await;
    let account = "/api/v1/namespaces/default/serviceaccounts";
    let (status, made) = admin.post(account, &json!({"metadata": {"name": "robot"}})).await;
    assert_eq!(status, StatusCode::CREATED, "{made}");
    let ask = format!("{account}/robot/token");
    let token = |answer: &Value| answer["status"]["token"].as_str().expect("a token").to_owned();
    let old = token(&admin.post(&ask, &json!({"spec": {}})).await.1);
    let rotate = format!("{KEYS}/service-account/rotate");
    let body = json!({"keepOldSeconds": 3600});
    assert_eq!(admin.post(&rotate, &body).await.0, StatusCode::OK);
    until(&mut admin, "the new key signs", |keys| !keys["tokenKey"]["former"].is_null()).await;
    // What the server does follows what was agreed on.
    let signer = |token: &str| token.split('.').next().unwrap_or_default().to_owned();
    let mut new = token(&admin.post(&ask, &json!({"spec": {}})).await.1);
    for _ in 0..200 {
        if signer(&new) != signer(&old) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        new = token(&admin.post(&ask, &json!({"spec": {}})).await.1);
    }
    assert_ne!(signer(&new), signer(&old));
    for (token, name) in [(&old, "old"), (&new, "new")] {
        let mut robot = cluster.client(None).await.with_token(token);
        assert_eq!(robot.get("/api").await.0, StatusCode::OK, "{name}");
    }
    assert_eq!(admin.post(&format!("{KEYS}/service-account/drop-old"), &Value::Null).await.0, StatusCode::OK);
    until(&mut admin, "the old key is dropped", |keys| keys["tokenKey"]["former"].is_null()).await;
    let mut robot = cluster.client(None).await.with_token(&old);
    for _ in 0..200 {
        if robot.get("/api").await.0 == StatusCode::UNAUTHORIZED {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(robot.get("/api").await.0, StatusCode::UNAUTHORIZED);
    let mut robot = cluster.client(None).await.with_token(&new);
    assert_eq!(robot.get("/api").await.0, StatusCode::OK);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_key_of_the_store_is_rotated_and_the_old_one_forgotten() {
    let cluster = Cluster::start().await;
    let mut admin = cluster.admin_client().await;
    let rotate = format!("{KEYS}/store/rotate");
    let (status, body) = admin.post(&rotate, &json!({"keepOldSeconds": 0})).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    until(&mut admin, "no file has the old key", |keys| {
        keys["storeKey"]["current"] == "1" && keys["storeKey"]["waitsFor"].is_null()
    })
    .await;
    assert_eq!(cluster.store.key_ids().await.expect("read"), [2].into());
    let kept = cluster.dir.path().join("pki");
    assert!(!kept.join("store.key").exists() && kept.join("store-1.key").exists());
    let (status, _) = admin.post(&format!("{KEYS}/nothing/rotate"), &json!({"keepOldSeconds": 0})).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    cluster.stop().await;
}
