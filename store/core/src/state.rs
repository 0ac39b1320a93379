//! The deterministic state machine: applies commands in log order, the same way on every member.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;

use crate::audit::Audit;
use crate::command::{Body, Command, Origin};
use crate::event::{Change, Event};
use crate::members::Members;
use crate::snapshot::{Entry, Snapshot};
use crate::txn::{Compare, Expect, Op, Outcome, Txn, Value};

/// The replicated state: live keys, the index that they stand for, who was already served, and the members.
#[derive(Clone, Debug, Default)]
pub struct StateMachine {
    pub(crate) live: Snapshot,
    pub(crate) applied: Applied,
    pub(crate) sessions: BTreeMap<u64, Session>,
    pub(crate) members: Members,
    pub(crate) audit: Audit,
    expiries: BTreeSet<(i64, Bytes)>,
}

/// Where in the Raft log a state stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// The index of the last applied entry.
    pub index: u64,
    /// That entry's term.
    pub term: u64,
}

/// Which commands of a member were applied: the newest, and a window behind it.
///
/// What is older than the window, or from an earlier boot, counts as applied: a command is never applied twice,
/// at the price that one which comes very late is not applied at all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Session {
    /// The member's newest run.
    pub boot: u64,
    /// The newest sequence of that run.
    pub highest: u64,
    /// Bit n is set when sequence `highest - n` was applied.
    pub window: u64,
}

// === impl Session ===

impl Session {
    /// How far behind the newest command one may come and still be applied.
    pub const WINDOW: u64 = 64;

    /// Notes a command; `false`: it was applied before, or comes too late to tell.
    fn admit(&mut self, origin: Origin) -> bool {
        if origin.boot < self.boot {
            return false;
        }
        if origin.boot > self.boot {
            *self = Self { boot: origin.boot, highest: origin.sequence, window: 1 };
            return true;
        }
        if origin.sequence > self.highest {
            let ahead = origin.sequence - self.highest;
            self.window =
                u32::try_from(ahead).ok().and_then(|by| self.window.checked_shl(by)).unwrap_or(0) | 1;
            self.highest = origin.sequence;
            return true;
        }
        let behind = self.highest - origin.sequence;
        let seen = behind >= Self::WINDOW || self.window & (1 << behind) != 0;
        if !seen {
            self.window |= 1 << behind;
        }
        !seen
    }
}

// === impl StateMachine ===

impl StateMachine {
    /// An empty state.
    pub fn new() -> Self {
        Self::default()
    }

    /// A state as it is read from a checkpoint.
    pub(crate) fn restore(
        live: Snapshot,
        applied: Applied,
        sessions: BTreeMap<u64, Session>,
        members: Members,
    ) -> Self {
        let expiring =
            live.objects.iter().filter_map(|(key, entry)| Some((entry.expires_at_ms()?, key.clone())));
        let expiries = expiring.collect();
        Self { live, applied, sessions, members, audit: Audit::default(), expiries }
    }

    /// The live keys. Cheap.
    pub fn snapshot(&self) -> &Snapshot {
        &self.live
    }

    /// Where in the log this state stands.
    pub fn applied(&self) -> Applied {
        self.applied
    }

    /// The group's members.
    pub fn members(&self) -> &Members {
        &self.members
    }

    /// What members have told of their states.
    pub fn audit(&self) -> &Audit {
        &self.audit
    }

    /// Records that the entry at this index was applied.
    pub fn advance(&mut self, applied: Applied) {
        self.applied = applied;
    }

    /// The boot that a member must at least take for its next run.
    pub fn next_boot(&self, member: u64) -> u64 {
        self.sessions.get(&member).map_or(1, |session| session.boot + 1)
    }

    /// When the first key expires.
    pub fn next_expiry_ms(&self) -> Option<i64> {
        self.expiries.first().map(|(at, _)| *at)
    }

    /// The keys whose time has come, with their revisions; a command with them takes at most `limit` bytes.
    pub fn expired(&self, now_ms: i64, limit: usize) -> Vec<(Bytes, u64)> {
        let mut left = limit;
        let due = self.expiries.iter().take_while(|(at, key)| {
            let fits = left.checked_sub(key.len() + 32);
            left = fits.unwrap_or(0);
            *at <= now_ms && fits.is_some()
        });
        due.filter_map(|(_, key)| Some((key.clone(), self.live.get(key)?.revision))).collect()
    }

    /// Applies the command of the entry at `index` and appends its events; returns an outcome for each of its bodies.
    /// `None`: the command had been applied before.
    pub fn apply(
        &mut self,
        command: &Command,
        index: u64,
        events: &mut Vec<Arc<Event>>,
    ) -> Option<Vec<Outcome>> {
        if !self.admit(command.origin) {
            return None;
        }
        let member = command.origin.member;
        let outcomes = command.bodies.iter().map(|body| {
            match body {
                Body::Txn(txn) => return self.transact(txn, events),
                Body::Expire(keys) => return self.expire(keys, events),
                Body::Describe(described) if self.members.get(member).is_some() => {
                    self.members.set(member, described.clone());
                }
                Body::Describe(_) => {}
                Body::Mark => self.audit.mark(index, self.hash()),
                Body::Report { mark, hash } => self.audit.report(*mark, member, *hash),
            }
            Outcome::Committed { revisions: Vec::new() }
        });
        Some(outcomes.collect())
    }

    /// Whether a command of this origin was applied, or will never be.
    pub fn is_settled(&self, origin: Origin) -> bool {
        self.sessions.get(&origin.member).is_some_and(|session| !session.clone().admit(origin))
    }

    /// What members compare: the hash of the live keys, and the revision.
    pub fn hash(&self) -> u64 {
        self.live.hash.rotate_left(1) ^ self.live.revision
    }

    /// Applies a transaction without a log: for tests of those who prepare transactions.
    pub fn commit(&mut self, txn: &Txn) -> (Outcome, Vec<Arc<Event>>) {
        let mut events = Vec::new();
        let outcome = self.transact(txn, &mut events);
        (outcome, events)
    }

    fn admit(&mut self, origin: Origin) -> bool {
        self.sessions.entry(origin.member).or_default().admit(origin)
    }

    fn transact(&mut self, txn: &Txn, events: &mut Vec<Arc<Event>>) -> Outcome {
        if let Some(compare) = txn.compares.iter().position(|compare| !self.holds(compare)) {
            return Outcome::Conflict { compare };
        }
        let mut revisions = Vec::with_capacity(txn.ops.len());
        for op in &txn.ops {
            match op {
                Op::Put { key, value, expires_at_ms } => {
                    events.push(Arc::new(self.put(key, value, *expires_at_ms)));
                }
                Op::Delete { key } => events.extend(self.delete(key).map(Arc::new)),
            }
            revisions.push(self.live.revision);
        }
        Outcome::Committed { revisions }
    }

    fn expire(&mut self, keys: &[(Bytes, u64)], events: &mut Vec<Arc<Event>>) -> Outcome {
        let mut revisions = Vec::new();
        for (key, revision) in keys {
            if self.live.get(key).is_some_and(|entry| entry.revision == *revision) {
                events.extend(self.delete(key).map(Arc::new));
                revisions.push(self.live.revision);
            }
        }
        Outcome::Committed { revisions }
    }

    fn holds(&self, compare: &Compare) -> bool {
        let found = self.live.get(&compare.key).map(|entry| entry.revision);
        match compare.expect {
            Expect::Absent => found.is_none(),
            Expect::Present => found.is_some(),
            Expect::Revision(revision) => found == Some(revision),
        }
    }

    fn put(&mut self, key: &Bytes, value: &Value, expires_at_ms: Option<i64>) -> Event {
        self.live.revision += 1;
        let revision = self.live.revision;
        let (bytes, splice_at) = splice(value, revision);
        // A key lives in an allocation of its own, shared by map and events: the command's buffer is let go.
        let known = self
            .live
            .objects
            .get_key_value(&key[..])
            .map(|(key, entry)| (key.clone(), entry.create_revision));
        let (key, created) = known.unwrap_or_else(|| (Bytes::copy_from_slice(key), revision));
        let entry = Entry::new(bytes.clone(), created, revision, expires_at_ms, splice_at);
        let old = self.live.put(key.clone(), entry);
        if let Some(at) = old.as_ref().and_then(Entry::expires_at_ms) {
            self.expiries.remove(&(at, key.clone()));
        }
        if let Some(at) = expires_at_ms.filter(|at| *at != i64::MAX) {
            self.expiries.insert((at, key.clone()));
        }
        let before = old.as_ref().map(Entry::before);
        let change = Change::Put { value: bytes, previous: old.map(|old| old.value) };
        Event { revision, key, change, before }
    }

    fn delete(&mut self, key: &Bytes) -> Option<Event> {
        let (key, old) = self.live.remove(key)?;
        self.live.revision += 1;
        let revision = self.live.revision;
        if let Some(at) = old.expires_at_ms() {
            self.expiries.remove(&(at, key.clone()));
        }
        let before = Some(old.before());
        let change = Change::Delete { last: splice_again(&old, revision), previous: old.value };
        Some(Event { revision, key, change, before })
    }
}

/// Writes the decimal revision into a value; returns where.
fn splice(value: &Value, revision: u64) -> (Bytes, Option<u32>) {
    let Some(at) = value.splice_at else {
        return (Bytes::copy_from_slice(&value.bytes), None);
    };
    let at = value.bytes.len().min(at as usize);
    let (head, tail) = value.bytes.split_at(at);
    (join(head, revision, tail), Some(at as u32))
}

/// The stored value with another revision in the place of its own.
fn splice_again(entry: &Entry, revision: u64) -> Bytes {
    let Some(at) = entry.splice_at() else {
        return entry.value.clone();
    };
    let (head, rest) = entry.value.split_at(at as usize);
    join(head, revision, &rest[digits(entry.revision)..])
}

fn join(head: &[u8], revision: u64, tail: &[u8]) -> Bytes {
    let width = digits(revision);
    let mut out = Vec::with_capacity(head.len() + width + tail.len());
    out.extend_from_slice(head);
    out.resize(head.len() + width, b'0');
    let mut left = revision;
    for digit in out[head.len()..].iter_mut().rev() {
        *digit += (left % 10) as u8;
        left /= 10;
    }
    out.extend_from_slice(tail);
    Bytes::from(out)
}

fn digits(number: u64) -> usize {
    number.checked_ilog10().map_or(1, |log| log as usize + 1)
}

#[cfg(test)]
mod tests;
