//! Upgrade confusion: a connection changes protocols only when both sides agreed to it, and what follows is never taken for
//! something else.

use crate::agent::Agent;
use crate::support::{Cluster, POD, cluster_with_pod};
use crate::wire::{codes, exchange, is_well, user};

const NEXT: &str = "GET /version HTTP/1.1\r\nhost: k\r\nconnection: close\r\n\r\n";
const WEBSOCKET: &str = "connection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
    sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-protocol: v5.channel.k8s.io\r\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_stream_does_not_change_protocols() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    let to_http2 =
        "connection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAA\r\n";
    for asked in [WEBSOCKET, to_http2] {
        for path in ["/version", "/api/v1/namespaces", "/healthz", "/api/v1/nodes/none/proxy/"] {
            let request = format!("GET {path} HTTP/1.1\r\nhost: k\r\n{asked}\r\n{NEXT}");
            let answers = exchange(&cluster, Some(&admin), request).await;
            let codes = codes(&answers);
            assert!(codes.len() == 2 && !codes.contains(&101) && codes[1] == 200, "{path}: {answers}");
        }
    }
    // Neither the beginning of HTTP/2 nor a tunnel is something that a connection of HTTP/1.1 turns into.
    for start in
        ["PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "CONNECT 127.0.0.1:1 HTTP/1.1\r\nhost: 127.0.0.1:1\r\n\r\n"]
    {
        let answers = exchange(&cluster, Some(&admin), format!("{start}{NEXT}")).await;
        assert!(codes(&answers).first().is_none_or(|code| *code >= 400), "{start}: {answers}");
    }
    is_well(&cluster).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_sent_behind_a_refused_upgrade_is_asked_by_the_same_user() {
    let cluster = cluster_with_pod().await;
    let _agent = Agent::start(&cluster, "node-1").await;
    let nobody = user(&cluster, "nobody");
    let smuggled = "GET /api/v1/namespaces HTTP/1.1\r\nhost: k\r\nconnection: close\r\n\r\n";
    for path in ["exec?command=exit&command=0&stdout=true", "portforward?ports=80", "proxy/"] {
        let request = format!("GET {POD}/{path} HTTP/1.1\r\nhost: k\r\n{WEBSOCKET}\r\n{smuggled}");
        let answers = exchange(&cluster, Some(&nobody), &request).await;
        assert_eq!(codes(&answers), [403, 403], "{path}: {answers}");
    }
    // A protocol that is not served, and then the same again: each is answered by itself.
    let unknown = WEBSOCKET.replace("v5.channel", "v9.channel");
    let path = format!("{POD}/exec?command=exit&command=0&stdout=true");
    let request = format!("GET {path} HTTP/1.1\r\nhost: k\r\n{unknown}\r\n");
    let answers = exchange(&cluster, Some(&cluster.admin()), format!("{request}{request}{NEXT}")).await;
    assert_eq!(codes(&answers), [400, 400, 200], "{answers}");
    cluster.stop().await;
}
