//! Backups: one file with the whole state at one revision and what else the cluster cannot be made again from, sealed with a
//! key of its own.
//!
//! ```text
//! backup = header | length u32 | sealed facts, tag | checkpoint (store_core::checkpoint)
//! ```

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use rand::SeedableRng;
use rand_chacha::ChaCha20Rng;
use store_core::checkpoint::{self, CheckpointError, Encoder, Image};
use store_core::crypt::{CryptError, HEADER_LEN, Header, Key, Keys, TAG_LEN};
use store_core::disk::{DiskError, DiskReader};

/// The newest version of the state's encoding.
pub const FORMAT: u32 = checkpoint::VERSION;
/// The oldest version of the state's encoding that can be written.
pub const OLDEST_FORMAT: u32 = checkpoint::OLDEST_WRITTEN;
/// What a backup begins with.
const MAGIC: [u8; 8] = *b"ORLOPBAK";
/// The version that this code writes.
const VERSION: u32 = 1;
/// The key's name within the file; there is one.
const KEY_ID: u64 = 1;
/// Facts are small: certificates, keys and names.
const FACTS_LIMIT: u32 = 1 << 20;

/// Turns a state into the bytes of a backup, piece by piece.
pub struct Backup {
    begin: Option<Vec<u8>>,
    encoder: Encoder,
}

/// Why a backup cannot be made or read.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The file cannot be read.
    #[error("the file cannot be read")]
    Read(#[from] std::io::Error),
    /// It is not a backup, or the key is not its key.
    #[error(transparent)]
    Crypt(#[from] CryptError),
    /// The state in it is damaged.
    #[error("the backup is damaged")]
    Damaged(#[source] CheckpointError),
    /// It ends before its facts.
    #[error("the backup is damaged: it ends early")]
    Short,
}

// === impl Backup ===

impl Backup {
    /// A backup of a state, sealed with this key. `facts` are whatever the caller needs to make a cluster of it again. `format`
    /// is the version of the state's encoding ([`FORMAT`] unless an earlier program is to read it).
    ///
    /// # Errors
    /// When the cipher cannot be used, or the format cannot be written.
    pub fn new(
        image: Image,
        format: u32,
        facts: &[u8],
        key: [u8; 32],
        seed: [u8; 32],
    ) -> Result<Backup, BackupError> {
        let keys = keys(key);
        let mut rng = ChaCha20Rng::from_seed(seed);
        let (header, cipher) = keys.create(MAGIC, VERSION, 0, &mut rng)?;
        let mut sealed = facts.to_vec();
        let tag = cipher.seal(0, &MAGIC, &mut sealed)?;
        sealed.extend_from_slice(&tag);
        let mut begin = header.encode().to_vec();
        begin.extend_from_slice(&u32::try_from(sealed.len()).unwrap_or(u32::MAX).to_le_bytes());
        begin.extend_from_slice(&sealed);
        Ok(Backup { begin: Some(begin), encoder: Encoder::of_version(image, format, &keys, &mut rng)? })
    }

    /// The next piece; `None` at the end.
    ///
    /// # Errors
    /// When the cipher cannot be used.
    pub fn next_piece(&mut self) -> Result<Option<Vec<u8>>, BackupError> {
        match self.begin.take() {
            Some(begin) => Ok(Some(begin)),
            None => Ok(self.encoder.next_block()?),
        }
    }
}

/// Reads a backup whole, and so checks it: its facts, and its state.
///
/// # Errors
/// When it is damaged, or the key is another's.
pub fn read(path: &Path, key: [u8; 32]) -> Result<(Vec<u8>, Image), BackupError> {
    let keys = keys(key);
    let mut file = File::open(path)?;
    let mut head = [0; HEADER_LEN];
    file.read_exact(&mut head).map_err(|_| BackupError::Short)?;
    let cipher = keys.open(&Header::decode(&head, &MAGIC, VERSION)?)?;
    let mut length = [0; 4];
    file.read_exact(&mut length).map_err(|_| BackupError::Short)?;
    let length = u32::from_le_bytes(length);
    if length > FACTS_LIMIT || (length as usize) < TAG_LEN {
        return Err(BackupError::Short);
    }
    let mut sealed = vec![0; length as usize];
    file.read_exact(&mut sealed).map_err(|_| BackupError::Short)?;
    let plain = cipher.open(0, &MAGIC, &mut sealed)?;
    sealed.truncate(plain);
    let mut rest = Rest::new(file)?;
    let (_, image) = checkpoint::read(&mut rest, &keys).map_err(BackupError::Damaged)?;
    Ok((sealed, image))
}

fn keys(key: [u8; 32]) -> Keys {
    Keys::new(Key::new(KEY_ID, key), Vec::new())
}

/// A file from where it stands to its end.
struct Rest {
    file: File,
    length: u64,
}

impl Rest {
    fn new(mut file: File) -> std::io::Result<Rest> {
        let at = file.stream_position()?;
        let end = file.seek(SeekFrom::End(0))?;
        file.seek(SeekFrom::Start(at))?;
        Ok(Rest { file, length: end.saturating_sub(at) })
    }
}

impl DiskReader for Rest {
    fn len(&self) -> u64 {
        self.length
    }

    fn read(&mut self, into: &mut [u8]) -> Result<usize, DiskError> {
        let failed = |error: std::io::Error| DiskError::Io {
            operation: "read",
            name: "the backup".to_owned(),
            reason: error.to_string(),
        };
        self.file.read(into).map_err(failed)
    }
}

#[cfg(test)]
mod tests {
    use store_core::Snapshot;

    use super::*;

    fn written(dir: &Path) -> std::path::PathBuf {
        written_as(FORMAT, dir)
    }

    fn written_as(format: u32, dir: &Path) -> std::path::PathBuf {
        let snapshot = Snapshot::for_tests((0..1000).map(|key| (format!("key-{key:04}"), "x".repeat(600))));
        let image = Image { snapshot, ..Image::default() };
        let mut backup = Backup::new(image, format, b"facts", [7; 32], [1; 32]).expect("begun");
        let mut bytes = Vec::new();
        while let Some(piece) = backup.next_piece().expect("sealed") {
            bytes.extend_from_slice(&piece);
        }
        let path = dir.join("backup");
        std::fs::write(&path, bytes).expect("written");
        path
    }

    #[test]
    fn what_is_written_is_read() {
        let dir = tempfile::tempdir().expect("a folder");
        let (facts, image) = read(&written(dir.path()), [7; 32]).expect("read");
        assert_eq!(facts, b"facts");
        assert_eq!(image.snapshot.len(), 1000);
    }

    #[test]
    fn the_program_before_can_read_what_is_written_for_it() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = written_as(OLDEST_FORMAT, dir.path());
        let (facts, image) = read(&path, [7; 32]).expect("read");
        assert_eq!((facts, image.snapshot.len()), (b"facts".to_vec(), 1000));
        // What that program looks at: a state of the version that it knows.
        let bytes = std::fs::read(&path).expect("read");
        let length = u32::from_le_bytes(bytes[HEADER_LEN..HEADER_LEN + 4].try_into().expect("four bytes"));
        let state = &bytes[HEADER_LEN + 4 + length as usize..];
        let header =
            Header::decode(state, &checkpoint::MAGIC, OLDEST_FORMAT).expect("a version that it knows");
        assert_eq!(header.version, OLDEST_FORMAT);
        let unknown = Backup::new(Image::default(), OLDEST_FORMAT - 1, b"", [7; 32], [1; 32]);
        assert!(matches!(unknown, Err(BackupError::Crypt(CryptError::Unwritable { .. }))));
    }

    #[test]
    fn another_key_and_every_damage_are_told() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = written(dir.path());
        assert!(matches!(read(&path, [8; 32]), Err(BackupError::Crypt(CryptError::WrongKey { .. }))));
        let bytes = std::fs::read(&path).expect("read");
        for at in (0..bytes.len()).step_by(bytes.len() / 97) {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x10;
            std::fs::write(&path, &damaged).expect("written");
            assert!(read(&path, [7; 32]).is_err(), "byte {at}");
        }
        for length in [0, 10, HEADER_LEN, HEADER_LEN + 3, bytes.len() / 2, bytes.len() - 1] {
            std::fs::write(&path, &bytes[..length]).expect("written");
            assert!(read(&path, [7; 32]).is_err(), "{length} bytes");
        }
    }
}
