//! The format of checkpoints: the whole state at one index, in sealed blocks, written and read as a stream.
//!
//! ```text
//! checkpoint = header (crypt::HEADER_LEN bytes, number = applied index), block*
//! block      = length u32 | CRC-32 u32 of the sealed text | sealed text, tag
//! text       = 1, facts   |   2, objects   |   2, objects, 3
//! ```
//!
//! Blocks are sealed under their number. The last one ends the file, so that a truncated one is seen. A member that
//! sends its state to another sends the texts; the receiver seals them with its own key.

mod receive;
mod texts;

use std::collections::BTreeMap;

use bytes::Bytes;
use raft::eraftpb::ConfState;
use rand::RngCore;

use crate::crypt::{Cipher, CryptError, HEADER_LEN, Header, Keys, TAG_LEN, le_u32};
use crate::disk::{Disk, DiskError, DiskReader, read_full};
use crate::members::Members;
use crate::snapshot::{Entry, Snapshot};
use crate::state::{Applied, Session, StateMachine};
use crate::wire::WireError;

pub use receive::{Received, Receiver};
pub use texts::Texts;

/// What a checkpoint's header begins with.
pub const MAGIC: [u8; 8] = *b"ORLOPCKP";
/// The version that this code writes.
pub const VERSION: u32 = 2;
/// The oldest version that this code can still write: that of the program before, for who goes back to it.
pub const OLDEST_WRITTEN: u32 = VERSION - 1;

const BLOCK: usize = 256 << 10;
const SYNC_EVERY: usize = 4 << 20;
const BLOCK_LIMIT: usize = 64 << 20;

/// What a checkpoint holds: a state, and the group's members at that point. Cheap to make and to clone.
#[derive(Clone, Debug, Default)]
pub struct Image {
    /// Where in the log the state stands.
    pub applied: Applied,
    /// The group's members.
    pub conf_state: ConfState,
    /// Which commands were applied.
    pub sessions: BTreeMap<u64, Session>,
    /// Who the members are and were.
    pub members: Members,
    /// Whether the leader sent it: then the log before it may be one that the group never agreed on.
    pub received: bool,
    /// The live keys.
    pub snapshot: Snapshot,
}

/// Why a checkpoint cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    /// The disk failed.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The file cannot be opened with the keys at hand.
    #[error(transparent)]
    Crypt(#[from] CryptError),
    /// The file is damaged.
    #[error("block {block} is damaged: {reason}")]
    Damaged {
        /// Which block.
        block: u64,
        /// What is wrong.
        reason: &'static str,
    },
    /// A block's text makes no sense.
    #[error("block {block} cannot be understood: {source}")]
    Content {
        /// Which block.
        block: u64,
        /// Why.
        source: WireError,
    },
}

/// Turns an image into the bytes of a checkpoint, one block at a time.
pub struct Encoder {
    texts: Texts,
    sealer: Sealer,
}

/// Seals texts as the blocks of one file.
struct Sealer {
    cipher: Cipher,
    header: Header,
    block: u64,
}

// === impl Image ===

impl Image {
    /// The state that this image holds.
    pub fn into_state(self) -> StateMachine {
        StateMachine::restore(self.snapshot, self.applied, self.sessions, self.members)
    }
}

// === impl Encoder ===

impl Encoder {
    /// An encoder that seals with the active key.
    pub fn new(image: Image, keys: &Keys, rng: &mut impl RngCore) -> Result<Self, CryptError> {
        Self::of_version(image, VERSION, keys, rng)
    }

    /// An encoder for a program that knows checkpoints up to this version only.
    ///
    /// # Errors
    /// When the version is none that this code can write.
    pub fn of_version(
        image: Image,
        version: u32,
        keys: &Keys,
        rng: &mut impl RngCore,
    ) -> Result<Self, CryptError> {
        if !(OLDEST_WRITTEN..=VERSION).contains(&version) {
            return Err(CryptError::Unwritable { version, oldest: OLDEST_WRITTEN, newest: VERSION });
        }
        let sealer = Sealer::new(image.applied.index, version, keys, rng)?;
        Ok(Self { texts: Texts::of_version(image, version), sealer })
    }

    /// The next bytes; `None` at the end.
    pub fn next_block(&mut self) -> Result<Option<Vec<u8>>, CryptError> {
        let start = self.sealer.start();
        let at = start.len();
        match self.texts.next_text(start) {
            Some(block) => Ok(Some(self.sealer.seal(block, at)?)),
            None => Ok(None),
        }
    }
}

// === impl Sealer ===

impl Sealer {
    fn new(index: u64, version: u32, keys: &Keys, rng: &mut impl RngCore) -> Result<Self, CryptError> {
        let (header, cipher) = keys.create(MAGIC, version, index, rng)?;
        Ok(Self { cipher, header, block: 0 })
    }

    /// What comes before the next block's text.
    fn start(&self) -> Vec<u8> {
        let mut start = Vec::with_capacity(BLOCK + 4096);
        if self.block == 0 {
            start.extend_from_slice(&self.header.encode());
        }
        start.extend_from_slice(&[0; 8]);
        start
    }

    /// Seals the text that begins at `at`, behind what [`Self::start`] gave.
    fn seal(&mut self, mut block: Vec<u8>, at: usize) -> Result<Vec<u8>, CryptError> {
        let tag = self.cipher.seal(self.block, &[], &mut block[at..])?;
        block.extend_from_slice(&tag);
        self.block += 1;
        let len = (block.len() - at) as u32;
        let crc = crc32fast::hash(&block[at..]);
        block[at - 8..at - 4].copy_from_slice(&len.to_le_bytes());
        block[at - 4..at].copy_from_slice(&crc.to_le_bytes());
        Ok(block)
    }
}

/// Reads a checkpoint, and checks it against its own count and hash.
pub fn read(reader: &mut dyn DiskReader, keys: &Keys) -> Result<(Header, Image), CheckpointError> {
    read_beside(reader, keys, &Snapshot::default())
}

/// Reads a checkpoint while another state is held: what is the same in both takes no memory of its own.
pub(crate) fn read_beside(
    reader: &mut dyn DiskReader,
    keys: &Keys,
    held: &Snapshot,
) -> Result<(Header, Image), CheckpointError> {
    let mut objects = Vec::new();
    let (header, meta) = visit(reader, keys, |key, entry| objects.push(held.shared(key, entry)))?;
    let data_bytes = objects.iter().map(|(key, entry)| (key.len() + entry.value.len()) as u64).sum();
    let facts = meta.image;
    let snapshot = Snapshot { objects: objects.into_iter().collect(), data_bytes, ..facts.snapshot };
    Ok((header, Image { snapshot, ..facts }))
}

/// Reads a checkpoint through without keeping it; returns where in the log it stands.
pub fn verify(reader: &mut dyn DiskReader, keys: &Keys) -> Result<Applied, CheckpointError> {
    let (_, meta) = visit(reader, keys, |_, _| ())?;
    Ok(meta.image.applied)
}

/// Writes a checkpoint beside its final name, syncs it, gives it its name, and reads it back.
///
/// When this returns, what the checkpoint covers may be removed.
pub fn write(
    disk: &dyn Disk,
    keys: &Keys,
    rng: &mut impl RngCore,
    image: Image,
) -> Result<Applied, CheckpointError> {
    let index = image.applied.index;
    let (partial, name) = (partial_name(index), name(index));
    if disk.list()?.contains(&partial) {
        disk.remove(&partial)?;
    }
    let mut encoder = Encoder::new(image, keys, rng)?;
    let written = write_blocks(disk, &partial, &mut encoder);
    if let Err(error) = written {
        // What was written is of no use and may fill the disk; it is removed at the next start if not now.
        let _ = disk.remove(&partial);
        return Err(error);
    }
    disk.rename(&partial, &name)?;
    disk.sync_dir()?;
    verify(&mut *disk.open(&name)?, keys)
}

fn write_blocks(disk: &dyn Disk, name: &str, encoder: &mut Encoder) -> Result<(), CheckpointError> {
    let mut file = disk.create(name, 0)?;
    let mut unsynced = 0;
    while let Some(block) = encoder.next_block()? {
        file.append(&block)?;
        // Synced in small parts, so that the log's own syncs never wait behind a large one.
        unsynced += block.len();
        if unsynced >= SYNC_EVERY {
            file.sync()?;
            unsynced = 0;
        }
    }
    Ok(file.sync()?)
}

/// The name of the checkpoint at an applied index.
pub fn name(index: u64) -> String {
    format!("checkpoint-{index:016x}")
}

/// The name of a checkpoint that is being written.
fn partial_name(index: u64) -> String {
    format!("{}.partial", name(index))
}

fn visit(
    reader: &mut dyn DiskReader,
    keys: &Keys,
    mut object: impl FnMut(Bytes, Entry),
) -> Result<(Header, texts::Meta), CheckpointError> {
    let mut head = [0; HEADER_LEN];
    let len = read_full(reader, &mut head)?;
    let header = Header::decode(&head[..len], &MAGIC, VERSION)?;
    let cipher = keys.open(&header)?;
    let text = next_text(reader, &cipher, 0)?;
    let meta = texts::read_meta(&text, header.version)
        .map_err(|source| CheckpointError::Content { block: 0, source })?;
    let (mut block, mut count, mut hash) = (0, 0, 0u64);
    let mut ended = false;
    while !ended {
        block += 1;
        let text = next_text(reader, &cipher, block)?;
        let mut taken = |key: Bytes, entry: Entry| {
            count += 1;
            hash = hash.wrapping_add(crate::hash::entry(&key, entry.revision, &entry.value));
            object(key, entry);
        };
        ended = texts::read_objects(&text, &mut taken)
            .map_err(|source| CheckpointError::Content { block, source })?;
    }
    let damaged = |reason| Err(CheckpointError::Damaged { block, reason });
    if count != meta.count {
        return damaged("objects are missing");
    }
    if hash != meta.image.snapshot.hash {
        return damaged("the state hash differs");
    }
    if reader.read(&mut [0])? != 0 {
        return damaged("more follows the end");
    }
    Ok((header, meta))
}

fn next_text(reader: &mut dyn DiskReader, cipher: &Cipher, block: u64) -> Result<Bytes, CheckpointError> {
    let damaged = |reason| CheckpointError::Damaged { block, reason };
    let mut head = [0; 8];
    if read_full(reader, &mut head)? < head.len() {
        return Err(damaged("the file ends too early"));
    }
    let len = le_u32(&head) as usize;
    if !(TAG_LEN..=BLOCK_LIMIT).contains(&len) {
        return Err(damaged("its length is wrong"));
    }
    let mut sealed = vec![0; len];
    if read_full(reader, &mut sealed)? < len {
        return Err(damaged("the file ends too early"));
    }
    if crc32fast::hash(&sealed) != le_u32(&head[4..]) {
        return Err(damaged("its checksum is wrong"));
    }
    Ok(cipher.open_owned(block, &[], sealed)?)
}

#[cfg(test)]
mod tests;
