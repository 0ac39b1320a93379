//! The scheduler against a small API server inside the process.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use client::core::object::Object;
use client::{Client, Informers, ResponseBody};
use futures::StreamExt;
use http_body_util::{BodyExt, Full, StreamBody};
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

use super::*;

/// Pods, nodes and what was written.
struct Server {
    objects: Mutex<BTreeMap<String, Vec<Value>>>,
    events: broadcast::Sender<(String, String)>,
    writes: tokio::sync::mpsc::UnboundedSender<(String, Value)>,
}

impl Server {
    fn change(&self, collection: &str, kind: &str, object: &Value) {
        let mut objects = self.objects.lock().unwrap_or_else(PoisonError::into_inner);
        let list = objects.entry(collection.to_owned()).or_default();
        list.retain(|known| known["metadata"]["name"] != object["metadata"]["name"]);
        list.push(object.clone());
        let line = json!({"type": kind, "object": object}).to_string() + "\n";
        // Nobody may be watching yet.
        let _ = self.events.send((collection.to_owned(), line));
    }

    async fn serve(
        self: Arc<Self>,
        request: http::Request<client::kube::client::Body>,
    ) -> http::Response<ResponseBody> {
        let path = request.uri().path().to_owned();
        let query = request.uri().query().unwrap_or_default().to_owned();
        let full =
            |value: Value| Full::new(Bytes::from(value.to_string())).map_err(Into::into).boxed_unsync();
        if request.method() == http::Method::GET {
            let collection = path.rsplit('/').next().unwrap_or_default().to_owned();
            if !query.contains("watch=true") {
                let objects = self.objects.lock().unwrap_or_else(PoisonError::into_inner);
                let items = objects.get(&collection).cloned().unwrap_or_default();
                return http::Response::new(full(
                    json!({"metadata": {"resourceVersion": "1"}, "items": items}),
                ));
            }
            let events = self.events.subscribe();
            let lines =
                futures::stream::unfold((events, collection), |(mut events, collection)| async move {
                    loop {
                        let (about, line) = events.recv().await.ok()?;
                        if about == collection {
                            let frame = http_body::Frame::data(Bytes::from(line));
                            return Some((Ok::<_, tower::BoxError>(frame), (events, collection)));
                        }
                    }
                });
            return http::Response::new(StreamBody::new(lines.boxed()).boxed_unsync());
        }
        let body = request.into_body().collect_bytes().await.expect("a body");
        let body: Value = serde_json::from_slice(&body).expect("JSON");
        // The test may be over.
        let _ = self.writes.send((path, body));
        http::Response::new(full(json!({"metadata": {}})))
    }
}

fn node(name: &str, cpu: &str) -> Value {
    json!({"metadata": {"name": name, "resourceVersion": cpu}, "status": {"allocatable": {"cpu": cpu, "memory": "8Gi", "pods": "110"}}})
}

fn pod(name: &str, cpu: &str) -> Value {
    json!({"metadata": {"namespace": "d", "name": name, "uid": name, "resourceVersion": "1"},
           "spec": {"schedulerName": "default-scheduler",
                    "containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]}})
}

#[tokio::test]
async fn binds_explains_and_binds_when_room_is_made() {
    let (writes, mut written) = tokio::sync::mpsc::unbounded_channel();
    let server = Arc::new(Server { objects: Mutex::default(), events: broadcast::channel(64).0, writes });
    server.change("nodes", "ADDED", &node("n1", "1"));
    server.change("pods", "ADDED", &pod("small", "500m"));
    server.change("pods", "ADDED", &pod("large", "4"));
    let handle = Arc::clone(&server);
    let service = tower::service_fn(move |request| {
        let server = Arc::clone(&handle);
        async move { Ok::<_, Infallible>(server.serve(request).await) }
    });
    let client = Client::in_process(service, |_| {});
    let informers = Informers::new(client.clone());
    let shutdown = CancellationToken::new();
    let running = tokio::spawn(run(Config::default(), client, informers, shutdown.clone()));
    let mut seen: BTreeMap<String, String> = BTreeMap::new();
    let deadline = Duration::from_secs(30);
    while seen.len() < 4 {
        let (path, body) =
            tokio::time::timeout(deadline, written.recv()).await.expect("in time").expect("runs");
        note_write(&mut seen, &path, &body);
    }
    assert_eq!(seen["small bound"], "n1");
    assert_eq!(seen["large condition"], "0/1 nodes are available: 1 Insufficient cpu.");
    assert_eq!(seen["event Scheduled"], "Successfully assigned d/small to n1");
    assert_eq!(seen["event FailedScheduling"], "0/1 nodes are available: 1 Insufficient cpu.");
    // The watch may not be open yet: the change is told again until it is acted upon.
    while !seen.contains_key("large bound") {
        server.change("nodes", "MODIFIED", &node("n1", "8"));
        if let Ok(write) = tokio::time::timeout(Duration::from_millis(100), written.recv()).await {
            let (path, body) = write.expect("runs");
            note_write(&mut seen, &path, &body);
        }
    }
    shutdown.cancel();
    running.await.expect("no panic").expect("a clean end");
}

fn note_write(seen: &mut BTreeMap<String, String>, path: &str, body: &Value) {
    let text = |pointer: &str| body.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
    let mut segments = path.rsplit('/');
    match (segments.next(), segments.next()) {
        (Some("binding"), Some(pod)) => {
            seen.insert(format!("{pod} bound"), text("/target/name"));
        }
        (Some("status"), Some(pod)) => {
            seen.insert(format!("{pod} condition"), text("/status/conditions/0/message"));
        }
        (Some("events"), _) => {
            seen.insert(format!("event {}", text("/reason")), text("/message"));
        }
        _ => panic!("unexpected write to {path}"),
    }
}

#[test]
fn a_condition_is_written_once() {
    let mut pod: Pod = serde_json::from_value(pod("a", "1")).expect("a pod");
    let patch = host::condition(&pod, "why").expect("a patch");
    let condition = patch.body.pointer("/status/conditions/0").cloned().expect("a condition");
    pod.status.get_or_insert_default().conditions =
        Some(vec![serde_json::from_value(condition.clone()).expect("typed")]);
    assert!(host::condition(&pod, "why").is_none());
    let again = host::condition(&pod, "other").expect("a patch");
    assert_eq!(
        again.body.pointer("/status/conditions/0/lastTransitionTime"),
        condition.get("lastTransitionTime")
    );
    assert_eq!(pod.name(), "a");
}
