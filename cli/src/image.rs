//! Images of the cluster on this machine: `orlop image load`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use nodeagent::images::{ImageStore, ImageStoreConfig, Record};

use crate::agent::{AgentFile, Role};
use crate::layout::{self, Layout};

/// What can be done with images.
#[derive(Subcommand)]
pub enum Image {
    /// Load OCI or docker archives into every node of the cluster on this machine.
    Load(Load),
}

/// Loads archives, as `docker save` and OCI tools write them.
#[derive(Args)]
pub struct Load {
    /// Where the cluster is kept.
    #[arg(long, env = layout::DATA_DIR_VARIABLE, default_value = layout::DATA_DIR)]
    data_dir: PathBuf,
    /// The archives: tar, plain or compressed.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
}

/// Runs `orlop image …`.
pub fn run(image: &Image) -> Result<()> {
    let Image::Load(load) = image;
    let stores = stores(&load.data_dir)?;
    let nodes = if stores.len() == 1 { "1 node".to_owned() } else { format!("{} nodes", stores.len()) };
    for file in &load.files {
        for name in load_into(&stores, file)? {
            println!("loaded {name} into {nodes}");
        }
    }
    Ok(())
}

/// The image stores of all nodes with containers. Running nodes see at once what is loaded.
fn stores(data_dir: &Path) -> Result<Vec<Arc<ImageStore>>> {
    let root = data_dir.canonicalize().with_context(|| {
        format!("there is no cluster in {}; name one with --data-dir", data_dir.display())
    })?;
    let layout = Layout::new(root);
    let mut stores = Vec::new();
    for dir in std::fs::read_dir(layout.nodes()).into_iter().flatten() {
        let dir = dir.with_context(|| format!("reading {}", layout.nodes().display()))?.path();
        let Ok(text) = std::fs::read(dir.join(layout::AGENT_FILE)) else { continue };
        let file: AgentFile = serde_json::from_slice(&text)
            .with_context(|| format!("reading {}", dir.join(layout::AGENT_FILE).display()))?;
        if let Role::Embedded { name, .. } = file.role {
            stores.push(open(layout.images(), name)?);
        }
    }
    if stores.is_empty() {
        bail!("no cluster with containers is kept in {}; name one with --data-dir", layout.root().display());
    }
    Ok(stores)
}

fn open(content: PathBuf, owner: String) -> Result<Arc<ImageStore>> {
    Ok(ImageStore::open(ImageStoreConfig {
        content,
        owner,
        mirrors: Default::default(),
        plain_http: Vec::new(),
        parallel_layers: 1,
    })?)
}

/// Loads one archive; returns the names of its images.
fn load_into(stores: &[Arc<ImageStore>], file: &Path) -> Result<Vec<String>> {
    let Some((first, others)) = stores.split_first() else { return Ok(Vec::new()) };
    let records = first.load_archive(file)?;
    for other in others {
        for record in &records {
            other.share(record)?;
        }
    }
    Ok(records.iter().flat_map(|record| names(record)).collect())
}

/// What people call the image; its id when it has no name.
fn names(record: &Record) -> Vec<String> {
    if record.tags.is_empty() { vec![record.id.clone()] } else { record.tags.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_cluster_is_said_in_one_line() {
        let folder = tempfile::tempdir().unwrap();
        for dir in [folder.path().to_owned(), folder.path().join("none")] {
            let error = format!("{:#}", stores(&dir).map(|_| ()).unwrap_err());
            assert!(error.contains("--data-dir") && !error.contains('\n'), "{error}");
        }
    }

    #[test]
    fn a_missing_archive_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let store = open(folder.path().join("images"), "node-1".to_owned()).unwrap();
        let error = format!("{:#}", load_into(&[store], &folder.path().join("no.tar")).unwrap_err());
        assert!(error.contains("no.tar") && !error.contains('\n'), "{error}");
    }
}
