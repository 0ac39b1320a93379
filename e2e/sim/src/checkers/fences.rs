//! `stale-leaders-fenced`: what is written in the name of a term is applied before the next term's fence, or never.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use bytes::Bytes;
use store_core::{Op, Txn, Value};

use crate::kernel::Sim;

/// Where the API server keeps fences.
const FENCES: &str = "/fences/";

/// What a transaction was to make of a key: the new value, or nothing; and in the name of which term.
struct Wish {
    value: Option<Value>,
    term: Option<Rc<str>>,
}

/// The checker.
pub struct Fences {
    sim: Sim,
    /// The term that each fence stands for.
    terms: RefCell<BTreeMap<String, Bytes>>,
    /// What was to be written, by key.
    wishes: RefCell<BTreeMap<Bytes, Vec<Wish>>>,
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
        let term: Option<Rc<str>> = term.map(Into::into);
        for op in &txn.ops {
            let (key, value) = match op {
                Op::Put { key, value, .. } => (key, Some(value.clone())),
                Op::Delete { key } => (key, None),
            };
            wishes.entry(key.clone()).or_default().push(Wish { value, term: term.clone() });
        }
    }

    /// An event was applied for the first time: a key has a new value, or none.
    pub fn applied(&self, key: &Bytes, revision: u64, value: Option<&Bytes>) {
        if let Some(lease) = std::str::from_utf8(key).ok().and_then(|key| key.strip_prefix(FENCES)) {
            let mut terms = self.terms.borrow_mut();
            match value {
                Some(term) => drop(terms.insert(lease.to_owned(), term.clone())),
                None => drop(terms.remove(lease)),
            }
            return;
        }
        let wishes = self.wishes.borrow();
        let wishes = wishes.get(key).into_iter().flatten().filter(|wish| wish.is_met(revision, value));
        let terms: Vec<_> = wishes.map(|wish| wish.term.as_deref()).collect();
        if !terms.is_empty() && !terms.iter().any(|term| self.lasts(*term)) {
            let key = String::from_utf8_lossy(key);
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

// === impl Wish ===

impl Wish {
    /// Whether this is what became of the key. A stored value shows its revision.
    fn is_met(&self, revision: u64, found: Option<&Bytes>) -> bool {
        match (&self.value, found) {
            (Some(value), Some(found)) => {
                let digits = value.splice_at.map_or(String::new(), |_| revision.to_string());
                let at = value.splice_at.map_or(0, |at| at as usize).min(value.bytes.len());
                let (head, tail) = value.bytes.split_at(at);
                let rest = found.strip_prefix(head).and_then(|rest| rest.strip_prefix(digits.as_bytes()));
                rest == Some(tail)
            }
            (None, None) => true,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_of_a_term_that_is_over_is_found_and_others_are_not() {
        for (term, found) in [(Some("a/b 1 x"), true), (Some("a/b 2 y"), false), (None, false)] {
            let sim = Sim::new(1, false);
            let fences = Fences::new(&sim);
            let op = Op::Put { key: "/k".into(), value: Value::spliced("vw", 1), expires_at_ms: None };
            let txn = Txn { compares: Vec::new(), ops: vec![op] };
            fences.planned(term, &txn);
            fences.applied(&"/fences/a/b".into(), 1, Some(&"1 x".into()));
            fences.applied(&"/fences/a/b".into(), 2, Some(&"2 y".into()));
            fences.applied(&"/k".into(), 3, Some(&"v3w".into()));
            assert_eq!(sim.violation().is_some(), found, "{term:?}");
        }
    }
}
