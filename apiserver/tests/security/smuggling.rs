//! Smuggled headers: what one reader of a message takes for its end, or for a credential, all must.

use bytes::Bytes;
use http::{HeaderValue, Method, Request, StatusCode};
use http_body_util::Full;

use crate::agent::Agent;
use crate::support::{Cluster, POD, cluster_with_pod};
use crate::wire::{codes, exchange, is_well, user};

const SMUGGLED: &str = "GET /api/v1/secrets HTTP/1.1\r\nhost: k\r\nconnection: close\r\n\r\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_has_one_end() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    let post = |lines: &str, body: &str| {
        format!("POST /api/v1/namespaces/default/configmaps HTTP/1.1\r\nhost: k\r\n{lines}\r\n{body}")
    };
    for (lines, body) in [
        ("content-length: 5\r\ncontent-length: 6\r\n", "{}"),
        ("content-length: 5, 6\r\n", "{}"),
        ("content-length: +5\r\n", "{}"),
        ("content-length: 0x5\r\n", "{}"),
        ("content-length: -1\r\n", "{}"),
        ("content-length : 2\r\n", "{}"),
        ("content-length: 99999999999999999999\r\n", "{}"),
        ("transfer-encoding: chunked, identity\r\n", "0\r\n\r\n"),
        ("transfer-encoding: xchunked\r\n", "0\r\n\r\n"),
        ("x: a\r\n folded: b\r\n", ""),
        ("x: a\0b\r\n", ""),
        ("x\0: a\r\n", ""),
        (": a\r\n", ""),
        ("no colon\r\n", ""),
        ("transfer-encoding: chunked\r\n", "ffffffffffffffffff\r\n"),
        ("transfer-encoding: chunked\r\n", "-1\r\n"),
        ("transfer-encoding: chunked\r\n", "2;\n{}\r\n0\r\n\r\nx"),
    ] {
        let answers = exchange(&cluster, Some(&admin), post(lines, &format!("{body}{SMUGGLED}"))).await;
        let codes = codes(&answers);
        assert!(codes.iter().all(|code| *code >= 400), "{lines:?}: {answers}");
        assert!(!answers.contains("SecretList"), "{lines:?}: {answers}");
    }
    // Of a length and chunks the chunks count, and what follows them is the next message, or nothing is.
    for lines in [
        "content-length: 4\r\ntransfer-encoding: chunked\r\n",
        "transfer-encoding: chunked\r\ncontent-length: 200\r\n",
    ] {
        let hidden = format!("{:x}\r\n{SMUGGLED}\r\n0\r\n\r\n", SMUGGLED.len());
        let last = "GET /version HTTP/1.1\r\nhost: k\r\nconnection: close\r\n\r\n";
        let answers = exchange(&cluster, Some(&admin), post(lines, &format!("{hidden}{last}"))).await;
        assert!(!answers.contains("SecretList"), "{lines:?}: {answers}");
        assert!(matches!(codes(&answers)[..], [400] | [400, 200] | []), "{lines:?}: {answers}");
    }
    is_well(&cluster).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_servers_own_words_prove_nothing() {
    let cluster = cluster_with_pod().await;
    let nobody = user(&cluster, "nobody");
    // What in-process clients and other servers are known by does not come over the network.
    for (identity, expected) in [(None, 401), (Some(&nobody), 403)] {
        for header in [
            "identity: kubernetes-admin",
            "x-identity: system:masters",
            "orlop-fence: kube-system/x 1 y",
            "orlop-session: 1",
            "orlop-node: node-1",
            "grpc-metadata: x",
        ] {
            let request =
                format!("GET /api/v1/secrets HTTP/1.1\r\nhost: k\r\nconnection: close\r\n{header}\r\n\r\n");
            let answer = exchange(&cluster, identity, request).await;
            assert_eq!(codes(&answer), [expected], "{header}: {answer}");
        }
    }
    // A term can only forbid: whoever names one may do no more by it.
    let mut admin = cluster.admin_client().await;
    let path = "/api/v1/namespaces/default/configmaps";
    for (fence, expected) in [("nonsense", 400), ("kube-system/none 1 me", 409)] {
        let mut request = admin.request(Method::POST, path, r#"{"metadata":{"name":"a"}}"#);
        request.headers_mut().insert("orlop-fence", HeaderValue::from_static(fence));
        assert_eq!(admin.send(request).await.status().as_u16(), expected, "{fence}");
    }
    // The services that machines call by gRPC take no other identity than theirs.
    for identity in [None, Some(&nobody), Some(&cluster.admin())] {
        let mut sender = cluster.http2(identity).await;
        for path in [
            "/orlop.peer.v1.Peer/Exchange",
            "/orlop.tunnel.v1.Tunnel/Listen",
            "/orlop.tunnel.v1.Tunnel/Session",
        ] {
            let request = Request::post(format!("https://k{path}"))
                .header("content-type", "application/grpc")
                .header("te", "trailers")
                .header("orlop-session", "1")
                .body(Full::new(Bytes::from_static(&[0, 0, 0, 0, 0])))
                .expect("a request");
            let answer = sender.send_request(request).await.expect("an answer");
            let status = answer.headers().get("grpc-status").map(|status| status.as_bytes().to_vec());
            assert!(status.is_some_and(|status| status != b"0"), "{path}");
        }
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn impersonation_holds_for_what_is_passed_on() {
    let cluster = cluster_with_pod().await;
    let _agent = Agent::start(&cluster, "node-1").await;
    let mut admin = cluster.admin_client().await;
    for path in [format!("{POD}/proxy/"), "/api/v1/nodes/node-1/proxy/pods".to_owned()] {
        let mut request = admin.request(Method::GET, &path, "");
        request.headers_mut().insert("impersonate-user", HeaderValue::from_static("jane"));
        assert_eq!(admin.send(request).await.status(), StatusCode::FORBIDDEN, "{path}");
    }
    cluster.stop().await;
}
