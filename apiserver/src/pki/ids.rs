//! What certificates say of the authorities that they are, or are of.

use std::path::Path;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use sha2::{Digest as _, Sha256};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::ParsedExtension;

use super::files::parse_cert;

/// The id of the authority that a certificate (PEM) is of, among those of `bundle` (PEM); `None` when none of them signed it.
pub fn issuer_of(certificate: &str, bundle: &str) -> Option<String> {
    let der = parse_cert(Path::new("certificate"), certificate).ok()?;
    let (_, parsed) = x509_parser::parse_x509_certificate(&der).ok()?;
    let authorities = certificates(bundle);
    let signed = |authority: &&CertificateDer<'_>| {
        let Ok((_, authority)) = x509_parser::parse_x509_certificate(authority) else { return false };
        authority_key_id(&parsed).is_some_and(|id| subject_key_id(&authority) == Some(id))
    };
    authorities.iter().find(signed).map(|authority| id(authority))
}

/// The ids of the authorities in a bundle (PEM).
pub fn ids(bundle: &str) -> Vec<String> {
    certificates(bundle).iter().map(|authority| id(authority)).collect()
}

fn certificates(bundle: &str) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_slice_iter(bundle.as_bytes()).flatten().collect()
}

fn authority_key_id<'a>(certificate: &'a X509Certificate<'_>) -> Option<&'a [u8]> {
    certificate.iter_extensions().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::AuthorityKeyIdentifier(id) => id.key_identifier.as_ref().map(|id| id.0),
        _ => None,
    })
}

fn subject_key_id<'a>(certificate: &'a X509Certificate<'_>) -> Option<&'a [u8]> {
    certificate.iter_extensions().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0),
        _ => None,
    })
}

/// What an authority is called: the beginning of the SHA-256 of its certificate.
pub(super) fn id(certificate: &CertificateDer<'_>) -> String {
    Sha256::digest(certificate).iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}
