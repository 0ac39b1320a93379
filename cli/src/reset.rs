//! `orlop reset`: ends and removes what the nodes of a data directory have left running on this host.
//!
//! An agent that is stopped leaves its containers to the next one. This is for a host that is to be no node any more.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::agent::{AgentFile, Role};
use crate::layout::{self, Layout};
use crate::lock;

/// Ends and removes what a node has left running; its data stays.
#[derive(Args, Debug)]
pub struct Reset {
    /// Where the node keeps its data
    #[arg(long, env = layout::DATA_DIR_VARIABLE, default_value = layout::DATA_DIR)]
    data_dir: PathBuf,
}

/// Runs `reset`.
pub fn run(arguments: &Reset) -> Result<()> {
    let layout = Layout::new(&arguments.data_dir);
    let nodes = std::fs::read_dir(layout.nodes()).with_context(|| {
        format!("there is no node in {}; name it with --data-dir", layout.root().display())
    })?;
    for node in nodes {
        let dir = node.context("reading the nodes' directories")?.path();
        let Some(_held) = lock::take(&dir.join(layout::AGENT_LOCK))? else {
            bail!("the agent of {} runs; stop it first", dir.display());
        };
        nodeagent::embedded::purge(&dir)?;
        let file: AgentFile = match std::fs::read(dir.join(layout::AGENT_FILE)) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .with_context(|| format!("reading {}", dir.join(layout::AGENT_FILE).display()))?,
            Err(_) => continue,
        };
        // A namespace of its own has taken the rules with it.
        if let Role::Embedded { netns: None, name, .. } = &file.role {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(proxy::remove(None)).context("removing the service rules")?;
            eprintln!(
                "node {name} has left this host; delete its Node object with: orlop delete node {name}"
            );
        }
    }
    Ok(())
}
