//! Puts known bugs back, one at a time, and measures how many seeds the simulator needs until a checker fires.

use std::collections::{BTreeSet, HashSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::journal::Journal;
use super::{build, commit, cores, finish, in_parallel, option, simulate};
use crate::sources;

/// Where the patches are, below the root.
const BUGS: &str = "e2e/sim/bugs";
/// How many seeds one process runs.
const BATCH: u64 = 5;
/// How far the seeds of one search are from those of the next.
const APART: u64 = 10_000;

/// A bug that can be put back into the tree.
struct Bug {
    name: String,
    path: PathBuf,
    models: String,
    caught_by: Vec<String>,
    run: Vec<String>,
}

/// What came of one search.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
struct Trial {
    bug: String,
    /// How the simulator was run: a search of another kind says nothing about this one.
    run: String,
    number: u64,
    commit: String,
    /// The seeds that were run, the one that caught it included.
    seeds: u64,
    /// Who caught it, if anybody did.
    checker: Option<String>,
    cpu_s: f64,
}

/// How long one search may be.
struct Limits {
    seeds: u64,
    cpu_s: f64,
}

/// `sim-bugs [--trials N] [--seeds N] [--minutes M] [--jobs N] [--only NAME,NAME] [--target DIR] [--journal FILE]`: puts
/// each bug into a copy of the tree, and searches seeds N times until a checker fires. A search ends after `--seeds`
/// seeds; all searches for a bug together take at most `--minutes` minutes of CPU time. What the journal has is not
/// searched again. Prints a table; returns the bugs that were not caught by whom they name.
pub fn bugs(arguments: &[String]) -> Result<Vec<String>> {
    let trials: u64 = option(arguments, "--trials")?.unwrap_or(5);
    let minutes: u64 = option(arguments, "--minutes")?.unwrap_or(30);
    let limits = Limits {
        seeds: option(arguments, "--seeds")?.unwrap_or(400),
        cpu_s: minutes as f64 * 60.0 / trials.max(1) as f64,
    };
    let jobs: usize = option(arguments, "--jobs")?.unwrap_or_else(cores);
    let only: Option<String> = option(arguments, "--only")?;
    let scratch = sources::root().join("target/sim-bugs");
    let journal = option(arguments, "--journal")?.unwrap_or_else(|| scratch.join("journal"));
    let journal = Journal::<Trial>::open(&journal)?;
    let target = option(arguments, "--target")?.unwrap_or_else(|| scratch.join("build"));
    let is_wanted = |bug: &Bug| match &only {
        Some(only) => only.split(',').any(|part| bug.name.contains(part)),
        None => true,
    };
    let wanted: Vec<Bug> = all()?.into_iter().filter(is_wanted).collect();
    for bug in &wanted {
        let todo: Vec<u64> =
            (0..trials).filter(|trial| bug.trial(&journal.lines(), *trial).is_none()).collect();
        if !todo.is_empty() {
            let (binary, commit) = put_back(bug, &scratch.join("tree"), &target)?;
            search(&binary, &commit, bug, &todo, &limits, jobs, &journal)?;
        }
        eprintln!("{}", Row::of(bug, &journal.lines(), trials));
    }
    println!("| bug | run about | caught by | median seeds | most | searches |");
    println!("|---|---|---|---|---|---|");
    let rows: Vec<Row> = wanted.iter().map(|bug| Row::of(bug, &journal.lines(), trials)).collect();
    rows.iter().for_each(|row| println!("{row}"));
    Ok(rows.into_iter().filter_map(|row| row.wrong).collect())
}

/// Builds the simulator of the tree with a bug in it.
fn put_back(bug: &Bug, tree: &Path, target: &Path) -> Result<(PathBuf, String)> {
    let root = sources::root();
    copy(&root, tree)?;
    apply(tree, &bug.path, false)?;
    let binary = build(tree, target).with_context(|| format!("building {} ({})", bug.name, bug.models))?;
    Ok((binary, commit(&root)))
}

/// Does the searches that are left.
fn search(
    binary: &Path,
    commit: &str,
    bug: &Bug,
    todo: &[u64],
    limits: &Limits,
    jobs: usize,
    journal: &Journal<Trial>,
) -> Result<()> {
    let next = AtomicUsize::new(0);
    in_parallel(jobs, || {
        while let Some(number) = todo.get(next.fetch_add(1, Ordering::Relaxed)) {
            let run = bug.run.join(" ");
            let (bug, commit) = (bug.name.clone(), commit.to_owned());
            let trial = Trial { bug, run, number: *number, commit, seeds: 0, checker: None, cpu_s: 0.0 };
            journal.add(hunt(binary, trial, limits)?)?;
        }
        Ok(())
    })
}

/// Runs seeds until a checker fires.
fn hunt(binary: &Path, mut trial: Trial, limits: &Limits) -> Result<Trial> {
    let shape: Vec<&str> = trial.run.split(' ').collect();
    while trial.seeds < limits.seeds && trial.cpu_s < limits.cpu_s && trial.checker.is_none() {
        let seed = 1 + trial.number * APART + trial.seeds;
        let ran = simulate(binary, &shape, seed, BATCH.min(limits.seeds - trial.seeds))?;
        trial.seeds += ran.seeds.max(1);
        trial.cpu_s += ran.cpu_s;
        trial.checker = ran.violation.map(|violation| violation.checker);
    }
    Ok(trial)
}

// === the table ===

/// A line of the table.
struct Row {
    text: String,
    /// What is wrong with this bug.
    wrong: Option<String>,
}

// === impl Row ===

impl Row {
    fn of(bug: &Bug, journal: &[Trial], trials: u64) -> Row {
        let done: Vec<&Trial> = (0..trials).filter_map(|number| bug.trial(journal, number)).collect();
        // A search that found nothing would have needed more than all that were found.
        let mut needed: Vec<Option<u64>> =
            done.iter().map(|trial| trial.checker.as_ref().map(|_| trial.seeds)).collect();
        needed.sort_unstable_by_key(|seeds| seeds.unwrap_or(u64::MAX));
        let tell = |at: usize| match needed.get(at) {
            Some(Some(seeds)) => seeds.to_string(),
            Some(None) => "not found".to_owned(),
            None => "not searched".to_owned(),
        };
        let (median, most) = (tell(needed.len() / 2), tell(needed.len().saturating_sub(1)));
        let about = bug.run.iter().skip_while(|word| *word != "--focus").nth(1);
        let about = about.map_or("whatever is drawn", String::as_str);
        let by: BTreeSet<&str> = done.iter().filter_map(|trial| trial.checker.as_deref()).collect();
        let checkers = by.iter().copied().collect::<Vec<_>>().join(", ");
        let found = needed.iter().flatten().count();
        let searches = format!("{found} of {}", done.len());
        let text = format!("| {} | {about} | {checkers} | {median} | {most} | {searches} |", bug.name);
        let strangers: Vec<&str> =
            by.iter().copied().filter(|by| !bug.caught_by.iter().any(|it| it == by)).collect();
        let wrong = if !strangers.is_empty() {
            Some(format!(
                "{}: caught by {}, not by {}",
                bug.name,
                strangers.join(", "),
                bug.caught_by.join(" or ")
            ))
        } else if found < done.len() {
            let missed =
                done.iter().filter(|trial| trial.checker.is_none()).map(|trial| trial.seeds.to_string());
            Some(format!("{}: not caught within {} seeds", bug.name, missed.collect::<Vec<_>>().join(", ")))
        } else {
            None
        };
        Row { text, wrong }
    }
}

impl std::fmt::Display for Row {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

// === the bugs ===

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

impl Bug {
    /// A search that was done, as the bug is looked for now.
    fn trial<'a>(&self, journal: &'a [Trial], number: u64) -> Option<&'a Trial> {
        let run = self.run.join(" ");
        journal.iter().rfind(|it| it.bug == self.name && it.run == run && it.number == number)
    }
}

fn apply(tree: &Path, patch: &Path, only_check: bool) -> Result<()> {
    let mut command = Command::new("git");
    command.arg("apply").args(only_check.then_some("--check")).arg(patch).current_dir(tree);
    // A copy below a repository must not be taken for a part of it.
    command.env("GIT_CEILING_DIRECTORIES", tree.parent().unwrap_or(tree));
    finish(command)
}

/// Makes `to` the same as `from` in what the project is made of. What is the same already is left alone, so that less is
/// built anew.
fn copy(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to).with_context(|| format!("making {}", to.display()))?;
    let mut names: HashSet<OsString> = HashSet::new();
    for entry in std::fs::read_dir(from).with_context(|| format!("reading {}", from.display()))? {
        let entry = entry?;
        let (source, name) = (entry.path(), entry.file_name());
        let hidden = name.to_string_lossy().starts_with('.');
        if hidden || name == "target" {
            continue;
        }
        let place = to.join(&name);
        names.insert(name);
        if entry.file_type()?.is_dir() {
            copy(&source, &place)?;
            continue;
        }
        let content = std::fs::read(&source).with_context(|| format!("reading {}", source.display()))?;
        if std::fs::read(&place).ok().as_deref() != Some(content.as_slice()) {
            std::fs::write(&place, content).with_context(|| format!("writing {}", place.display()))?;
        }
    }
    for entry in std::fs::read_dir(to).with_context(|| format!("reading {}", to.display()))? {
        let entry = entry?;
        if !names.contains(&entry.file_name()) {
            let place = entry.path();
            let removed = if entry.file_type()?.is_dir() {
                std::fs::remove_dir_all(&place)
            } else {
                std::fs::remove_file(&place)
            };
            removed.with_context(|| format!("removing {}", place.display()))?;
        }
    }
    Ok(())
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

    /// A bug, and searches that needed so many seeds.
    fn searched(caught: &[(u64, Option<&str>)]) -> (Bug, Vec<Trial>) {
        let run = vec!["--focus".to_owned(), "leaders".to_owned()];
        let bug = Bug {
            name: "01-bug".into(),
            path: PathBuf::new(),
            models: String::new(),
            caught_by: vec!["checker".into()],
            run: run.clone(),
        };
        let trial = |(number, (seeds, checker)): (usize, &(u64, Option<&str>))| Trial {
            bug: "01-bug".into(),
            run: run.join(" "),
            number: number as u64,
            commit: "c".into(),
            seeds: *seeds,
            checker: checker.map(str::to_owned),
            cpu_s: 1.0,
        };
        let trials = caught.iter().enumerate().map(trial).collect();
        (bug, trials)
    }

    #[test]
    fn a_row_tells_the_median_and_who_caught_it() {
        let (bug, trials) = searched(&[(9, Some("checker")), (1, Some("checker")), (4, Some("checker"))]);
        let row = Row::of(&bug, &trials, 5);
        assert_eq!(row.text, "| 01-bug | leaders | checker | 4 | 9 | 3 of 3 |");
        assert!(row.wrong.is_none());
    }

    #[test]
    fn a_bug_that_is_missed_or_caught_by_another_is_wrong() {
        let (bug, trials) = searched(&[(9, Some("checker")), (400, None), (400, None)]);
        let row = Row::of(&bug, &trials, 3);
        assert_eq!(row.text, "| 01-bug | leaders | checker | not found | not found | 1 of 3 |");
        assert_eq!(row.wrong.unwrap(), "01-bug: not caught within 400, 400 seeds");
        let (bug, trials) = searched(&[(9, Some("other"))]);
        assert_eq!(Row::of(&bug, &trials, 1).wrong.unwrap(), "01-bug: caught by other, not by checker");
    }

    #[test]
    fn a_search_of_another_kind_is_done_again() {
        let (mut bug, trials) = searched(&[(9, Some("checker"))]);
        assert!(bug.trial(&trials, 0).is_some() && bug.trial(&trials, 1).is_none());
        bug.run = vec!["--level".into(), "store".into()];
        assert!(bug.trial(&trials, 0).is_none());
    }

    #[test]
    fn a_copy_holds_what_the_tree_holds() {
        let folder = std::env::temp_dir().join(format!("xtask-copy-{}", std::process::id()));
        let (from, to) = (folder.join("from"), folder.join("to"));
        for dir in [from.join("kept"), from.join("target"), to.join("stale")] {
            std::fs::create_dir_all(dir).unwrap();
        }
        std::fs::write(from.join("kept/file"), "new").unwrap();
        std::fs::write(to.join("file"), "stale").unwrap();
        copy(&from, &to).unwrap();
        let text = std::fs::read_to_string(to.join("kept/file")).unwrap();
        let names = std::fs::read_dir(&to).unwrap().count();
        std::fs::remove_dir_all(&folder).unwrap();
        assert_eq!((text.as_str(), names), ("new", 1));
    }
}
