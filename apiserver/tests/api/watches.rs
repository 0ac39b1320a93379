//! Watches over the wire: nothing missed, nothing twice.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use http::{Method, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use serde_json::{Value, json};

use crate::support::{Client, Cluster};

const PATH: &str = "/api/v1/namespaces/default/configmaps";

/// The lines of a watch.
pub struct Lines {
    body: Incoming,
    rest: Vec<u8>,
}

impl Lines {
    async fn open(client: &mut Client, query: &str) -> Lines {
        Lines::of(client, PATH, query).await
    }

    pub async fn of(client: &mut Client, path: &str, query: &str) -> Lines {
        let request = client.request(Method::GET, &format!("{path}?watch=true&{query}"), "");
        let response = client.send(request).await;
        assert_eq!(response.status(), StatusCode::OK);
        Lines { body: response.into_body(), rest: Vec::new() }
    }

    pub async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.rest.drain(..=end).collect();
                return Some(serde_json::from_slice(&line).expect("JSON"));
            }
            let frame = self.body.frame().await?.expect("a frame");
            self.rest.extend_from_slice(&frame.into_data().expect("data"));
        }
    }
}

fn revision(object: &Value) -> u64 {
    object["metadata"]["resourceVersion"].as_str().and_then(|text| text.parse().ok()).expect("a revision")
}

fn config_map(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": {"app": name}}})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_write_is_seen_once_over_reconnects() {
    const WRITERS: usize = 4;
    const EACH: usize = 50;
    let cluster = Arc::new(Cluster::start().await);
    let (_, list) = cluster.admin_client().await.get(PATH).await;
    let from = revision(&list);
    let written = Arc::new(AtomicUsize::new(0));
    let mut tasks = tokio::task::JoinSet::new();
    for writer in 0..WRITERS {
        let (cluster, written) = (cluster.clone(), written.clone());
        tasks.spawn(async move {
            let mut client = cluster.admin_client().await;
            for index in 0..EACH {
                let (status, body) = client.post(PATH, &config_map(&format!("w{writer}-{index}"))).await;
                assert_eq!(status, StatusCode::CREATED, "{body}");
                written.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    for reader in 0..4usize {
        let cluster = cluster.clone();
        tasks.spawn(async move {
            let (mut seen, mut last) = (std::collections::BTreeSet::new(), from);
            while seen.len() < WRITERS * EACH {
                let mut client = cluster.admin_client().await;
                let mut lines = Lines::open(&mut client, &format!("resourceVersion={last}")).await;
                for _ in 0..10 + reader * 7 {
                    let Some(event) = lines.next().await else { break };
                    assert_eq!(event["type"], "ADDED");
                    let now = revision(&event["object"]);
                    assert!(now > last, "{now} after {last}");
                    last = now;
                    let name = event["object"]["metadata"]["name"].as_str().expect("a name").to_owned();
                    assert!(seen.insert(name), "seen twice");
                    if seen.len() == WRITERS * EACH {
                        break;
                    }
                }
            }
        });
    }
    while let Some(task) = tasks.join_next().await {
        task.expect("done");
    }
    assert_eq!(written.load(Ordering::Relaxed), WRITERS * EACH);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_object_that_leaves_the_selector_is_deleted_for_its_watchers() {
    let cluster = Cluster::start().await;
    let mut admin = cluster.admin_client().await;
    let (_, list) = admin.get(PATH).await;
    let mut watching = cluster.admin_client().await;
    let query = format!("labelSelector=app%3Dweb&resourceVersion={}", revision(&list));
    let mut lines = Lines::open(&mut watching, &query).await;
    admin.post(PATH, &config_map("web")).await;
    let (_, mut object) = admin.get(&format!("{PATH}/web")).await;
    object["metadata"]["labels"]["app"] = "other".into();
    let (status, changed) = admin.json(Method::PUT, &format!("{PATH}/web"), &object).await;
    assert_eq!(status, StatusCode::OK, "{changed}");
    let first = lines.next().await.expect("an event");
    let second = lines.next().await.expect("an event");
    assert_eq!((&first["type"], &second["type"]), (&"ADDED".into(), &"DELETED".into()));
    assert_eq!(second["object"]["metadata"]["labels"]["app"], "web", "shown as it was last in view");
    assert_eq!(revision(&second["object"]), revision(&changed));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_without_revision_begins_with_the_state_and_ends_with_a_bookmark() {
    let cluster = Cluster::start().await;
    let mut admin = cluster.admin_client().await;
    let (_, created) = admin.post(PATH, &config_map("one")).await;
    let mut lines = Lines::open(&mut admin, "timeoutSeconds=1&allowWatchBookmarks=true").await;
    let mut events = Vec::new();
    while let Some(event) = lines.next().await {
        events.push(event);
    }
    let added: Vec<_> = events.iter().filter(|event| event["type"] == "ADDED").collect();
    assert!(added.iter().any(|event| event["object"] == created), "{events:?}");
    let last = events.last().expect("a bookmark");
    assert_eq!(last["type"], "BOOKMARK", "{last}");
    assert!(revision(&last["object"]) >= revision(&created));
    cluster.stop().await;
}
