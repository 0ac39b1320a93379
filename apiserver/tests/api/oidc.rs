//! Users of an issuer outside the cluster: a real issuer, over TLS on the loopback, whose key changes.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, atomic::AtomicUsize, atomic::Ordering};

use apiserver::oidc::configuration::Flags;
use apiserver::pki::{Authority, COMPONENT_LIFETIME};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use bytes::Bytes;
use http::{Method, Response, StatusCode};
use http_body_util::Full;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::support::Cluster;

/// An issuer of ID tokens.
struct Issuer {
    url: String,
    key: Mutex<EcdsaKeyPair>,
    /// How often its keys were asked for.
    asked: AtomicUsize,
}

fn new_key() -> EcdsaKeyPair {
    let random = SystemRandom::new();
    let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).expect("a key");
    EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, document.as_ref(), &random).expect("a key")
}

impl Issuer {
    /// Serves its documents until the test ends.
    async fn start(authority: &Authority) -> Arc<Issuer> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        let address: SocketAddr = listener.local_addr().expect("an address");
        let issued =
            authority.issue_server(&[Ipv4Addr::LOCALHOST.into()], COMPONENT_LIFETIME).expect("a certificate");
        let config =
            rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
                .with_safe_default_protocol_versions()
                .expect("versions")
                .with_no_client_auth()
                .with_single_cert(vec![issued.cert_der.clone()], issued.key_der())
                .expect("a certificate");
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let issuer = Arc::new(Issuer {
            url: format!("https://{address}"),
            key: Mutex::new(new_key()),
            asked: AtomicUsize::new(0),
        });
        let served = issuer.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let Ok(stream) = acceptor.accept(stream).await else { continue };
                let issuer = served.clone();
                let service = service_fn(move |request: http::Request<hyper::body::Incoming>| {
                    let document = issuer.document(request.uri().path());
                    async move {
                        Ok::<_, std::convert::Infallible>(Response::new(Full::<Bytes>::from(
                            document.to_string(),
                        )))
                    }
                });
                let connection = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service);
                tokio::spawn(connection);
            }
        });
        issuer
    }

    fn document(&self, path: &str) -> Value {
        if path == "/.well-known/openid-configuration" {
            return json!({"issuer": self.url, "jwks_uri": format!("{}/keys", self.url)});
        }
        self.asked.fetch_add(1, Ordering::SeqCst);
        let key = self.key.lock().expect("the key");
        let point = key.public_key().as_ref();
        json!({"keys": [{"kty": "EC", "crv": "P-256", "use": "sig", "kid": BASE64.encode(&point[1..9]),
            "x": BASE64.encode(&point[1..33]), "y": BASE64.encode(&point[33..])}]})
    }

    fn token(&self, user: &str, seconds: i64) -> String {
        let key = self.key.lock().expect("the key");
        let header = json!({"alg": "ES256", "kid": BASE64.encode(&key.public_key().as_ref()[1..9])});
        let claims = json!({"iss": self.url, "aud": "cluster", "sub": user, "groups": ["dev"],
            "exp": jiff::Timestamp::now().as_second() + seconds});
        let message = format!("{}.{}", BASE64.encode(header.to_string()), BASE64.encode(claims.to_string()));
        let signature = key.sign(&SystemRandom::new(), message.as_bytes()).expect("a signature");
        format!("{message}.{}", BASE64.encode(signature.as_ref()))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_of_an_issuer_are_known_by_its_tokens() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let theirs = Authority::load_or_create(dir.path()).expect("an authority");
    let issuer = Issuer::start(&theirs).await;
    let flags = Flags {
        issuer_url: issuer.url.clone(),
        client_id: "cluster".into(),
        username_prefix: Some("corp:".into()),
        groups_claim: Some("groups".into()),
        groups_prefix: Some("corp:".into()),
        signing_algorithms: vec!["ES256".into()],
        authority: Some(theirs.ca_pem().to_owned()),
        ..Flags::default()
    };
    let trusted = flags.issuer().expect("an issuer");
    let cluster = Cluster::start_with(|options| options.issuers = vec![trusted]).await;
    let path = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});

    // The first token does not wait for the keys to have been fetched before.
    let mut client = cluster.client(None).await.with_token(&issuer.token("jane", 60));
    let (status, answer) = client.post(path, &review).await;
    assert_eq!(status, StatusCode::CREATED, "{answer}");
    assert_eq!(answer["status"]["userInfo"]["username"], "corp:jane");
    assert!(answer["status"]["userInfo"]["groups"].as_array().expect("groups").contains(&"corp:dev".into()));

    // What the user may do is for RBAC to say.
    let (status, _) = client.get("/api/v1/namespaces/default/pods").await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    let mut late = cluster.client(None).await.with_token(&issuer.token("jane", -1));
    assert_eq!(late.post(path, &review).await.0, StatusCode::UNAUTHORIZED);

    // A key that nobody has published proves nobody; the issuer is not asked again and again.
    let published = std::mem::replace(&mut *issuer.key.lock().expect("the key"), new_key());
    let forged = issuer.token("jane", 60);
    *issuer.key.lock().expect("the key") = published;
    for _ in 0..5 {
        let mut client = cluster.client(None).await.with_token(&forged);
        assert_eq!(client.text(Method::GET, "/api", "").await.0, StatusCode::UNAUTHORIZED);
    }
    let asked = issuer.asked.load(Ordering::SeqCst);
    assert!(asked <= 2, "asked {asked} times");
    cluster.stop().await;
}
