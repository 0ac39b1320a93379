//! How a client over the network is set up: from a kubeconfig, or from a certificate.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kube::config::{AuthInfo, KubeConfigOptions, Kubeconfig};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::json;

use crate::Client;

/// Why a client could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The kubeconfig cannot be read, or names what does not exist.
    #[error("kubeconfig: {0}")]
    Kubeconfig(#[from] kube::config::KubeconfigError),
    /// Neither a kubeconfig nor a service account was found.
    #[error("no kubeconfig found: {0}")]
    Infer(#[from] kube::config::InferConfigError),
    /// A certificate or key cannot be used.
    #[error("TLS: {0}")]
    Tls(#[from] kube::Error),
    /// The certificate authority's file has no certificate.
    #[error("the certificate authority is not PEM: {0}")]
    Authority(String),
    /// A client inside the process is who it was made for.
    #[error("a client inside the process does not prove itself by a token")]
    InProcess,
    /// The list of servers is empty.
    #[error("there is no server to connect to")]
    NoServer,
    /// The address is not a URL.
    #[error("server address: {0}")]
    Url(#[from] http::uri::InvalidUri),
    /// The credentials have an unexpected form.
    #[error("credentials: {0}")]
    Credentials(#[from] serde_json::Error),
}

// === impl Client ===

impl Client {
    /// A client as a kubeconfig says: of the file (without one: `$KUBECONFIG`, `~/.kube/config`, or the pod's service
    /// account), and of the context (without one: the current one).
    ///
    /// # Errors
    /// When the file, the context or its credentials cannot be used.
    pub async fn from_kubeconfig(path: Option<&Path>, context: Option<&str>) -> Result<Self, ConnectError> {
        install_crypto();
        let options =
            KubeConfigOptions { context: context.map(str::to_owned), ..KubeConfigOptions::default() };
        let config = match (path, context) {
            (Some(path), _) => {
                kube::Config::from_custom_kubeconfig(Kubeconfig::read_from(path)?, &options).await?
            }
            (None, Some(_)) => kube::Config::from_kubeconfig(&options).await?,
            (None, None) => kube::Config::infer().await?,
        };
        Self::from_config(config)
    }

    /// A client with a certificate of its own, for components of a cluster with these servers, whose certificates are good
    /// for `server_name`. See [`Client::replace_identity`] for its renewal. Must be called within a runtime.
    ///
    /// # Errors
    /// When there is no server, or an address, a certificate or the key cannot be used.
    pub fn from_identity(
        urls: &[String],
        server_name: &str,
        ca_pem: &str,
        cert_pem: &str,
        key_pem: &str,
    ) -> Result<Self, ConnectError> {
        install_crypto();
        let first = urls.first().ok_or(ConnectError::NoServer)?;
        let mut config = kube::Config::new(first.parse()?);
        config.tls_server_name = Some(server_name.to_owned());
        config.root_cert = Some(authorities(ca_pem)?);
        config.auth_info = certificate_auth(cert_pem, key_pem)?;
        let client = Self::from_config(config)?;
        client.set_servers(urls)?;
        Ok(client)
    }
}

/// Makes `ring` the process's cryptography, unless one was chosen already.
pub(crate) fn install_crypto() {
    // An error means that a provider is installed: that is all we want.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

pub(crate) fn certificate_auth(cert_pem: &str, key_pem: &str) -> Result<AuthInfo, ConnectError> {
    Ok(serde_json::from_value(json!({
        "client-certificate-data": STANDARD.encode(cert_pem),
        "client-key-data": STANDARD.encode(key_pem),
    }))?)
}

pub(crate) fn token_auth(token: &str) -> Result<AuthInfo, ConnectError> {
    Ok(serde_json::from_value(json!({"token": token}))?)
}

pub(crate) fn authorities(pem: &str) -> Result<Vec<Vec<u8>>, ConnectError> {
    let certificates: Vec<Vec<u8>> = CertificateDer::pem_slice_iter(pem.as_bytes())
        .map(|certificate| certificate.map(|certificate| certificate.to_vec()))
        .collect::<Result<_, _>>()
        .map_err(|error| ConnectError::Authority(error.to_string()))?;
    if certificates.is_empty() {
        return Err(ConnectError::Authority("it holds no certificate".to_owned()));
    }
    Ok(certificates)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NO_CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";

    #[tokio::test]
    async fn what_cannot_be_used_is_refused() {
        let refused = |url, ca| {
            let urls = [str::to_owned(url)];
            Client::from_identity(&urls, "kubernetes", ca, NO_CERTIFICATE, "no key")
                .err()
                .map(|e| e.to_string())
        };
        assert_eq!(
            refused("https://127.0.0.1:6443", "").as_deref(),
            Some("the certificate authority is not PEM: it holds no certificate")
        );
        assert!(
            refused("not a url", NO_CERTIFICATE).is_some_and(|error| error.starts_with("server address: "))
        );
        assert!(
            refused("https://127.0.0.1:6443", NO_CERTIFICATE).is_some_and(|error| error.starts_with("TLS: "))
        );
        let missing = Client::from_kubeconfig(Some(Path::new("/nonexistent/kubeconfig")), None).await;
        assert!(matches!(missing, Err(ConnectError::Kubeconfig(_))));
    }
}
