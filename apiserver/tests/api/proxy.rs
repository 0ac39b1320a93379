//! Requests that are passed on to a pod, through the agent's end of the tunnel and back.

use std::convert::Infallible;
use std::net::SocketAddr;

use bytes::Bytes;
use futures::StreamExt as _;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::http1;
use hyper::server::conn::http1 as server;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::agent::Agent;
use crate::support::{Cluster, POD, cluster_with_pod};

type Answer = Response<BoxBody<Bytes, hyper::Error>>;

/// A web server that stands for whatever is in the pod.
async fn backend() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = service_fn(|request| async { Ok::<_, Infallible>(answer(request).await) });
            let connection = server::Builder::new().serve_connection(TokioIo::new(stream), service);
            tokio::spawn(connection.with_upgrades());
        }
    });
    address
}

fn whole(text: impl Into<Bytes>) -> BoxBody<Bytes, hyper::Error> {
    Full::new(text.into()).map_err(|never| match never {}).boxed()
}

async fn answer(mut request: Request<Incoming>) -> Answer {
    let mut answer = Response::new(whole(""));
    match request.uri().path() {
        "/moved" => {
            *answer.status_mut() = StatusCode::FOUND;
            answer.headers_mut().insert(header::LOCATION, "/elsewhere".parse().expect("a value"));
        }
        // What comes is sent back as it comes.
        "/stream" => *answer.body_mut() = request.into_body().boxed(),
        "/shout" => {
            *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
            answer.headers_mut().insert(header::CONNECTION, "Upgrade".parse().expect("a value"));
            answer.headers_mut().insert(header::UPGRADE, "shout".parse().expect("a value"));
            let upgrade = hyper::upgrade::on(&mut request);
            tokio::spawn(async move {
                let Ok(upgraded) = upgrade.await else { return };
                let mut io = TokioIo::new(upgraded);
                let mut said = [0; 5];
                io.read_exact(&mut said).await.expect("read");
                io.write_all(&said.to_ascii_uppercase()).await.expect("written");
                io.shutdown().await.expect("closed");
            });
        }
        _ => {
            let (parts, body) = request.into_parts();
            let body = body.collect().await.expect("a body").to_bytes();
            let headers: std::collections::BTreeMap<&str, &str> = parts
                .headers
                .iter()
                .map(|(name, value)| (name.as_str(), value.to_str().expect("text")))
                .collect();
            let told = json!({"method": parts.method.as_str(), "target": parts.uri.to_string(), "headers": headers,
                "body": String::from_utf8_lossy(&body)});
            *answer.body_mut() = whole(told.to_string());
        }
    }
    answer
}

async fn cluster_with_backend() -> (Cluster, Agent) {
    let cluster = cluster_with_pod().await;
    let mut admin = cluster.admin_client().await;
    let status =
        json!({"status": {"phase": "Running", "podIP": "10.244.0.5", "podIPs": [{"ip": "10.244.0.5"}]}});
    let mut request = admin.request(Method::PATCH, &format!("{POD}/status"), status.to_string());
    let patch = "application/merge-patch+json".parse().expect("a value");
    request.headers_mut().insert(header::CONTENT_TYPE, patch);
    assert_eq!(admin.send(request).await.status(), StatusCode::OK);
    let agent = Agent::in_front_of(&cluster, "node-1", backend().await).await;
    (cluster, agent)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_arrives_without_what_proves_who_sent_it() {
    let (cluster, _agent) = cluster_with_backend().await;
    let mut admin = cluster.admin_client().await.with_token("secret");
    let body = "x".repeat(100_000);
    let (status, told) = admin.text(Method::PUT, &format!("{POD}/proxy/a//b?c=%zz"), body.clone()).await;
    assert_eq!(status, StatusCode::OK, "{told}");
    let told: Value = serde_json::from_str(&told).expect("JSON");
    assert_eq!((&told["method"], &told["target"]), (&json!("PUT"), &json!("/a//b?c=%zz")));
    assert_eq!(told["body"], body);
    assert_eq!(told["headers"]["host"], "kubernetes");
    assert_eq!(told["headers"]["x-forwarded-uri"], format!("{POD}/proxy/a//b"));
    assert!(told["headers"].get("authorization").is_none(), "{told}");

    let response = admin.send(admin.request(Method::GET, &format!("{POD}/proxy/moved"), "")).await;
    assert_eq!(response.status(), StatusCode::FOUND);
    assert_eq!(response.headers()[header::LOCATION], format!("{POD}/proxy/elsewhere"));
    let response = admin.send(admin.request(Method::HEAD, &format!("{POD}/proxy/"), "")).await;
    assert_eq!(response.status(), StatusCode::OK);
    let (_, told) = admin.get("/api/v1/nodes/node-1/proxy/stats/summary").await;
    assert_eq!(
        told["target"], "/stats/summary",
        "the agent's own API is reached by another way than addresses"
    );
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_are_passed_on_as_they_come() {
    let (cluster, _agent) = cluster_with_backend().await;
    let io = TokioIo::new(cluster.connect(Some(&cluster.admin()), "http/1.1").await);
    let (mut sender, connection) = http1::handshake(io).await.expect("HTTP");
    tokio::spawn(connection);
    let (pieces, body) = futures::channel::mpsc::unbounded::<Bytes>();
    let body = StreamBody::new(body.map(|bytes| Ok::<_, Infallible>(Frame::data(bytes))));
    let request =
        Request::post(format!("{POD}/proxy/stream")).header(header::HOST, "k").body(body).expect("a request");
    pieces.unbounded_send("one".into()).expect("sent");
    let mut response = sender.send_request(request).await.expect("an answer").into_body();
    // Each piece comes back before the next one is sent: nothing waits for the end of a body.
    for piece in ["one", "two", "three"] {
        if piece != "one" {
            pieces.unbounded_send(piece.into()).expect("sent");
        }
        let frame = response.frame().await.expect("a frame").expect("read").into_data().expect("data");
        assert_eq!(frame, piece);
    }
    drop(pieces);
    assert!(response.frame().await.is_none());
    cluster.stop().await;
}

async fn exchange(cluster: &Cluster, text: &str) -> String {
    let mut stream = cluster.connect(Some(&cluster.admin()), "http/1.1").await;
    stream.write_all(text.as_bytes()).await.expect("sent");
    let mut answer = Vec::new();
    // An end without the closing message of TLS is an end as well.
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn upgrades_pass_only_when_both_sides_agree() {
    let (cluster, _agent) = cluster_with_backend().await;
    let head = |path: &str, more: &str| format!("GET {POD}/proxy{path} HTTP/1.1\r\nhost: k\r\n{more}\r\n");
    let asked = "connection: Upgrade\r\nupgrade: shout\r\n";
    let next = "GET /version HTTP/1.1\r\nhost: k\r\nconnection: close\r\n\r\n";

    let answer = exchange(&cluster, &format!("{}hello", head("/shout", asked))).await;
    assert!(answer.starts_with("HTTP/1.1 101 ") && answer.ends_with("\r\n\r\nHELLO"), "{answer}");
    // The backend does not change protocols: what follows is for this server, and none of it reaches the backend.
    let answer = exchange(&cluster, &format!("{}{next}", head("/plain", asked))).await;
    assert_eq!(answer.matches("HTTP/1.1 200 ").count(), 2, "{answer}");
    assert!(answer.contains("gitVersion"), "{answer}");
    // The backend changes to a protocol that was not asked for: the client's connection stays what it is.
    for unasked in ["", "connection: Upgrade\r\nupgrade: whisper\r\n"] {
        let answer = exchange(&cluster, &format!("{}{next}", head("/shout", unasked))).await;
        assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("gitVersion"), "{answer}");
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backend_that_is_away_is_unavailable() {
    let cluster = cluster_with_backend().await.0;
    let mut admin = cluster.admin_client().await;
    // The agent is gone with its value.
    while cluster.server.tunnels().is_connected("node-1") {
        tokio::task::yield_now().await;
    }
    let (status, body) = admin.get(&format!("{POD}/proxy/")).await;
    assert_eq!((status, &body["reason"]), (StatusCode::SERVICE_UNAVAILABLE, &json!("ServiceUnavailable")));
    assert!(
        body["message"].as_str().is_some_and(|it| it.starts_with("error trying to reach service: ")),
        "{body}"
    );
    // Who may not, learns nothing of what is there.
    let nobody =
        cluster.authority.issue_client("nobody", None, apiserver::pki::COMPONENT_LIFETIME).expect("issued");
    let (status, _) = cluster.client(Some(&nobody)).await.get(&format!("{POD}/proxy/")).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    cluster.stop().await;
}
