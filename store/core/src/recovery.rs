//! What to do on start with what is on the disk: continue, cut, drop, or refuse with what to do.

use raft::eraftpb::{ConfState, Entry, HardState};
use rand::RngCore;

use crate::checkpoint::{self, CheckpointError, Image};
use crate::crypt::{CryptError, HEADER_LEN, Header, Keys};
use crate::disk::{Disk, DiskError, read_to_end};
use crate::files::Sealed;
use crate::log::{self, LogError};
use crate::members::{Member, Members};
use crate::state::Applied;

/// Where a new group begins: behind the index that every member's first checkpoint stands at, so that who joins
/// later always begins with a checkpoint.
pub const GENESIS: Applied = Applied { index: 1, term: 1 };

/// How a member begins when its disk is empty. Otherwise it continues from what is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Start {
    /// It founds a group, of which it is the only voter.
    First(Member),
    /// It waits for the state that the group's leader sends to it.
    Join(Member),
}

/// What a member continues from.
#[derive(Debug)]
pub struct Recovered {
    /// The newest good checkpoint.
    pub image: Image,
    /// Term, vote and commit index.
    pub hard_state: HardState,
    /// The log behind the checkpoint.
    pub entries: Vec<Entry>,
    /// The segments that stay, oldest first.
    pub segments: Vec<Sealed>,
    /// Segments of no more use. They may go once the hard state is durable in a newer one.
    pub dropped: Vec<Sealed>,
    /// The number of the next segment.
    pub next_segment: u64,
    /// Checkpoints that are no longer needed, by index.
    pub old_checkpoints: Vec<u64>,
    /// Whether a file still needs a retired key.
    pub uses_retired_key: bool,
    /// What was mended, in words, for the log.
    pub notes: Vec<String>,
}

/// Why the data cannot be continued, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecoveryError {
    /// The disk failed.
    #[error("the disk failed: {0}")]
    Disk(#[from] DiskError),
    /// A file cannot be opened with the keys at hand.
    #[error("{file}: {source}")]
    Crypt {
        /// Which file.
        file: String,
        /// Why.
        source: CryptError,
    },
    /// A segment is damaged before its tail.
    #[error(
        "{file}: {source}. Acknowledged writes may be lost if this member goes on: let it fetch its state from its peers, or restore a backup"
    )]
    Log {
        /// Which file.
        file: String,
        /// What is wrong.
        source: LogError,
    },
    /// No checkpoint can be used.
    #[error("{file}: {source}, and no older checkpoint can take its place: restore a backup")]
    Checkpoint {
        /// The newest checkpoint.
        file: String,
        /// What is wrong with it.
        source: CheckpointError,
    },
    /// There are log segments, but no checkpoint.
    #[error("there is a log but no checkpoint: a file was removed; restore a backup")]
    NoCheckpoint,
    /// A part of the log is missing.
    #[error(
        "the log misses the entries from {from} to {to}: a file was removed or damaged; let the member fetch its state from its peers, or restore a backup"
    )]
    Gap {
        /// The first missing entry.
        from: u64,
        /// The last missing entry.
        to: u64,
    },
    /// The log ends before what is known to be committed.
    #[error(
        "the log ends at entry {last}, but entry {committed} was committed: its end was lost; let the member fetch its state from its peers, or restore a backup"
    )]
    Short {
        /// The last entry.
        last: u64,
        /// The committed entry.
        committed: u64,
    },
    /// Log and checkpoint disagree.
    #[error("log and checkpoint do not belong together: entry {index} has another term in each")]
    Mismatch {
        /// The entry.
        index: u64,
    },
}

/// What the log says, for [`decide`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogFacts {
    /// The first and the last entry, when there is one.
    pub span: Option<(u64, u64)>,
    /// The term of the entry at the checkpoint's index, when the log has it.
    pub term_at_checkpoint: Option<u64>,
    /// Whether the checkpoint came from the leader, so that the log may be one that the group never agreed on.
    pub received: bool,
    /// The commit index that was last recorded.
    pub committed: u64,
}

/// What to do with the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// There is nothing behind the checkpoint: continue from it, without the log's entries.
    DropLog,
    /// Continue with the log's entries behind the checkpoint.
    Replay,
}

/// Decides how checkpoint and log fit together.
pub fn decide(checkpoint: Applied, log: &LogFacts) -> Result<Decision, RecoveryError> {
    let last = log.span.map_or(checkpoint.index, |(_, last)| last.max(checkpoint.index));
    if let Some((first, _)) =
        log.span.filter(|(first, last)| *last > checkpoint.index && *first > checkpoint.index + 1)
    {
        return Err(RecoveryError::Gap { from: checkpoint.index + 1, to: first - 1 });
    }
    if log.term_at_checkpoint.is_some_and(|term| term != checkpoint.term) {
        if log.received {
            return Ok(Decision::DropLog);
        }
        return Err(RecoveryError::Mismatch { index: checkpoint.index });
    }
    if log.committed > last {
        return Err(RecoveryError::Short { last, committed: log.committed });
    }
    match log.span {
        Some((_, last)) if last > checkpoint.index => Ok(Decision::Replay),
        _ => Ok(Decision::DropLog),
    }
}

/// Reads what is on the disk, decides, and carries the decision out. An empty disk begins as `start` says.
pub fn recover(
    disk: &dyn Disk,
    keys: &Keys,
    member: u64,
    start: &Start,
    rng: &mut impl RngCore,
) -> Result<Recovered, RecoveryError> {
    let names = Names::list(disk)?;
    for name in &names.partial {
        disk.remove(name)?;
    }
    if !names.checkpoints.is_empty() {
        return recover_from(disk, keys, &names);
    }
    match start {
        Start::First(described) if names.segments.is_empty() => {
            genesis(disk, keys, member, described, rng)?;
            recover_from(disk, keys, &Names::list(disk)?)
        }
        Start::First(_) => Err(RecoveryError::NoCheckpoint),
        Start::Join(_) => recover_waiting(disk, keys, &names),
    }
}

fn genesis(
    disk: &dyn Disk,
    keys: &Keys,
    member: u64,
    described: &Member,
    rng: &mut impl RngCore,
) -> Result<(), RecoveryError> {
    let conf_state = ConfState { voters: vec![member], ..ConfState::default() };
    let mut members = Members::default();
    members.set(member, described.clone());
    let image = Image { applied: GENESIS, conf_state, members, ..Image::default() };
    let written = checkpoint::write(disk, keys, rng, image);
    written.map(|_| ()).map_err(|source| checkpoint_error(checkpoint::name(GENESIS.index), source))
}

/// A member that the leader has not sent a state to yet: its log holds terms and votes, but no entry.
fn recover_waiting(disk: &dyn Disk, keys: &Keys, names: &Names) -> Result<Recovered, RecoveryError> {
    let mut notes = Vec::new();
    let log = Log::read(disk, keys, 0, names, &mut notes)?;
    if !log.entries.is_empty() {
        return Err(RecoveryError::NoCheckpoint);
    }
    Ok(Recovered {
        next_segment: log.next_segment(names),
        image: Image::default(),
        hard_state: log.hard_state,
        entries: Vec::new(),
        segments: log.segments,
        dropped: Vec::new(),
        old_checkpoints: Vec::new(),
        uses_retired_key: false,
        notes,
    })
}

fn recover_from(disk: &dyn Disk, keys: &Keys, names: &Names) -> Result<Recovered, RecoveryError> {
    let mut notes = Vec::new();
    let newest = names.checkpoints.first().copied().unwrap_or_default();
    let (header, image) = load_newest(disk, keys, &names.checkpoints, &mut notes)?;
    let index = image.applied.index;
    let mut log = Log::read(disk, keys, index, names, &mut notes)?;
    let facts = LogFacts {
        span: log.entries.first().zip(log.entries.last()).map(|(first, last)| (first.index, last.index)),
        term_at_checkpoint: log.entries.iter().find(|entry| entry.index == index).map(|entry| entry.term),
        received: image.received,
        committed: log.hard_state.commit.max(newest),
    };
    let decision = decide(image.applied, &facts)?;
    let next_segment = log.next_segment(names);
    let mut hard_state = log.hard_state;
    if hard_state.term < image.applied.term {
        hard_state.term = image.applied.term;
        hard_state.vote = 0;
    }
    hard_state.commit = hard_state.commit.max(index);
    let behind = log.entries.partition_point(|entry| entry.index <= index);
    let mut entries = log.entries.split_off(behind);
    let differs = facts.term_at_checkpoint.is_some_and(|term| term != image.applied.term);
    let ends_before = facts.span.is_some_and(|(_, last)| last < index);
    let mut dropped = Vec::new();
    if decision == Decision::DropLog && (ends_before || differs) {
        let why = if differs { "was not the group's" } else { "ended before the checkpoint" };
        notes.push(format!("the log {why} (checkpoint at {index}) and was dropped"));
        dropped = std::mem::take(&mut log.segments);
        entries.clear();
    }
    let (damaged, old_checkpoints): (Vec<_>, Vec<_>) =
        names.checkpoints.iter().copied().filter(|found| *found != index).partition(|found| *found > index);
    // A new checkpoint may take the place of a damaged one, so that one goes first.
    for found in &damaged {
        disk.remove(&checkpoint::name(*found))?;
    }
    if !damaged.is_empty() {
        disk.sync_dir()?;
    }
    Ok(Recovered {
        image,
        hard_state,
        entries,
        segments: log.segments,
        dropped,
        next_segment,
        old_checkpoints,
        uses_retired_key: log.uses_retired_key || header.key_id != keys.active_id(),
        notes,
    })
}

/// The newest checkpoint that can be read. Keys that do not fit and newer formats are not passed over.
fn load_newest(
    disk: &dyn Disk,
    keys: &Keys,
    indexes: &[u64],
    notes: &mut Vec<String>,
) -> Result<(Header, Image), RecoveryError> {
    let mut first_error = None;
    for index in indexes {
        let file = checkpoint::name(*index);
        match checkpoint::read(&mut *disk.open(&file)?, keys) {
            Ok(found) => return Ok(found),
            Err(CheckpointError::Disk(error)) => return Err(error.into()),
            Err(CheckpointError::Crypt(source)) if source != CryptError::Header => {
                return Err(RecoveryError::Crypt { file, source });
            }
            Err(source) => {
                notes.push(format!("{file}: {source}; trying the one before"));
                first_error.get_or_insert(checkpoint_error(file, source));
            }
        }
    }
    Err(first_error.unwrap_or(RecoveryError::NoCheckpoint))
}

fn checkpoint_error(file: String, source: CheckpointError) -> RecoveryError {
    match source {
        CheckpointError::Disk(error) => RecoveryError::Disk(error),
        source => RecoveryError::Checkpoint { file, source },
    }
}

// === Names ===

/// The files of a store, by kind.
#[derive(Debug, Default)]
struct Names {
    /// Newest first.
    checkpoints: Vec<u64>,
    /// Oldest first.
    segments: Vec<u64>,
    partial: Vec<String>,
}

impl Names {
    fn list(disk: &dyn Disk) -> Result<Self, DiskError> {
        let mut names = Self::default();
        for name in disk.list()? {
            let number = |prefix: &str| u64::from_str_radix(name.strip_prefix(prefix)?, 16).ok();
            if name.ends_with(".partial") {
                names.partial.push(name);
            } else if let Some(index) = number("checkpoint-") {
                names.checkpoints.push(index);
            } else if let Some(segment) = number("log-") {
                names.segments.push(segment);
            }
        }
        names.checkpoints.sort_unstable_by(|left, right| right.cmp(left));
        names.segments.sort_unstable();
        Ok(names)
    }
}

// === Log ===

/// The log as it is put together from its segments.
#[derive(Debug, Default)]
struct Log {
    /// The index that the checkpoint covers.
    checkpoint: u64,
    entries: Vec<Entry>,
    hard_state: HardState,
    segments: Vec<Sealed>,
    uses_retired_key: bool,
}

impl Log {
    fn read(
        disk: &dyn Disk,
        keys: &Keys,
        checkpoint: u64,
        names: &Names,
        notes: &mut Vec<String>,
    ) -> Result<Self, RecoveryError> {
        let mut log = Self { checkpoint, ..Self::default() };
        for (place, number) in names.segments.iter().enumerate() {
            log.load(disk, keys, *number, place + 1 == names.segments.len(), notes)?;
        }
        Ok(log)
    }

    /// Segments are numbered without a gap, also where one whose creation was interrupted has been removed.
    fn next_segment(&self, names: &Names) -> u64 {
        let last = self.segments.last().map(|segment| segment.number).or(names.segments.last().copied());
        last.map_or(1, |last| last + 1)
    }

    fn load(
        &mut self,
        disk: &dyn Disk,
        keys: &Keys,
        number: u64,
        newest: bool,
        notes: &mut Vec<String>,
    ) -> Result<(), RecoveryError> {
        let file = crate::files::segment_name(number);
        let data = read_to_end(&mut *disk.open(&file)?)?;
        let len = data.len() as u64;
        let header = match Header::decode(&data, &log::MAGIC, log::VERSION) {
            Ok(header) => header,
            // The header is durable before the first record is written: a file without both was never used.
            Err(CryptError::Header) if newest && data.iter().skip(HEADER_LEN).all(|byte| *byte == 0) => {
                notes.push(format!("{file}: its creation had been interrupted; removed"));
                disk.remove(&file)?;
                disk.sync_dir()?;
                return Ok(());
            }
            Err(source) => return Err(RecoveryError::Crypt { file, source }),
        };
        let cipher =
            keys.open(&header).map_err(|source| RecoveryError::Crypt { file: file.clone(), source })?;
        self.uses_retired_key |= header.key_id != keys.active_id();
        let scanned = match log::scan(data, &cipher) {
            Ok(scanned) => scanned,
            Err(source) => return Err(RecoveryError::Log { file, source }),
        };
        self.join(disk, number, first_of(&scanned))?;
        if scanned.torn && !newest {
            let source = LogError::Damaged { offset: scanned.end, reason: "later segments exist" };
            return Err(RecoveryError::Log { file, source });
        }
        if scanned.torn {
            notes.push(format!("{file}: cut an unfinished record at offset {}", scanned.end));
        }
        if newest && len > scanned.end {
            disk.truncate(&file, scanned.end)?;
        } else if newest {
            // What is continued from has to be durable, also when only the process had died.
            disk.sync(&file)?;
        }
        let mut last_index = 0;
        for record in scanned.records {
            if let Some(hard_state) = record.hard_state {
                self.hard_state = hard_state;
            }
            for entry in record.entries {
                last_index = last_index.max(entry.index);
                self.push(entry)?;
            }
        }
        self.segments.push(Sealed { number, last_index });
        Ok(())
    }

    /// Checks that a segment follows the one before. What the checkpoint covers may be missing in parts: its
    /// removal was interrupted, and is brought to its end here.
    fn join(&mut self, disk: &dyn Disk, number: u64, first_entry: u64) -> Result<(), RecoveryError> {
        if self.segments.last().is_none_or(|before| before.number + 1 == number) {
            return Ok(());
        }
        let last = self.entries.last().map_or(0, |entry| entry.index);
        if last > self.checkpoint {
            return Err(RecoveryError::Gap {
                from: last + 1,
                to: first_entry.saturating_sub(1).max(last + 1),
            });
        }
        for segment in self.segments.drain(..) {
            disk.remove(&segment.name())?;
        }
        self.entries.clear();
        Ok(())
    }

    /// Takes in an entry; it replaces what a former leader had put in its place and behind it.
    fn push(&mut self, entry: Entry) -> Result<(), RecoveryError> {
        if let Some(last) = self.entries.last() {
            if entry.index > last.index + 1 {
                return Err(RecoveryError::Gap { from: last.index + 1, to: entry.index - 1 });
            }
            let keep = self.entries.partition_point(|before| before.index < entry.index);
            self.entries.truncate(keep);
        }
        self.entries.push(entry);
        Ok(())
    }
}

fn first_of(scanned: &log::Scanned) -> u64 {
    let mut entries = scanned.records.iter().flat_map(|record| &record.entries);
    entries.next().map_or(0, |entry| entry.index)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHECKPOINT: Applied = Applied { index: 10, term: 2 };

    fn facts(span: Option<(u64, u64)>, term: Option<u64>, committed: u64) -> LogFacts {
        LogFacts { span, term_at_checkpoint: term, received: false, committed }
    }

    #[test]
    fn decides_by_the_rules() {
        let gap = |from, to| Err(RecoveryError::Gap { from, to });
        for (log, expected) in [
            (facts(None, None, 10), Ok(Decision::DropLog)),
            (facts(Some((2, 9)), None, 9), Ok(Decision::DropLog)),
            (facts(Some((2, 10)), Some(2), 10), Ok(Decision::DropLog)),
            (facts(Some((2, 11)), Some(2), 10), Ok(Decision::Replay)),
            (facts(Some((11, 12)), None, 12), Ok(Decision::Replay)),
            (facts(Some((12, 13)), None, 10), gap(11, 11)),
            (facts(Some((20, 30)), None, 10), gap(11, 19)),
            (facts(Some((2, 12)), Some(1), 10), Err(RecoveryError::Mismatch { index: 10 })),
            (facts(Some((2, 12)), Some(2), 13), Err(RecoveryError::Short { last: 12, committed: 13 })),
            (facts(None, None, 12), Err(RecoveryError::Short { last: 10, committed: 12 })),
        ] {
            assert_eq!(decide(CHECKPOINT, &log), expected, "{log:?}");
        }
        let received = LogFacts { received: true, ..facts(Some((2, 12)), Some(1), 10) };
        assert_eq!(decide(CHECKPOINT, &received), Ok(Decision::DropLog));
    }
}
