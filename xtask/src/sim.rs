//! Runs the simulator at large: many seeds on all cores, and the bugs that it must catch.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::sources;

/// Where the patches are, below the root.
const BUGS: &str = "e2e/sim/bugs";
/// How many seeds one process of a sweep runs.
const BATCH: u64 = 20;
/// What a sweep runs, in turn.
const SHAPES: [&[&str]; 3] = [
    &["--level", "store", "--duration", "60"],
    &["--level", "cluster", "--duration", "60"],
    &["--level", "cluster", "--duration", "200"],
];

/// A bug that can be put back into the tree.
struct Bug {
    name: String,
    path: PathBuf,
    models: String,
    caught_by: Vec<String>,
    run: Vec<String>,
}

/// What came of one search.
struct Caught {
    seeds: u64,
    checker: String,
}

// === sweep ===

/// What a sweep has done so far.
#[derive(Default)]
struct Tally {
    seeds: u64,
    simulated_s: u64,
    cpu_s: f64,
    /// What broke, and the command that does the same again.
    violations: Vec<String>,
}

/// `sim-sweep [--minutes M] [--from SEED] [--jobs N]`: runs seeds in N processes at a time, and says at the end what was run
/// and where to go on. Returns what was broken.
///
/// The same seed is always run in the same shape, so that a sweep that goes on where another has ended repeats nothing.
pub fn sweep(arguments: &[String]) -> Result<Vec<String>> {
    let minutes: u64 = option(arguments, "--minutes")?.unwrap_or(10);
    let from: u64 = option(arguments, "--from")?.unwrap_or(1_000_000) / BATCH * BATCH;
    let jobs: usize = option(arguments, "--jobs")?.unwrap_or_else(cores);
    let root = sources::root();
    let binary = build(&root, &root.join("target"))?;
    let began = Instant::now();
    let end = began + Duration::from_secs(minutes * 60);
    let next = AtomicU64::new(from);
    let tally = Mutex::new(Tally::default());
    let work = || -> Result<()> {
        while Instant::now() < end {
            let first = next.fetch_add(BATCH, Ordering::Relaxed);
            let shape = SHAPES[(first / BATCH) as usize % SHAPES.len()];
            let mut seed = first;
            // A run ends with the first seed that breaks something: what is left of the batch follows in another.
            while seed < first + BATCH {
                let output = simulate(&binary, shape, seed, first + BATCH - seed)?;
                let ran = tally.lock().unwrap_or_else(PoisonError::into_inner).add(&output);
                seed += ran.max(1);
            }
            let tally = tally.lock().unwrap_or_else(PoisonError::into_inner);
            eprintln!("{:>6} s: {}", began.elapsed().as_secs(), tally.summary());
        }
        Ok(())
    };
    in_parallel(jobs, work)?;
    let tally = tally.into_inner().unwrap_or_else(PoisonError::into_inner);
    let next = next.into_inner();
    println!("seeds {from} to {}: {}", next - 1, tally.summary());
    tally.violations.iter().for_each(|line| println!("{line}"));
    println!("go on with: cargo run -p xtask -- sim-sweep --from {next} --minutes {minutes} --jobs {jobs}");
    Ok(tally.violations)
}

impl Tally {
    /// Adds the output of one run. Returns how many seeds that was.
    fn add(&mut self, output: &str) -> u64 {
        let (simulated_s, cpu_s) = cost(output);
        let seeds = number(output, "ran ").and_then(|it| it.parse().ok()).unwrap_or(0);
        self.seeds += seeds;
        self.simulated_s += simulated_s;
        self.cpu_s += cpu_s;
        let found = output.lines().filter(|line| line.contains(" breaks ") || line.starts_with("replay:"));
        for line in found {
            eprintln!("{line}");
            self.violations.push(line.to_owned());
        }
        seeds
    }

    fn summary(&self) -> String {
        let violations = self.violations.iter().filter(|line| line.contains(" breaks ")).count();
        format!(
            "{} seeds, {:.1} cluster-hours in {:.2} CPU hours ({:.0} cluster-hours per CPU hour), {violations} violations",
            self.seeds,
            self.simulated_s as f64 / 3600.0,
            self.cpu_s / 3600.0,
            self.simulated_s as f64 / self.cpu_s.max(1e-9)
        )
    }
}

// === bugs ===

/// `sim-bugs [--trials N] [--limit N] [--only NAME,NAME]`: puts each bug into a copy of the tree, and searches seeds until
/// a checker fires. Prints a table; returns the bugs that were not caught.
pub fn bugs(arguments: &[String]) -> Result<Vec<String>> {
    let trials: u64 = option(arguments, "--trials")?.unwrap_or(5);
    let limit: u64 = option(arguments, "--limit")?.unwrap_or(400);
    let only: Option<String> = option(arguments, "--only")?;
    let root = sources::root();
    let scratch = root.join("target/sim-bugs");
    let tree = scratch.join("tree");
    println!("| bug | caught by | median seeds | most | models |");
    println!("|---|---|---|---|---|");
    let mut missed = Vec::new();
    for bug in all()? {
        if only.as_ref().is_some_and(|only| !only.split(',').any(|part| bug.name.contains(part))) {
            continue;
        }
        copy(&root, &tree)?;
        apply(&tree, &bug.path, false)?;
        let binary =
            build(&tree, &scratch.join("build")).with_context(|| format!("building {}", bug.name))?;
        match hunt(&binary, &bug, trials, limit)? {
            Ok(row) => println!("{row}"),
            Err(why) => missed.push(format!("{}: {why}", bug.name)),
        }
    }
    // The copy and its build are of no further use, and are large.
    std::fs::remove_dir_all(&scratch).with_context(|| format!("removing {}", scratch.display()))?;
    Ok(missed)
}

/// Searches several times, each from other seeds.
fn hunt(binary: &Path, bug: &Bug, trials: u64, limit: u64) -> Result<Result<String, String>> {
    let next = AtomicU64::new(0);
    let found = Mutex::new(Vec::new());
    in_parallel(cores(), || {
        loop {
            let trial = next.fetch_add(1, Ordering::Relaxed);
            if trial >= trials {
                return Ok(());
            }
            let run: Vec<&str> = bug.run.iter().map(String::as_str).collect();
            let first = 1 + trial * 10_000;
            let output = simulate(binary, &run, first, limit)?;
            let caught = caught(&output, first);
            found.lock().unwrap_or_else(PoisonError::into_inner).push(caught);
        }
    })?;
    let found = found.into_inner().unwrap_or_default();
    let mut seeds = Vec::new();
    let mut checkers: BTreeMap<String, usize> = BTreeMap::new();
    for caught in found {
        let Some(Caught { seeds: needed, checker }) = caught else {
            return Ok(Err(format!("not caught within {limit} seeds")));
        };
        if !bug.caught_by.contains(&checker) {
            return Ok(Err(format!("caught by {checker}, not by {}", bug.caught_by.join(" or "))));
        }
        seeds.push(needed);
        *checkers.entry(checker).or_default() += 1;
    }
    seeds.sort_unstable();
    let median = seeds.get(seeds.len() / 2).copied().unwrap_or_default();
    let most = seeds.last().copied().unwrap_or_default();
    let checkers: Vec<String> = checkers.into_keys().collect();
    Ok(Ok(format!("| {} | {} | {median} | {most} | {} |", bug.name, checkers.join(", "), bug.models)))
}

fn caught(output: &str, first: u64) -> Option<Caught> {
    let line = output.lines().find(|line| line.starts_with("seed ") && line.contains(" breaks "))?;
    let (seed, rest) = line.strip_prefix("seed ")?.split_once(" breaks ")?;
    let checker = rest.split(':').next()?.to_owned();
    Some(Caught { seeds: seed.parse::<u64>().ok()? - first + 1, checker })
}

/// All bugs, in order.
fn all() -> Result<Vec<Bug>> {
    let folder = sources::root().join(BUGS);
    let listed = std::fs::read_dir(&folder).with_context(|| format!("reading {}", folder.display()))?;
    let mut paths: Vec<PathBuf> = listed.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    paths.sort();
    paths
        .iter()
        .filter(|path| path.extension().is_some_and(|it| it == "patch"))
        .map(|path| read(path))
        .collect()
}

fn read(path: &Path) -> Result<Bug> {
    let text = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.map(|line| line.trim().to_owned())
            .with_context(|| format!("{}: no line `{name}`", path.display()))
    };
    let words = |text: String, at: &[char]| -> Vec<String> {
        text.split(at).map(str::trim).filter(|word| !word.is_empty()).map(str::to_owned).collect()
    };
    Ok(Bug {
        name: path.file_stem().unwrap_or_default().to_string_lossy().into_owned(),
        path: path.to_owned(),
        models: field("models:")?,
        caught_by: words(field("caught by:")?, &[',']),
        run: words(field("run:")?, &[' ']),
    })
}

fn apply(tree: &Path, patch: &Path, only_check: bool) -> Result<()> {
    let mut command = Command::new("git");
    command.arg("apply").args(only_check.then_some("--check")).arg(patch).current_dir(tree);
    // A copy below a repository must not be taken for a part of it.
    command.env("GIT_CEILING_DIRECTORIES", tree.parent().unwrap_or(tree));
    finish(command)
}

// === running ===

fn build(root: &Path, target: &Path) -> Result<PathBuf> {
    let mut command = Command::new("cargo");
    command.args(["build", "--release", "--quiet", "-p", "sim", "--target-dir"]).arg(target);
    command.current_dir(root);
    finish(command)?;
    Ok(target.join("release/sim"))
}

fn simulate(binary: &Path, shape: &[&str], seed: u64, seeds: u64) -> Result<String> {
    let numbers = [seed.to_string(), seeds.to_string()];
    let output = Command::new(binary)
        .args(["--seed", &numbers[0], "--seeds", &numbers[1]])
        .args(shape)
        .output()
        .with_context(|| format!("running {}", binary.display()))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if !text.contains("\ntrace ") {
        bail!("seed {seed} of {shape:?} did not end well: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(text)
}

/// Simulated seconds and CPU seconds of a run.
fn cost(output: &str) -> (u64, f64) {
    let simulated = number(output, "simulated ").and_then(|it| it.parse().ok()).unwrap_or(0);
    (simulated, number(output, "spent ").and_then(|it| it.parse().ok()).unwrap_or(0.0))
}

/// The word that follows the beginning of a line.
fn number<'a>(output: &'a str, prefix: &str) -> Option<&'a str> {
    output.lines().find_map(|line| line.strip_prefix(prefix))?.split(' ').next()
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// Runs the same several times at once.
fn in_parallel(jobs: usize, work: impl Fn() -> Result<()> + Sync) -> Result<()> {
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..jobs.max(1)).map(|_| scope.spawn(&work)).collect();
        threads.into_iter().try_for_each(|thread| match thread.join() {
            Ok(result) => result,
            Err(_) => bail!("a worker panicked"),
        })
    })
}

/// Copies what the project is made of, and leaves alone what is the same already, so that less is built anew.
fn copy(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to).with_context(|| format!("making {}", to.display()))?;
    for entry in std::fs::read_dir(from).with_context(|| format!("reading {}", from.display()))? {
        let entry = entry?;
        let (source, name) = (entry.path(), entry.file_name());
        let hidden = name.to_string_lossy().starts_with('.');
        if hidden || name == "target" {
            continue;
        }
        let place = to.join(&name);
        if entry.file_type()?.is_dir() {
            copy(&source, &place)?;
            continue;
        }
        let content = std::fs::read(&source).with_context(|| format!("reading {}", source.display()))?;
        if std::fs::read(&place).ok().as_deref() != Some(content.as_slice()) {
            std::fs::write(&place, content).with_context(|| format!("writing {}", place.display()))?;
        }
    }
    Ok(())
}

fn finish(mut command: Command) -> Result<()> {
    let output = command.output().with_context(|| format!("running {command:?}"))?;
    if !output.status.success() {
        bail!("{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

/// The value that follows a flag.
pub(crate) fn option<T: std::str::FromStr>(arguments: &[String], name: &str) -> Result<Option<T>> {
    let Some(at) = arguments.iter().position(|argument| argument == name) else { return Ok(None) };
    let value = arguments.get(at + 1).with_context(|| format!("{name} needs a value"))?;
    value.parse().map(Some).map_err(|_| anyhow::anyhow!("{name} {value}: not a value of the right kind"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bug_applies_and_names_documented_checkers() {
        let invariants = std::fs::read_to_string(sources::root().join("docs/invariants.md")).unwrap();
        let bugs = all().unwrap();
        assert!(bugs.len() >= 20, "{} bugs", bugs.len());
        for bug in bugs {
            apply(&sources::root(), &bug.path, true).unwrap();
            for checker in &bug.caught_by {
                assert!(invariants.contains(&format!("`{checker}`")), "{}: {checker}", bug.name);
            }
        }
    }

    #[test]
    fn a_violation_is_read_from_the_output() {
        let output = "…\nseed 12 breaks pod-bound-once: twice\nsimulated 90 s in 4 steps\nspent 0.50 CPU s: 1\ntrace 0\n";
        let found = caught(output, 10).unwrap();
        assert_eq!((found.seeds, found.checker.as_str()), (3, "pod-bound-once"));
        assert_eq!(cost(output), (90, 0.5));
        assert!(caught("simulated 90 s\n", 10).is_none());
    }

    #[test]
    fn a_sweep_adds_up_and_names_what_broke() {
        let mut tally = Tally::default();
        let well = "simulated 7200 s in 4 steps\nspent 36.00 CPU s: 1\nran 20 seeds\ntrace 0\n";
        assert_eq!(tally.add(well), 20);
        let broken = "seed 3 breaks pod-bound-once: twice\nreplay: sim --seed 3\nran 4 seeds\n";
        assert_eq!(tally.add(broken), 4);
        let summary =
            "24 seeds, 2.0 cluster-hours in 0.01 CPU hours (200 cluster-hours per CPU hour), 1 violations";
        assert_eq!(tally.summary(), summary);
        assert_eq!(tally.violations, ["seed 3 breaks pod-bound-once: twice", "replay: sim --seed 3"]);
    }
}
