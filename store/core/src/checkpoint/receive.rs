//! A state that comes from another member: its texts become a checkpoint of this member's own, and then its state.

use std::sync::Arc;

use bytes::Bytes;
use rand_chacha::ChaCha20Rng;

use super::{CheckpointError, Image, SYNC_EVERY, Sealer, VERSION, read_beside, texts};
use crate::crypt::{CryptError, Keys};
use crate::disk::{Disk, DiskFile};
use crate::snapshot::Snapshot;

/// Takes in the texts of a state, in order.
pub struct Receiver {
    disk: Arc<dyn Disk>,
    keys: Keys,
    rng: ChaCha20Rng,
    /// What the member holds until it has the whole state.
    held: Snapshot,
    writing: Option<Writing>,
}

struct Writing {
    name: String,
    file: Box<dyn DiskFile>,
    sealer: Sealer,
    unsynced: usize,
}

/// A state that is complete on the disk and was read back. Its file gets its final name when Raft takes it.
#[derive(Debug)]
pub struct Received {
    /// The file.
    pub file: String,
    /// What it holds.
    pub image: Box<Image>,
}

// === impl Receiver ===

impl Receiver {
    /// A receiver of texts of that version, for a member that holds a state already.
    pub fn new(
        disk: Arc<dyn Disk>,
        keys: Keys,
        rng: ChaCha20Rng,
        held: Snapshot,
        version: u32,
    ) -> Result<Self, CheckpointError> {
        if version != VERSION {
            return Err(CryptError::Version { found: version, known: VERSION }.into());
        }
        Ok(Self { disk, keys, rng, held, writing: None })
    }

    /// Takes in the next text.
    pub fn push(&mut self, text: &Bytes) -> Result<(), CheckpointError> {
        match &mut self.writing {
            Some(writing) => writing.append(text),
            None => {
                let (index, facts) = texts::mark_received(text)
                    .map_err(|source| CheckpointError::Content { block: 0, source })?;
                let name = format!("received-{index:016x}.partial");
                if self.disk.list()?.contains(&name) {
                    self.disk.remove(&name)?;
                }
                let file = self.disk.create(&name, 0)?;
                let sealer = Sealer::new(index, VERSION, &self.keys, &mut self.rng)?;
                self.writing.insert(Writing { name, file, sealer, unsynced: 0 }).append(&facts)
            }
        }
    }

    /// Makes what came durable, and reads it back: it is whole, or an error.
    pub fn finish(mut self) -> Result<Received, CheckpointError> {
        let Some(mut writing) = self.writing.take() else {
            return Err(CheckpointError::Damaged { block: 0, reason: "nothing was sent" });
        };
        let name = writing.name.clone();
        let read = writing.file.sync().map_err(CheckpointError::from).and_then(|()| {
            let (_, image) = read_beside(&mut *self.disk.open(&name)?, &self.keys, &self.held)?;
            Ok(image)
        });
        match read {
            Ok(image) => Ok(Received { file: name, image: Box::new(image) }),
            Err(error) => {
                self.writing = Some(writing);
                Err(error)
            }
        }
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        if let Some(writing) = self.writing.take() {
            // What was written is of no use; it is removed at the next start if not now.
            let _ = self.disk.remove(&writing.name);
        }
    }
}

// === impl Writing ===

impl Writing {
    fn append(&mut self, text: &[u8]) -> Result<(), CheckpointError> {
        let mut block = self.sealer.start();
        let at = block.len();
        block.extend_from_slice(text);
        let block = self.sealer.seal(block, at)?;
        self.file.append(&block)?;
        // Synced in small parts, so that the log's own syncs never wait behind a large one.
        self.unsynced += block.len();
        if self.unsynced >= SYNC_EVERY {
            self.file.sync()?;
            self.unsynced = 0;
        }
        Ok(())
    }
}
