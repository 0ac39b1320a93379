//! The `orlop` binary under test.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::SystemTime;

use anyhow::{Context, Result, bail};

/// Names another binary to test.
pub const VARIABLE: &str = "ORLOP_TEST_BINARY";

/// Where the sources are.
const WORKSPACE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// Path of the binary, built first where it is missing or older than its sources.
///
/// Cargo builds a package's binaries for that package's tests only, so this may be the first to need it.
///
/// # Errors
/// When it cannot be built.
pub fn path() -> Result<&'static Path> {
    static PATH: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let found = PATH.get_or_init(|| find().map_err(|error| format!("{error:#}")));
    found.as_deref().map_err(|error| anyhow::anyhow!(error.clone()))
}

fn find() -> Result<PathBuf> {
    if let Some(named) = std::env::var_os(VARIABLE) {
        return Ok(named.into());
    }
    // TARGET/PROFILE/deps/this-test
    let own = std::env::current_exe().context("looking for this executable")?;
    let profile_dir =
        own.ancestors().nth(2).context("this executable is not in a build directory")?.to_owned();
    let binary = profile_dir.join("orlop");
    if !is_fresh(&binary) {
        build(&profile_dir)?;
    }
    Ok(binary)
}

/// Whether the binary was made from these very sources, and none of them is newer.
fn is_fresh(binary: &Path) -> bool {
    let modified = |path: &Path| path.metadata().and_then(|data| data.modified()).ok();
    let (Some(built), Ok(sources)) = (modified(binary), std::fs::read_to_string(binary.with_extension("d")))
    else {
        return false;
    };
    let older = |path: &str| modified(Path::new(path)).is_some_and(|at: SystemTime| at <= built);
    let paths: Vec<&str> = sources
        .lines()
        .filter_map(|line| line.split_once(": "))
        .flat_map(|(_, paths)| paths.split(' '))
        .collect();
    let main = Path::new(WORKSPACE).join("cli/src/main.rs").canonicalize();
    // A build directory may be shared with another copy of the sources.
    let ours = main.is_ok_and(|main| paths.iter().any(|path| Path::new(path) == main));
    ours && paths.into_iter().all(older)
}

fn build(profile_dir: &Path) -> Result<()> {
    let profile = profile_dir.file_name().and_then(|name| name.to_str()).unwrap_or("debug");
    let target_dir = profile_dir.parent().context("a build directory has a parent")?;
    let output = Command::new(env!("CARGO"))
        .current_dir(WORKSPACE)
        .args(["build", "--quiet", "--package", "cli", "--bin", "orlop", "--profile"])
        .arg(if profile == "debug" { "dev" } else { profile })
        .arg("--target-dir")
        .arg(target_dir)
        .output()
        .context("starting cargo")?;
    if !output.status.success() {
        bail!("the orlop binary cannot be built:\n{}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}
