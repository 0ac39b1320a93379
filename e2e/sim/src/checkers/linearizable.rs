//! `store-linearizable`: what clients are answered fits one order of all transactions that agrees with real time.
//!
//! The order need not be searched for: every operation has a revision. A write that was acknowledged is in the order
//! as it was asked for, its comparisons held there, and it stands behind everything that had been acknowledged when it
//! began. A conflict is justified by some state between its beginning and its answer. A read shows the state of its
//! revision, and that is not older than what had been acknowledged when it began. A refused write is not in the order,
//! and no write is in it twice.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;

use bytes::Bytes;
use store_core::{Change, Event, Expect, Op, Txn};

use crate::checkers::replicas::Order;
use crate::kernel::Sim;

const ID: &str = "store-linearizable";

/// The checker.
pub struct Linearizable {
    sim: Sim,
    acknowledged: Cell<u64>,
    seen: RefCell<BTreeSet<Bytes>>,
    refused: RefCell<BTreeSet<Bytes>>,
}

// === impl Linearizable ===

impl Linearizable {
    /// No client has done anything.
    pub fn new(sim: &Sim) -> Self {
        Self {
            sim: sim.clone(),
            acknowledged: Cell::new(0),
            seen: RefCell::default(),
            refused: RefCell::default(),
        }
    }

    /// The newest revision that any client was told of. An operation that begins now must not see less.
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged.get()
    }

    /// A client was told of a revision.
    pub fn acknowledge(&self, revision: u64) {
        self.acknowledged.set(self.acknowledged.get().max(revision));
    }

    /// An event was applied for the first time. Values of the store's own clients are unique.
    pub fn applied(&self, event: &Event) {
        let Change::Put { value, .. } = &event.change else { return };
        if !event.key.starts_with(b"/registers/") {
            return;
        }
        if !self.seen.borrow_mut().insert(value.clone()) {
            self.report(format!("{} was written twice, the second time at {}", show(value), event.revision));
        }
        if self.refused.borrow().contains(value) {
            self.report(format!("{} was refused, and is applied at {}", show(value), event.revision));
        }
    }

    /// A transaction that began when `floor` was acknowledged is acknowledged itself.
    pub fn committed(&self, order: &Order, floor: u64, txn: &Txn, revisions: &[u64]) {
        for (op, revision) in txn.ops.iter().zip(revisions) {
            let event = order.event(*revision);
            let fits = event.is_some_and(|event| match (op, &event.change) {
                (Op::Put { key, value, .. }, Change::Put { value: stored, .. }) => {
                    event.key == *key && *stored == value.bytes
                }
                (Op::Delete { key }, Change::Delete { .. }) => event.key == *key,
                _ => false,
            });
            // A delete of an absent key takes no revision, and tells the one before it.
            let vain = matches!(op, Op::Delete { key } if !lives(order, key, *revision));
            if !fits && !vain {
                self.report(format!("{op:?} was acknowledged at {revision}, where something else is"));
            }
            if *revision < floor || (*revision == floor && !vain) {
                self.report(format!(
                    "{op:?} got revision {revision}, but {floor} was acknowledged before it began"
                ));
            }
        }
        if let Some(first) =
            revisions.first().filter(|_| txn.ops.iter().all(|op| matches!(op, Op::Put { .. })))
        {
            let broken =
                txn.compares.iter().find(|compare| !holds_at(order, &compare.key, compare.expect, first - 1));
            if let Some(compare) = broken {
                self.report(format!(
                    "a transaction was applied at {first} although {compare:?} did not hold"
                ));
            }
        }
        revisions.iter().for_each(|revision| self.acknowledge(*revision));
    }

    /// A transaction that began when `floor` was acknowledged got a conflict.
    pub fn conflicted(&self, order: &Order, floor: u64, txn: &Txn, compare: usize) {
        let Some(compare) = txn.compares.get(compare) else { return };
        let changes = order.versions(&compare.key).iter().map(|(revision, _)| *revision);
        let mut states = changes.filter(|revision| *revision > floor).chain([floor]);
        if states.all(|revision| holds_at(order, &compare.key, compare.expect, revision)) {
            self.report(format!("a conflict was reported although {compare:?} has held since {floor}"));
        }
        self.refuse(txn);
    }

    /// A transaction was refused: it must never be applied.
    pub fn refuse(&self, txn: &Txn) {
        for op in &txn.ops {
            let Op::Put { value, .. } = op else { continue };
            if self.seen.borrow().contains(&value.bytes) {
                self.report(format!("{} was refused, but is applied", show(&value.bytes)));
            }
            self.refused.borrow_mut().insert(value.bytes.clone());
        }
    }

    /// A read that began when `floor` was acknowledged has found this at `revision`.
    pub fn read(&self, order: &Order, floor: u64, key: &[u8], revision: u64, found: Option<&Bytes>) {
        if revision < floor {
            self.report(format!(
                "a read shows revision {revision}, but {floor} was acknowledged before it began"
            ));
        }
        let Some(state) = order.state(revision) else { return };
        let expected = state.get(key).map(|(_, value)| value);
        if expected != found {
            let key = String::from_utf8_lossy(key);
            self.report(format!("a read of {key} at {revision} shows {found:?}, not {expected:?}"));
        }
        self.acknowledge(revision);
    }

    fn report(&self, message: String) {
        self.sim.violated(ID, message);
    }
}

fn lives(order: &Order, key: &[u8], revision: u64) -> bool {
    holds_at(order, key, Expect::Present, revision)
}

fn holds_at(order: &Order, key: &[u8], expect: Expect, revision: u64) -> bool {
    let versions = order.versions(key);
    let known = versions.partition_point(|(at, _)| *at <= revision);
    let current = known.checked_sub(1).and_then(|place| versions.get(place)).filter(|(_, lives)| *lives);
    match expect {
        Expect::Absent => current.is_none(),
        Expect::Present => current.is_some(),
        Expect::Revision(wanted) => current.is_some_and(|(at, _)| *at == wanted),
    }
}

fn show(value: &Bytes) -> String {
    String::from_utf8_lossy(value.get(..value.len().min(40)).unwrap_or_default()).into_owned()
}
