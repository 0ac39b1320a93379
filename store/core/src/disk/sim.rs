//! A disk in memory that loses, tears and refuses what a real one may.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rand::{Rng, RngCore};

use super::{Disk, DiskError, DiskFile, DiskReader};

const SECTOR: usize = 512;

/// A disk in memory. Clones are the same disk.
#[derive(Clone, Debug, Default)]
pub struct SimDisk {
    state: Arc<Mutex<State>>,
}

/// What goes wrong, and when.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// The power fails at this operation (counted from 0): it and everything later fails.
    pub cut_at: Option<u64>,
    /// From this operation on syncs fail; what they were to make durable is lost at the next power cut.
    pub fail_sync_from: Option<u64>,
    /// The bytes that all files together may have.
    pub capacity: Option<u64>,
}

#[derive(Debug, Default)]
struct State {
    inodes: Vec<Inode>,
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    name_changes: Vec<NameChange>,
    operations: u64,
    faults: Faults,
}

#[derive(Clone, Debug, Default)]
struct Inode {
    data: Vec<u8>,
    written: usize,
    durable: Vec<u8>,
    dirty: BTreeSet<usize>,
}

#[derive(Clone, Debug)]
enum NameChange {
    Set(String, usize),
    Remove(String),
}

struct SimFile {
    disk: SimDisk,
    name: String,
    inode: usize,
}

struct SimReader {
    data: Vec<u8>,
    at: usize,
}

// === impl SimDisk ===

impl SimDisk {
    /// An empty disk without faults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets what goes wrong from here on.
    pub fn set_faults(&self, faults: Faults) {
        self.lock().faults = faults;
    }

    /// How many writing operations were asked for so far.
    pub fn operations(&self) -> u64 {
        self.lock().operations
    }

    /// The bytes that all files together have.
    pub fn used(&self) -> u64 {
        self.lock().used()
    }

    /// Cuts the power and restores it: of what was not synced, any sectors and any first names may have survived.
    pub fn power_cut(&self, rng: &mut impl RngCore) {
        let mut state = self.lock();
        let survived = rng.random_range(0..=state.name_changes.len());
        let changes: Vec<_> = std::mem::take(&mut state.name_changes).into_iter().take(survived).collect();
        for change in changes {
            apply(&mut state.durable_names, change);
        }
        state.names = state.durable_names.clone();
        for inode in &mut state.inodes {
            inode.lose(rng);
        }
        state.faults = Faults::default();
    }

    /// Flips one bit of a file, behind everyone's back. `false`: the file has no such bit.
    pub fn flip_bit(&self, name: &str, bit: u64) -> bool {
        let mut state = self.lock();
        let Some(inode) = state.names.get(name).copied() else { return false };
        let inode = &mut state.inodes[inode];
        let at = (bit / 8) as usize;
        let flip = |data: &mut Vec<u8>| data.get_mut(at).map(|byte| *byte ^= 1 << (bit % 8)).is_some();
        flip(&mut inode.durable) | flip(&mut inode.data)
    }

    /// The bytes of a file, as a reader sees them.
    pub fn content(&self, name: &str) -> Option<Vec<u8>> {
        let state = self.lock();
        let inode = *state.names.get(name)?;
        Some(state.inodes[inode].data.clone())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn operate(&self, operation: &'static str, name: &str) -> Result<MutexGuard<'_, State>, DiskError> {
        let mut state = self.lock();
        let number = state.operations;
        state.operations += 1;
        let reached = |at: Option<u64>| at.is_some_and(|at| number >= at);
        let reason = if reached(state.faults.cut_at) {
            "the power is cut"
        } else if operation == "sync" && reached(state.faults.fail_sync_from) {
            "the sync failed"
        } else {
            return Ok(state);
        };
        Err(DiskError::Io { operation, name: name.into(), reason: reason.into() })
    }
}

impl Disk for SimDisk {
    fn list(&self) -> Result<Vec<String>, DiskError> {
        Ok(self.lock().names.keys().cloned().collect())
    }

    fn create(&self, name: &str, reserve: u64) -> Result<Box<dyn DiskFile>, DiskError> {
        let mut state = self.operate("create", name)?;
        if state.names.contains_key(name) {
            return Err(DiskError::Exists { name: name.into() });
        }
        state.room_for(reserve)?;
        let inode = state.inodes.len();
        let mut file = Inode::default();
        file.resize(reserve as usize);
        state.inodes.push(file);
        state.change(NameChange::Set(name.into(), inode));
        Ok(Box::new(SimFile { disk: self.clone(), name: name.into(), inode }))
    }

    fn open(&self, name: &str) -> Result<Box<dyn DiskReader>, DiskError> {
        let data = self.content(name).ok_or_else(|| DiskError::NotFound { name: name.into() })?;
        Ok(Box::new(SimReader { data, at: 0 }))
    }

    fn rename(&self, from: &str, to: &str) -> Result<(), DiskError> {
        let mut state = self.operate("rename", from)?;
        let inode = state.inode(from)?;
        state.change(NameChange::Set(to.into(), inode));
        state.change(NameChange::Remove(from.into()));
        Ok(())
    }

    fn remove(&self, name: &str) -> Result<(), DiskError> {
        let mut state = self.operate("remove", name)?;
        state.inode(name)?;
        state.change(NameChange::Remove(name.into()));
        Ok(())
    }

    fn truncate(&self, name: &str, len: u64) -> Result<(), DiskError> {
        let mut state = self.operate("truncate", name)?;
        let inode = state.inode(name)?;
        state.inodes[inode].resize(len as usize);
        state.inodes[inode].sync();
        Ok(())
    }

    fn sync(&self, name: &str) -> Result<(), DiskError> {
        let mut state = self.operate("sync", name)?;
        let inode = state.inode(name)?;
        state.inodes[inode].sync();
        Ok(())
    }

    fn sync_dir(&self) -> Result<(), DiskError> {
        let mut state = self.operate("sync", "directory")?;
        state.name_changes.clear();
        state.durable_names = state.names.clone();
        Ok(())
    }
}

// === impl State ===

impl State {
    fn inode(&self, name: &str) -> Result<usize, DiskError> {
        self.names.get(name).copied().ok_or_else(|| DiskError::NotFound { name: name.into() })
    }

    fn change(&mut self, change: NameChange) {
        apply(&mut self.names, change.clone());
        self.name_changes.push(change);
    }

    fn used(&self) -> u64 {
        self.names.values().map(|inode| self.inodes[*inode].data.len() as u64).sum()
    }

    fn room_for(&self, more: u64) -> Result<(), DiskError> {
        match self.faults.capacity {
            Some(capacity) if self.used() + more > capacity => Err(DiskError::Full),
            _ => Ok(()),
        }
    }
}

fn apply(names: &mut BTreeMap<String, usize>, change: NameChange) {
    match change {
        NameChange::Set(name, inode) => names.insert(name, inode),
        NameChange::Remove(name) => names.remove(&name),
    };
}

// === impl Inode ===

impl Inode {
    fn resize(&mut self, len: usize) {
        self.data.resize(len, 0);
        self.written = self.written.min(len);
        self.dirty.retain(|sector| sector * SECTOR < len);
    }

    fn append(&mut self, data: &[u8]) {
        let end = self.written + data.len();
        self.data.resize(self.data.len().max(end), 0);
        self.data[self.written..end].copy_from_slice(data);
        self.dirty.extend(self.written / SECTOR..end.div_ceil(SECTOR));
        self.written = end;
    }

    fn sync(&mut self) {
        self.durable.resize(self.data.len(), 0);
        for sector in std::mem::take(&mut self.dirty) {
            let (from, to) = (sector * SECTOR, ((sector + 1) * SECTOR).min(self.data.len()));
            self.durable[from..to].copy_from_slice(&self.data[from..to]);
        }
    }

    /// Keeps what was durable and any of the sectors written since.
    fn lose(&mut self, rng: &mut impl RngCore) {
        let mut survived = self.durable.clone();
        if rng.random() {
            survived.resize(self.data.len(), 0);
        }
        for sector in std::mem::take(&mut self.dirty) {
            let from = sector * SECTOR;
            let to = (from + SECTOR).min(self.data.len());
            if to > from && rng.random() {
                survived.resize(survived.len().max(to), 0);
                survived[from..to].copy_from_slice(&self.data[from..to]);
            }
        }
        self.durable = survived.clone();
        self.written = survived.len();
        self.data = survived;
    }
}

// === impl SimFile ===

impl DiskFile for SimFile {
    fn append(&mut self, data: &[u8]) -> Result<(), DiskError> {
        let cut = match self.disk.operate("append", &self.name) {
            Ok(mut state) => {
                let grown = (state.inodes[self.inode].written + data.len())
                    .saturating_sub(state.inodes[self.inode].data.len());
                state.room_for(grown as u64)?;
                state.inodes[self.inode].append(data);
                return Ok(());
            }
            Err(error) => error,
        };
        // The power went while the write was under way: it may have reached the disk in parts.
        let mut state = self.disk.lock();
        if state.faults.cut_at.is_some_and(|at| at + 1 == state.operations) {
            state.inodes[self.inode].append(data);
        }
        Err(cut)
    }

    fn sync(&mut self) -> Result<(), DiskError> {
        let mut state = self.disk.operate("sync", &self.name)?;
        state.inodes[self.inode].sync();
        Ok(())
    }
}

// === impl SimReader ===

impl DiskReader for SimReader {
    fn len(&self) -> u64 {
        self.data.len() as u64
    }

    fn read(&mut self, into: &mut [u8]) -> Result<usize, DiskError> {
        let count = into.len().min(self.data.len() - self.at);
        into[..count].copy_from_slice(&self.data[self.at..self.at + count]);
        self.at += count;
        Ok(count)
    }
}
