//! Connections that change hands, or do not: what follows on a connection is never taken for something else.

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};

use crate::agent::Agent;
use crate::support::{POD, cluster_with_pod};

const NEXT: &str = "GET /version HTTP/1.1\r\nhost: k\r\nconnection: close\r\n\r\n";

fn upgrade(path: &str, protocol: &str, more: &str) -> String {
    format!(
        "GET {POD}/{path} HTTP/1.1\r\nhost: k\r\nconnection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
         sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-protocol: {protocol}\r\n{more}\r\n"
    )
}

/// Everything until the server ends the connection.
async fn rest(mut stream: impl AsyncRead + Unpin) -> String {
    let mut answer = Vec::new();
    // An end without the closing message of TLS is an end as well.
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_body_of_a_refused_upgrade_is_no_request() {
    let cluster = cluster_with_pod().await;
    let mut stream = cluster.connect(Some(&cluster.admin()), "http/1.1").await;
    let body = "GET /api/v1/namespaces HTTP/1.1\r\nhost: k\r\n\r\n";
    let refused = upgrade("exec?command=true", "unknown", &format!("content-length: {}\r\n", body.len()));
    stream.write_all(format!("{refused}{body}{NEXT}").as_bytes()).await.expect("sent");
    let answers = rest(stream).await;
    assert_eq!(answers.matches("HTTP/1.1 ").count(), 2, "{answers}");
    assert!(answers.starts_with("HTTP/1.1 400 "), "{answers}");
    assert!(answers.contains("gitVersion") && !answers.contains("NamespaceList"), "{answers}");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_follows_an_upgrade_is_no_request() {
    let cluster = cluster_with_pod().await;
    let _agent = Agent::start(&cluster, "node-1").await;
    let mut stream = cluster.connect(Some(&cluster.admin()), "http/1.1").await;
    let accepted = upgrade("attach?container=main&stdin=true&stdout=true", "v4.channel.k8s.io", "");
    stream.write_all(format!("{accepted}{NEXT}").as_bytes()).await.expect("sent");
    let answers = rest(stream).await;
    assert!(answers.starts_with("HTTP/1.1 101 "), "{answers}");
    assert_eq!(answers.matches("HTTP/1.1 ").count(), 1, "{answers}");
    assert!(!answers.contains("gitVersion"), "{answers}");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_upgrade_after_a_refused_one_is_served_by_itself() {
    let cluster = cluster_with_pod().await;
    let _agent = Agent::start(&cluster, "node-1").await;
    let mut stream = cluster.connect(Some(&cluster.admin()), "http/1.1").await;
    let refused = upgrade("exec?command=refuse", "v4.channel.k8s.io", "");
    let accepted = upgrade("exec?command=exit&command=0&stdout=true", "v4.channel.k8s.io", "");
    stream.write_all(format!("{refused}{accepted}").as_bytes()).await.expect("sent");
    let answers = rest(stream).await;
    assert_eq!(answers.matches("HTTP/1.1 ").count(), 2, "{answers}");
    assert!(answers.contains("no such command") && answers.contains("HTTP/1.1 101 "), "{answers}");
    assert!(answers.contains("\u{1}out\n") && answers.contains("\"Success\""), "{answers}");
    cluster.stop().await;
}
