//! The format of log segments: a header, then records, each checksummed, versioned and encrypted.
//!
//! ```text
//! segment = header (crypt::HEADER_LEN bytes), record*, zeros (reserved room) up to the end of the file
//! record  = magic u32 | body length u32 | CRC-32 u32 of all that follows | version u8 | 3 zeros | durable u64
//!           | body: sealed text, tag | zeros up to a multiple of 8
//! ```
//!
//! A record is sealed under its own offset, and no segment is written again after a restart, so that no number
//! is used twice. `durable` is the offset up to which the segment had been synced when the record was written: a
//! bad record is a torn tail exactly when no later record says that it had been durable.

use bytes::Bytes;
use raft::eraftpb::{Entry, EntryType, HardState};

use crate::crypt::{Cipher, CryptError, HEADER_LEN, TAG_LEN, le_u32, le_u64};
use crate::wire::{Reader, WireError, Writer};

/// What a segment's header begins with.
pub const MAGIC: [u8; 8] = *b"ORLOPLOG";
/// The version of segment and record that this code writes.
pub const VERSION: u32 = 1;

const RECORD_MAGIC: u32 = 0x4c52_4f2e;
const RECORD_HEADER: usize = 24;
const CHECKED_FROM: usize = 12;
const ALIGN: usize = 8;

/// What one append puts into the log: at once or not at all.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Record {
    /// Term, vote and commit index, when they changed.
    pub hard_state: Option<HardState>,
    /// New entries; the first may replace earlier ones from its index on.
    pub entries: Vec<Entry>,
}

/// What a segment holds.
#[derive(Debug, Default)]
pub struct Scanned {
    /// The records, in order.
    pub records: Vec<Record>,
    /// Where the last good record ends.
    pub end: u64,
    /// Whether something broken follows that never was durable.
    pub torn: bool,
}

/// Why a segment cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LogError {
    /// A record that had been durable is damaged.
    #[error(
        "the record at offset {offset} is damaged, and later records prove that it had been written: {reason}"
    )]
    Damaged {
        /// Where.
        offset: u64,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The record is of a newer version.
    #[error(
        "the record at offset {offset} has version {found}, unknown to this version: use the newer program"
    )]
    Version {
        /// Where.
        offset: u64,
        /// The version.
        found: u8,
    },
    /// The record's text cannot be opened.
    #[error("the record at offset {offset} cannot be opened: {source}")]
    Crypt {
        /// Where.
        offset: u64,
        /// Why.
        source: CryptError,
    },
    /// The record's text makes no sense.
    #[error("the record at offset {offset} cannot be understood: {source}")]
    Content {
        /// Where.
        offset: u64,
        /// Why.
        source: WireError,
    },
}

/// Appends a record, sealed for `offset`, to `out`.
pub fn seal(
    record: &Record,
    cipher: &Cipher,
    offset: u64,
    durable: u64,
    mut out: Vec<u8>,
) -> Result<Vec<u8>, CryptError> {
    let start = out.len();
    out.extend_from_slice(&RECORD_MAGIC.to_le_bytes());
    out.extend_from_slice(&[0; 8]);
    out.extend_from_slice(&[VERSION as u8, 0, 0, 0]);
    out.extend_from_slice(&durable.to_le_bytes());
    let mut out = encode(record, out);
    let body = start + RECORD_HEADER;
    let len = (out.len() - body + TAG_LEN) as u32;
    out[start + 4..start + 8].copy_from_slice(&len.to_le_bytes());
    let (head, text) = out.split_at_mut(body);
    let tag = cipher.seal(offset, &context(&head[start..]), text)?;
    out.extend_from_slice(&tag);
    let crc = crc32fast::hash(&out[start + CHECKED_FROM..]);
    out[start + 8..start + CHECKED_FROM].copy_from_slice(&crc.to_le_bytes());
    out.resize(start + (out.len() - start).next_multiple_of(ALIGN), 0);
    Ok(out)
}

/// The most bytes that a record takes whose entries carry `data` bytes in `entries` entries.
pub fn size_bound(data: usize, entries: usize) -> u64 {
    (data + entries * 48 + RECORD_HEADER + TAG_LEN + ALIGN + 64) as u64
}

/// Reads a whole segment (its header included, which was checked before).
pub fn scan(mut data: Vec<u8>, cipher: &Cipher) -> Result<Scanned, LogError> {
    let mut scanned = Scanned::default();
    let mut bodies = Vec::new();
    let mut at = HEADER_LEN.min(data.len());
    while let Found::Record { body, len, next } = look(&data, at) {
        let offset = at as u64;
        let version = data[at + CHECKED_FROM];
        if u32::from(version) > VERSION {
            return Err(LogError::Version { offset, found: version });
        }
        let context = context(&data[at..at + RECORD_HEADER]);
        let sealed = &mut data[body..body + len];
        let opened = cipher.open(offset, &context, sealed);
        let text = opened.map_err(|source| LogError::Crypt { offset, source })?;
        bodies.push((offset, body..body + text));
        at = next;
    }
    scanned.end = at as u64;
    if let Found::Bad { reason } = look(&data, at) {
        if durable_claims(&data, at).any(|durable| durable > at as u64) {
            return Err(LogError::Damaged { offset: at as u64, reason });
        }
        scanned.torn = true;
    }
    let data = Bytes::from(data);
    for (offset, body) in bodies {
        let record = decode(&data.slice(body)).map_err(|source| LogError::Content { offset, source })?;
        scanned.records.push(record);
    }
    Ok(scanned)
}

enum Found {
    /// Only zeros follow.
    End,
    Bad {
        reason: &'static str,
    },
    Record {
        body: usize,
        len: usize,
        next: usize,
    },
}

fn look(data: &[u8], at: usize) -> Found {
    let rest = &data[at.min(data.len())..];
    let magic = le_u32(rest);
    if magic == 0 && rest.iter().all(|byte| *byte == 0) {
        return Found::End;
    }
    if rest.len() < RECORD_HEADER || magic != RECORD_MAGIC {
        return Found::Bad { reason: "it does not begin as a record does" };
    }
    let len = le_u32(&rest[4..8]) as usize;
    if len < TAG_LEN || len > rest.len() - RECORD_HEADER {
        return Found::Bad { reason: "its length is wrong" };
    }
    let end = RECORD_HEADER + len;
    if crc32fast::hash(&rest[CHECKED_FROM..end]) != le_u32(&rest[8..12]) {
        return Found::Bad { reason: "its checksum is wrong" };
    }
    let next = at + end.next_multiple_of(ALIGN);
    Found::Record { body: at + RECORD_HEADER, len, next: next.min(data.len()) }
}

/// What good records behind `at` say of how far the segment was durable.
fn durable_claims(data: &[u8], at: usize) -> impl Iterator<Item = u64> {
    let mut next = at.next_multiple_of(ALIGN);
    if next == at {
        next += ALIGN;
    }
    (next..data.len())
        .step_by(ALIGN)
        .filter(|at| matches!(look_quick(data, *at), Found::Record { .. }))
        .map(|at| le_u64(&data[at + 16..at + RECORD_HEADER]))
}

fn look_quick(data: &[u8], at: usize) -> Found {
    match le_u32(&data[at..]) {
        RECORD_MAGIC => look(data, at),
        _ => Found::End,
    }
}

/// What is sealed together with the text: the header without the checksum.
fn context(header: &[u8]) -> [u8; 20] {
    let mut context = [0; 20];
    context[..8].copy_from_slice(&header[..8]);
    context[8..].copy_from_slice(&header[CHECKED_FROM..RECORD_HEADER]);
    context
}

fn encode(record: &Record, out: Vec<u8>) -> Vec<u8> {
    let mut out = Writer::behind(out);
    match &record.hard_state {
        None => out.u8(0),
        Some(state) => {
            out.u8(1);
            out.varint(state.term);
            out.varint(state.vote);
            out.varint(state.commit);
        }
    }
    out.varint(record.entries.len() as u64);
    for entry in &record.entries {
        out.u8(match entry.entry_type {
            EntryType::EntryNormal => 0,
            EntryType::EntryConfChange => 1,
            EntryType::EntryConfChangeV2 => 2,
        });
        out.varint(entry.term);
        out.varint(entry.index);
        out.bytes(&entry.context);
        out.bytes(&entry.data);
    }
    out.finish()
}

fn decode(text: &Bytes) -> Result<Record, WireError> {
    let mut input = Reader::new(text);
    let hard_state = match input.u8()? {
        0 => None,
        1 => {
            let (term, vote, commit) = (input.varint()?, input.varint()?, input.varint()?);
            let state = HardState { term, vote, commit, ..HardState::default() };
            Some(state)
        }
        other => return Err(WireError::Tag { found: other }),
    };
    let count = input.count(5)?;
    let mut entries = Vec::with_capacity(count);
    for _ in 0..count {
        let entry_type = match input.u8()? {
            0 => EntryType::EntryNormal,
            1 => EntryType::EntryConfChange,
            2 => EntryType::EntryConfChangeV2,
            other => return Err(WireError::Tag { found: other }),
        };
        let (term, index) = (input.varint()?, input.varint()?);
        let (context, data) = (input.bytes()?, input.bytes()?);
        let entry = Entry { entry_type, term, index, context, data, ..Entry::default() };
        entries.push(entry);
    }
    input.end()?;
    Ok(Record { hard_state, entries })
}

#[cfg(test)]
mod tests;
