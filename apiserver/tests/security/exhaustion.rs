//! Exhaustion before anybody has proved anything: connections, handshakes, heads and bodies that never end.

use std::time::{Duration, Instant};

use apiserver::Limits;
use http::StatusCode;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::{Cluster, POD};
use crate::tokens::token;
use crate::wire::{PATIENCE, codes, is_well, rest};

/// Soon enough for a test, late enough for everything that is meant to work.
const SHORT: Duration = Duration::from_millis(500);

async fn is_ended(stream: &mut TcpStream) {
    let mut byte = [0];
    let read = tokio::time::timeout(PATIENCE, stream.read(&mut byte)).await.expect("the server ends it");
    // A reset is an end too.
    assert!(matches!(read, Ok(0) | Err(_)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_keep_out_each_other_only() {
    let cluster = Cluster::start_with(|options| options.limits.strangers = 8).await;
    let token = token(&cluster, "robot", &serde_json::json!({})).await;
    let mut robot = cluster.client(None).await.with_token(&token);
    assert_eq!(robot.get("/api").await.0, StatusCode::OK);
    let mut admin = cluster.admin_client().await;
    // Handshakes that are begun and not finished.
    let mut unfinished = Vec::new();
    for _ in 0..40 {
        let mut stream = TcpStream::connect(cluster.address()).await.expect("connected");
        stream.write_all(b"\x16\x03\x01\x02\x00\x01").await.expect("sent");
        unfinished.push(stream);
        if unfinished.len() % 8 == 0 {
            is_well(&cluster).await;
        }
    }
    for stream in &mut unfinished[..30] {
        is_ended(stream).await;
    }
    // Sessions without a word in them.
    let mut idle = Vec::new();
    for _ in 0..20 {
        idle.push(cluster.connect(None, "http/1.1").await);
    }
    for stream in idle.drain(..10) {
        assert_eq!(rest(stream).await, "");
    }
    is_well(&cluster).await;
    // Who has proved who he is was there before all of them, and stays.
    assert_eq!(admin.get("/api").await.0, StatusCode::OK);
    assert_eq!(robot.get("/api").await.0, StatusCode::OK);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_never_ends_is_ended() {
    let limits = Limits { handshake: SHORT, head: SHORT, request: SHORT, ..Limits::default() };
    let cluster = Cluster::start_with(|options| options.limits = limits).await;
    let mut handshake = TcpStream::connect(cluster.address()).await.expect("connected");
    handshake.write_all(b"\x16\x03\x01").await.expect("sent");
    is_ended(&mut handshake).await;

    let admin = cluster.admin();
    let mut head = cluster.connect(Some(&admin), "http/1.1").await;
    head.write_all(b"GET /version HTTP/1.1\r\nhost: k\r\nx: ").await.expect("sent");
    let answer = rest(head).await;
    assert!(codes(&answer).iter().all(|code| *code >= 400), "{answer}");

    for chunked in [false, true] {
        let mut body = cluster.connect(Some(&admin), "http/1.1").await;
        let length = if chunked { "transfer-encoding: chunked" } else { "content-length: 100" };
        let begin = if chunked { "1\r\n{\r\n" } else { "{" };
        let path = "/api/v1/namespaces/default/configmaps";
        let request = format!("POST {path} HTTP/1.1\r\nhost: k\r\n{length}\r\n\r\n{begin}");
        body.write_all(request.as_bytes()).await.expect("sent");
        let answer = rest(body).await;
        assert!(matches!(codes(&answer)[..], [504] | []), "{answer}");
    }
    // Nobody's body is waited for at all.
    let mut body = cluster.connect(None, "http/1.1").await;
    let request = format!("PUT {POD} HTTP/1.1\r\nhost: k\r\ncontent-length: 1000000\r\n\r\n{{");
    body.write_all(request.as_bytes()).await.expect("sent");
    assert_eq!(codes(&rest(body).await), [401]);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heads_without_end_are_cut() {
    let cluster = Cluster::start().await;
    let mut stream = cluster.connect(None, "http/1.1").await;
    stream.write_all(b"GET /version HTTP/1.1\r\nhost: k\r\n").await.expect("sent");
    let (began, mut sent) = (Instant::now(), 0);
    let line = format!("x-filler: {}\r\n", "y".repeat(4000));
    // No more is taken than a head may have, and what the sockets hold.
    while sent < 64 << 20 && began.elapsed() < PATIENCE {
        let written = tokio::time::timeout(Duration::from_secs(5), stream.write_all(line.as_bytes())).await;
        if !matches!(written, Ok(Ok(()))) {
            break;
        }
        sent += line.len();
    }
    assert!(sent < 32 << 20, "{sent} bytes were taken");
    is_well(&cluster).await;
    let many = format!("GET /version HTTP/1.1\r\nhost: k\r\n{}\r\n", "a: b\r\n".repeat(1000));
    let answer = crate::wire::exchange(&cluster, None, many).await;
    assert!(codes(&answer).iter().all(|code| *code == 431 || *code == 400), "{answer}");
    cluster.stop().await;
}
