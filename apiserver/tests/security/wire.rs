//! What the attacks have in common: bytes sent as they are, users with few rights, and a look at whether the server is well.

use std::time::{Duration, Instant};

use apiserver::pki::{COMPONENT_LIFETIME, Issued};
use http::StatusCode;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};

use crate::support::{Client, Cluster};

/// No attack may take so long, whatever the machine does besides.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Everything that comes until the server ends the connection.
pub async fn rest(mut stream: impl AsyncRead + Unpin) -> String {
    let mut answer = Vec::new();
    // An end without the closing message of TLS is an end as well.
    let ended = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await;
    assert!(ended.is_ok(), "the server keeps the connection: {}", String::from_utf8_lossy(&answer));
    String::from_utf8_lossy(&answer).into_owned()
}

/// Sends bytes over HTTP/1.1, and reads until the server ends the connection.
pub async fn exchange(cluster: &Cluster, identity: Option<&Issued>, text: impl AsRef<[u8]>) -> String {
    let mut stream = cluster.connect(identity, "http/1.1").await;
    // The server may answer and end the connection before it has taken everything.
    let _ = stream.write_all(text.as_ref()).await;
    let _ = stream.flush().await;
    rest(stream).await
}

/// The codes of the answers in what came over a connection.
pub fn codes(answers: &str) -> Vec<u16> {
    answers.split("HTTP/1.1 ").skip(1).filter_map(|answer| answer.get(..3)?.parse().ok()).collect()
}

/// The certificate of a user without any rights.
pub fn user(cluster: &Cluster, name: &str) -> Issued {
    cluster.authority.issue_client(name, None, COMPONENT_LIFETIME).expect("issued")
}

/// Gives a user rights in the namespace `default`, or in the whole cluster; answers with a connection of his.
pub async fn user_with(cluster: &Cluster, name: &str, whole: bool, rules: Value) -> Client {
    let mut admin = cluster.admin_client().await;
    let (place, kind) = match whole {
        true => (String::new(), "ClusterRole"),
        false => ("namespaces/default/".to_owned(), "Role"),
    };
    let rbac = "/apis/rbac.authorization.k8s.io/v1";
    let plural = kind.to_lowercase();
    let role = json!({"metadata": {"name": name}, "rules": rules});
    let binding = json!({"metadata": {"name": name},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": name}]});
    for (resource, object) in [(format!("{plural}s"), role), (format!("{plural}bindings"), binding)] {
        let (status, body) = admin.post(&format!("{rbac}/{place}{resource}"), &object).await;
        assert_eq!(status, StatusCode::CREATED, "{body}");
    }
    cluster.client(Some(&user(cluster, name))).await
}

/// Sees that others are served, and that it does not take long.
pub async fn is_well(cluster: &Cluster) {
    let began = Instant::now();
    let (status, _) = cluster.admin_client().await.get("/api/v1/namespaces/default").await;
    assert_eq!(status, StatusCode::OK);
    assert!(began.elapsed() < PATIENCE, "{:?}", began.elapsed());
}
