//! The authority's files: written whole or not at all, for their owner only, and refused with what to do when they are damaged.

use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use rcgen::KeyPair;
use rustls::pki_types::CertificateDer;
use zeroize::Zeroizing;

use super::PkiError;

/// Makes a folder that only its owner may look into.
pub(super) fn make_folder(dir: &Path) -> Result<(), PkiError> {
    std::fs::create_dir_all(dir).map_err(|source| file_error(dir, "creating the folder", source))?;
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o700))
        .map_err(|source| file_error(dir, "setting the mode", source))
}

/// Reads a key, or makes one; a certificate without its private key is refused.
pub(super) fn load_or_create_key(path: &Path, certificate: &Path) -> Result<KeyPair, PkiError> {
    if let Some(pem) = read_optional(path)? {
        let pem = Zeroizing::new(utf8(path, pem)?);
        return KeyPair::from_pem(&pem).map_err(|error| damaged(path, error));
    }
    if certificate.exists() {
        return Err(PkiError::KeyMissing { path: path.to_owned() });
    }
    let key =
        KeyPair::generate().map_err(|source| super::issue_error(&path.display().to_string(), source))?;
    write_private(path, Zeroizing::new(key.serialize_pem()).as_bytes())?;
    Ok(key)
}

/// Reads 32 secret bytes, or makes them.
pub(super) fn load_or_create_secret(path: &Path) -> Result<Zeroizing<[u8; 32]>, PkiError> {
    if let Some(bytes) = read_optional(path)? {
        return secret(path, &bytes);
    }
    let mut key = Zeroizing::new([0; 32]);
    rand::Rng::fill(&mut rand::rng(), &mut key[..]);
    write_private(path, &key[..])?;
    Ok(key)
}

/// 32 secret bytes that a file holds.
pub(super) fn secret(path: &Path, bytes: &[u8]) -> Result<Zeroizing<[u8; 32]>, PkiError> {
    match <[u8; 32]>::try_from(bytes) {
        Ok(key) => Ok(Zeroizing::new(key)),
        Err(_) => Err(damaged(path, format!("{} bytes instead of 32", bytes.len()))),
    }
}

/// The first certificate of a PEM text that `path` holds.
pub(super) fn parse_cert(path: &Path, pem: &str) -> Result<CertificateDer<'static>, PkiError> {
    use rustls::pki_types::pem::PemObject as _;
    CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|error| damaged(path, error))
}

/// A certificate of another key would only show itself in failing handshakes.
pub(super) fn check_pair(path: &Path, cert: &CertificateDer<'_>, key: &KeyPair) -> Result<(), PkiError> {
    let (_, parsed) = x509_parser::parse_x509_certificate(cert).map_err(|error| damaged(path, error))?;
    if parsed.public_key().subject_public_key.data.as_ref() == key.public_key_raw() {
        return Ok(());
    }
    Err(damaged(path, "the certificate does not belong to the key beside it"))
}

/// What a file holds; `None` when there is none.
pub(super) fn read_optional(path: &Path) -> Result<Option<Vec<u8>>, PkiError> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(file_error(path, "reading", source)),
    }
}

/// Removes a file that is not needed any more.
pub(super) fn remove(path: &Path) -> Result<(), PkiError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(file_error(path, "removing", error))
        }
        _ => Ok(()),
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

pub(super) fn utf8(path: &Path, bytes: Vec<u8>) -> Result<String, PkiError> {
    String::from_utf8(bytes).map_err(|_| damaged(path, "it is not text"))
}

pub(super) fn damaged(path: &Path, reason: impl ToString) -> PkiError {
    PkiError::Damaged { path: path.to_owned(), reason: reason.to_string() }
}

fn file_error(path: &Path, action: &'static str, source: std::io::Error) -> PkiError {
    PkiError::File { path: path.to_owned(), action, source }
}
