//! Keeps writers of a past term out: a leader names its term, and its writes hold only while that term lasts.
//!
//! Beside each Lease that counts its transitions stands a *fence*: a key that changes only when the Lease changes hands. A
//! writer that was elected by the Lease sends its term in the header [`HEADER`]; the fence then is one more comparison of
//! its transaction. A leader that was paused and does not know yet that another has taken over fails this comparison,
//! whatever it writes. (Kleppmann, "How to do distributed locking": a lock is only as good as its fencing token.)

use http::HeaderMap;
use store_core::{Compare, Entry, Expect, Op, Snapshot, Txn, Value as Stored};

use crate::failure::{self, Refused};
use crate::keys;
use crate::request::Request;
use crate::response::Prepared;
use crate::scan;

/// The header by which an elected writer names its term: `NAMESPACE/NAME TRANSITIONS HOLDER` of its Lease.
pub const HEADER: &str = "orlop-fence";

/// Holds a planned write against the term that its writer names, and has fences follow their Leases.
pub(crate) fn guard(snapshot: &Snapshot, request: &Request, prepared: Prepared) -> Result<Prepared, Refused> {
    let mut prepared = prepared;
    let txn = match &mut prepared {
        Prepared::Commit(commit) => &mut commit.txn,
        Prepared::Part(part) => &mut part.txn,
        Prepared::Respond(_)
        | Prepared::Ask(_)
        | Prepared::Measure(_)
        | Prepared::Watch(_)
        | Prepared::Connect(_) => return Ok(prepared),
    };
    follow(snapshot, txn);
    txn.compares.extend(required(snapshot, &request.headers)?);
    Ok(prepared)
}

/// Adds what the transaction does to fences, behind its own operations.
fn follow(snapshot: &Snapshot, txn: &mut Txn) {
    let mut further = Vec::new();
    for op in &txn.ops {
        match op {
            Op::Put { key, value, .. } => {
                let Some(fence) = keys::fence_of_lease(key) else { continue };
                let Some(term) = term(&value.bytes) else { continue };
                if snapshot.get(&fence).is_none_or(|known| known.value != term.as_bytes()) {
                    further.push(Op::Put { key: fence, value: Stored::plain(term), expires_at_ms: None });
                }
            }
            Op::Delete { key } => {
                let fence = keys::fence_of_lease(key).filter(|fence| snapshot.get(fence).is_some());
                further.extend(fence.map(|key| Op::Delete { key }));
            }
        }
    }
    txn.ops.append(&mut further);
}

/// The term that a stored Lease stands for: `TRANSITIONS HOLDER`. `None`: it counts no transitions, as those of nodes.
fn term(lease: &[u8]) -> Option<String> {
    let transitions = scan::scalar(lease, &["spec", "leaseTransitions"])?;
    let holder = scan::text(lease, &["spec", "holderIdentity"]).unwrap_or_default();
    Some(format!("{transitions} {holder}"))
}

/// The comparison that the writer's term asks for.
fn required(snapshot: &Snapshot, headers: &HeaderMap) -> Result<Option<Compare>, Refused> {
    let Some(header) = headers.get(HEADER) else { return Ok(None) };
    let claimed = header.to_str().ok().and_then(|text| {
        let (lease, term) = text.split_once(' ')?;
        let (namespace, name) = lease.split_once('/')?;
        Some((keys::fence(namespace, name), lease, term))
    });
    let Some((key, lease, term)) = claimed else {
        return Err(failure::bad_request("the header orlop-fence must be NAMESPACE/NAME TRANSITIONS HOLDER"));
    };
    match snapshot.get(&key) {
        Some(Entry { value, revision, .. }) if value == term.as_bytes() => {
            Ok(Some(Compare { key, expect: Expect::Revision(*revision) }))
        }
        _ => Err(failure::fenced(lease)),
    }
}
