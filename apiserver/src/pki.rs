//! The cluster's certificate authority, the certificates it issues, and the keys kept beside it.

use std::{
    io::Write as _,
    net::IpAddr,
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use zeroize::Zeroizing;

pub mod kubeconfig;

/// How long the authority itself is valid.
const CA_LIFETIME: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// How long a component's certificate is valid; components get a new one at every start and, while they run, at
/// two thirds of this.
pub const COMPONENT_LIFETIME: Duration = Duration::from_secs(24 * 3600);
/// How long the administrator's certificate in the kubeconfig is valid; it is issued anew at every start.
pub const ADMIN_LIFETIME: Duration = Duration::from_secs(365 * 24 * 3600);
/// Certificates start a little in the past, so that clocks may differ.
const BACKDATE: Duration = Duration::from_secs(300);

/// The cluster's certificate authority and secret keys.
pub struct Authority {
    ca_pem: String,
    ca_der: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
    service_account_seed: Zeroizing<[u8; 32]>,
    store_key: Zeroizing<[u8; 32]>,
}

/// A certificate with its private key.
pub struct Issued {
    /// The certificate, PEM.
    pub cert_pem: String,
    /// The private key, PKCS#8 PEM.
    pub key_pem: Zeroizing<String>,
    /// The certificate, DER.
    pub cert_der: CertificateDer<'static>,
    /// When it was issued.
    pub issued_at: SystemTime,
    /// The end of its validity.
    pub not_after: SystemTime,
    key_der: Zeroizing<Vec<u8>>,
}

/// Why the authority could not be read, made or used.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// A file of the authority cannot be read or written.
    #[error("{path}: {action} failed")]
    File {
        /// Which file.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// The system's answer.
        source: std::io::Error,
    },
    /// A file of the authority does not hold what it should.
    #[error(
        "{path} is damaged ({reason}); restore it from a backup, or remove the whole folder to make a new authority"
    )]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The certificate exists, its key does not.
    #[error(
        "{path} is missing, but its certificate exists; restore the key from a backup, or remove the whole folder to make a new authority"
    )]
    KeyMissing {
        /// The missing key.
        path: PathBuf,
    },
    /// A signing request is not one, or its signature does not fit its key.
    #[error("the signing request cannot be used")]
    Request {
        /// The library's answer.
        source: rcgen::Error,
    },
    /// A certificate could not be made.
    #[error("cannot make the certificate of {subject:?}")]
    Issue {
        /// Whose certificate.
        subject: String,
        /// The library's answer.
        source: rcgen::Error,
    },
}

// === impl Authority ===

impl Authority {
    /// Reads the authority kept in `dir`, or makes a new one there. Files are readable by their owner only.
    pub fn load_or_create(dir: &Path) -> Result<Authority, PkiError> {
        make_folder(dir)?;
        let ca_key = load_or_create_key(&dir.join("ca.key"), &dir.join("ca.crt"))?;
        let params = ca_params();
        let cert_path = dir.join("ca.crt");
        let ca_pem = match read_optional(&cert_path)? {
            Some(pem) => utf8(&cert_path, pem)?,
            None => {
                let cert =
                    params.self_signed(&ca_key).map_err(|source| issue_error("the authority", source))?;
                write_private(&cert_path, cert.pem().as_bytes())?;
                cert.pem()
            }
        };
        let ca_der = parse_cert(&cert_path, &ca_pem)?;
        check_pair(&cert_path, &ca_der, &ca_key)?;

        Ok(Authority {
            ca_pem,
            ca_der,
            issuer: Issuer::new(params, ca_key),
            service_account_seed: load_or_create_secret(&dir.join("sa.key"))?,
            store_key: load_or_create_secret(&dir.join("store.key"))?,
        })
    }

    /// Puts another server's authority into `dir`, which has none: certificate and key in PEM, and the seed of the key
    /// that signs tokens.
    ///
    /// # Errors
    /// When they do not belong together, or a file cannot be written.
    pub fn install(dir: &Path, ca_pem: &str, ca_key_pem: &str, seed: &[u8; 32]) -> Result<(), PkiError> {
        make_folder(dir)?;
        let (certificate, key) = (dir.join("ca.crt"), dir.join("ca.key"));
        let parsed = KeyPair::from_pem(ca_key_pem).map_err(|error| damaged(&key, error))?;
        check_pair(&certificate, &parse_cert(&certificate, ca_pem)?, &parsed)?;
        write_private(&dir.join("sa.key"), seed)?;
        write_private(&key, ca_key_pem.as_bytes())?;
        write_private(&certificate, ca_pem.as_bytes())
    }

    /// The authority's certificate, PEM.
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// The authority's certificate, DER.
    pub fn ca_der(&self) -> &CertificateDer<'static> {
        &self.ca_der
    }

    /// The seed of the Ed25519 key that signs service account tokens.
    pub fn service_account_seed(&self) -> &[u8; 32] {
        &self.service_account_seed
    }

    /// The authority's key, PEM.
    pub fn ca_key_pem(&self) -> String {
        self.issuer.key().serialize_pem()
    }

    /// The key that encrypts the store.
    pub fn store_key(&self) -> &[u8; 32] {
        &self.store_key
    }

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
        let certificate = request.signed_by(&self.issuer).map_err(|source| issue_error(user, source))?;
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
        let cert = params.signed_by(&key, &self.issuer).map_err(error)?;
        Ok(Issued {
            cert_pem: cert.pem(),
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

    /// When a successor is due: at two thirds of the lifetime.
    pub fn renew_at(&self) -> SystemTime {
        let life = self.not_after.duration_since(self.issued_at).unwrap_or_default();
        self.issued_at + life * 2 / 3
    }
}

/// Makes a folder that only its owner may look into.
fn make_folder(dir: &Path) -> Result<(), PkiError> {
    std::fs::create_dir_all(dir).map_err(|source| file_error(dir, "creating the folder", source))?;
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o700))
        .map_err(|source| file_error(dir, "setting the mode", source))
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

fn ca_params() -> CertificateParams {
    let now = SystemTime::now();
    let mut params = CertificateParams::default();
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, "orlop-ca");
    params.distinguished_name = name;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages =
        vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
    params.not_before = (now - BACKDATE).into();
    params.not_after = (now + CA_LIFETIME).into();
    params
}

/// From when to when a certificate (PEM) is valid; `None` when it is none.
pub fn validity(pem: &str) -> Option<(SystemTime, SystemTime)> {
    let der = parse_cert(Path::new("certificate"), pem).ok()?;
    let (_, parsed) = x509_parser::parse_x509_certificate(&der).ok()?;
    let time = |at: x509_parser::time::ASN1Time| {
        Some(SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(at.timestamp()).ok()?))
    };
    Some((time(parsed.validity().not_before)?, time(parsed.validity().not_after)?))
}

/// Reads a key, or makes one; a certificate without its private key is refused.
fn load_or_create_key(path: &Path, certificate: &Path) -> Result<KeyPair, PkiError> {
    if let Some(pem) = read_optional(path)? {
        let pem = Zeroizing::new(utf8(path, pem)?);
        return KeyPair::from_pem(&pem).map_err(|error| damaged(path, error));
    }
    if certificate.exists() {
        return Err(PkiError::KeyMissing { path: path.to_owned() });
    }
    let key = KeyPair::generate().map_err(|source| issue_error(&path.display().to_string(), source))?;
    write_private(path, Zeroizing::new(key.serialize_pem()).as_bytes())?;
    Ok(key)
}

fn load_or_create_secret(path: &Path) -> Result<Zeroizing<[u8; 32]>, PkiError> {
    let mut key = Zeroizing::new([0; 32]);
    match read_optional(path)? {
        Some(bytes) if bytes.len() == 32 => key.copy_from_slice(&bytes),
        Some(bytes) => return Err(damaged(path, format!("{} bytes instead of 32", bytes.len()))),
        None => {
            rand::Rng::fill(&mut rand::rng(), &mut key[..]);
            write_private(path, &key[..])?;
        }
    }
    Ok(key)
}

fn parse_cert(path: &Path, pem: &str) -> Result<CertificateDer<'static>, PkiError> {
    use rustls::pki_types::pem::PemObject as _;
    CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|error| damaged(path, error))
}

/// A certificate of another key would only show itself in failing handshakes.
fn check_pair(path: &Path, cert: &CertificateDer<'_>, key: &KeyPair) -> Result<(), PkiError> {
    let (_, parsed) = x509_parser::parse_x509_certificate(cert).map_err(|error| damaged(path, error))?;
    if parsed.public_key().subject_public_key.data.as_ref() == key.public_key_raw() {
        return Ok(());
    }
    Err(damaged(path, "the certificate does not belong to the key beside it"))
}

fn read_optional(path: &Path) -> Result<Option<Vec<u8>>, PkiError> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(file_error(path, "reading", source)),
    }
}

/// Writes a file that only its owner may read: whole or not at all.
///
/// # Errors
/// When the system refuses.
pub fn write_private(path: &Path, content: &[u8]) -> Result<(), PkiError> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let temporary = path.with_file_name(name);
    let write = || {
        let mut file = std::fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&temporary)?;
        file.write_all(content)?;
        file.sync_all()?;
        std::fs::rename(&temporary, path)?;
        match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => std::fs::File::open(parent)?.sync_all(),
            _ => Ok(()),
        }
    };
    write().map_err(|source| file_error(path, "writing", source))
}

fn utf8(path: &Path, bytes: Vec<u8>) -> Result<String, PkiError> {
    String::from_utf8(bytes).map_err(|_| damaged(path, "not text"))
}

fn file_error(path: &Path, action: &'static str, source: std::io::Error) -> PkiError {
    PkiError::File { path: path.to_owned(), action, source }
}

fn damaged(path: &Path, reason: impl ToString) -> PkiError {
    PkiError::Damaged { path: path.to_owned(), reason: reason.to_string() }
}

fn issue_error(subject: &str, source: rcgen::Error) -> PkiError {
    PkiError::Issue { subject: subject.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_load_finds_the_same_authority() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let first = Authority::load_or_create(dir.path()).expect("created");
        let second = Authority::load_or_create(dir.path()).expect("loaded");
        assert_eq!(first.ca_pem(), second.ca_pem());
        assert_eq!(first.store_key(), second.store_key());
        assert_eq!(first.service_account_seed(), second.service_account_seed());
        assert_ne!(first.service_account_seed(), first.store_key());
        for file in ["ca.key", "sa.key", "store.key"] {
            let mode = std::fs::metadata(dir.path().join(file)).expect("exists").permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{file}");
        }
    }

    #[test]
    fn a_lost_key_is_refused_with_what_to_do() {
        let dir = tempfile::tempdir().expect("temporary folder");
        Authority::load_or_create(dir.path()).expect("created");
        std::fs::remove_file(dir.path().join("ca.key")).expect("removed");
        let Err(error) = Authority::load_or_create(dir.path()) else { panic!("a lost key was accepted") };
        assert!(error.to_string().contains("restore the key"), "{error}");
    }

    #[test]
    fn of_a_signing_request_only_the_key_counts() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let authority = Authority::load_or_create(dir.path()).expect("created");
        let key = KeyPair::generate().expect("key");
        let mut asked = ca_params();
        asked.distinguished_name.push(DnType::OrganizationName, "system:masters");
        let request = asked.serialize_request(&key).expect("request").pem().expect("PEM");
        let pem = authority.sign_client(&request, "ada", "crew", COMPONENT_LIFETIME).expect("signed");
        let certificate = parse_cert(Path::new("signed"), &pem).expect("PEM");
        let subject = crate::tls::certificate_subject(&certificate).expect("parsed");
        assert_eq!((subject.name.as_str(), subject.groups), ("ada", vec!["crew".to_owned()]));
        let (_, parsed) = x509_parser::parse_x509_certificate(&certificate).expect("parsed");
        assert!(!parsed.is_ca());
        assert!(check_pair(Path::new("signed"), &certificate, &key).is_ok());
        assert!(authority.sign_client("no request", "ada", "crew", COMPONENT_LIFETIME).is_err());
    }

    #[test]
    fn a_client_certificate_names_user_and_group() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let authority = Authority::load_or_create(dir.path()).expect("created");
        let issued = authority.issue_client("ada", Some("crew"), ADMIN_LIFETIME).expect("issued");
        let user = crate::tls::certificate_subject(&issued.cert_der).expect("parsed");
        assert_eq!(user.name, "ada");
        assert_eq!(user.groups, ["crew"]);
        assert!(issued.renew_at() < issued.not_after);
    }
}
