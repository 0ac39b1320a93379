//! A server under load: where it is, how to be trusted by it, and what its process costs.

use std::sync::Arc;

use anyhow::{Context, Result, anyhow};
use base64::Engine as _;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde::Deserialize;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// A server that speaks HTTPS, with the credentials of its administrator.
#[derive(Clone)]
pub struct Target {
    /// `host:port` to connect to.
    pub address: String,
    /// Its process, for CPU seconds and memory.
    pub pid: u32,
    tls: Arc<rustls::ClientConfig>,
}

/// One open HTTP/1.1 connection.
pub struct Connection {
    sender: SendRequest<Full<Bytes>>,
    host: String,
}

#[derive(Deserialize)]
struct Kubeconfig {
    clusters: Vec<NamedCluster>,
    users: Vec<NamedUser>,
}

#[derive(Deserialize)]
struct NamedCluster {
    cluster: Cluster,
}

#[derive(Deserialize)]
struct NamedUser {
    user: User,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Cluster {
    server: String,
    certificate_authority_data: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct User {
    client_certificate_data: String,
    client_key_data: String,
}

impl Target {
    /// Reads address and credentials from a kubeconfig with one cluster and one user.
    pub fn from_kubeconfig(path: &std::path::Path, pid: u32) -> Result<Target> {
        let text = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
        let config: Kubeconfig =
            serde_saphyr::from_str(&text).map_err(|error| anyhow!("kubeconfig: {error}"))?;
        let cluster = &config.clusters.first().context("kubeconfig names no cluster")?.cluster;
        let user = &config.users.first().context("kubeconfig names no user")?.user;
        let decode = |text: &str| base64::engine::general_purpose::STANDARD.decode(text.trim());
        let authority = decode(&cluster.certificate_authority_data)?;
        let identity = (decode(&user.client_certificate_data)?, decode(&user.client_key_data)?);
        let address = cluster.server.trim_start_matches("https://").trim_end_matches('/').to_owned();
        Target::new(address, pid, &authority, Some((&identity.0, &identity.1)))
    }

    /// A target that presents a certificate of `authority_pem`; `identity` is our certificate and key.
    pub fn new(
        address: String,
        pid: u32,
        authority_pem: &[u8],
        identity: Option<(&[u8], &[u8])>,
    ) -> Result<Target> {
        let mut roots = rustls::RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(authority_pem) {
            roots.add(certificate?)?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots);
        let config = match identity {
            Some((certificate, key)) => {
                let chain = CertificateDer::pem_slice_iter(certificate).collect::<Result<Vec<_>, _>>()?;
                builder.with_client_auth_cert(chain, PrivateKeyDer::from_pem_slice(key)?)?
            }
            None => builder.with_no_client_auth(),
        };
        Ok(Target { address, pid, tls: Arc::new(config) })
    }

    /// Opens a connection.
    pub async fn connect(&self) -> Result<Connection> {
        let stream = TcpStream::connect(&self.address)
            .await
            .with_context(|| format!("connecting to {}", self.address))?;
        stream.set_nodelay(true)?;
        let host = self.address.rsplit_once(':').map_or(self.address.as_str(), |(host, _)| host);
        let name = ServerName::try_from(host.to_owned())?;
        let stream =
            TlsConnector::from(self.tls.clone()).connect(name, stream).await.context("TLS handshake")?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        // The connection ends with its sender; an error shows at the next request.
        tokio::spawn(async move { connection.await.ok() });
        Ok(Connection { sender, host: self.address.clone() })
    }
}

impl Connection {
    /// Sends a request and hands out the answer before its body was read.
    pub async fn open(
        &mut self,
        method: &http::Method,
        path: &str,
        body: Bytes,
    ) -> Result<http::Response<hyper::body::Incoming>> {
        let request = http::Request::builder()
            .method(method)
            .uri(path)
            .header("host", &self.host)
            .header("accept", "application/json")
            .header("content-type", "application/json")
            .body(Full::new(body))?;
        self.sender.ready().await?;
        Ok(self.sender.send_request(request).await?)
    }

    /// Sends a request, reads the whole answer, and returns its status and body.
    pub async fn request(
        &mut self,
        method: &http::Method,
        path: &str,
        body: Bytes,
    ) -> Result<(http::StatusCode, Bytes)> {
        let response = self.open(method, path, body).await?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        Ok((status, body))
    }

    /// As [`Connection::request`], but any status other than a success is an error.
    pub async fn expect(&mut self, method: &http::Method, path: &str, body: Bytes) -> Result<Bytes> {
        let (status, answer) = self.request(method, path, body).await?;
        if !status.is_success() {
            return Err(anyhow!("{method} {path}: {status}: {}", String::from_utf8_lossy(&answer)));
        }
        Ok(answer)
    }
}
