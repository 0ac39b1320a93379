//! An image of the tests' own tool, as an archive like the one that `docker save` writes.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::json;
use sha2::{Digest, Sha256};

/// The image's name.
pub const TOOL: &str = "orlop.dev/e2e-tool:v1";

/// Writes an archive with the executable `tool` and what it needs to run.
///
/// # Errors
/// When the executable does not run here, or files cannot be read or written.
pub fn pack(tool: &Path, archive: &Path) -> Result<()> {
    let mut layer = tar::Builder::new(Vec::new());
    for folder in ["etc", "proc", "sys", "dev", "tmp"] {
        let mut header = header();
        header.set_entry_type(tar::EntryType::Directory);
        header.set_mode(if folder == "tmp" { 0o1777 } else { 0o755 });
        header.set_size(0);
        layer.append_data(&mut header, folder, std::io::empty())?;
    }
    append(&mut layer, Path::new("tool"), &std::fs::read(tool).context("reading the tool")?, 0o755)?;
    // `kubectl cp` runs a tar in the container.
    let mut link = header();
    link.set_entry_type(tar::EntryType::Symlink);
    link.set_mode(0o777);
    link.set_size(0);
    layer.append_link(&mut link, "tar", "tool")?;
    append(
        &mut layer,
        Path::new("etc/passwd"),
        b"root:x:0:0:root:/:/tool\napp:x:1000:1000:app:/:/tool\n",
        0o644,
    )?;
    for library in libraries(tool)? {
        let bytes = std::fs::read(&library).with_context(|| format!("reading {}", library.display()))?;
        append(&mut layer, library.strip_prefix("/")?, &bytes, 0o755)?;
    }
    let layer = layer.into_inner()?;
    let digest = hex::encode(Sha256::digest(&layer));
    let config = json!({
        "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
        "os": "linux",
        "config": {"Entrypoint": ["/tool"], "Cmd": ["serve"], "Env": ["PATH=/", "FROM_IMAGE=yes"], "WorkingDir": "/"},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{digest}")]},
    });
    let manifest = json!([{"Config": "config.json", "RepoTags": [TOOL], "Layers": ["layer.tar"]}]);
    let mut outer = tar::Builder::new(File::create(archive).context("making an archive")?);
    append(&mut outer, Path::new("layer.tar"), &layer, 0o644)?;
    append(&mut outer, Path::new("config.json"), config.to_string().as_bytes(), 0o644)?;
    append(&mut outer, Path::new("manifest.json"), manifest.to_string().as_bytes(), 0o644)?;
    outer.into_inner()?.flush()?;
    Ok(())
}

/// Gives the archive's image to every node of the cluster in `data_dir`.
///
/// # Errors
/// When the archive is refused.
pub fn load(archive: &Path, data_dir: &Path, nodes: usize) -> Result<()> {
    use nodeagent::images::{ImageStore, ImageStoreConfig};
    for number in 1..=nodes {
        let store = ImageStore::open(ImageStoreConfig {
            content: data_dir.join("images"),
            owner: format!("node-{number}"),
            mirrors: Default::default(),
            plain_http: Vec::new(),
            parallel_layers: 1,
        })?;
        store.load_archive(archive)?;
    }
    Ok(())
}

fn append(out: &mut tar::Builder<impl Write>, path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    let mut header = header();
    header.set_mode(mode);
    header.set_size(bytes.len() as u64);
    out.append_data(&mut header, path, bytes).with_context(|| format!("packing {}", path.display()))
}

/// A header in which every number is one; a fresh one has none.
fn header() -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header
}

/// The loader and the libraries that the executable maps, by its own word.
fn libraries(tool: &Path) -> Result<BTreeSet<PathBuf>> {
    let output = Command::new(tool).arg("maps").output().context("running the tool")?;
    if !output.status.success() {
        bail!("the tool does not run here");
    }
    let maps = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut found: BTreeSet<PathBuf> = maps
        .lines()
        .filter_map(|line| line.find('/').map(|at| PathBuf::from(&line[at..])))
        .filter(|path| path.as_os_str().as_bytes().windows(3).any(|window| window == b".so"))
        .collect();
    // The kernel looks for the loader by the name in the executable, which may be a link to where it is mapped from.
    let loader = if cfg!(target_arch = "aarch64") {
        "/lib/ld-linux-aarch64.so.1"
    } else {
        "/lib64/ld-linux-x86-64.so.2"
    };
    found.insert(loader.into());
    Ok(found)
}
