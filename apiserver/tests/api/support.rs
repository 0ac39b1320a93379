//! A real server on a free port with a store in a temporary folder, and clients for it.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use apiserver::{
    Options, Server,
    pki::{Authority, COMPONENT_LIFETIME, Issued},
};
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::{body::Incoming, client::conn::http1, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::{ClientConfig, RootCertStore, pki_types::ServerName};
use serde_json::{Value, json};
use store::Store;
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

/// The pod of [`cluster_with_pod`].
pub const POD: &str = "/api/v1/namespaces/default/pods/web";

/// A whole cluster's API server, gone with the value.
pub struct Cluster {
    pub server: Server,
    pub store: Store,
    pub authority: Arc<Authority>,
    pub dir: tempfile::TempDir,
}

/// An HTTP/1.1 connection.
pub struct Client {
    sender: http1::SendRequest<Full<Bytes>>,
    token: Option<String>,
}

impl Cluster {
    pub async fn start() -> Cluster {
        Cluster::start_with(|_| {}).await
    }

    /// A cluster with other settings.
    pub async fn start_with(change: impl FnOnce(&mut Options)) -> Cluster {
        let dir = tempfile::tempdir().expect("temporary folder");
        let authority = Arc::new(Authority::load_or_create(&dir.path().join("pki")).expect("an authority"));
        let key = store::Key::new(1, *authority.store_keys()[0].material);
        let store = Store::open(store::Options::new(dir.path().join("store"), key)).expect("a store");
        let listen = vec![SocketAddr::from(([127, 0, 0, 1], 0))];
        let mut options = Options::new(listen, store.clone(), authority.clone());
        change(&mut options);
        let server = Server::start(options).await.expect("started");
        Cluster { server, store, authority, dir }
    }

    pub fn address(&self) -> SocketAddr {
        self.server.addresses()[0]
    }

    pub fn admin(&self) -> Issued {
        self.authority
            .issue_client("kubernetes-admin", Some("system:masters"), COMPONENT_LIFETIME)
            .expect("issued")
    }

    /// A TLS connection with a client certificate, or none.
    pub async fn connect(&self, identity: Option<&Issued>, protocol: &str) -> TlsStream<TcpStream> {
        let roots = self.authority.roots().expect("roots");
        self.try_connect_as(roots, identity, protocol).await.expect("a TLS session")
    }

    /// A TLS connection of who accepts these authorities.
    pub async fn try_connect(
        &self,
        roots: RootCertStore,
        identity: Option<&Issued>,
    ) -> std::io::Result<TlsStream<TcpStream>> {
        self.try_connect_as(roots, identity, "http/1.1").await
    }

    async fn try_connect_as(
        &self,
        roots: RootCertStore,
        identity: Option<&Issued>,
        protocol: &str,
    ) -> std::io::Result<TlsStream<TcpStream>> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots);
        let mut config = match identity {
            Some(issued) => config
                .with_client_auth_cert(vec![issued.cert_der.clone()], issued.key_der())
                .expect("a client certificate"),
            None => config.with_no_client_auth(),
        };
        config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
        let stream = TcpStream::connect(self.address()).await.expect("connected");
        let name = ServerName::try_from("kubernetes.default.svc").expect("a name");
        TlsConnector::from(Arc::new(config)).connect(name, stream).await
    }

    pub async fn client(&self, identity: Option<&Issued>) -> Client {
        self.client_trusting(self.authority.roots().expect("roots"), identity).await
    }

    pub async fn client_trusting(&self, roots: RootCertStore, identity: Option<&Issued>) -> Client {
        let io = TokioIo::new(self.try_connect(roots, identity).await.expect("a TLS session"));
        let (sender, connection) = http1::handshake(io).await.expect("HTTP");
        tokio::spawn(connection.with_upgrades());
        Client { sender, token: None }
    }

    pub async fn admin_client(&self) -> Client {
        self.client(Some(&self.admin())).await
    }

    pub async fn http2(&self, identity: Option<&Issued>) -> http2::SendRequest<Full<Bytes>> {
        let io = TokioIo::new(self.connect(identity, "h2").await);
        let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await.expect("HTTP/2");
        tokio::spawn(connection);
        sender
    }

    pub async fn stop(self) {
        self.server.shutdown().await;
        self.store.close().await;
    }
}

impl Client {
    pub fn with_token(mut self, token: &str) -> Client {
        self.token = Some(token.to_owned());
        self
    }

    pub fn request(&self, method: Method, path: &str, body: impl Into<Bytes>) -> Request<Full<Bytes>> {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "kubernetes")
            .header(header::CONTENT_TYPE, "application/json");
        if let Some(token) = &self.token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        request.body(Full::new(body.into())).expect("a request")
    }

    pub async fn send(&mut self, request: Request<Full<Bytes>>) -> Response<Incoming> {
        self.sender.ready().await.expect("connected");
        let answer = tokio::time::timeout(Duration::from_secs(30), self.sender.send_request(request));
        answer.await.expect("in time").expect("an answer")
    }

    pub async fn text(&mut self, method: Method, path: &str, body: impl Into<Bytes>) -> (StatusCode, String) {
        let response = self.send(self.request(method, path, body)).await;
        let status = response.status();
        let bytes = response.into_body().collect().await.expect("a body").to_bytes();
        (status, String::from_utf8_lossy(&bytes).into_owned())
    }

    pub async fn json(&mut self, method: Method, path: &str, body: &Value) -> (StatusCode, Value) {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let (status, text) = self.text(method, path, body).await;
        (status, serde_json::from_str(&text).unwrap_or_else(|_| panic!("{status}: not JSON: {text}")))
    }

    pub async fn get(&mut self, path: &str) -> (StatusCode, Value) {
        self.json(Method::GET, path, &Value::Null).await
    }

    pub async fn post(&mut self, path: &str, body: &Value) -> (StatusCode, Value) {
        self.json(Method::POST, path, body).await
    }
}

/// A cluster with a pod that is bound to `node-1`.
pub async fn cluster_with_pod() -> Cluster {
    let cluster = Cluster::start().await;
    let mut admin = cluster.admin_client().await;
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}});
    admin.post("/api/v1/namespaces/default/serviceaccounts", &account).await;
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node-1"}});
    let (status, body) = admin.post("/api/v1/nodes", &node).await;
    assert_eq!(status, StatusCode::CREATED, "{body}");
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web"},
        "spec": {"nodeName": "node-1", "containers": [{"name": "main", "image": "web:1"}]}});
    let (status, body) = admin.post("/api/v1/namespaces/default/pods", &pod).await;
    assert_eq!(status, StatusCode::CREATED, "{body}");
    cluster
}
