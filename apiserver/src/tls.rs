//! TLS: the server's configuration, its certificate that is replaced while it runs, and who a client certificate names.

use std::{
    net::IpAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwap;
use rustls::{
    RootCertStore, ServerConfig,
    crypto::ring,
    pki_types::CertificateDer,
    server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier},
    sign::CertifiedKey,
};
use tokio_util::sync::CancellationToken;

use crate::pki::{Authority, COMPONENT_LIFETIME, Issued, PkiError};

/// The subject of a client certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Subject {
    pub(crate) name: String,
    pub(crate) groups: Vec<String>,
}

/// The server's certificate: replaced in place, picked up by the next handshake.
#[derive(Debug)]
pub(crate) struct RotatingCert {
    current: ArcSwap<CertifiedKey>,
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

/// Builds the server's TLS configuration and the certificate to rotate.
pub(crate) fn server_config(
    authority: &Authority,
    addresses: &[IpAddr],
) -> Result<(Arc<ServerConfig>, Arc<RotatingCert>, SystemTime), TlsError> {
    let provider = Arc::new(ring::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(authority.ca_der().clone())?;
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .allow_unauthenticated()
        .build()?;
    let issued = authority.issue_server(addresses, COMPONENT_LIFETIME)?;
    let rotating = Arc::new(RotatingCert { current: ArcSwap::from_pointee(certified(&issued)?) });
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(rotating.clone());
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec(), store::PEER_PROTOCOL.to_vec()];
    Ok((Arc::new(config), rotating, issued.renew_at()))
}

/// Reissues the server certificate at two thirds of its life, until told to stop.
pub(crate) async fn rotate(
    authority: Arc<Authority>,
    addresses: Vec<IpAddr>,
    rotating: Arc<RotatingCert>,
    mut renew_at: SystemTime,
    stop: CancellationToken,
) {
    /// The wall clock is looked at this often: the machine may have slept.
    const LOOK: Duration = Duration::from_secs(600);
    loop {
        let left = renew_at.duration_since(SystemTime::now()).unwrap_or_default();
        if left.is_zero() {
            match renew(&authority, &addresses, &rotating) {
                Ok(next) => renew_at = next,
                Err(error) => {
                    tracing::error!(
                        error = &error as &dyn std::error::Error,
                        "the server certificate was not renewed"
                    );
                    renew_at = SystemTime::now() + LOOK;
                }
            }
            continue;
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(left.min(LOOK)) => {}
        }
    }
}

fn renew(
    authority: &Authority,
    addresses: &[IpAddr],
    rotating: &RotatingCert,
) -> Result<SystemTime, TlsError> {
    let issued = authority.issue_server(addresses, COMPONENT_LIFETIME)?;
    rotating.current.store(Arc::new(certified(&issued)?));
    tracing::info!("the server certificate was renewed");
    Ok(issued.renew_at())
}

fn certified(issued: &Issued) -> Result<CertifiedKey, rustls::Error> {
    let key = ring::sign::any_supported_type(&issued.key_der())?;
    Ok(CertifiedKey::new(vec![issued.cert_der.clone()], key))
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

// === impl RotatingCert ===

impl ResolvesServerCert for RotatingCert {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.load_full())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_renewed_certificate_replaces_the_old_one() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let authority = Authority::load_or_create(dir.path()).expect("created");
        let (_, rotating, _) = server_config(&authority, &[]).expect("configured");
        let before = rotating.current.load_full();
        renew(&authority, &[], &rotating).expect("renewed");
        let after = rotating.current.load_full();
        assert_ne!(before.cert[0], after.cert[0]);
    }
}
