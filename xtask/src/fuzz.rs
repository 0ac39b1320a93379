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

/// `fuzz [--minutes M] [--only NAME]`: runs each target for so long (0: only puts its corpus together), and returns those that
/// failed. Needs `cargo install cargo-fuzz` and a C++ compiler.
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
        if minutes > 0 && !fuzz(&root, &name, &[&found, &kept], &[&time, &length])? {
            failed.push(format!("{name}: an input fails; it is in {FUZZ_DIR}/artifacts/{name}"));
        }
        if !keep(&root, &name, &kept, &found, &length)? {
            failed.push(format!("{name}: the corpus could not be put together"));
        }
    }
    Ok(failed)
}

/// Puts in the place of the corpus the few inputs that together reach all code that it and what was found reach. How often they
/// do is not counted.
fn keep(root: &Path, name: &str, kept: &Path, found: &Path, length: &str) -> Result<bool> {
    let chosen = found.with_extension("chosen");
    if chosen.exists() {
        std::fs::remove_dir_all(&chosen).with_context(|| format!("removing {}", chosen.display()))?;
    }
    std::fs::create_dir_all(&chosen).with_context(|| format!("making {}", chosen.display()))?;
    let flags = ["-set_cover_merge=1", "-use_counters=0", length];
    if !fuzz(root, name, &[&chosen, kept, found], &flags)? {
        return Ok(false);
    }
    std::fs::remove_dir_all(kept).with_context(|| format!("removing {}", kept.display()))?;
    std::fs::create_dir_all(kept).with_context(|| format!("making {}", kept.display()))?;
    for input in std::fs::read_dir(&chosen).with_context(|| format!("listing {}", chosen.display()))? {
        let input = input.with_context(|| format!("listing {}", chosen.display()))?;
        let to = kept.join(input.file_name());
        std::fs::copy(input.path(), &to).with_context(|| format!("writing {}", to.display()))?;
    }
    Ok(true)
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
