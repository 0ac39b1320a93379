//! Makes the schema engine's table anew, in a package of its own outside the workspace.

use std::process::Command;

use anyhow::{Context as _, bail};

/// Writes `api/schemas.txt` and `api/schemas-docs.zlib` from the two fact files.
pub fn run(arguments: &[String]) -> anyhow::Result<()> {
    let [api_types, merge_metadata] = arguments else {
        bail!("usage: cargo run -p xtask -- codegen API_TYPES.json MERGE_METADATA.json");
    };
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("no workspace root")?;
    let status = Command::new(std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned()))
        .args(["run", "--quiet", "--manifest-path"])
        .arg(root.join("xtask/codegen/Cargo.toml"))
        .arg("--")
        .args([api_types, merge_metadata])
        .args([root.join("api/schemas.txt"), root.join("api/schemas-docs.zlib")])
        .status()
        .context("cannot run cargo")?;
    if !status.success() {
        bail!("codegen failed: {status}");
    }
    Ok(())
}
