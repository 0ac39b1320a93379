//! What the recorder writes.

use std::convert::Infallible;
use std::sync::Mutex;

use bytes::Bytes;
use http_body_util::Full;
use k8s_openapi::api::core::v1::Node;
use serde_json::Value;

use super::*;

/// Requests and their bodies.
type Written = Arc<Mutex<Vec<(String, Value)>>>;

/// A server that keeps what is written; patches fail with 404 when `forgetful`.
fn server(forgetful: bool) -> (Client, Written) {
    let written = Written::default();
    let log = Arc::clone(&written);
    let service = tower::service_fn(move |request: http::Request<kube::client::Body>| {
        let log = Arc::clone(&log);
        async move {
            let line = format!("{} {}", request.method(), request.uri().path());
            let patch = request.method() == Method::PATCH;
            let body = request.into_body().collect_bytes().await.expect("a body");
            log.lock().expect("not poisoned").push((line, serde_json::from_slice(&body).expect("JSON")));
            let code = if patch && forgetful { 404 } else { 200 };
            let answer = http::Response::builder().status(code).body(Full::new(Bytes::from_static(b"{}")));
            Ok::<_, Infallible>(answer.expect("a response"))
        }
    });
    (Client::in_process(service, |_| {}), written)
}

fn node() -> Node {
    Node { metadata: ObjectMeta { name: Some("n1".into()), ..ObjectMeta::default() }, ..Node::default() }
}

#[tokio::test]
async fn the_second_note_raises_the_count() {
    let (client, written) = server(false);
    let recorder = Recorder::new(&client, "kubelet", Some("n1"));
    recorder.event(&node(), EventType::Normal, "NodeReady", "it is ready");
    recorder.event(&node(), EventType::Normal, "NodeReady", "it is ready");
    recorder.flush().await;
    let written = written.lock().expect("not poisoned");
    let [(create, event), (update, patch)] = written.as_slice() else { panic!("two writes: {written:?}") };
    assert_eq!(create, "POST /api/v1/namespaces/default/events");
    assert_eq!(event["involvedObject"]["kind"], "Node");
    assert_eq!(event["source"], serde_json::json!({"component": "kubelet", "host": "n1"}));
    assert_eq!((&event["count"], &event["type"]), (&serde_json::json!(1), &serde_json::json!("Normal")));
    let name = event["metadata"]["name"].as_str().expect("a name");
    assert_eq!(update, &format!("PATCH /api/v1/namespaces/default/events/{name}"));
    assert_eq!(patch["count"], 2);
}

#[tokio::test]
async fn an_event_that_has_expired_is_created_again() {
    let (client, written) = server(true);
    let recorder = Recorder::new(&client, "kubelet", None);
    for _ in 0..2 {
        recorder.event(&node(), EventType::Warning, "Rebooted", "again");
    }
    recorder.flush().await;
    let written = written.lock().expect("not poisoned");
    let methods: Vec<&str> = written.iter().filter_map(|(line, _)| line.split(' ').next()).collect();
    assert_eq!(methods, ["POST", "PATCH", "POST"]);
}

#[tokio::test]
async fn nobody_waits_for_a_server_that_does_not_answer() {
    let service = tower::service_fn(|_: http::Request<kube::client::Body>| {
        futures::future::pending::<Result<http::Response<Full<Bytes>>, Infallible>>()
    });
    let recorder = Recorder::new(&Client::in_process(service, |_| {}), "kubelet", None);
    for n in 0..2 * WAITING {
        recorder.event(&node(), EventType::Normal, "Noise", n.to_string());
    }
    assert!(recorder.dropped() > 0);
}
