//! Which certificates a webhook may show: those that its `caBundle` vouches for, or those that this machine trusts.
//!
//! A certificate that is in the bundle itself is good too, as for Go's TLS: many webhooks sign their own and name it as its
//! authority.

use std::sync::{Arc, OnceLock};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{ServerCertVerified, ServerCertVerifier as _};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, Error, RootCertStore};
use x509_parser::time::ASN1Time;

use crate::judge::{self, Judge, Shown};

/// How TLS is spoken with a webhook. The bundle is PEM; an empty one stands for the machine's authorities.
pub(super) fn client_config(ca_bundle: &[u8]) -> Result<Arc<ClientConfig>, Error> {
    let named: Vec<CertificateDer<'static>> =
        CertificateDer::pem_slice_iter(ca_bundle).filter_map(Result::ok).collect();
    let roots = match ca_bundle.is_empty() {
        true => system_roots(),
        false => {
            let mut roots = RootCertStore::empty();
            // What is no authority may still be the certificate itself.
            roots.add_parsable_certificates(named.iter().cloned());
            Arc::new(roots)
        }
    };
    let signed = match roots.is_empty() {
        true => None,
        false => {
            let ring = Arc::new(rustls::crypto::ring::default_provider());
            let verifier = WebPkiServerVerifier::builder_with_provider(roots, ring).build();
            Some(verifier.map_err(|error| Error::General(error.to_string()))?)
        }
    };
    judge::client_config(Trust { named, signed }).map(Arc::new)
}

/// The authorities that this machine trusts, read once.
fn system_roots() -> Arc<RootCertStore> {
    static ROOTS: OnceLock<Arc<RootCertStore>> = OnceLock::new();
    let load = || {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        Arc::new(roots)
    };
    ROOTS.get_or_init(load).clone()
}

#[derive(Debug)]
struct Trust {
    /// Certificates that are good as they are.
    named: Vec<CertificateDer<'static>>,
    /// Those that they, or the machine's authorities, have signed.
    signed: Option<Arc<WebPkiServerVerifier>>,
}

/// A certificate that is in the bundle must be for the name, and of today.
fn check_named(shown: &Shown<'_>) -> Result<(), Error> {
    rustls::client::verify_server_name(&ParsedCertificate::try_from(shown.certificate)?, shown.name)?;
    let (_, parsed) = x509_parser::parse_x509_certificate(shown.certificate)
        .map_err(|_| Error::InvalidCertificate(CertificateError::BadEncoding))?;
    let now = i64::try_from(shown.now.as_secs()).ok().and_then(|now| ASN1Time::from_timestamp(now).ok());
    match now.is_some_and(|now| parsed.validity().is_valid_at(now)) {
        true => Ok(()),
        false => Err(Error::InvalidCertificate(CertificateError::Expired)),
    }
}

impl Judge for Trust {
    fn judge(&self, shown: &Shown<'_>) -> Result<ServerCertVerified, Error> {
        if self.named.iter().any(|named| named == shown.certificate) {
            return check_named(shown).map(|()| ServerCertVerified::assertion());
        }
        let Shown { certificate, intermediates, name, ocsp_response, now } = *shown;
        match &self.signed {
            Some(signed) => signed.verify_server_cert(certificate, intermediates, name, ocsp_response, now),
            None => Err(Error::InvalidCertificate(CertificateError::UnknownIssuer)),
        }
    }
}
