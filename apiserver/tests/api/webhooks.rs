//! Webhooks over real TLS: asked about writes and conversions, directly and through the tunnel of a node.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::agent::Agent;
use crate::support::{Client, Cluster, POD, cluster_with_pod};
use crate::watches::Lines;

const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";
const CONFIGURATIONS: &str = "/apis/admissionregistration.k8s.io/v1";

/// A webhook server on a free port of the loopback.
pub struct Webhook {
    /// `https://127.0.0.1:PORT`.
    pub url: String,
    pub address: SocketAddr,
    /// The certificate of its authority, as configurations have it.
    pub ca_bundle: String,
    /// How often it was asked.
    pub asked: Arc<AtomicUsize>,
    /// How many connections were made to it.
    connections: Arc<AtomicUsize>,
}

/// Who signs the certificate of a webhook.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Signer {
    Authority,
    Itself,
}

type Answers = dyn Fn(&str, &Value) -> Value + Send + Sync;

impl Webhook {
    /// Answers each review with the `response` that is made of its path and `request`.
    pub async fn start(
        name: &str,
        answer: impl Fn(&str, &Value) -> Value + Send + Sync + 'static,
    ) -> Webhook {
        Webhook::signed_by(Signer::Authority, name, Arc::new(answer)).await
    }

    async fn signed_by(signer: Signer, name: &str, answer: Arc<Answers>) -> Webhook {
        let (certificate, key, authority) = certificate(signer, name);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .expect("a certificate");
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let address = listener.local_addr().expect("an address");
        let (asked, connections) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let counts = (asked.clone(), connections.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, answer) = (acceptor.clone(), answer.clone());
                let (asked, connections) = counts.clone();
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    connections.fetch_add(1, Ordering::SeqCst);
                    let service = service_fn(move |request| {
                        asked.fetch_add(1, Ordering::SeqCst);
                        review(request, answer.clone())
                    });
                    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        let (url, ca_bundle) = (format!("https://{address}"), BASE64.encode(authority));
        Webhook { url, address, ca_bundle, asked, connections }
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

/// A certificate for `name`, its key, and the certificate (PEM) of who has signed it.
fn certificate(
    signer: Signer,
    name: &str,
) -> (rustls::pki_types::CertificateDer<'static>, PrivateKeyDer<'static>, String) {
    let key = KeyPair::generate().expect("a key");
    let mut own = CertificateParams::new(vec![name.to_owned()]).expect("a name");
    let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    if signer == Signer::Itself {
        own.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = own.self_signed(&key).expect("signed");
        return (certificate.der().clone(), private, certificate.pem());
    }
    let mut params = CertificateParams::new(Vec::new()).expect("no names");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca_key = KeyPair::generate().expect("a key");
    let authority = params.self_signed(&ca_key).expect("signed");
    let certificate = own.signed_by(&key, &Issuer::new(params, ca_key)).expect("signed");
    (certificate.der().clone(), private, authority.pem())
}

async fn review(
    request: Request<Incoming>,
    answer: Arc<Answers>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let path = request.uri().path().to_owned();
    let body = request.into_body().collect().await.expect("a body").to_bytes();
    let review: Value = serde_json::from_slice(&body).expect("a review");
    let mut response = answer(&path, &review["request"]);
    if let Some(millis) = response["sleep"].as_u64() {
        tokio::time::sleep(Duration::from_millis(millis)).await;
    }
    if response["broken"] == true {
        let mut answer = Response::new(Full::new("it broke".into()));
        *answer.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
        return Ok(answer);
    }
    response["uid"] = review["request"]["uid"].clone();
    let answer = json!({"kind": review["kind"], "apiVersion": review["apiVersion"], "response": response});
    Ok(Response::new(Full::new(answer.to_string().into())))
}

/// A response with a JSON patch.
pub fn patch(operations: &Value) -> Value {
    json!({"allowed": true, "patchType": "JSONPatch", "patch": BASE64.encode(operations.to_string())})
}

/// Configures one webhook for config maps.
async fn configure(admin: &mut Client, kind: &str, client: Value, further: Value) {
    let mut hook = json!({"name": "test.example.com", "clientConfig": client, "sideEffects": "None",
        "admissionReviewVersions": ["v1"], "rules": [{"operations": ["CREATE"], "apiGroups": [""],
        "apiVersions": ["v1"], "resources": ["configmaps"]}]});
    for (field, value) in further.as_object().into_iter().flatten() {
        hook[field] = value.clone();
    }
    let path = format!("{CONFIGURATIONS}/{}s", kind.to_lowercase());
    let (status, answer) =
        admin.post(&path, &json!({"metadata": {"name": "test"}, "webhooks": [hook]})).await;
    assert_eq!(status, StatusCode::CREATED, "{answer}");
}

async fn create(admin: &mut Client, name: &str) -> (StatusCode, Value) {
    admin.post(CONFIG_MAPS, &json!({"metadata": {"name": name}})).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_webhook_changes_objects_over_connections_that_are_kept() {
    let cluster = Cluster::start().await;
    let mut admin = cluster.admin_client().await;
    let add = json!([{"op": "add", "path": "/data", "value": {"from": "webhook"}}]);
    let hook = Webhook::start("127.0.0.1", move |_, _| patch(&add)).await;
    let client = json!({"url": format!("{}/mutate?x=1", hook.url), "caBundle": hook.ca_bundle});
    configure(&mut admin, "MutatingWebhookConfiguration", client, Value::Null).await;
    for name in ["a", "b", "c"] {
        let (status, made) = create(&mut admin, name).await;
        assert_eq!((status, &made["data"]["from"]), (StatusCode::CREATED, &json!("webhook")), "{made}");
    }
    assert_eq!((hook.asked(), hook.connections.load(Ordering::SeqCst)), (3, 1));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_are_looked_at() {
    let cluster = Cluster::start().await;
    let mut admin = cluster.admin_client().await;
    let allow: Arc<Answers> = Arc::new(|_, _| json!({"allowed": true}));
    let good = Webhook::start("127.0.0.1", |_, _| json!({"allowed": true})).await;
    let own = Webhook::signed_by(Signer::Itself, "127.0.0.1", allow.clone()).await;
    let misnamed = Webhook::start("hook.example", |_, _| json!({"allowed": true})).await;
    let misnamed_own = Webhook::signed_by(Signer::Itself, "hook.example", allow).await;
    for (at, (hook, bundle, refused)) in [
        (&good, Some(&good), None),
        (&own, Some(&own), None),
        (&good, Some(&own), Some("invalid peer certificate")),
        (&misnamed, Some(&misnamed), Some("certificate not valid for name")),
        (&misnamed_own, Some(&misnamed_own), Some("certificate not valid for name")),
        // Nobody that this machine trusts has signed it.
        (&good, None, Some("invalid peer certificate")),
    ]
    .into_iter()
    .enumerate()
    {
        let mut client = json!({"url": hook.url});
        if let Some(bundle) = bundle {
            client["caBundle"] = bundle.ca_bundle.clone().into();
        }
        configure(&mut admin, "ValidatingWebhookConfiguration", client, Value::Null).await;
        let (status, answer) = create(&mut admin, &format!("m{at}")).await;
        match refused {
            None => assert_eq!(status, StatusCode::CREATED, "{at}: {answer}"),
            Some(why) => {
                let message = answer["message"].as_str().unwrap_or_default();
                assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR, "{at}: {answer}");
                let begin = r#"Internal error occurred: failed calling webhook "test.example.com": failed to call webhook: Post "https://127.0.0.1"#;
                assert!(message.starts_with(begin) && message.contains(why), "{at}: {message}");
            }
        }
        let path = format!("{CONFIGURATIONS}/validatingwebhookconfigurations/test");
        assert_eq!(admin.json(Method::DELETE, &path, &Value::Null).await.0, StatusCode::OK);
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_webhook_that_is_slow_or_broken_counts_as_its_policy_says() {
    let cluster = Cluster::start().await;
    let mut admin = cluster.admin_client().await;
    let hook = Webhook::start("127.0.0.1", |path, _| match path {
        "/slow" => json!({"allowed": true, "sleep": 60_000}),
        _ => json!({"broken": true}),
    })
    .await;
    let slow = json!({"url": format!("{}/slow", hook.url), "caBundle": hook.ca_bundle});
    let further = json!({"timeoutSeconds": 1, "failurePolicy": "Ignore"});
    configure(&mut admin, "MutatingWebhookConfiguration", slow, further).await;
    let began = Instant::now();
    let (status, answer) = create(&mut admin, "a").await;
    assert_eq!(status, StatusCode::CREATED, "{answer}");
    assert!((1..30).contains(&began.elapsed().as_secs()), "it took {:?}", began.elapsed());
    let path = format!("{CONFIGURATIONS}/mutatingwebhookconfigurations/test");
    assert_eq!(admin.json(Method::DELETE, &path, &Value::Null).await.0, StatusCode::OK);
    let broken = json!({"url": format!("{}/broken", hook.url), "caBundle": hook.ca_bundle});
    configure(&mut admin, "ValidatingWebhookConfiguration", broken, Value::Null).await;
    let (status, answer) = create(&mut admin, "b").await;
    let expected = r#"Internal error occurred: failed calling webhook "test.example.com": failed to call webhook: an error on the server ("it broke") has prevented the request from succeeding"#;
    assert_eq!((status.as_u16(), answer["message"].as_str()), (500, Some(expected)));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_is_reached_through_the_node_of_its_pod() {
    let cluster = cluster_with_pod().await;
    let mut admin = cluster.admin_client().await;
    let hook = Webhook::start(
        "hook.default.svc",
        |path, _| json!({"allowed": false, "status": {"message": format!("asked at {path}")}}),
    )
    .await;
    let _agent = Agent::in_front_of(&cluster, "node-1", hook.address).await;
    let client = json!({"service": {"namespace": "default", "name": "hook", "path": "/check"}, "caBundle": hook.ca_bundle});
    let service =
        json!({"metadata": {"name": "hook"}, "spec": {"ports": [{"port": 443, "targetPort": 8443}]}});
    let (status, answer) = admin.post("/api/v1/namespaces/default/services", &service).await;
    assert_eq!(status, StatusCode::CREATED, "{answer}");
    let slice = json!({"metadata": {"name": "hook-1", "labels": {"kubernetes.io/service-name": "hook"}},
        "addressType": "IPv4", "ports": [{"name": "", "port": 8443}], "endpoints": [{"addresses": ["10.244.0.5"],
        "targetRef": {"kind": "Pod", "namespace": "default", "name": "web"}}]});
    let path = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";
    let (status, answer) = admin.post(path, &slice).await;
    assert_eq!(status, StatusCode::CREATED, "{answer}");
    let running =
        json!({"status": {"phase": "Running", "podIP": "10.244.0.5", "podIPs": [{"ip": "10.244.0.5"}]}});
    let mut request = admin.request(Method::PATCH, &format!("{POD}/status"), running.to_string());
    let merge = "application/merge-patch+json".parse().expect("a value");
    request.headers_mut().insert(header::CONTENT_TYPE, merge);
    assert_eq!(admin.send(request).await.status(), StatusCode::OK);
    configure(&mut admin, "ValidatingWebhookConfiguration", client, Value::Null).await;
    let (status, answer) = create(&mut admin, "a").await;
    let expected = r#"admission webhook "test.example.com" denied the request: asked at /check"#;
    assert_eq!((status.as_u16(), answer["message"].as_str()), (400, Some(expected)));
    cluster.stop().await;
}

/// Turns `spec.hostPort` into `spec.host` and `spec.port` and back.
fn convert(request: &Value) -> Value {
    let wanted = request["desiredAPIVersion"].as_str().expect("a version");
    let objects = request["objects"].as_array().expect("objects");
    let converted: Vec<Value> = objects
        .iter()
        .map(|object| {
            let mut object = object.clone();
            let spec = object["spec"].clone();
            object["apiVersion"] = wanted.into();
            object["spec"] = match wanted {
                "example.com/v1" => {
                    let text = |field: &str| spec[field].as_str().expect("a text").to_owned();
                    json!({"hostPort": format!("{}:{}", text("host"), text("port"))})
                }
                _ => {
                    let (host, port) =
                        spec["hostPort"].as_str().and_then(|it| it.split_once(':')).expect("both");
                    json!({"host": host, "port": port})
                }
            };
            object
        })
        .collect();
    json!({"result": {"status": "Success"}, "convertedObjects": converted})
}

async fn define_routes(admin: &mut Client, hook: &Webhook) {
    let version = |name: &str, storage: bool| {
        json!({"name": name, "served": true, "storage": storage, "schema": {"openAPIV3Schema": {"type": "object",
            "properties": {"spec": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}}})
    };
    let definition = json!({"metadata": {"name": "routes.example.com"}, "spec": {"group": "example.com",
        "scope": "Namespaced", "names": {"plural": "routes", "kind": "Route"},
        "versions": [version("v1", true), version("v2", false)],
        "conversion": {"strategy": "Webhook", "webhook": {"conversionReviewVersions": ["v1"],
            "clientConfig": {"url": format!("{}/convert", hook.url), "caBundle": hook.ca_bundle}}}}});
    let path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    let (status, answer) = admin.post(path, &definition).await;
    assert_eq!(status, StatusCode::CREATED, "{answer}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watchers_of_another_version_are_told_in_it() {
    let cluster = Cluster::start().await;
    let mut admin = cluster.admin_client().await;
    let hook = Webhook::start("127.0.0.1", |_, request| convert(request)).await;
    define_routes(&mut admin, &hook).await;
    let (v1, v2) =
        ("/apis/example.com/v1/namespaces/default/routes", "/apis/example.com/v2/namespaces/default/routes");
    let route = |name: &str, host: &str| json!({"metadata": {"name": name}, "spec": {"hostPort": format!("{host}:80")}});
    assert_eq!(admin.post(v1, &route("a", "one")).await.0, StatusCode::CREATED);
    let (mut one, mut other) = (cluster.admin_client().await, cluster.admin_client().await);
    let mut watches = [
        Lines::of(&mut one, v2, "").await,
        Lines::of(&mut other, v2, "fieldSelector=metadata.name%3Da").await,
    ];
    for lines in &mut watches {
        let event = lines.next().await.expect("an event");
        assert_eq!((&event["type"], &event["object"]["spec"]["host"]), (&json!("ADDED"), &json!("one")));
    }
    let before = hook.asked();
    let mut changed = admin.request(Method::PATCH, &format!("{v1}/a"), r#"{"spec":{"hostPort":"two:80"}}"#);
    let merge = "application/merge-patch+json".parse().expect("a value");
    changed.headers_mut().insert(header::CONTENT_TYPE, merge);
    let answer = admin.send(changed).await;
    assert_eq!(answer.status(), StatusCode::OK);
    answer.into_body().collect().await.expect("read");
    for lines in &mut watches {
        let event = lines.next().await.expect("an event");
        assert_eq!(
            (&event["type"], &event["object"]["apiVersion"]),
            (&json!("MODIFIED"), &json!("example.com/v2"))
        );
        assert_eq!(event["object"]["spec"], json!({"host": "two", "port": "80"}));
    }
    assert_eq!(hook.asked() - before, 1, "what is the same for all watchers is asked once");
    assert_eq!(admin.json(Method::DELETE, &format!("{v1}/a"), &Value::Null).await.0, StatusCode::OK);
    for lines in &mut watches {
        let event = lines.next().await.expect("an event");
        assert_eq!((&event["type"], &event["object"]["spec"]["host"]), (&json!("DELETED"), &json!("two")));
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_whose_objects_cannot_be_converted_ends_with_an_error() {
    let cluster = Cluster::start().await;
    let mut admin = cluster.admin_client().await;
    let hook =
        Webhook::start("127.0.0.1", |_, _| json!({"result": {"status": "Failure", "message": "no way"}}))
            .await;
    define_routes(&mut admin, &hook).await;
    let (v1, v2) =
        ("/apis/example.com/v1/namespaces/default/routes", "/apis/example.com/v2/namespaces/default/routes");
    let mut one = cluster.admin_client().await;
    let mut lines = Lines::of(&mut one, v2, "").await;
    let route = json!({"metadata": {"name": "a"}, "spec": {"hostPort": "one:80"}});
    assert_eq!(admin.post(v1, &route).await.0, StatusCode::CREATED);
    let event = lines.next().await.expect("an event");
    assert_eq!(event["type"], "ERROR");
    let message = "conversion webhook for example.com/v1, Kind=Route failed: no way";
    assert_eq!((&event["object"]["code"], &event["object"]["message"]), (&json!(500), &json!(message)));
    assert_eq!(lines.next().await, None);
    cluster.stop().await;
}
