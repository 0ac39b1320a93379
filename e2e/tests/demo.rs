//! `orlop demo` sees every step to be true, and leaves nothing behind.

use std::process::{Command, ExitCode, Stdio};

use anyhow::{Result, ensure};
use e2e::host::Snapshot;
use e2e::{binary, harness};
use libtest_mimic::Arguments;

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let missing = harness::missing(false);
    if missing.is_none()
        && let Err(error) = harness::isolate()
    {
        eprintln!("{error:#}");
        return ExitCode::FAILURE;
    }
    let tests = vec![harness::trial("the_demonstration_succeeds", missing.as_deref(), demonstration)];
    libtest_mimic::run(&arguments, tests).exit_code()
}

fn demonstration() -> Result<()> {
    let folder = tempfile::Builder::new().prefix("orlop-e2e-").tempdir()?;
    let mark = folder.path().to_string_lossy().into_owned();
    let before = Snapshot::take(&[&mark])?;
    let output = Command::new(binary::path()?)
        .arg("demo")
        .env("TMPDIR", folder.path())
        .stdin(Stdio::null())
        .output()?;
    let told =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "{}:\n{told}", output.status);
    Snapshot::take(&[&mark])?.since(&before).must_be_empty()?;
    ensure!(std::fs::read_dir(folder.path())?.next().is_none(), "files stay in {mark}");
    Ok(())
}
