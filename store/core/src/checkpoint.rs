//! The format of checkpoints: the whole state at one index, in sealed blocks, written and read as a stream.
//!
//! ```text
//! checkpoint = header (crypt::HEADER_LEN bytes, number = applied index), block*
//! block      = length u32 | CRC-32 u32 of the sealed text | sealed text, tag
//! text       = 1, meta   |   2, objects   |   3, count of objects
//! ```
//!
//! Blocks are sealed under their number. The last one ends the file, so that a truncated one is seen.

use std::collections::BTreeMap;
use std::ops::Bound;

use bytes::Bytes;
use raft::eraftpb::ConfState;
use rand::RngCore;

use crate::crypt::{Cipher, CryptError, HEADER_LEN, Header, Keys, TAG_LEN, le_u32};
use crate::disk::{Disk, DiskError, DiskReader, read_full};
use crate::snapshot::{Entry, Snapshot};
use crate::state::{Applied, Session, StateMachine};
use crate::wire::{Reader, WireError, Writer};

/// What a checkpoint's header begins with.
pub const MAGIC: [u8; 8] = *b"ORLOPCKP";
/// The version that this code writes.
pub const VERSION: u32 = 1;

const BLOCK: usize = 256 << 10;
const SYNC_EVERY: usize = 4 << 20;
const BLOCK_LIMIT: usize = 64 << 20;
const META: u8 = 1;
const OBJECTS: u8 = 2;
const END: u8 = 3;

/// What a checkpoint holds: a state, and the group's members at that point. Cheap to make and to clone.
#[derive(Clone, Debug, Default)]
pub struct Image {
    /// Where in the log the state stands.
    pub applied: Applied,
    /// The group's members.
    pub conf_state: ConfState,
    /// Which commands were applied.
    pub sessions: BTreeMap<u64, Session>,
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
    image: Image,
    cipher: Cipher,
    header: Header,
    block: u64,
    stage: Stage,
}

enum Stage {
    Meta,
    Objects { behind: Option<Bytes> },
    Done,
}

/// The facts of a checkpoint besides its objects.
struct Meta {
    image: Image,
    count: u64,
}

// === impl Image ===

impl Image {
    /// The state that this image holds.
    pub fn into_state(self) -> StateMachine {
        StateMachine::restore(self.snapshot, self.applied, self.sessions)
    }
}

// === impl Encoder ===

impl Encoder {
    /// An encoder that seals with the active key.
    pub fn new(image: Image, keys: &Keys, rng: &mut impl RngCore) -> Result<Self, CryptError> {
        let (header, cipher) = keys.create(MAGIC, VERSION, image.applied.index, rng)?;
        Ok(Self { image, cipher, header, block: 0, stage: Stage::Meta })
    }

    /// The next bytes; `None` at the end.
    pub fn next_block(&mut self) -> Result<Option<Vec<u8>>, CryptError> {
        let mut start = Vec::with_capacity(BLOCK + 4096);
        if self.block == 0 {
            start.extend_from_slice(&self.header.encode());
        }
        let at = start.len();
        start.extend_from_slice(&[0; 8]);
        let mut out = Writer::behind(start);
        match std::mem::replace(&mut self.stage, Stage::Done) {
            Stage::Meta => {
                self.meta(&mut out);
                self.stage = Stage::Objects { behind: None };
            }
            Stage::Objects { behind } => self.objects(&mut out, behind),
            Stage::Done => return Ok(None),
        }
        let mut out = out.finish();
        let tag = self.cipher.seal(self.block, &[], &mut out[at + 8..])?;
        out.extend_from_slice(&tag);
        self.block += 1;
        let len = (out.len() - at - 8) as u32;
        let crc = crc32fast::hash(&out[at + 8..]);
        out[at..at + 4].copy_from_slice(&len.to_le_bytes());
        out[at + 4..at + 8].copy_from_slice(&crc.to_le_bytes());
        Ok(Some(out))
    }

    fn meta(&self, out: &mut Writer) {
        let Image { applied, conf_state, sessions, snapshot } = &self.image;
        out.u8(META);
        out.varint(applied.index);
        out.varint(applied.term);
        out.numbers(&conf_state.voters);
        out.numbers(&conf_state.learners);
        out.numbers(&conf_state.voters_outgoing);
        out.numbers(&conf_state.learners_next);
        out.u8(u8::from(conf_state.auto_leave));
        out.varint(sessions.len() as u64);
        for (member, session) in sessions {
            out.numbers(&[*member, session.boot, session.highest, session.window]);
        }
        out.varint(snapshot.revision);
        out.varint(snapshot.compacted_revision);
        out.varint(snapshot.hash);
        out.varint(snapshot.len() as u64);
    }

    fn objects(&mut self, out: &mut Writer, behind: Option<Bytes>) {
        let from = behind.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        out.u8(OBJECTS);
        for (key, entry) in self.image.snapshot.objects.range::<_, [u8]>((from, Bound::Unbounded)) {
            out.bytes(key);
            out.varint(entry.revision);
            out.varint(entry.revision - entry.create_revision);
            out.optional(entry.expires_at_ms().map(|ms| ms as u64));
            out.optional(entry.splice_at().map(u64::from));
            out.bytes(&entry.value);
            if out.len() >= BLOCK {
                self.stage = Stage::Objects { behind: Some(key.clone()) };
                return;
            }
        }
        out.u8(END);
    }
}

/// Reads a checkpoint, and checks it against its own count and hash.
pub fn read(reader: &mut dyn DiskReader, keys: &Keys) -> Result<(Header, Image), CheckpointError> {
    let mut image = Image::default();
    let mut objects = Vec::new();
    let (header, meta) = visit(reader, keys, |key, entry| objects.push((key, entry)))?;
    image.applied = meta.image.applied;
    image.conf_state = meta.image.conf_state;
    image.sessions = meta.image.sessions;
    let data_bytes = objects.iter().map(|(key, entry)| (key.len() + entry.value.len()) as u64).sum();
    image.snapshot = Snapshot { objects: objects.into_iter().collect(), data_bytes, ..meta.image.snapshot };
    Ok((header, image))
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
) -> Result<(Header, Meta), CheckpointError> {
    let mut head = [0; HEADER_LEN];
    let len = read_full(reader, &mut head)?;
    let header = Header::decode(&head[..len], &MAGIC, VERSION)?;
    let cipher = keys.open(&header)?;
    let text = next_text(reader, &cipher, 0)?;
    let meta = read_meta(&text).map_err(|source| CheckpointError::Content { block: 0, source })?;
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
        ended =
            read_objects(&text, &mut taken).map_err(|source| CheckpointError::Content { block, source })?;
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

fn read_meta(text: &Bytes) -> Result<Meta, WireError> {
    let mut input = Reader::new(text);
    expect(input.u8()?, META)?;
    let applied = Applied { index: input.varint()?, term: input.varint()? };
    let conf_state = ConfState {
        voters: input.numbers()?,
        learners: input.numbers()?,
        voters_outgoing: input.numbers()?,
        learners_next: input.numbers()?,
        auto_leave: input.u8()? != 0,
        ..ConfState::default()
    };
    let mut sessions = BTreeMap::new();
    for _ in 0..input.count(5)? {
        let [member, boot, highest, window] = input.numbers()?[..] else {
            return Err(WireError::Range);
        };
        sessions.insert(member, Session { boot, highest, window });
    }
    let snapshot = Snapshot {
        revision: input.varint()?,
        compacted_revision: input.varint()?,
        hash: input.varint()?,
        ..Snapshot::default()
    };
    let count = input.varint()?;
    input.end()?;
    Ok(Meta { image: Image { applied, conf_state, sessions, snapshot }, count })
}

/// Reads a block of objects; returns whether it is the last.
fn read_objects(text: &Bytes, object: &mut impl FnMut(Bytes, Entry)) -> Result<bool, WireError> {
    let mut input = Reader::new(text);
    expect(input.u8()?, OBJECTS)?;
    while input.left() > 1 {
        let key = Bytes::copy_from_slice(&input.bytes()?);
        let revision = input.varint()?;
        let created = revision.checked_sub(input.varint()?).ok_or(WireError::Range)?;
        let expires_at_ms = input.optional()?.map(|ms| ms as i64);
        let splice_at = input.optional()?.map(|at| at as u32);
        let value = Bytes::copy_from_slice(&input.bytes()?);
        object(key, Entry::new(value, created, revision, expires_at_ms, splice_at));
    }
    if input.left() == 0 {
        return Ok(false);
    }
    expect(input.u8()?, END)?;
    Ok(true)
}

fn expect(found: u8, expected: u8) -> Result<(), WireError> {
    if found == expected { Ok(()) } else { Err(WireError::Tag { found }) }
}

#[cfg(test)]
mod tests;
