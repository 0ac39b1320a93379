//! The cluster's certificate authority, the certificates it issues, and the keys kept beside it.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use apiserver_core::authn::jwt::{JwtError, SigningKey};
use apiserver_core::keyring::{AuthorityKey, Keyring, TokenKey};
use arc_swap::ArcSwap;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{Issuer, KeyPair};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use tokio::sync::watch;
use zeroize::Zeroizing;

mod files;
mod ids;
mod issue;
mod kept;
pub mod kubeconfig;

pub use files::write_private;
pub use ids::{ids, issuer_of};
pub use issue::Issued;
pub use kept::StoreKey;

use files::{check_pair, damaged, load_or_create_secret, make_folder, parse_cert};
use ids::id;
use issue::ca_params;
use kept::{
    first_keyring, keyring_file, read_keyring, store_key_file, store_key_numbers, store_keys, write_keyring,
};

/// How long the authority itself is valid.
const CA_LIFETIME: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// How long a component's certificate is valid; components get a new one at every start and, while they run, at
/// two thirds of this.
pub const COMPONENT_LIFETIME: Duration = Duration::from_secs(24 * 3600);
/// How long the administrator's certificate in the kubeconfig is valid; it is issued anew at every start.
pub const ADMIN_LIFETIME: Duration = Duration::from_secs(365 * 24 * 3600);
/// Certificates start a little in the past, so that clocks may differ.
const BACKDATE: Duration = Duration::from_secs(300);

/// The cluster's certificate authority and secret keys. They change while the cluster runs: what is asked for is
/// always that of now.
pub struct Authority {
    dir: PathBuf,
    now: ArcSwap<Keys>,
    changes: watch::Sender<()>,
    /// Held while files are written.
    writing: Mutex<()>,
}

/// The keys at one time.
struct Keys {
    keyring: Keyring,
    issuer: Issuer<'static, KeyPair>,
    /// Every authority that is accepted, the one that issues first.
    authorities: Vec<CertificateDer<'static>>,
    /// By these, who knows only an earlier authority accepts the one that issues.
    vouchers: Vec<CertificateDer<'static>>,
    signing_keys: Vec<SigningKey>,
    store_keys: Vec<StoreKey>,
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
    /// A key that signs tokens is none.
    #[error("a key that signs tokens cannot be used")]
    TokenKey(#[from] JwtError),
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
    ///
    /// # Errors
    /// When a file is missing or damaged, or cannot be written.
    pub fn load_or_create(dir: &Path) -> Result<Authority, PkiError> {
        make_folder(dir)?;
        let keyring = match read_keyring(dir)? {
            Some(keyring) => keyring,
            None => first_keyring(dir)?,
        };
        if store_key_numbers(dir).is_empty() {
            load_or_create_secret(&store_key_file(dir, 0))?;
        }
        let keys = Keys::new(keyring, store_keys(dir)?, dir)?;
        Ok(Authority {
            dir: dir.to_owned(),
            now: ArcSwap::from_pointee(keys),
            changes: watch::Sender::new(()),
            writing: Mutex::new(()),
        })
    }

    /// Whether `dir` has all keys of a server: those of its store are made last.
    pub fn is_complete(dir: &Path) -> bool {
        !store_key_numbers(dir).is_empty()
    }

    /// Puts another server's keys into `dir`, which has none.
    ///
    /// # Errors
    /// When they do not belong together, or a file cannot be written.
    pub fn install(dir: &Path, keyring: &Keyring) -> Result<(), PkiError> {
        make_folder(dir)?;
        Keys::new(keyring.clone(), Vec::new(), dir)?;
        write_keyring(dir, keyring)
    }

    /// Takes over keys that the cluster has agreed on; `false` when they are those of now.
    ///
    /// # Errors
    /// When they do not belong together, or a file cannot be written.
    pub fn adopt(&self, keyring: &Keyring) -> Result<bool, PkiError> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        if self.now.load().keyring == *keyring {
            return Ok(false);
        }
        let keys = Keys::new(keyring.clone(), self.now.load().store_keys.clone(), &self.dir)?;
        write_keyring(&self.dir, keyring)?;
        self.replace(keys);
        Ok(true)
    }

    /// Reads the files again, where another process may have written them.
    ///
    /// # Errors
    /// When they are damaged.
    pub fn reload(&self) -> Result<(), PkiError> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        match read_keyring(&self.dir)? {
            Some(keyring) if keyring != self.now.load().keyring => {
                self.replace(Keys::new(keyring, self.now.load().store_keys.clone(), &self.dir)?);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn replace(&self, keys: Keys) {
        self.now.store(Arc::new(keys));
        self.changes.send_replace(());
    }

    /// Tells whenever authorities or token keys have changed.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }

    /// The keys that all servers share.
    pub fn keyring(&self) -> Keyring {
        self.now.load().keyring.clone()
    }

    /// The certificates of all authorities that are accepted, PEM, the one that issues first.
    pub fn ca_pem(&self) -> String {
        self.now.load().keyring.authority.accepted().map(|authority| authority.certificate.as_str()).collect()
    }

    /// All authorities that are accepted.
    ///
    /// # Errors
    /// When one of them is no authority.
    pub fn roots(&self) -> Result<RootCertStore, rustls::Error> {
        let mut roots = RootCertStore::empty();
        for authority in &self.now.load().authorities {
            roots.add(authority.clone())?;
        }
        Ok(roots)
    }

    /// The keys that verify tokens; the first signs them.
    pub fn signing_keys(&self) -> Vec<SigningKey> {
        self.now.load().signing_keys.clone()
    }

    /// The keys of this server's store, the one for new files first.
    pub fn store_keys(&self) -> Vec<StoreKey> {
        self.now.load().store_keys.clone()
    }

    /// Makes the key of the store with this number, unless it is there. It is on the disk when this returns.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn make_store_key(&self, number: u64) -> Result<(), PkiError> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        load_or_create_secret(&store_key_file(&self.dir, number))?;
        self.read_store_keys()
    }

    /// Removes the keys of the store that no file needs any more.
    ///
    /// # Errors
    /// When a file cannot be removed.
    pub fn drop_store_keys(&self, unused: impl Fn(&StoreKey) -> bool) -> Result<(), PkiError> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        for key in self.store_keys().iter().skip(1).filter(|key| unused(key)) {
            files::remove(&store_key_file(&self.dir, key.number))?;
        }
        self.read_store_keys()
    }

    fn read_store_keys(&self) -> Result<(), PkiError> {
        let keyring = self.now.load().keyring.clone();
        self.now.store(Arc::new(Keys::new(keyring, store_keys(&self.dir)?, &self.dir)?));
        Ok(())
    }

    /// A new authority, which the one of now vouches for.
    ///
    /// # Errors
    /// When no key can be made.
    pub fn successor(&self) -> Result<AuthorityKey, PkiError> {
        let error = |source| issue_error("the authority", source);
        let key = KeyPair::generate().map_err(error)?;
        let params = ca_params();
        let certificate = params.self_signed(&key).map_err(error)?;
        let voucher = params.signed_by(&key, &self.now.load().issuer).map_err(error)?;
        Ok(AuthorityKey {
            id: id(certificate.der()),
            certificate: certificate.pem(),
            key: key.serialize_pem(),
            voucher: Some(voucher.pem()),
        })
    }
}

/// A new key that signs tokens.
///
/// # Errors
/// When it cannot be made.
pub fn new_token_key() -> Result<TokenKey, PkiError> {
    let mut seed = Zeroizing::new([0; 32]);
    rand::Rng::fill(&mut rand::rng(), &mut seed[..]);
    token_key(&seed)
}

/// The token key of a seed.
///
/// # Errors
/// When it is none.
pub fn token_key(seed: &[u8; 32]) -> Result<TokenKey, PkiError> {
    Ok(TokenKey { id: SigningKey::from_seed(seed)?.id().to_owned(), seed: STANDARD.encode(seed) })
}

/// The authority of a certificate and a key, PEM.
///
/// # Errors
/// When the certificate is none.
pub fn authority_key(certificate: &str, key: &str) -> Result<AuthorityKey, PkiError> {
    let der = parse_cert(Path::new("the authority's certificate"), certificate)?;
    Ok(AuthorityKey { id: id(&der), certificate: certificate.to_owned(), key: key.to_owned(), voucher: None })
}

// === impl Keys ===

impl Keys {
    fn new(keyring: Keyring, store_keys: Vec<StoreKey>, dir: &Path) -> Result<Keys, PkiError> {
        let path = keyring_file(dir);
        let pem = &keyring.authority.current;
        let key = KeyPair::from_pem(&pem.key).map_err(|error| damaged(&path, error))?;
        check_pair(&path, &parse_cert(&path, &pem.certificate)?, &key)?;
        let authorities =
            keyring.authority.accepted().map(|authority| parse_cert(&path, &authority.certificate));
        let authorities = authorities.collect::<Result<_, _>>()?;
        let issuer =
            Issuer::from_ca_cert_pem(&pem.certificate, key).map_err(|error| damaged(&path, error))?;
        // The authority before the last one vouches for nobody whom anybody knows.
        let former = &keyring.authority.former;
        let newer = std::iter::once(pem).chain(former.iter().map(|former| &former.key)).take(former.len());
        let vouchers = newer.filter_map(|authority| authority.voucher.as_deref());
        let vouchers = vouchers.map(|voucher| parse_cert(&path, voucher)).collect::<Result<_, _>>()?;
        let seeds = keyring.token_key.accepted().map(|key| STANDARD.decode(&key.seed).unwrap_or_default());
        let signing_keys = seeds.map(|seed| SigningKey::from_seed(&seed)).collect::<Result<_, _>>()?;
        Ok(Keys { issuer, authorities, vouchers, signing_keys, store_keys, keyring })
    }
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

fn issue_error(subject: &str, source: rcgen::Error) -> PkiError {
    PkiError::Issue { subject: subject.to_owned(), source }
}

#[cfg(test)]
mod tests;
