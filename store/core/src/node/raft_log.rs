//! The part of the log that Raft looks at: entries in memory, from some index on.

use std::collections::VecDeque;

use raft::eraftpb::{ConfState, Entry, HardState, Snapshot};
use raft::{GetEntriesContext, RaftState, Storage, StorageError};

use crate::state::Applied;

/// Entries in memory behind a known one, and what else Raft remembers.
///
/// What is on disk is not read again: a member that is further behind than this gets a checkpoint.
#[derive(Debug)]
pub(super) struct RaftLog {
    entries: VecDeque<Entry>,
    bytes: usize,
    behind: Applied,
    /// Where the state stands; `None` while it changes.
    applied: Option<Applied>,
    pub(super) hard_state: HardState,
    pub(super) conf_state: ConfState,
}

// === impl RaftLog ===

impl RaftLog {
    pub(super) fn new(
        behind: Applied,
        hard_state: HardState,
        conf_state: ConfState,
        entries: Vec<Entry>,
    ) -> Self {
        let bytes = entries.iter().map(size).sum();
        let applied = Some(behind).filter(|applied| applied.index > 0);
        Self { entries: entries.into(), bytes, behind, applied, hard_state, conf_state }
    }

    /// The state is about to change: no member can be sent it.
    pub(super) fn changing(&mut self) {
        self.applied = None;
    }

    /// The state stands here now.
    pub(super) fn applied(&mut self, applied: Applied) {
        self.applied = Some(applied);
    }

    /// Begins anew behind a state that came as a whole.
    pub(super) fn restore(&mut self, applied: Applied, conf_state: ConfState) {
        self.entries.clear();
        self.bytes = 0;
        self.behind = applied;
        self.applied = Some(applied);
        self.conf_state = conf_state;
    }

    /// Takes in entries; they replace those from the first one's index on.
    pub(super) fn append(&mut self, entries: &[Entry]) {
        let Some(first) = entries.first() else { return };
        let keep = self.offset(first.index);
        let dropped: usize =
            self.entries.drain(keep.min(self.entries.len())..).map(|entry| size(&entry)).sum();
        self.bytes -= dropped;
        self.bytes += entries.iter().map(size).sum::<usize>();
        self.entries.extend(entries.iter().cloned());
    }

    /// Forgets entries up to and with `index` while more than `keep` bytes are held.
    pub(super) fn trim(&mut self, index: u64, keep: usize) {
        while self.bytes > keep || keep == 0 {
            let Some(entry) = self.entries.pop_front_if(|entry| entry.index <= index) else { break };
            self.bytes -= size(&entry);
            self.behind = Applied { index: entry.index, term: entry.term };
        }
    }

    fn offset(&self, index: u64) -> usize {
        index.saturating_sub(self.behind.index + 1) as usize
    }

    fn last(&self) -> u64 {
        self.behind.index + self.entries.len() as u64
    }
}

fn size(entry: &Entry) -> usize {
    entry.data.len() + entry.context.len() + 64
}

impl Storage for RaftLog {
    fn initial_state(&self) -> raft::Result<RaftState> {
        Ok(RaftState { hard_state: self.hard_state.clone(), conf_state: self.conf_state.clone() })
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _context: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        if low <= self.behind.index {
            return Err(StorageError::Compacted.into());
        }
        if high > self.last() + 1 {
            return Err(StorageError::Unavailable.into());
        }
        let mut entries: Vec<Entry> =
            self.entries.range(self.offset(low)..self.offset(high)).cloned().collect();
        raft::util::limit_size(&mut entries, max_size.into());
        Ok(entries)
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        if index == self.behind.index {
            return Ok(self.behind.term);
        }
        if index < self.behind.index {
            return Err(StorageError::Compacted.into());
        }
        let entry = self.entries.get(self.offset(index));
        entry.map(|entry| entry.term).ok_or_else(|| StorageError::Unavailable.into())
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.behind.index + 1)
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.last())
    }

    fn snapshot(&self, _request_index: u64, _to: u64) -> raft::Result<Snapshot> {
        // Only what it is about: the state itself is taken when the message is sent.
        let Some(applied) = self.applied else {
            return Err(StorageError::SnapshotTemporarilyUnavailable.into());
        };
        let mut snapshot = Snapshot::default();
        let about = snapshot.mut_metadata();
        (about.index, about.term) = (applied.index, applied.term);
        about.set_conf_state(self.conf_state.clone());
        Ok(snapshot)
    }
}
