//! What a Raft entry carries: commands, each with its origin, in a compact versioned encoding.

use bytes::Bytes;

use crate::txn::{Compare, Expect, Op, Txn, Value};
use crate::wire::{Reader, WireError, Writer};

/// The version of the encoding that this code writes.
pub const FORMAT: u8 = 1;

/// One command of the replicated log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// Who minted it; a command of one origin is applied at most once.
    pub origin: Origin,
    /// What it does.
    pub body: Body,
}

/// Names a command for good.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Origin {
    /// The member that minted the command.
    pub member: u64,
    /// That member's run; a later run has a larger number.
    pub boot: u64,
    /// Counts the commands of the run, from 1.
    pub sequence: u64,
}

/// What a command does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// A writer's transaction.
    Txn(Txn),
    /// Deletes keys whose time has come, each only while it is still at that revision.
    Expire(Vec<(Bytes, u64)>),
}

const TXN: u8 = 1;
const EXPIRE: u8 = 2;
const ABSENT: u8 = 0;
const PRESENT: u8 = 1;
const REVISION: u8 = 2;
const PUT: u8 = 0;
const DELETE: u8 = 1;

/// Encodes a batch of commands as the data of one Raft entry.
pub fn encode(commands: &[Command]) -> Vec<u8> {
    let size: usize = commands.iter().map(|command| command.body.size() + 40).sum();
    let mut out = Writer::with_capacity(size + 16);
    out.u8(FORMAT);
    out.varint(commands.len() as u64);
    for command in commands {
        out.varint(command.origin.member);
        out.varint(command.origin.boot);
        out.varint(command.origin.sequence);
        match &command.body {
            Body::Txn(txn) => {
                out.u8(TXN);
                encode_txn(&mut out, txn);
            }
            Body::Expire(keys) => {
                out.u8(EXPIRE);
                out.varint(keys.len() as u64);
                for (key, revision) in keys {
                    out.bytes(key);
                    out.varint(*revision);
                }
            }
        }
    }
    out.finish()
}

/// Decodes the data of a Raft entry; keys and values are slices of `data`.
pub fn decode(data: &Bytes) -> Result<Vec<Command>, WireError> {
    let mut input = Reader::new(data);
    let version = input.u8()?;
    if version != FORMAT {
        return Err(WireError::Version { found: version.into() });
    }
    let count = input.count(4)?;
    let mut commands = Vec::with_capacity(count);
    for _ in 0..count {
        let origin = Origin { member: input.varint()?, boot: input.varint()?, sequence: input.varint()? };
        let body = match input.u8()? {
            TXN => Body::Txn(decode_txn(&mut input)?),
            EXPIRE => {
                let count = input.count(2)?;
                let keys = (0..count).map(|_| Ok((input.bytes()?, input.varint()?)));
                Body::Expire(keys.collect::<Result<_, WireError>>()?)
            }
            other => return Err(WireError::Tag { found: other }),
        };
        commands.push(Command { origin, body });
    }
    input.end()?;
    Ok(commands)
}

fn encode_txn(out: &mut Writer, txn: &Txn) {
    out.varint(txn.compares.len() as u64);
    for compare in &txn.compares {
        out.bytes(&compare.key);
        match compare.expect {
            Expect::Absent => out.u8(ABSENT),
            Expect::Present => out.u8(PRESENT),
            Expect::Revision(revision) => {
                out.u8(REVISION);
                out.varint(revision);
            }
        }
    }
    out.varint(txn.ops.len() as u64);
    for op in &txn.ops {
        match op {
            Op::Put { key, value, expires_at_ms } => {
                out.u8(PUT);
                out.bytes(key);
                out.bytes(&value.bytes);
                out.optional(value.splice_at.map(u64::from));
                out.optional(expires_at_ms.map(|ms| ms as u64));
            }
            Op::Delete { key } => {
                out.u8(DELETE);
                out.bytes(key);
            }
        }
    }
}

fn decode_txn(input: &mut Reader<'_>) -> Result<Txn, WireError> {
    let count = input.count(2)?;
    let mut compares = Vec::with_capacity(count);
    for _ in 0..count {
        let key = input.bytes()?;
        let expect = match input.u8()? {
            ABSENT => Expect::Absent,
            PRESENT => Expect::Present,
            REVISION => Expect::Revision(input.varint()?),
            other => return Err(WireError::Tag { found: other }),
        };
        compares.push(Compare { key, expect });
    }
    let count = input.count(2)?;
    let mut ops = Vec::with_capacity(count);
    for _ in 0..count {
        ops.push(match input.u8()? {
            PUT => {
                let key = input.bytes()?;
                let bytes = input.bytes()?;
                let splice_at = input.optional()?.map(|at| at as u32);
                let expires_at_ms = input.optional()?.map(|ms| ms as i64);
                Op::Put { key, value: Value { bytes, splice_at }, expires_at_ms }
            }
            DELETE => Op::Delete { key: input.bytes()? },
            other => return Err(WireError::Tag { found: other }),
        });
    }
    Ok(Txn { compares, ops })
}

// === impl Body ===

impl Body {
    /// The bytes that the body carries.
    pub fn size(&self) -> usize {
        match self {
            Self::Txn(txn) => txn.size(),
            Self::Expire(keys) => keys.iter().map(|(key, _)| key.len() + 16).sum(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Vec<Command> {
        let txn = Txn {
            compares: vec![
                Compare { key: "a".into(), expect: Expect::Absent },
                Compare { key: "b".into(), expect: Expect::Present },
                Compare { key: "c".into(), expect: Expect::Revision(u64::MAX) },
            ],
            ops: vec![
                Op::Put { key: "a".into(), value: Value::spliced("{}", 1), expires_at_ms: Some(-5) },
                Op::Put { key: "b".into(), value: Value::plain(""), expires_at_ms: None },
                Op::Delete { key: "c".into() },
            ],
        };
        let origin = Origin { member: 1, boot: 2, sequence: 3 };
        vec![
            Command { origin, body: Body::Txn(txn) },
            Command { origin, body: Body::Expire(vec![("e".into(), 9), ("f".into(), 10)]) },
        ]
    }

    #[test]
    fn decodes_what_was_encoded() {
        let data = Bytes::from(encode(&sample()));
        assert_eq!(decode(&data).unwrap(), sample());
    }

    #[test]
    fn refuses_every_truncation_and_other_versions() {
        let data = Bytes::from(encode(&sample()));
        for end in 0..data.len() {
            assert!(decode(&data.slice(..end)).is_err(), "cut at {end}");
        }
        let mut other = data.to_vec();
        other[0] = FORMAT + 1;
        assert!(matches!(decode(&other.into()), Err(WireError::Version { .. })));
    }
}
