//! Runs the simulator at large: builds it, runs many seeds on several cores, and reads what it says.

mod bugs;
mod journal;
mod sweep;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

pub use bugs::bugs;
pub use sweep::sweep;

/// The profile of Cargo that the simulator is built with. Link-time optimisation takes longer than it saves in a search or in
/// a sweep of some minutes: a store is simulated as fast without it, a whole cluster an eighth slower.
const PROFILE: &str = "quick";

/// What one run of the simulator said.
struct Ran {
    seeds: u64,
    simulated_s: u64,
    cpu_s: f64,
    /// What broke, which ends a run.
    violation: Option<Violation>,
}

/// A checker that fired.
struct Violation {
    checker: String,
    /// The line that says so, and the command that does the same again.
    lines: Vec<String>,
}

// === impl Ran ===

impl Ran {
    /// Reads the output of a run. `None`: it has not come to its end.
    fn read(output: &str) -> Option<Ran> {
        after(output, "trace ")?;
        Some(Ran {
            seeds: after(output, "ran ")?.parse().ok()?,
            simulated_s: after(output, "simulated ")?.parse().ok()?,
            cpu_s: after(output, "spent ")?.parse().ok()?,
            violation: Violation::read(output),
        })
    }
}

impl Violation {
    fn read(output: &str) -> Option<Violation> {
        let is_first = |line: &&str| line.starts_with("seed ") && line.contains(" breaks ");
        let (_, rest) = output.lines().find(is_first)?.split_once(" breaks ")?;
        let checker = rest.split(':').next()?.to_owned();
        let told = output.lines().filter(|line| is_first(line) || line.starts_with("replay:"));
        Some(Violation { checker, lines: told.map(str::to_owned).collect() })
    }
}

/// The word that follows the beginning of a line.
fn after<'a>(output: &'a str, prefix: &str) -> Option<&'a str> {
    output.lines().find_map(|line| line.strip_prefix(prefix))?.split(' ').next()
}

// === running ===

/// Builds the simulator of a tree.
fn build(tree: &Path, target: &Path) -> Result<PathBuf> {
    let mut command = Command::new("cargo");
    command.args(["build", "--profile", PROFILE, "--quiet", "-p", "sim", "--target-dir"]).arg(target);
    command.current_dir(tree);
    finish(command)?;
    Ok(target.join(PROFILE).join("sim"))
}

/// Runs `seeds` seeds, from `seed`, until one breaks something.
fn simulate(binary: &Path, shape: &[&str], seed: u64, seeds: u64) -> Result<Ran> {
    let numbers = [seed.to_string(), seeds.to_string()];
    let output = Command::new(binary)
        .args(["--seed", &numbers[0], "--seeds", &numbers[1]])
        .args(shape)
        .output()
        .with_context(|| format!("running {}", binary.display()))?;
    Ran::read(&String::from_utf8_lossy(&output.stdout)).with_context(|| {
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        format!("seed {seed} of {shape:?} did not end well ({}): {said}", output.status)
    })
}

/// The commit of a tree, marked when something was changed since.
fn commit(root: &Path) -> String {
    let describe = Command::new("git")
        .args(["describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"])
        .current_dir(root)
        .output();
    let well = describe.ok().filter(|output| output.status.success());
    well.map_or("unknown".to_owned(), |output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
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
    fn the_output_of_a_run_is_read() {
        let ran = Ran::read("simulated 7200 s in 4 steps\nspent 36.00 CPU s: 1\nran 20 seeds\ntrace 0\n");
        let ran = ran.unwrap();
        assert_eq!((ran.seeds, ran.simulated_s, ran.cpu_s), (20, 7200, 36.0));
        assert!(ran.violation.is_none());
        assert!(Ran::read("simulated 7200 s in 4 steps\nspent 36.00 CPU s: 1\nran 20 seeds\n").is_none());
    }

    #[test]
    fn a_violation_is_read() {
        let output = "…\nseed 12 breaks pod-bound-once: twice\nreplay: sim --seed 12\nsimulated 90 s in 4 steps\n\
                      spent 0.50 CPU s: 1\nran 3 seeds\ntrace 0\n";
        let ran = Ran::read(output).unwrap();
        let violation = ran.violation.unwrap();
        assert_eq!((ran.seeds, violation.checker.as_str()), (3, "pod-bound-once"));
        assert_eq!(violation.lines, ["seed 12 breaks pod-bound-once: twice", "replay: sim --seed 12"]);
    }
}
