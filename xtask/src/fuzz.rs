//! Runs the fuzz targets of `e2e/fuzz` guided by coverage, and keeps what reaches something new.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::sim::option;
use crate::sources;

/// The crate that cargo-fuzz builds, below the root.
const FUZZ_DIR: &str = "e2e/fuzz/libfuzzer";
/// The kept inputs, below the root, in a folder for each target.
const CORPUS: &str = "e2e/fuzz/corpus";
/// Longer inputs find nothing that shorter ones do not.
const LENGTH_MAX: u32 = 4096;

/// `fuzz [--minutes M] [--only NAME]`: runs each target for so long, and returns those that failed. Needs `cargo install
/// cargo-fuzz` and a C++ compiler.
pub fn run(arguments: &[String]) -> Result<Vec<String>> {
    let minutes: u64 = option(arguments, "--minutes")?.unwrap_or(10);
    let only: Option<String> = option(arguments, "--only")?;
    let root = sources::root();
    let mut names: Vec<String> = Vec::new();
    for entry in std::fs::read_dir(root.join(CORPUS)).context("listing the targets")? {
        names.push(entry.context("listing the targets")?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    names.retain(|name| only.as_ref().is_none_or(|only| only == name));
    if names.is_empty() {
        bail!("there is no such target");
    }
    let mut failed = Vec::new();
    for name in names {
        let kept = root.join(CORPUS).join(&name);
        let found = root.join("target/fuzz").join(&name);
        std::fs::create_dir_all(&found).with_context(|| format!("making {}", found.display()))?;
        let length = format!("-max_len={LENGTH_MAX}");
        let time = format!("-max_total_time={}", minutes * 60);
        if !fuzz(&root, &name, &[&found, &kept], &[&time, &length])? {
            failed.push(format!("{name}: an input fails; it is in {FUZZ_DIR}/artifacts/{name}"));
        }
        // Of what was found, what reaches code that no kept input does; how often it does is not counted.
        if !fuzz(&root, &name, &[&kept, &found], &["-merge=1", "-use_counters=0", &length])? {
            failed.push(format!("{name}: what was found was not merged into the corpus"));
        }
    }
    Ok(failed)
}

fn fuzz(root: &Path, name: &str, folders: &[&Path], flags: &[&str]) -> Result<bool> {
    let mut command = Command::new("cargo");
    command
        .current_dir(root)
        // The instrumentation is not stable; nothing else of it is used.
        .env("RUSTC_BOOTSTRAP", "1")
        .args(["fuzz", "run", "--fuzz-dir", FUZZ_DIR, "--sanitizer", "none", "--debug-assertions", name])
        .args(folders)
        .arg("--")
        .args(flags);
    let status = command.status().context("running cargo fuzz; `cargo install cargo-fuzz` installs it")?;
    Ok(status.success())
}
