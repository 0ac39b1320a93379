//! How the keys are kept in the folder: which file holds what, before and after a rotation.

use std::path::{Path, PathBuf};

use apiserver_core::keyring::{Keyring, Succession};
use zeroize::Zeroizing;

use super::files::{
    check_pair, damaged, load_or_create_key, load_or_create_secret, parse_cert, read_optional, remove,
    secret, utf8, write_private,
};
use super::issue::ca_params;
use super::{PkiError, authority_key, issue_error, token_key};

/// A key that encrypts the store of this server.
#[derive(Clone)]
pub struct StoreKey {
    /// How often the key was rotated before: the first is 0.
    pub number: u64,
    /// The key.
    pub material: Zeroizing<[u8; 32]>,
}

// === impl StoreKey ===

impl StoreKey {
    /// What the store's files call it.
    pub fn id(&self) -> u64 {
        self.number + 1
    }
}

pub(super) fn keyring_file(dir: &Path) -> PathBuf {
    dir.join("keyring.json")
}

/// The keys of a cluster that has rotated some.
pub(super) fn read_keyring(dir: &Path) -> Result<Option<Keyring>, PkiError> {
    let path = keyring_file(dir);
    let Some(bytes) = read_optional(&path)?.map(Zeroizing::new) else { return Ok(None) };
    serde_json::from_slice(&bytes).map(Some).map_err(|error| damaged(&path, error))
}

/// The keys in the files of a cluster that never rotated any; those that are missing are made.
pub(super) fn first_keyring(dir: &Path) -> Result<Keyring, PkiError> {
    let cert_path = dir.join("ca.crt");
    let key = load_or_create_key(&dir.join("ca.key"), &cert_path)?;
    let pem = match read_optional(&cert_path)? {
        Some(pem) => utf8(&cert_path, pem)?,
        None => {
            let made =
                ca_params().self_signed(&key).map_err(|source| issue_error("the authority", source))?;
            write_private(&cert_path, made.pem().as_bytes())?;
            made.pem()
        }
    };
    check_pair(&cert_path, &parse_cert(&cert_path, &pem)?, &key)?;
    let seed = load_or_create_secret(&dir.join("sa.key"))?;
    Ok(Keyring {
        authority: Succession::of(authority_key(&pem, &key.serialize_pem())?),
        token_key: Succession::of(token_key(&seed)?),
        store_key: 0,
    })
}

/// One file holds all keys from now on: they change together. `ca.crt` says to people which authorities are accepted.
pub(super) fn write_keyring(dir: &Path, keyring: &Keyring) -> Result<(), PkiError> {
    let path = keyring_file(dir);
    let text = serde_json::to_vec_pretty(keyring).map_err(|error| damaged(&path, error))?;
    write_private(&path, &Zeroizing::new(text))?;
    let bundle: String =
        keyring.authority.accepted().map(|authority| authority.certificate.as_str()).collect();
    write_private(&dir.join("ca.crt"), bundle.as_bytes())?;
    remove(&dir.join("ca.key"))?;
    remove(&dir.join("sa.key"))
}

pub(super) fn store_key_file(dir: &Path, number: u64) -> PathBuf {
    match number {
        0 => dir.join("store.key"),
        number => dir.join(format!("store-{number}.key")),
    }
}

/// The numbers of the store's keys that there are.
pub(super) fn store_key_numbers(dir: &Path) -> Vec<u64> {
    let names = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let number = |name: &str| match name {
        "store.key" => Some(0),
        name => name.strip_prefix("store-")?.strip_suffix(".key")?.parse().ok(),
    };
    let mut numbers: Vec<u64> = names.filter_map(|entry| number(entry.file_name().to_str()?)).collect();
    numbers.sort_unstable_by(|a, b| b.cmp(a));
    numbers
}

pub(super) fn store_keys(dir: &Path) -> Result<Vec<StoreKey>, PkiError> {
    let read = |number: u64| {
        let path = store_key_file(dir, number);
        let bytes = Zeroizing::new(read_optional(&path)?.unwrap_or_default());
        Ok(StoreKey { number, material: secret(&path, &bytes)? })
    };
    store_key_numbers(dir).into_iter().map(read).collect()
}
