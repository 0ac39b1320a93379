//! What every test program needs: a place of its own, and the reason when this machine cannot run it.

use std::process::{Command, ExitCode};

use anyhow::Result;
use libtest_mimic::{Arguments, Failed, Trial};

use crate::{binary, kubectl, netns};

/// Why this machine cannot run the tests; `None` when it can.
pub fn missing(needs_kubectl: bool) -> Option<String> {
    if !nix::unistd::geteuid().is_root() {
        return Some("needs root".to_owned());
    }
    if needs_kubectl && kubectl::find().is_none() {
        return Some(format!("needs kubectl, on PATH or named by {}", kubectl::VARIABLE));
    }
    let orlop = match binary::path() {
        Ok(orlop) => orlop,
        // Tests fail with the reason: nothing is missing from the machine.
        Err(_) => return None,
    };
    let output = Command::new(orlop).arg("doctor").output().ok()?;
    let checks = String::from_utf8_lossy(&output.stdout).into_owned();
    checks
        .lines()
        .find_map(|line| line.strip_prefix("FAIL"))
        .map(|problem| format!("needs {}", problem.trim()))
}

/// Moves the test into a network namespace of its own: what it starts cannot reach anything else, and what stays behind
/// in it was left by the test.
///
/// # Errors
/// Without the right to.
pub fn isolate() -> Result<()> {
    netns::isolate()
}

/// A test that is ignored, with the reason, where something is missing.
pub fn trial(name: &str, missing: Option<&str>, test: impl FnOnce() -> Result<()> + Send + 'static) -> Trial {
    let run = move || test().map_err(|error| Failed::from(format!("{error:#}")));
    Trial::test(name, run).with_kind(missing.unwrap_or_default()).with_ignored_flag(missing.is_some())
}

/// A test: its name, whether it drives kubectl, and what it does.
pub type Case = (&'static str, bool, fn() -> Result<()>);

/// Runs a whole test program, one test after the other: each looks at the whole machine, or has the network for itself.
pub fn one_by_one(cases: &[Case]) -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1);
    let (with_kubectl, without) = (missing(true), missing(false));
    if without.is_none()
        && let Err(error) = isolate()
    {
        eprintln!("{error:#}");
        return ExitCode::FAILURE;
    }
    let trials = cases.iter().map(|(name, kubectl, test)| {
        let missing = if *kubectl { &with_kubectl } else { &without };
        trial(name, missing.as_deref(), *test)
    });
    libtest_mimic::run(&arguments, trials.collect()).exit_code()
}
