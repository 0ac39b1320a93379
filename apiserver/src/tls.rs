//! TLS: the server's configuration, its certificate that is replaced while it runs, and who a client certificate names.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;
use rustls::server::WebPkiClientVerifier;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::pki::{Authority, COMPONENT_LIFETIME, PkiError};

/// The subject of a client certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Subject {
    pub(crate) name: String,
    pub(crate) groups: Vec<String>,
}

/// The server's TLS: replaced while it runs, picked up by the next handshake.
pub(crate) struct Tls {
    authority: Arc<Authority>,
    /// What the certificate is good for.
    addresses: Vec<IpAddr>,
    current: ArcSwap<Current>,
}

/// The configuration of new connections.
struct Current {
    config: Arc<ServerConfig>,
    certificate: Certificate,
}

/// What is worth knowing of the server's certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Certificate {
    /// The id of its authority.
    pub(crate) issuer: String,
    pub(crate) not_after: SystemTime,
    renew_at: SystemTime,
}

/// Why TLS could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The certificate could not be issued.
    #[error("cannot issue the server certificate")]
    Issue(#[from] PkiError),
    /// rustls refused a part of the configuration.
    #[error("cannot configure TLS")]
    Rustls(#[from] rustls::Error),
    /// The client verifier could not be built from the authority.
    #[error("cannot verify client certificates with this authority")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
}

/// The user name (CN) and groups (O) of a verified client certificate; `None` when it names nobody.
pub(crate) fn certificate_subject(cert: &CertificateDer<'_>) -> Option<Subject> {
    let (_, parsed) = x509_parser::parse_x509_certificate(cert).ok()?;
    let subject = parsed.subject();
    let name = subject.iter_common_name().next()?.as_str().ok()?.to_owned();
    if name.is_empty() {
        return None;
    }
    let groups = subject
        .iter_organization()
        .filter_map(|organization| organization.as_str().ok().map(str::to_owned))
        .collect();
    Some(Subject { name, groups })
}

// === impl Tls ===

impl Tls {
    /// The TLS of a server that is reached at these addresses.
    pub(crate) fn new(authority: Arc<Authority>, addresses: Vec<IpAddr>) -> Result<Tls, TlsError> {
        let current = ArcSwap::from_pointee(Current::of(&authority, &addresses)?);
        Ok(Tls { authority, addresses, current })
    }

    /// What takes the next connection.
    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.current.load().config.clone())
    }

    /// The certificate that the next connection is shown.
    pub(crate) fn certificate(&self) -> Certificate {
        self.current.load().certificate.clone()
    }

    /// Takes a new certificate, and the authorities of now.
    pub(crate) fn renew(&self) -> Result<(), TlsError> {
        self.current.store(Arc::new(Current::of(&self.authority, &self.addresses)?));
        tracing::info!("the server certificate was renewed");
        Ok(())
    }

    /// Renews at two thirds of the certificate's life, and whenever the authorities change, until told to stop.
    pub(crate) async fn keep(self: Arc<Self>, stop: CancellationToken) {
        /// The wall clock is looked at this often: the machine may have slept.
        const LOOK: Duration = Duration::from_secs(600);
        let mut changes = self.authority.changes();
        let mut pause = Duration::ZERO;
        loop {
            let left = self.certificate().renew_at.duration_since(SystemTime::now()).unwrap_or_default();
            tokio::select! {
                () = stop.cancelled() => return,
                changed = changes.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(left.max(pause).min(LOOK)) => {
                    if self.certificate().renew_at > SystemTime::now() {
                        continue;
                    }
                }
            }
            pause = match self.renew() {
                Ok(()) => Duration::ZERO,
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::error!(error, "the server certificate was not renewed");
                    LOOK
                }
            };
        }
    }
}

// === impl Current ===

impl Current {
    fn of(authority: &Authority, addresses: &[IpAddr]) -> Result<Current, TlsError> {
        let provider = Arc::new(ring::default_provider());
        let roots = Arc::new(authority.roots()?);
        let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider.clone())
            .allow_unauthenticated()
            .build()?;
        let issued = authority.issue_server(addresses, COMPONENT_LIFETIME)?;
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_client_cert_verifier(verifier)
            .with_single_cert(issued.chain(), issued.key_der())?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec(), store::PEER_PROTOCOL.to_vec()];
        let certificate =
            Certificate { renew_at: issued.renew_at(), not_after: issued.not_after, issuer: issued.issuer };
        Ok(Current { config: Arc::new(config), certificate })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_renewed_certificate_replaces_the_old_one() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let authority = Arc::new(Authority::load_or_create(dir.path()).expect("created"));
        let tls = Tls::new(authority, Vec::new()).expect("configured");
        let before = tls.current.load_full();
        tls.renew().expect("renewed");
        assert!(!Arc::ptr_eq(&before.config, &tls.current.load().config));
        assert!(tls.certificate().not_after >= before.certificate.not_after);
    }
}
