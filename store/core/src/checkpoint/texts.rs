//! What a checkpoint holds before it is sealed: texts of bounded size, made from an image and read into one.

use std::collections::BTreeMap;
use std::ops::Bound;

use bytes::Bytes;
use raft::eraftpb::ConfState;

use super::{BLOCK, Image, VERSION};
use crate::members::Members;
use crate::snapshot::{Entry, Snapshot};
use crate::state::{Applied, Session};
use crate::wire::{Reader, WireError, Writer};

const META: u8 = 1;
const OBJECTS: u8 = 2;
const END: u8 = 3;
/// Checkpoints before this version know no members but their ids.
const WITH_MEMBERS: u32 = 2;

/// Turns an image into texts, one at a time.
pub struct Texts {
    image: Image,
    version: u32,
    stage: Stage,
}

enum Stage {
    Meta,
    Objects { behind: Option<Bytes> },
    Done,
}

/// The facts of a checkpoint besides its objects.
pub(super) struct Meta {
    pub(super) image: Image,
    pub(super) count: u64,
}

// === impl Texts ===

impl Texts {
    /// The texts of an image.
    pub fn new(image: Image) -> Self {
        Self::of_version(image, VERSION)
    }

    /// The texts of an image as an earlier program wrote them. What that one did not know is left out.
    pub(super) fn of_version(image: Image, version: u32) -> Self {
        Self { image, version, stage: Stage::Meta }
    }

    /// The next text, behind what `start` holds; `None` at the end.
    pub fn next_text(&mut self, start: Vec<u8>) -> Option<Vec<u8>> {
        let mut out = Writer::behind(start);
        match std::mem::replace(&mut self.stage, Stage::Done) {
            Stage::Meta => {
                write_meta(&mut out, &self.image, self.image.snapshot.len() as u64, self.version);
                self.stage = Stage::Objects { behind: None };
            }
            Stage::Objects { behind } => self.objects(&mut out, behind),
            Stage::Done => return None,
        }
        Some(out.finish())
    }

    fn objects(&mut self, out: &mut Writer, behind: Option<Bytes>) {
        let from = behind.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let begun = out.len();
        out.u8(OBJECTS);
        for (key, entry) in self.image.snapshot.objects.range::<_, [u8]>((from, Bound::Unbounded)) {
            out.bytes(key);
            out.varint(entry.revision);
            out.varint(entry.revision - entry.create_revision);
            out.optional(entry.expires_at_ms().map(|ms| ms as u64));
            out.optional(entry.splice_at().map(u64::from));
            out.bytes(&entry.value);
            if out.len() - begun >= BLOCK {
                self.stage = Stage::Objects { behind: Some(key.clone()) };
                return;
            }
        }
        out.u8(END);
    }
}

/// The text of a received image's facts, so that they say where it comes from; returns the index too.
pub(super) fn mark_received(text: &Bytes) -> Result<(u64, Vec<u8>), WireError> {
    let mut meta = read_meta(text, VERSION)?;
    meta.image.received = true;
    let mut out = Writer::with_capacity(text.len() + 16);
    write_meta(&mut out, &meta.image, meta.count, VERSION);
    Ok((meta.image.applied.index, out.finish()))
}

fn write_meta(out: &mut Writer, image: &Image, count: u64, version: u32) {
    let Image { applied, conf_state, sessions, members, received, snapshot } = image;
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
    out.varint(count);
    if version >= WITH_MEMBERS {
        out.u8(u8::from(*received));
        members.encode(out);
    }
}

pub(super) fn read_meta(text: &Bytes, version: u32) -> Result<Meta, WireError> {
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
    let (received, members) = if version >= WITH_MEMBERS {
        (input.u8()? != 0, Members::decode(&mut input)?)
    } else {
        (false, Members::of(&conf_state.voters))
    };
    input.end()?;
    Ok(Meta { image: Image { applied, conf_state, sessions, members, received, snapshot }, count })
}

/// Reads a text of objects; returns whether it is the last.
pub(super) fn read_objects(text: &Bytes, object: &mut impl FnMut(Bytes, Entry)) -> Result<bool, WireError> {
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
