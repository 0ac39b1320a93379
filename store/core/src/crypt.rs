//! Encryption at rest: a fresh cipher per file, derived from the key that the file's header names.

use std::fmt;

use bytes::Bytes;
use rand::RngCore;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, Tag, UnboundKey};
use ring::hmac;
use zeroize::Zeroizing;

/// The length of a file's header.
pub const HEADER_LEN: usize = 64;
/// How much longer a sealed text is than the plain one.
pub const TAG_LEN: usize = 16;

/// Key material with the name by which file headers call it.
#[derive(Clone)]
pub struct Key {
    id: u64,
    material: Zeroizing<[u8; 32]>,
}

/// The key that new files are written with, and those that old files may still need.
#[derive(Clone, Debug)]
pub struct Keys {
    active: Key,
    retired: Vec<Key>,
}

/// What the first bytes of a file say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What kind of file it is.
    pub magic: [u8; 8],
    /// The version of its format.
    pub version: u32,
    /// The key that it is encrypted with.
    pub key_id: u64,
    /// The file's number: a segment's place in the log, a checkpoint's applied index.
    pub number: u64,
    salt: [u8; 16],
    check: [u8; 16],
}

/// Seals and opens the parts of one file. A number is used for one part only.
pub struct Cipher {
    key: LessSafeKey,
}

/// Why a file cannot be read with the keys at hand.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CryptError {
    /// The header is damaged, or the file is of another kind.
    #[error("the file header is damaged")]
    Header,
    /// The format is newer than this program.
    #[error(
        "file format version {found} is unknown to this version, which knows up to {known}: use the newer program"
    )]
    Version {
        /// What the file says.
        found: u32,
        /// The newest that this code reads.
        known: u32,
    },
    /// A format was asked for that this code cannot write.
    #[error("format version {version} cannot be written by this version, which writes {oldest} to {newest}")]
    Unwritable {
        /// What was asked for.
        version: u32,
        /// The oldest that can be written.
        oldest: u32,
        /// The newest.
        newest: u32,
    },
    /// No key of that id was given.
    #[error("the file is encrypted with key {id}, which was not given")]
    UnknownKey {
        /// The key's id.
        id: u64,
    },
    /// The key of that id has other material than the one that wrote the file.
    #[error("key {id} is not the key that the file was written with")]
    WrongKey {
        /// The key's id.
        id: u64,
    },
    /// The text was changed, though its checksum holds.
    #[error("the data does not authenticate: it was changed by someone without the key")]
    Forged,
    /// The cipher refused a key or a length.
    #[error("the cipher cannot be used")]
    Cipher,
}

// === impl Key ===

impl Key {
    /// A key from its material.
    pub fn new(id: u64, material: [u8; 32]) -> Self {
        Self { id, material: Zeroizing::new(material) }
    }

    /// The name of the key.
    pub fn id(&self) -> u64 {
        self.id
    }

    fn derive(&self, purpose: &[u8], magic: &[u8; 8], salt: &[u8; 16]) -> Zeroizing<[u8; 32]> {
        let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, &self.material[..]));
        context.update(purpose);
        context.update(magic);
        context.update(salt);
        let mut derived = Zeroizing::new([0; 32]);
        derived.copy_from_slice(context.sign().as_ref());
        derived
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key").field("id", &self.id).finish_non_exhaustive()
    }
}

// === impl Keys ===

impl Keys {
    /// New files are written with `active`; files written with a retired key can still be read.
    pub fn new(active: Key, retired: Vec<Key>) -> Self {
        Self { active, retired }
    }

    /// The same keys with another one for new files; the one of now is kept for those that there are.
    pub fn succeeded_by(&self, key: Key) -> Self {
        let mut retired = self.retired.clone();
        retired.push(self.active.clone());
        retired.retain(|old| old.id != key.id);
        Self { active: key, retired }
    }

    /// The id of the key that new files are written with.
    pub fn active_id(&self) -> u64 {
        self.active.id
    }

    /// The cipher for a new file, with the header that leads back to it.
    pub fn create(
        &self,
        magic: [u8; 8],
        version: u32,
        number: u64,
        rng: &mut impl RngCore,
    ) -> Result<(Header, Cipher), CryptError> {
        let mut salt = [0; 16];
        rng.fill_bytes(&mut salt);
        let key_id = self.active.id;
        let check = check(&self.active, &magic, &salt);
        let header = Header { magic, version, key_id, number, salt, check };
        Ok((header, Cipher::new(&self.active, &header)?))
    }

    /// The cipher of an existing file.
    pub fn open(&self, header: &Header) -> Result<Cipher, CryptError> {
        let id = header.key_id;
        let mut keys = std::iter::once(&self.active).chain(&self.retired);
        let key = keys.find(|key| key.id == id).ok_or(CryptError::UnknownKey { id })?;
        if check(key, &header.magic, &header.salt) != header.check {
            return Err(CryptError::WrongKey { id });
        }
        Cipher::new(key, header)
    }
}

fn check(key: &Key, magic: &[u8; 8], salt: &[u8; 16]) -> [u8; 16] {
    let mut check = [0; 16];
    check.copy_from_slice(&key.derive(b"orlop key check", magic, salt)[..16]);
    check
}

// === impl Header ===

impl Header {
    /// The header as bytes.
    pub fn encode(&self) -> [u8; HEADER_LEN] {
        let mut out = [0; HEADER_LEN];
        out[..8].copy_from_slice(&self.magic);
        out[8..12].copy_from_slice(&self.version.to_le_bytes());
        out[16..24].copy_from_slice(&self.key_id.to_le_bytes());
        out[24..32].copy_from_slice(&self.number.to_le_bytes());
        out[32..48].copy_from_slice(&self.salt);
        out[48..64].copy_from_slice(&self.check);
        let crc = crc32fast::hash(&out);
        out[12..16].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// Reads a header of a file of this kind.
    pub fn decode(data: &[u8], magic: &[u8; 8], known: u32) -> Result<Self, CryptError> {
        let data: &[u8; HEADER_LEN] = data.first_chunk().ok_or(CryptError::Header)?;
        let mut unsigned = *data;
        unsigned[12..16].fill(0);
        let crc = crc32fast::hash(&unsigned).to_le_bytes();
        if data[..8] != magic[..] || data[12..16] != crc {
            return Err(CryptError::Header);
        }
        let word = |at: usize| le_u64(&data[at..at + 8]);
        let version = le_u32(&data[8..12]);
        if version > known {
            return Err(CryptError::Version { found: version, known });
        }
        let mut header = Self {
            magic: *magic,
            version,
            key_id: word(16),
            number: word(24),
            salt: [0; 16],
            check: [0; 16],
        };
        header.salt.copy_from_slice(&data[32..48]);
        header.check.copy_from_slice(&data[48..64]);
        Ok(header)
    }
}

/// The id of the key that a file with this header is encrypted with, whatever kind of file it is; `None` when it has no header.
pub fn key_id(data: &[u8]) -> Option<u64> {
    let magic = data.first_chunk()?;
    Header::decode(data, magic, u32::MAX).ok().map(|header| header.key_id)
}

/// The first four bytes as a number; missing ones are zero.
pub(crate) fn le_u32(data: &[u8]) -> u32 {
    le_u64(&data[..data.len().min(4)]) as u32
}

/// The first eight bytes as a number; missing ones are zero.
pub(crate) fn le_u64(data: &[u8]) -> u64 {
    data.iter().take(8).rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

// === impl Cipher ===

impl Cipher {
    fn new(key: &Key, header: &Header) -> Result<Self, CryptError> {
        let derived = key.derive(b"orlop file key", &header.magic, &header.salt);
        let key = UnboundKey::new(&AES_256_GCM, &derived[..]).map_err(|_| CryptError::Cipher)?;
        Ok(Self { key: LessSafeKey::new(key) })
    }

    /// Encrypts `text` in place; the tag belongs behind it.
    pub fn seal(&self, number: u64, context: &[u8], text: &mut [u8]) -> Result<[u8; TAG_LEN], CryptError> {
        let sealed = self.key.seal_in_place_separate_tag(nonce(number), Aad::from(context), text);
        let tag: Tag = sealed.map_err(|_| CryptError::Cipher)?;
        let mut out = [0; TAG_LEN];
        out.copy_from_slice(tag.as_ref());
        Ok(out)
    }

    /// Decrypts text with its tag in place; returns the length of the plain text.
    pub fn open(&self, number: u64, context: &[u8], sealed: &mut [u8]) -> Result<usize, CryptError> {
        let opened = self.key.open_in_place(nonce(number), Aad::from(context), sealed);
        opened.map(|text| text.len()).map_err(|_| CryptError::Forged)
    }

    /// Decrypts owned text with its tag.
    pub fn open_owned(&self, number: u64, context: &[u8], mut sealed: Vec<u8>) -> Result<Bytes, CryptError> {
        let len = self.open(number, context, &mut sealed)?;
        sealed.truncate(len);
        Ok(sealed.into())
    }
}

impl fmt::Debug for Cipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cipher").finish_non_exhaustive()
    }
}

fn nonce(number: u64) -> Nonce {
    let mut nonce = [0; 12];
    nonce[..8].copy_from_slice(&number.to_le_bytes());
    Nonce::assume_unique_for_key(nonce)
}
