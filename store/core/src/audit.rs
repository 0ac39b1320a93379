//! Whether all members hold the same state: hashes at marks of the log, told through the log, compared by each.

use std::collections::BTreeMap;

/// How many marks are remembered; who reports later than that is not compared at that mark.
const KEPT: usize = 8;

/// The newest marks, and what members told of them.
#[derive(Clone, Debug, Default)]
pub struct Audit {
    marks: BTreeMap<u64, Mark>,
}

#[derive(Clone, Debug, Default)]
struct Mark {
    own: u64,
    reports: BTreeMap<u64, u64>,
}

/// What is known at a mark.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Too few have told.
    Open,
    /// This member's state is that of the majority.
    Sound,
    /// This member's state differs from that of the majority: it must not go on.
    Differs,
    /// All voters have told, and no hash has a majority: nobody may go on.
    Split,
}

// === impl Audit ===

impl Audit {
    /// Notes the own hash at a mark.
    pub(crate) fn mark(&mut self, index: u64, own: u64) {
        self.marks.insert(index, Mark { own, reports: BTreeMap::new() });
        while self.marks.len() > KEPT {
            self.marks.pop_first();
        }
    }

    /// The own hash at a mark.
    pub fn own(&self, mark: u64) -> Option<u64> {
        self.marks.get(&mark).map(|mark| mark.own)
    }

    /// The newest mark.
    pub fn newest(&self) -> Option<u64> {
        self.marks.last_key_value().map(|(index, _)| *index)
    }

    /// Takes in what a member told. A mark that is not known here is not compared.
    pub(crate) fn report(&mut self, mark: u64, member: u64, hash: u64) {
        if let Some(mark) = self.marks.get_mut(&mark) {
            mark.reports.insert(member, hash);
        }
    }

    /// What follows for this member from what was told of a mark.
    pub fn verdict(&self, mark: u64, voters: &[u64]) -> Verdict {
        let Some(mark) = self.marks.get(&mark) else { return Verdict::Open };
        let told: Vec<u64> = voters.iter().filter_map(|voter| mark.reports.get(voter).copied()).collect();
        let majority = told.iter().find(|hash| {
            let same = told.iter().filter(|other| other == hash).count();
            same * 2 > voters.len()
        });
        match majority {
            Some(hash) if *hash == mark.own => Verdict::Sound,
            Some(_) => Verdict::Differs,
            None if told.len() == voters.len() && !told.is_empty() => Verdict::Split,
            None => Verdict::Open,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(own: u64, voters: &[u64], reports: &[(u64, u64)], expected: Verdict) {
        let mut audit = Audit::default();
        audit.mark(5, own);
        for (member, hash) in reports {
            audit.report(5, *member, *hash);
        }
        assert_eq!(audit.verdict(5, voters), expected, "{own} {voters:?} {reports:?}");
    }

    #[test]
    fn the_majority_of_voters_decides() {
        let voters = [1, 2, 3];
        check(7, &voters, &[], Verdict::Open);
        check(7, &voters, &[(1, 7)], Verdict::Open);
        check(7, &voters, &[(1, 7), (4, 7)], Verdict::Open);
        check(7, &voters, &[(1, 7), (2, 7)], Verdict::Sound);
        check(8, &voters, &[(1, 7), (2, 7)], Verdict::Differs);
        check(8, &voters, &[(1, 7), (2, 8)], Verdict::Open);
        check(8, &voters, &[(1, 7), (2, 8), (3, 7)], Verdict::Differs);
        check(7, &voters, &[(1, 7), (2, 8), (3, 9)], Verdict::Split);
        check(7, &[1, 2], &[(1, 7), (2, 8)], Verdict::Split);
        check(7, &[1], &[(1, 8)], Verdict::Differs);
    }

    #[test]
    fn only_the_newest_marks_are_remembered() {
        let mut audit = Audit::default();
        for index in 0..100 {
            audit.mark(index, index);
        }
        assert_eq!((audit.marks.len(), audit.newest(), audit.own(1)), (KEPT, Some(99), None));
        assert_eq!(audit.verdict(1, &[1]), Verdict::Open);
    }
}
