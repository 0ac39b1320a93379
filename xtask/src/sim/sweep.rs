//! Runs the tree as it is with many seeds, and adds up over all invocations what was simulated.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::journal::Journal;
use super::{build, commit, cores, in_parallel, option, simulate};
use crate::sources;

/// How many seeds one process of a sweep runs.
const BATCH: u64 = 20;
/// The first seed of a sweep, where nothing else is said: far from those that tests run.
const FIRST: u64 = 1_000_000;
/// What a sweep runs, in turn.
const SHAPES: [&[&str]; 3] = [
    &["--level", "store", "--duration", "60"],
    &["--level", "cluster", "--duration", "60"],
    &["--level", "cluster", "--duration", "200"],
];

/// What came of the seeds `first` to `first + BATCH - 1`.
#[derive(Clone, Default, Serialize, Deserialize)]
struct Batch {
    commit: String,
    first: u64,
    seeds: u64,
    simulated_s: u64,
    cpu_s: f64,
    /// What broke, and the command that does the same again.
    violations: Vec<String>,
}

/// The sum of some batches.
#[derive(Default)]
struct Tally {
    seeds: u64,
    simulated_s: u64,
    cpu_s: f64,
    violations: Vec<String>,
}

/// `sim-sweep [--minutes M] [--from SEED] [--jobs N] [--journal FILE]`: runs seeds in N processes at a time, and goes on
/// where the journal ends. Says what was run with each commit, and the sum of all. Returns what was broken this time.
///
/// The same seed is always run in the same shape, so that a sweep that goes on where another has ended repeats nothing.
pub fn sweep(arguments: &[String]) -> Result<Vec<String>> {
    let minutes: u64 = option(arguments, "--minutes")?.unwrap_or(10);
    let from: u64 = option(arguments, "--from")?.unwrap_or(FIRST) / BATCH * BATCH;
    let jobs: usize = option(arguments, "--jobs")?.unwrap_or_else(cores);
    let root = sources::root();
    let path = option(arguments, "--journal")?.unwrap_or_else(|| root.join("target/sim-sweep/journal"));
    let journal = Journal::<Batch>::open(&path)?;
    let commit = commit(&root);
    let binary = keep(&build(&root, &root.join("target"))?, &path, &commit)?;
    let before = journal.lines().len();
    let next = Mutex::new(todo(&journal.lines(), from));
    let began = Instant::now();
    let end = began + Duration::from_secs(minutes * 60);
    in_parallel(jobs, || {
        while Instant::now() < end {
            let Some(first) = next.lock().unwrap_or_else(PoisonError::into_inner).next() else { break };
            journal.add(run(&binary, &commit, first)?)?;
            let sum = Tally::of(&journal.lines()[before..]);
            eprintln!("{:>6} s: {sum}", began.elapsed().as_secs());
        }
        Ok(())
    })?;
    std::fs::remove_file(&binary).with_context(|| format!("removing {}", binary.display()))?;
    report(&journal.lines());
    Ok(Tally::of(&journal.lines()[before..]).violations)
}

/// Puts the simulator where no later build replaces it while the sweep runs.
fn keep(built: &Path, journal: &Path, commit: &str) -> Result<PathBuf> {
    let kept = journal.with_file_name(format!("sim-{commit}-{}", std::process::id()));
    std::fs::copy(built, &kept).with_context(|| format!("copying to {}", kept.display()))?;
    Ok(kept)
}

/// The first seeds of the batches that are not done, from the batch of `from` on.
fn todo(done: &[Batch], from: u64) -> impl Iterator<Item = u64> + use<> {
    let done: BTreeSet<u64> = done.iter().map(|batch| batch.first).collect();
    (from..).step_by(BATCH as usize).filter(move |first| !done.contains(first))
}

fn run(binary: &Path, commit: &str, first: u64) -> Result<Batch> {
    let shape = SHAPES[(first / BATCH) as usize % SHAPES.len()];
    let mut batch = Batch { commit: commit.to_owned(), first, ..Batch::default() };
    // A run ends with the first seed that breaks something: what is left of the batch follows in another.
    while batch.seeds < BATCH {
        let ran = simulate(binary, shape, first + batch.seeds, BATCH - batch.seeds)?;
        batch.seeds += ran.seeds.max(1);
        batch.simulated_s += ran.simulated_s;
        batch.cpu_s += ran.cpu_s;
        for line in ran.violation.into_iter().flat_map(|violation| violation.lines) {
            eprintln!("{line}");
            batch.violations.push(line);
        }
    }
    Ok(batch)
}

/// Says what was run with each commit, in the order of time, and the sum.
fn report(batches: &[Batch]) {
    for part in batches.chunk_by(|one, next| one.commit == next.commit) {
        let (Some(first), Some(last)) = (part.first(), part.last()) else { continue };
        let (from, to) = (first.first, last.first + BATCH - 1);
        println!("{}, seeds {from} to {to}: {}", first.commit, Tally::of(part));
    }
    let all = Tally::of(batches);
    println!("all: {all}");
    all.violations.iter().for_each(|line| println!("{line}"));
}

// === impl Tally ===

impl Tally {
    fn of(batches: &[Batch]) -> Tally {
        let mut tally = Tally::default();
        for batch in batches {
            tally.seeds += batch.seeds;
            tally.simulated_s += batch.simulated_s;
            tally.cpu_s += batch.cpu_s;
            tally.violations.extend(batch.violations.iter().cloned());
        }
        tally
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let violations = self.violations.iter().filter(|line| line.contains(" breaks ")).count();
        write!(
            f,
            "{} seeds, {:.1} cluster-hours in {:.2} CPU hours ({:.0} cluster-hours per CPU hour), {violations} violations",
            self.seeds,
            self.simulated_s as f64 / 3600.0,
            self.cpu_s / 3600.0,
            self.simulated_s as f64 / self.cpu_s.max(1e-9)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(first: u64, violations: &[&str]) -> Batch {
        let violations = violations.iter().map(|&line| line.to_owned()).collect();
        Batch { commit: "c".into(), first, seeds: BATCH, simulated_s: 3600, cpu_s: 18.0, violations }
    }

    #[test]
    fn a_sweep_adds_up_and_names_what_broke() {
        let broken = ["seed 3 breaks pod-bound-once: twice", "replay: sim --seed 3"];
        let tally = Tally::of(&[batch(0, &broken), batch(20, &[])]);
        let summary =
            "40 seeds, 2.0 cluster-hours in 0.01 CPU hours (200 cluster-hours per CPU hour), 1 violations";
        assert_eq!(tally.to_string(), summary);
        assert_eq!(tally.violations, broken);
    }

    #[test]
    fn a_sweep_goes_on_with_what_is_not_done() {
        let done = [batch(100, &[]), batch(140, &[])];
        assert_eq!(todo(&done, 100).take(3).collect::<Vec<_>>(), [120, 160, 180]);
    }
}
