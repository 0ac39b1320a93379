//! The group's members as replicated state: who they are, where they are reached, and who was removed.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use crate::wire::{Reader, WireError, Writer};

/// What a member may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It votes, and counts for what is durable.
    Voter,
    /// It only follows; it becomes a voter when it has caught up.
    Learner,
}

/// What the group knows of a member.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Member {
    /// What people call it.
    pub name: String,
    /// Where its peers reach it.
    pub address: String,
}

/// All members that there are and were. Ids are never given twice.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Members {
    pub(crate) known: BTreeMap<u64, Member>,
    pub(crate) removed: BTreeSet<u64>,
}

/// A change of the group's members, as the log carries it beside Raft's own part of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Note {
    /// Who asked: the member and its run.
    pub asked_by: (u64, u64),
    /// What the asking member calls the change.
    pub number: u64,
    /// The member that is added; empty for other changes.
    pub member: Member,
}

// === impl Members ===

impl Members {
    /// Members of whom only the ids are known.
    pub(crate) fn of(ids: &[u64]) -> Self {
        Self { known: ids.iter().map(|id| (*id, Member::default())).collect(), removed: BTreeSet::new() }
    }

    /// The members, by id.
    pub fn iter(&self) -> impl Iterator<Item = (u64, &Member)> {
        self.known.iter().map(|(id, member)| (*id, member))
    }

    /// A member.
    pub fn get(&self, id: u64) -> Option<&Member> {
        self.known.get(&id)
    }

    /// Whether a member of that id was removed.
    pub fn was_removed(&self, id: u64) -> bool {
        self.removed.contains(&id)
    }

    /// An id that no member has or had.
    pub fn fresh_id(&self) -> u64 {
        let highest = self.known.last_key_value().map(|(id, _)| *id).max(self.removed.last().copied());
        highest.unwrap_or(0) + 1
    }

    pub(crate) fn set(&mut self, id: u64, member: Member) {
        self.known.insert(id, member);
    }

    pub(crate) fn remove(&mut self, id: u64) {
        self.known.remove(&id);
        self.removed.insert(id);
    }

    pub(crate) fn encode(&self, out: &mut Writer) {
        out.varint(self.known.len() as u64);
        for (id, member) in &self.known {
            out.varint(*id);
            member.encode(out);
        }
        out.numbers(&self.removed.iter().copied().collect::<Vec<_>>());
    }

    pub(crate) fn decode(input: &mut Reader<'_>) -> Result<Self, WireError> {
        let count = input.count(3)?;
        let known = (0..count).map(|_| Ok((input.varint()?, Member::decode(input)?)));
        let known = known.collect::<Result<_, WireError>>()?;
        Ok(Self { known, removed: input.numbers()?.into_iter().collect() })
    }
}

// === impl Member ===

impl Member {
    pub(crate) fn encode(&self, out: &mut Writer) {
        out.bytes(self.name.as_bytes());
        out.bytes(self.address.as_bytes());
    }

    pub(crate) fn decode(input: &mut Reader<'_>) -> Result<Self, WireError> {
        let mut text = || Ok(String::from_utf8_lossy(&input.bytes()?).into_owned());
        Ok(Self { name: text()?, address: text()? })
    }
}

// === impl Note ===

impl Note {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Writer::default();
        out.numbers(&[self.asked_by.0, self.asked_by.1, self.number]);
        self.member.encode(&mut out);
        out.finish()
    }

    pub(crate) fn decode(data: &Bytes) -> Result<Self, WireError> {
        let mut input = Reader::new(data);
        let [member, boot, number] = input.numbers()?[..] else { return Err(WireError::Range) };
        let note = Self { asked_by: (member, boot), number, member: Member::decode(&mut input)? };
        input.end()?;
        Ok(note)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_never_given_twice() {
        let mut members = Members::default();
        assert_eq!(members.fresh_id(), 1);
        for id in [1, 2, 3] {
            members.set(id, Member::default());
        }
        members.remove(3);
        assert_eq!(members.fresh_id(), 4);
        assert!(members.was_removed(3) && !members.was_removed(2) && members.get(3).is_none());
    }

    #[test]
    fn decodes_what_was_encoded() {
        let member = Member { name: "a".into(), address: "b:1".into() };
        let mut members = Members::default();
        members.set(7, member.clone());
        members.remove(5);
        let mut out = Writer::default();
        members.encode(&mut out);
        let data = Bytes::from(out.finish());
        assert_eq!(Members::decode(&mut Reader::new(&data)), Ok(members));
        let note = Note { asked_by: (1, 2), number: 3, member };
        assert_eq!(Note::decode(&note.encode().into()), Ok(note));
    }
}
