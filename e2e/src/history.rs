//! What clients did at the same time, and whether it can have happened one after the other.
//!
//! Every write of any object gets a revision of its own from one sequence, so the order is not to be searched for: it is told.
//! What is left to check is that the order fits what clients saw (Herlihy and Wing, "Linearizability").

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Mutex;
use std::time::Instant;

use anyhow::{Result, bail, ensure};

/// One operation on one object, as its client saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// Which object.
    pub key: String,
    /// What was done.
    pub kind: Kind,
    /// When it was asked for.
    pub asked: Instant,
    /// When it was answered; `None`: the outcome is not known.
    pub answered: Option<Instant>,
    /// The object's revision in the answer.
    pub revision: Option<u64>,
    /// The value that was written or read.
    pub value: String,
}

/// What an operation does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Gives the object a value that no other write gives it.
    Write,
    /// Reads it.
    Read,
}

/// Everything that was done.
#[derive(Default)]
pub struct History(Mutex<Vec<Operation>>);

/// How much was done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Writes that were acknowledged.
    pub writes: usize,
    /// Reads that were answered.
    pub reads: usize,
    /// Writes whose outcome is not known.
    pub unknown: usize,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} writes, {} reads, {} unknown", self.writes, self.reads, self.unknown)
    }
}

// === impl History ===

impl History {
    /// Adds an operation that has ended.
    pub fn add(&self, operation: Operation) {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(operation);
    }

    /// When the last write before this moment was acknowledged, and the first one after.
    pub fn gap(&self, moment: Instant) -> (Option<Instant>, Option<Instant>) {
        let all = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let writes = || all.iter().filter(|one| one.kind == Kind::Write).filter_map(|one| one.answered);
        (writes().filter(|at| *at <= moment).max(), writes().filter(|at| *at > moment).min())
    }

    /// The acknowledged writes: revision and value, by object.
    pub fn acknowledged(&self) -> BTreeMap<String, BTreeMap<u64, String>> {
        let all = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut found: BTreeMap<String, BTreeMap<u64, String>> = BTreeMap::new();
        for one in all.iter().filter(|one| one.kind == Kind::Write) {
            if let Some(revision) = one.revision {
                found.entry(one.key.clone()).or_default().insert(revision, one.value.clone());
            }
        }
        found
    }

    /// Whether there is an order in which all of it can have happened.
    ///
    /// # Errors
    /// With the operations that contradict each other.
    pub fn check(&self) -> Result<Summary> {
        let all = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut by_key: BTreeMap<&str, Vec<&Operation>> = BTreeMap::new();
        for operation in all.iter() {
            by_key.entry(&operation.key).or_default().push(operation);
        }
        let mut summary = Summary::default();
        for operations in by_key.values() {
            check_values(operations)?;
            check_times(operations)?;
        }
        for operation in all.iter() {
            match (operation.kind, operation.revision) {
                (Kind::Write, Some(_)) => summary.writes += 1,
                (Kind::Write, None) => summary.unknown += 1,
                (Kind::Read, _) => summary.reads += 1,
            }
        }
        Ok(summary)
    }
}

/// One revision has one value, and it was written by somebody.
fn check_values(operations: &[&Operation]) -> Result<()> {
    let mut values: BTreeMap<u64, &Operation> = BTreeMap::new();
    for operation in operations {
        let Some(revision) = operation.revision else { continue };
        match values.get(&revision) {
            Some(known) if known.value != operation.value => {
                bail!("one revision, two values: {known:?} and {operation:?}")
            }
            Some(known) if known.kind == Kind::Write && operation.kind == Kind::Write => {
                bail!("two writes, one revision: {known:?} and {operation:?}")
            }
            _ => drop(values.insert(revision, operation)),
        }
        let written = |one: &&&Operation| one.kind == Kind::Write && one.value == operation.value;
        ensure!(operations.iter().any(|one| written(&one)), "read what nobody wrote: {operation:?}");
    }
    Ok(())
}

/// What was answered before another was asked for lies before it: a read may see the same revision, a write not.
fn check_times(operations: &[&Operation]) -> Result<()> {
    let mut ended: Vec<&&Operation> = operations.iter().filter(|one| one.answered.is_some()).collect();
    ended.sort_by_key(|one| one.answered);
    let mut asked: Vec<&&Operation> = operations.iter().filter(|one| one.revision.is_some()).collect();
    asked.sort_by_key(|one| one.asked);
    let (mut next, mut highest): (usize, Option<&Operation>) = (0, None);
    for operation in asked {
        while let Some(before) = ended.get(next).filter(|one| one.answered < Some(operation.asked)) {
            if before.revision > highest.and_then(|one| one.revision) {
                highest = Some(before);
            }
            next += 1;
        }
        let Some(highest) = highest else { continue };
        let fits = match operation.kind {
            Kind::Read => operation.revision >= highest.revision,
            Kind::Write => operation.revision > highest.revision,
        };
        ensure!(fits, "the later one saw an earlier state: {highest:?}, then {operation:?}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// `KIND FROM-TO REVISION VALUE`, times in milliseconds, `?` for what is not known.
    fn check(lines: &[&str], fits: bool) {
        let start = Instant::now();
        let history = History::default();
        for line in lines {
            let words: Vec<&str> = line.split(' ').collect();
            let (from, to) = words[1].split_once('-').unwrap();
            let at = |text: &str| start + Duration::from_millis(text.parse().unwrap());
            history.add(Operation {
                key: "k".to_owned(),
                kind: if words[0] == "write" { Kind::Write } else { Kind::Read },
                asked: at(from),
                answered: (to != "?").then(|| at(to)),
                revision: words[2].parse().ok(),
                value: words[3].to_owned(),
            });
        }
        assert_eq!(history.check().is_ok(), fits, "{lines:?}: {:?}", history.check());
    }

    #[test]
    fn orders_that_fit_and_that_do_not() {
        check(&["write 0-1 5 a", "read 2-3 5 a"], true);
        check(&["write 0-1 5 a", "write 2-3 6 b", "read 4-5 5 a"], false);
        check(&["write 0-1 5 a", "write 2-9 6 b", "read 4-5 5 a", "read 6-7 6 b"], true);
        check(&["write 0-1 5 a", "write 2-9 6 b", "read 4-5 6 b", "read 6-7 5 a"], false);
        check(&["write 0-1 5 a", "write 2-3 4 b"], false);
        check(&["write 0-? ? a", "read 2-3 5 a"], true);
        check(&["read 2-3 5 a"], false);
        check(&["write 0-1 5 a", "write 0-1 5 b"], false);
        check(&["write 0-1 5 a", "read 2-3 5 b", "write 0-? ? b"], false);
    }
}
