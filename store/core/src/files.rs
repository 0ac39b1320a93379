//! The log as files: segments that are filled one after the other and removed when a checkpoint covers them.

use std::sync::Arc;

use raft::eraftpb::HardState;
use rand_chacha::ChaCha20Rng;

use crate::crypt::{Cipher, CryptError, HEADER_LEN, Keys};
use crate::disk::{Disk, DiskError, DiskFile};
use crate::log::{self, Record};

/// Room that stays free in a segment for what the group writes of its own accord.
const SLACK: u64 = 64 << 10;

/// A segment that is no longer written to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sealed {
    /// Its place in the log.
    pub number: u64,
    /// The largest index of its entries; 0 when it has none.
    pub last_index: u64,
}

/// Why the log could not be written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FilesError {
    /// The disk failed.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The cipher failed.
    #[error(transparent)]
    Crypt(#[from] CryptError),
}

/// The log's files. Writes go to one segment, whose room is reserved ahead: when the disk is full, that shows
/// before a write is accepted, not in its midst.
pub struct LogFiles {
    disk: Arc<dyn Disk>,
    keys: Keys,
    rng: ChaCha20Rng,
    segment_bytes: u64,
    sealed: Vec<Sealed>,
    active: Option<Active>,
    next_number: u64,
    hard_state: HardState,
    buffer: Vec<u8>,
}

struct Active {
    file: Box<dyn DiskFile>,
    cipher: Cipher,
    number: u64,
    last_index: u64,
    len: u64,
    durable: u64,
    capacity: u64,
    has_hard_state: bool,
}

// === impl Sealed ===

impl Sealed {
    /// The name of its file.
    pub fn name(&self) -> String {
        segment_name(self.number)
    }
}

/// The name of a segment's file.
pub fn segment_name(number: u64) -> String {
    format!("log-{number:016x}")
}

// === impl LogFiles ===

impl LogFiles {
    /// A log that goes on behind `sealed` segments. No file is made before something is written.
    pub fn new(
        disk: Arc<dyn Disk>,
        keys: Keys,
        rng: ChaCha20Rng,
        segment_bytes: u64,
        sealed: Vec<Sealed>,
        next_number: u64,
        hard_state: HardState,
    ) -> Self {
        let (active, buffer) = (None, Vec::new());
        Self { disk, keys, rng, segment_bytes, sealed, active, next_number, hard_state, buffer }
    }

    /// How many segments there are.
    pub fn segments(&self) -> usize {
        self.sealed.len() + usize::from(self.active.is_some())
    }

    /// Makes sure that `bytes` can be appended without asking the disk for room.
    pub fn reserve(&mut self, bytes: u64) -> Result<(), FilesError> {
        let needed = bytes + SLACK;
        if self.active.as_ref().is_some_and(|active| active.len + needed <= active.capacity) {
            return Ok(());
        }
        self.roll(needed)
    }

    /// Appends a record. It is durable after the next [`Self::sync`].
    pub fn append(&mut self, record: &Record) -> Result<(), FilesError> {
        let data: usize = record.entries.iter().map(|entry| entry.data.len() + entry.context.len()).sum();
        let bound = log::size_bound(data, record.entries.len());
        if self.active.as_ref().is_none_or(|active| active.len + bound > active.capacity) {
            self.roll(bound + SLACK)?;
        }
        if let Some(state) = &record.hard_state {
            self.hard_state = state.clone();
        }
        let Some(active) = &mut self.active else {
            return Ok(());
        };
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.clear();
        if !active.has_hard_state && record.hard_state.is_none() {
            let first = Record { hard_state: Some(self.hard_state.clone()), entries: Vec::new() };
            buffer = log::seal(&first, &active.cipher, active.len, active.durable, buffer)?;
        }
        let at = active.len + buffer.len() as u64;
        buffer = log::seal(record, &active.cipher, at, active.durable, buffer)?;
        active.has_hard_state = true;
        active.file.append(&buffer)?;
        active.len += buffer.len() as u64;
        active.last_index = record.entries.iter().map(|entry| entry.index).fold(active.last_index, u64::max);
        self.buffer = buffer;
        Ok(())
    }

    /// Encrypts with other keys from the next segment on.
    pub fn rekey(&mut self, keys: Keys) {
        self.keys = keys;
    }

    /// Makes everything appended durable.
    pub fn sync(&mut self) -> Result<(), FilesError> {
        if let Some(active) = self.active.as_mut().filter(|active| active.durable < active.len) {
            active.file.sync()?;
            active.durable = active.len;
        }
        Ok(())
    }

    /// Begins a new segment with room for at least `needed` bytes.
    pub fn roll(&mut self, needed: u64) -> Result<(), FilesError> {
        self.sync()?;
        let number = self.next_number;
        let least = needed + HEADER_LEN as u64;
        let (header, cipher) = self.keys.create(log::MAGIC, log::VERSION, number, &mut self.rng)?;
        let name = segment_name(number);
        let (mut file, capacity) = self.create(&name, least)?;
        // The header is durable before the first record: a segment whose header is bad and whose rest is empty
        // was never used.
        file.append(&header.encode())?;
        file.sync()?;
        self.disk.sync_dir()?;
        self.next_number += 1;
        let len = HEADER_LEN as u64;
        let active = Active {
            file,
            cipher,
            number,
            last_index: 0,
            len,
            durable: len,
            capacity,
            has_hard_state: false,
        };
        if let Some(before) = self.active.replace(active) {
            self.sealed.push(Sealed { number: before.number, last_index: before.last_index });
            // Frees what was reserved and not used; it reads as zeros either way.
            self.disk.truncate(&segment_name(before.number), before.len)?;
        }
        Ok(())
    }

    /// Creates a segment's file: of the usual size, or, on a disk that is nearly full, no larger than needed.
    fn create(&self, name: &str, least: u64) -> Result<(Box<dyn DiskFile>, u64), DiskError> {
        let usual = self.segment_bytes.max(least);
        match self.disk.create(name, usual) {
            Ok(file) => return Ok((file, usual)),
            Err(DiskError::Full) if least < usual => {}
            // Left behind by an attempt that failed half-way; nothing was ever written to it.
            Err(DiskError::Exists { .. }) => self.disk.remove(name)?,
            Err(error) => return Err(error),
        }
        Ok((self.disk.create(name, least)?, least))
    }

    /// Begins anew behind a checkpoint that came as a whole: all that was written goes, but the hard state.
    pub fn restart(&mut self) -> Result<(), FilesError> {
        if self.active.is_some() {
            self.roll(SLACK)?;
        }
        let old = std::mem::take(&mut self.sealed);
        self.replace(&old)
    }

    /// Removes segments, oldest first, after what they say besides entries was written again and synced.
    pub fn replace(&mut self, old: &[Sealed]) -> Result<(), FilesError> {
        if old.is_empty() {
            return Ok(());
        }
        self.append(&Record { hard_state: Some(self.hard_state.clone()), entries: Vec::new() })?;
        self.sync()?;
        for segment in old {
            match self.disk.remove(&segment.name()) {
                Ok(()) | Err(DiskError::NotFound { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(self.disk.sync_dir()?)
    }

    /// Forgets the segments whose entries a checkpoint at `index` covers, and names their files: they may be
    /// removed, oldest first. What they said besides entries is written again and synced before.
    pub fn release(&mut self, index: u64) -> Result<Vec<String>, FilesError> {
        let covered = self.sealed.iter().take_while(|segment| segment.last_index <= index).count();
        if covered == 0 {
            return Ok(Vec::new());
        }
        if self.active.as_ref().is_none_or(|active| !active.has_hard_state) {
            self.append(&Record { hard_state: Some(self.hard_state.clone()), entries: Vec::new() })?;
        }
        self.sync()?;
        Ok(self.sealed.drain(..covered).map(|segment| segment.name()).collect())
    }
}
