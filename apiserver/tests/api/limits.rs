//! What a client may not do, and that others are not hurt by it.

use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::support::Cluster;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_is_too_large_is_refused() {
    let cluster = Cluster::start().await;
    let mut admin = cluster.admin_client().await;
    let body = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "big"},
        "data": {"x": "x".repeat(10 << 20)}});
    let path = "/api/v1/namespaces/default/configmaps";
    let (status, body) = admin.post(path, &body).await;
    assert_eq!((status, &body["reason"]), (StatusCode::PAYLOAD_TOO_LARGE, &"RequestEntityTooLarge".into()));
    // The server does not read the rest: the connection is of no more use, a new one is.
    let (status, _) = cluster.admin_client().await.get(path).await;
    assert_eq!(status, StatusCode::OK);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_head_that_is_too_large_is_refused() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    let mut stream = cluster.connect(Some(&admin), "http/1.1").await;
    let head = format!("GET /version HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n", "y".repeat(200 * 1024));
    // The server may answer and close before it has taken everything.
    let _ = stream.write_all(head.as_bytes()).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431 "), "{answer}");
    let (status, _) = cluster.admin_client().await.get("/version").await;
    assert_eq!(status, StatusCode::OK);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http2_carries_many_requests_in_one_connection() {
    let cluster = Cluster::start().await;
    let sender = cluster.http2(Some(&cluster.admin())).await;
    let mut requests = tokio::task::JoinSet::new();
    for _ in 0..200 {
        let mut sender = sender.clone();
        requests.spawn(async move {
            let request = Request::get("https://kubernetes/api/v1/namespaces/default")
                .body(Full::<Bytes>::default())
                .expect("a request");
            sender.send_request(request).await.expect("an answer").status()
        });
    }
    while let Some(status) = requests.join_next().await {
        assert_eq!(status.expect("answered"), StatusCode::OK);
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_answers_are_compressed_for_those_who_ask() {
    let cluster = Cluster::start().await;
    let mut admin = cluster.admin_client().await;
    for index in 0..3 {
        let body = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": format!("c{index}")},
            "data": {"x": "x".repeat(100_000)}});
        let (status, body) = admin.post("/api/v1/namespaces/default/configmaps", &body).await;
        assert_eq!(status, StatusCode::CREATED, "{body}");
    }
    let path = "/api/v1/namespaces/default/configmaps";
    let plain = admin.send(admin.request(Method::GET, path, "")).await;
    assert!(plain.headers().get(header::CONTENT_ENCODING).is_none());
    let plain = plain.into_body().collect().await.expect("a body").to_bytes();
    let mut request = admin.request(Method::GET, path, "");
    request.headers_mut().insert(header::ACCEPT_ENCODING, "gzip".parse().expect("a value"));
    let packed = admin.send(request).await;
    assert_eq!(
        packed.headers().get(header::CONTENT_ENCODING).map(|value| value.as_bytes()),
        Some(&b"gzip"[..])
    );
    let packed = packed.into_body().collect().await.expect("a body").to_bytes();
    assert!(packed.len() * 10 < plain.len(), "{} of {}", packed.len(), plain.len());
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_are_for_those_who_may() {
    let cluster = Cluster::start().await;
    let mut admin = cluster.admin_client().await;
    admin.get("/api/v1/namespaces/default").await;
    let (status, text) = admin.text(Method::GET, "/metrics", "").await;
    assert_eq!(status, StatusCode::OK);
    assert!(text.contains("apiserver_request_total{"), "{text}");
    let nobody =
        cluster.authority.issue_client("nobody", None, apiserver::pki::COMPONENT_LIFETIME).expect("issued");
    let (status, _) = cluster.client(Some(&nobody)).await.text(Method::GET, "/metrics", "").await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_ends_watches_and_idle_connections() {
    let cluster = Cluster::start().await;
    let mut watcher = cluster.admin_client().await;
    let request = watcher.request(Method::GET, "/api/v1/namespaces?watch=true&resourceVersion=0", "");
    let mut response = watcher.send(request).await;
    let state = tokio::time::timeout(std::time::Duration::from_secs(30), response.frame()).await;
    state.expect("in time").expect("the state").expect("a frame");
    let idle = cluster.admin_client().await;
    let began = std::time::Instant::now();
    cluster.stop().await;
    assert!(began.elapsed() < std::time::Duration::from_secs(5), "{:?}", began.elapsed());
    while let Some(frame) = response.frame().await {
        frame.expect("the watch ends properly");
    }
    drop(idle);
}

/// One user holds all of its places: others, administrators and its own watches go on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_noisy_client_starves_nobody() {
    let cluster = Cluster::start().await;
    let issue = |name: &str| {
        cluster.authority.issue_client(name, None, apiserver::pki::COMPONENT_LIFETIME).expect("issued")
    };
    let (greedy, modest) = (issue("greedy"), issue("modest"));
    // Requests whose bodies never come; some more than there are places.
    let mut connections = Vec::new();
    for _ in 0..520 {
        let mut stream = cluster.connect(Some(&greedy), "http/1.1").await;
        let head = "POST /api/v1/namespaces/default/pods HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\n";
        stream.write_all(head.as_bytes()).await.expect("sent");
        connections.push(stream);
    }
    let mut answers = tokio::task::JoinSet::new();
    for mut stream in connections {
        answers.spawn(async move {
            let mut answer = vec![0; 4096];
            let read = stream.read(&mut answer).await.unwrap_or(0);
            (String::from_utf8_lossy(&answer[..read]).into_owned(), stream)
        });
    }
    let path = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
    let (status, _) = cluster.client(Some(&modest)).await.post(path, &review).await;
    assert_eq!(status, StatusCode::CREATED);
    let (status, _) = cluster.admin_client().await.get("/api/v1/namespaces/default").await;
    assert_eq!(status, StatusCode::OK);
    let (refused, _) = answers.join_next().await.expect("an answer").expect("read");
    let refused = refused.to_lowercase();
    assert!(refused.starts_with("http/1.1 429 "), "{refused}");
    assert!(refused.contains("retry-after: 1"), "{refused}");
    answers.abort_all();
    cluster.stop().await;
}
