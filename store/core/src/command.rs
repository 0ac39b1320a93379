//! What a Raft entry carries: a command with its origin, in a compact versioned encoding.

use bytes::Bytes;

use crate::members::Member;
use crate::txn::{Compare, Expect, Op, Txn, Value};
use crate::wire::{Reader, WireError, Writer};

/// The version of the encoding that this code writes.
pub const FORMAT: u8 = 2;
/// The version before: each transaction had an origin of its own.
const FORMAT_SINGLE: u8 = 1;

/// What a member puts into the log at once. It is applied at most once, however often it is in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// Who minted it.
    pub origin: Origin,
    /// What it does, in order.
    pub bodies: Vec<Body>,
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

/// One thing that a command does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// A writer's transaction.
    Txn(Txn),
    /// Deletes keys whose time has come, each only while it is still at that revision.
    Expire(Vec<(Bytes, u64)>),
    /// The member of the origin has another name or address.
    Describe(Member),
    /// All members are to tell the hash of their state at this point.
    Mark,
    /// The member of the origin tells the hash that its state had at a mark.
    Report {
        /// The index of the mark.
        mark: u64,
        /// The hash.
        hash: u64,
    },
}

const TXN: u8 = 1;
const EXPIRE: u8 = 2;
const DESCRIBE: u8 = 3;
const MARK: u8 = 4;
const REPORT: u8 = 5;
const ABSENT: u8 = 0;
const PRESENT: u8 = 1;
const REVISION: u8 = 2;
const PUT: u8 = 0;
const DELETE: u8 = 1;

/// Encodes a command as the data of one Raft entry.
pub fn encode(command: &Command) -> Vec<u8> {
    let size: usize = command.bodies.iter().map(|body| body.size() + 16).sum();
    let mut out = Writer::with_capacity(size + 48);
    out.u8(FORMAT);
    encode_origin(&mut out, command.origin);
    out.varint(command.bodies.len() as u64);
    for body in &command.bodies {
        encode_body(&mut out, body);
    }
    out.finish()
}

/// Decodes the data of a Raft entry; keys and values are slices of `data`.
pub fn decode(data: &Bytes) -> Result<Vec<Command>, WireError> {
    let mut input = Reader::new(data);
    let commands = match input.u8()? {
        FORMAT => {
            let origin = decode_origin(&mut input)?;
            let count = input.count(1)?;
            let bodies = (0..count).map(|_| decode_body(&mut input)).collect::<Result<_, _>>()?;
            vec![Command { origin, bodies }]
        }
        FORMAT_SINGLE => {
            let count = input.count(4)?;
            let single = |_| {
                let origin = decode_origin(&mut input)?;
                Ok(Command { origin, bodies: vec![decode_body(&mut input)?] })
            };
            (0..count).map(single).collect::<Result<_, WireError>>()?
        }
        found => return Err(WireError::Version { found: found.into() }),
    };
    input.end()?;
    Ok(commands)
}

fn encode_origin(out: &mut Writer, origin: Origin) {
    out.varint(origin.member);
    out.varint(origin.boot);
    out.varint(origin.sequence);
}

fn decode_origin(input: &mut Reader<'_>) -> Result<Origin, WireError> {
    Ok(Origin { member: input.varint()?, boot: input.varint()?, sequence: input.varint()? })
}

fn encode_body(out: &mut Writer, body: &Body) {
    match body {
        Body::Txn(txn) => {
            out.u8(TXN);
            encode_txn(out, txn);
        }
        Body::Expire(keys) => {
            out.u8(EXPIRE);
            out.varint(keys.len() as u64);
            for (key, revision) in keys {
                out.bytes(key);
                out.varint(*revision);
            }
        }
        Body::Describe(member) => {
            out.u8(DESCRIBE);
            member.encode(out);
        }
        Body::Mark => out.u8(MARK),
        Body::Report { mark, hash } => {
            out.u8(REPORT);
            out.varint(*mark);
            out.varint(*hash);
        }
    }
}

fn decode_body(input: &mut Reader<'_>) -> Result<Body, WireError> {
    Ok(match input.u8()? {
        TXN => Body::Txn(decode_txn(input)?),
        EXPIRE => {
            let count = input.count(2)?;
            let keys = (0..count).map(|_| Ok((input.bytes()?, input.varint()?)));
            Body::Expire(keys.collect::<Result<_, WireError>>()?)
        }
        DESCRIBE => Body::Describe(Member::decode(input)?),
        MARK => Body::Mark,
        REPORT => Body::Report { mark: input.varint()?, hash: input.varint()? },
        found => return Err(WireError::Tag { found }),
    })
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
            Self::Describe(member) => member.name.len() + member.address.len() + 8,
            Self::Mark | Self::Report { .. } => 24,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ORIGIN: Origin = Origin { member: 1, boot: 2, sequence: 3 };

    fn sample() -> Command {
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
        let bodies = vec![
            Body::Txn(txn),
            Body::Expire(vec![("e".into(), 9), ("f".into(), 10)]),
            Body::Describe(Member { name: "n".into(), address: "a:1".into() }),
            Body::Mark,
            Body::Report { mark: 7, hash: u64::MAX },
        ];
        Command { origin: ORIGIN, bodies }
    }

    #[test]
    fn decodes_what_was_encoded() {
        let data = Bytes::from(encode(&sample()));
        assert_eq!(decode(&data).unwrap(), [sample()]);
    }

    #[test]
    fn the_version_before_is_still_read() {
        let mut out = Writer::default();
        out.u8(FORMAT_SINGLE);
        out.varint(2);
        for sequence in [3, 4] {
            encode_origin(&mut out, Origin { sequence, ..ORIGIN });
            encode_body(&mut out, &Body::Txn(Txn::put("k", "v")));
        }
        let single = |sequence| Command {
            origin: Origin { sequence, ..ORIGIN },
            bodies: vec![Body::Txn(Txn::put("k", "v"))],
        };
        assert_eq!(decode(&out.finish().into()).unwrap(), [single(3), single(4)]);
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
