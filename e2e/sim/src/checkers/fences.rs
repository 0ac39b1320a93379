//! `stale-leaders-fenced`: what is written in the name of a term is applied before the next term's fence, or never.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use store_core::{Change, Event, Op, Txn};

use crate::kernel::Sim;

/// Where the API server keeps fences.
const FENCES: &str = "/fences/";

/// What a transaction makes of a key: the new value, or nothing.
type Wish = (Bytes, Option<Bytes>);

/// The checker.
pub struct Fences {
    sim: Sim,
    /// The term that each fence stands for.
    terms: RefCell<BTreeMap<String, Bytes>>,
    /// In the name of which terms something was to be written; `None`: of no term.
    wishes: RefCell<BTreeMap<Wish, BTreeSet<Option<String>>>>,
}

// === impl Fences ===

impl Fences {
    /// Nobody was elected.
    pub fn new(sim: &Sim) -> Self {
        Self { sim: sim.clone(), terms: RefCell::default(), wishes: RefCell::default() }
    }

    /// A transaction was planned, in the name of a term if it has one.
    pub fn planned(&self, term: Option<&str>, txn: &Txn) {
        let mut wishes = self.wishes.borrow_mut();
        for op in &txn.ops {
            let wish = match op {
                Op::Put { key, value, .. } => (key.clone(), Some(value.bytes.clone())),
                Op::Delete { key } => (key.clone(), None),
            };
            wishes.entry(wish).or_default().insert(term.map(str::to_owned));
        }
    }

    /// An event was applied for the first time.
    pub fn applied(&self, event: &Event) {
        let value = match &event.change {
            Change::Put { value, .. } => Some(value.clone()),
            Change::Delete { .. } => None,
        };
        if let Some(lease) = std::str::from_utf8(&event.key).ok().and_then(|key| key.strip_prefix(FENCES)) {
            let mut terms = self.terms.borrow_mut();
            match value {
                Some(term) => drop(terms.insert(lease.to_owned(), term)),
                None => drop(terms.remove(lease)),
            }
            return;
        }
        let wishes = self.wishes.borrow();
        let Some(terms) = wishes.get(&(event.key.clone(), value)) else { return };
        if !terms.iter().any(|term| self.lasts(term.as_deref())) {
            let (key, revision) = (String::from_utf8_lossy(&event.key), event.revision);
            let message = format!("{key} was written at {revision} in the name of {terms:?}, which is over");
            self.sim.violated("stale-leaders-fenced", message);
        }
    }

    /// Whether a term is that of its fence; who names none is always heard.
    fn lasts(&self, term: Option<&str>) -> bool {
        let Some((lease, term)) = term.map(|term| term.split_once(' ').unwrap_or((term, ""))) else {
            return true;
        };
        self.terms.borrow().get(lease).is_some_and(|current| *current == term.as_bytes())
    }
}
