//! Issues certificates.

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, SanType,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use zeroize::Zeroizing;

use super::{Authority, BACKDATE, CA_LIFETIME, COMPONENT_LIFETIME, PkiError, issue_error};

/// A certificate with its private key.
pub struct Issued {
    /// The certificate, PEM.
    pub cert_pem: String,
    /// The private key, PKCS#8 PEM.
    pub key_pem: Zeroizing<String>,
    /// The certificate, DER.
    pub cert_der: CertificateDer<'static>,
    /// The id of the authority that issued it.
    pub issuer: String,
    /// When it was issued.
    pub issued_at: SystemTime,
    /// The end of its validity.
    pub not_after: SystemTime,
    vouchers: Vec<CertificateDer<'static>>,
    key_der: Zeroizing<Vec<u8>>,
}

// === impl Authority ===

impl Authority {
    /// Issues the API server's certificate for these addresses, besides the names that every cluster has.
    pub fn issue_server(&self, addresses: &[IpAddr], lifetime: Duration) -> Result<Issued, PkiError> {
        const NAMES: [&str; 5] = [
            "kubernetes",
            "kubernetes.default",
            "kubernetes.default.svc",
            "kubernetes.default.svc.cluster.local",
            "localhost",
        ];
        let subject = "kube-apiserver";
        let mut params =
            CertificateParams::new(NAMES.map(String::from)).map_err(|source| issue_error(subject, source))?;
        for address in addresses {
            let name = SanType::IpAddress(*address);
            if !params.subject_alt_names.contains(&name) {
                params.subject_alt_names.push(name);
            }
        }
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.issue(params, subject, None, lifetime)
    }

    /// Issues a client certificate: `user` becomes the user name, `group` its group.
    pub fn issue_client(
        &self,
        user: &str,
        group: Option<&str>,
        lifetime: Duration,
    ) -> Result<Issued, PkiError> {
        let mut params = CertificateParams::default();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.issue(params, user, group, lifetime)
    }

    /// Certifies the key of a PKCS#10 request (PEM) for a client: `user` becomes the user name, `group` its group. Of the
    /// request nothing but the key is looked at. Returns the certificate, PEM.
    pub fn sign_client(
        &self,
        request_pem: &str,
        user: &str,
        group: &str,
        lifetime: Duration,
    ) -> Result<String, PkiError> {
        let mut request = CertificateSigningRequestParams::from_pem(request_pem)
            .map_err(|source| PkiError::Request { source })?;
        let mut params = CertificateParams::default();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let now = SystemTime::now();
        name_and_date(&mut params, user, Some(group), now, now + lifetime);
        request.params = params;
        let certificate =
            request.signed_by(&self.now.load().issuer).map_err(|source| issue_error(user, source))?;
        Ok(certificate.pem())
    }

    /// Issues a node agent's client certificate.
    pub fn issue_node(&self, node: &str) -> Result<Issued, PkiError> {
        self.issue_client(&format!("system:node:{node}"), Some("system:nodes"), COMPONENT_LIFETIME)
    }

    fn issue(
        &self,
        mut params: CertificateParams,
        common_name: &str,
        organization: Option<&str>,
        lifetime: Duration,
    ) -> Result<Issued, PkiError> {
        let error = |source| issue_error(common_name, source);
        let issued_at = SystemTime::now();
        let not_after = issued_at + lifetime;
        name_and_date(&mut params, common_name, organization, issued_at, not_after);
        let key = KeyPair::generate().map_err(error)?;
        let keys = self.now.load();
        let cert = params.signed_by(&key, &keys.issuer).map_err(error)?;
        Ok(Issued {
            cert_pem: cert.pem(),
            issuer: keys.keyring.authority.current.id.clone(),
            vouchers: keys.vouchers.clone(),
            cert_der: cert.der().clone(),
            key_pem: Zeroizing::new(key.serialize_pem()),
            key_der: Zeroizing::new(key.serialize_der()),
            issued_at,
            not_after,
        })
    }
}

// === impl Issued ===

impl Issued {
    /// The private key, for rustls.
    pub fn key_der(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.key_der.to_vec()))
    }

    /// The certificate and those that lead from it to authorities before its own.
    pub fn chain(&self) -> Vec<CertificateDer<'static>> {
        std::iter::once(&self.cert_der).chain(&self.vouchers).cloned().collect()
    }

    /// When a successor is due: at two thirds of the lifetime.
    pub fn renew_at(&self) -> SystemTime {
        let life = self.not_after.duration_since(self.issued_at).unwrap_or_default();
        self.issued_at + life * 2 / 3
    }
}

/// What every certificate of ours has besides its purpose.
fn name_and_date(
    params: &mut CertificateParams,
    common_name: &str,
    organization: Option<&str>,
    issued_at: SystemTime,
    not_after: SystemTime,
) {
    let mut name = DistinguishedName::new();
    if let Some(organization) = organization {
        name.push(DnType::OrganizationName, organization);
    }
    name.push(DnType::CommonName, common_name);
    params.distinguished_name = name;
    params.not_before = (issued_at - BACKDATE).into();
    params.not_after = not_after.into();
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
}

/// What the certificate of an authority says.
pub(super) fn ca_params() -> CertificateParams {
    let now = SystemTime::now();
    let mut params = CertificateParams::default();
    let mut name = DistinguishedName::new();
    let made_ms = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis();
    name.push(DnType::CommonName, format!("orlop-ca@{made_ms}"));
    params.distinguished_name = name;
    // Not bound to issue leaves only: it vouches for its successor.
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages =
        vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
    params.not_before = (now - BACKDATE).into();
    params.not_after = (now + CA_LIFETIME).into();
    params.use_authority_key_identifier_extension = true;
    params
}
