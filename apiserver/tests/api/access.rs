//! Who may come in, and as whom.

use apiserver::pki::{Authority, COMPONENT_LIFETIME};
use apiserver::{Identity, User};
use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use serde_json::json;
use tower::ServiceExt as _;

use crate::support::Cluster;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_certificate_is_an_identity() {
    let cluster = Cluster::start().await;
    let mut admin = cluster.admin_client().await;
    let (status, _) = admin.get("/api/v1/namespaces/default").await;
    assert_eq!(status, StatusCode::OK);

    let scheduler =
        cluster.authority.issue_client("system:kube-scheduler", None, COMPONENT_LIFETIME).expect("issued");
    let mut scheduler = cluster.client(Some(&scheduler)).await;
    let (status, body) = scheduler.get("/api/v1/namespaces/default/secrets").await;
    assert_eq!(status, StatusCode::FORBIDDEN, "{body}");
    let message = body["message"].as_str().unwrap_or_default();
    assert!(message.contains(r#"User "system:kube-scheduler" cannot list resource "secrets""#), "{message}");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_of_another_authority_is_refused() {
    let cluster = Cluster::start().await;
    let elsewhere = tempfile::tempdir().expect("temporary folder");
    let foreign = Authority::load_or_create(elsewhere.path()).expect("an authority");
    let foreign =
        foreign.issue_client("kubernetes-admin", Some("system:masters"), COMPONENT_LIFETIME).expect("issued");
    let mut stream = cluster.connect(Some(&foreign), "http/1.1").await;
    // In TLS 1.3 the client learns of the refusal when it first reads.
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let _ = stream.write_all(b"GET /version HTTP/1.1\r\nhost: kubernetes\r\n\r\n").await;
    let mut answer = Vec::new();
    assert!(stream.read_to_end(&mut answer).await.is_err() && answer.is_empty(), "the handshake must fail");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_credentials_only_health_and_version_answer() {
    let cluster = Cluster::start().await;
    let mut nobody = cluster.client(None).await;
    for (path, expected) in [
        ("/healthz", 200),
        ("/livez", 200),
        ("/readyz?verbose", 200),
        ("/readyz/ping", 200),
        ("/version", 200),
        ("/", 401),
        ("/api", 401),
        ("/api/v1/namespaces", 401),
        ("/metrics", 401),
        ("/openapi/v2", 401),
    ] {
        let (status, text) = nobody.text(Method::GET, path, "").await;
        assert_eq!(status.as_u16(), expected, "{path}: {text}");
    }
    let mut impostor = cluster.client(None).await.with_token("not.a.token");
    let (status, body) = impostor.get("/api/v1/namespaces").await;
    assert_eq!((status, &body["reason"]), (StatusCode::UNAUTHORIZED, &"Unauthorized".into()));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_account_token_is_an_identity() {
    let cluster = Cluster::start().await;
    let mut admin = cluster.admin_client().await;
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "robot"}});
    let (status, body) = admin.post("/api/v1/namespaces/default/serviceaccounts", &account).await;
    assert_eq!(status, StatusCode::CREATED, "{body}");
    let request = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}});
    let (status, body) = admin.post("/api/v1/namespaces/default/serviceaccounts/robot/token", &request).await;
    assert_eq!(status, StatusCode::CREATED, "{body}");
    let token = body["status"]["token"].as_str().expect("a token").to_owned();

    let mut robot = cluster.client(None).await.with_token(&token);
    let (status, body) = robot.get("/api/v1/namespaces/default/pods").await;
    assert_eq!(status, StatusCode::FORBIDDEN, "{body}");
    let message = body["message"].as_str().unwrap_or_default();
    assert!(message.contains(r#"User "system:serviceaccount:default:robot" cannot list"#), "{message}");
    let (status, _) = robot.get("/api").await;
    assert_eq!(status, StatusCode::OK, "discovery is for everyone with an identity");

    let (status, _) =
        admin.text(Method::DELETE, "/api/v1/namespaces/default/serviceaccounts/robot", "").await;
    assert_eq!(status, StatusCode::OK);
    let (status, _) = robot.get("/api").await;
    assert_eq!(status, StatusCode::UNAUTHORIZED, "the token died with its account");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_process_clients_are_who_their_extension_says_under_the_same_rules() {
    let cluster = Cluster::start().await;
    let call = async |user: Option<User>| {
        let mut request =
            Request::get("/api/v1/namespaces").body(Full::<Bytes>::default()).expect("a request");
        if let Some(user) = user {
            request.extensions_mut().insert(Identity(user));
        }
        let response = cluster.server.service().oneshot(request).await.expect("infallible");
        let status = response.status();
        (status, response.into_body().collect().await.expect("a body").to_bytes())
    };
    let masters = User::authenticated("in-process", &["system:masters".into()]);
    assert_eq!(call(Some(masters)).await.0, StatusCode::OK);
    let nobody = User::authenticated("somebody", &[]);
    assert_eq!(call(Some(nobody)).await.0, StatusCode::FORBIDDEN);
    assert_eq!(call(None).await.0, StatusCode::UNAUTHORIZED);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_server_on_a_taken_port_says_so() {
    let cluster = Cluster::start().await;
    let options =
        apiserver::Options::new(vec![cluster.address()], cluster.store.clone(), cluster.authority.clone());
    let Err(error) = apiserver::Server::start(options).await else { panic!("two servers on one port") };
    assert_eq!(error.to_string(), format!("cannot listen on {}", cluster.address()));
    cluster.stop().await;
}
