//! The main job, narrated: `orlop demo` starts a throw-away cluster, does to it what people do to clusters, and says what
//! it saw. It succeeds only if every step was seen to be true.

mod board;
mod load;
mod stage;
mod steps;

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;

use anyhow::{Context, Result, bail};
use controller::NodeLifecycleOptions;
use jiff::SignedDuration;

use crate::layout::Layout;
use crate::oidc::Oidc;
use crate::up::{Cluster, RuntimeKind, Up};
use board::Board;
use stage::Stage;

/// Nodes of the demonstration.
const NODES: usize = 3;
/// A node that is silent for this long is given up: the usual 40 s would be a long wait for somebody who watches.
const NODE_GRACE: SignedDuration = SignedDuration::from_secs(12);

/// Runs the demonstration. True if every step was seen to be true.
pub async fn run() -> Result<bool> {
    let folder = tempfile::Builder::new()
        .prefix("orlop-demo-")
        .tempdir()
        .context("making a folder for the cluster")?;
    let arguments = Up {
        nodes: NODES,
        servers: 1,
        data_dir: folder.path().to_owned(),
        port: free_port()?,
        runtime: RuntimeKind::Embedded,
        oidc: Oidc::default(),
    };
    let lifecycle = NodeLifecycleOptions {
        grace: NODE_GRACE,
        eviction_interval: SignedDuration::from_millis(100),
        ..NodeLifecycleOptions::default()
    };
    let before = Host::now()?;
    let mut board = Board::new();
    let mut interrupt = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::interrupt())?;
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    let cluster = board.step("a cluster of three nodes starts", start(&arguments, lifecycle)).await;
    let Some(cluster) = cluster else {
        board.finish();
        return Ok(false);
    };
    let bridge = cluster.fabric().map(|fabric| fabric.bridge.clone()).unwrap_or_default();
    let stage = Stage::new(cluster)?;
    let interrupted = tokio::select! {
        () = steps::all(&stage, &mut board) => false,
        _ = interrupt.recv() => true,
        _ = terminate.recv() => true,
    };
    let data_dir = folder.path().to_owned();
    board
        .step("everything is gone", async move {
            stage.leave().stop().await?;
            folder.close().context("removing the cluster's folder")?;
            before.is_clean_of(&data_dir, &bridge)?;
            Ok("no process, mount, namespace, link, route, table or cgroup stays".to_owned())
        })
        .await;
    let succeeded = board.finish();
    if interrupted {
        bail!("interrupted");
    }
    Ok(succeeded)
}

async fn start(arguments: &Up, lifecycle: NodeLifecycleOptions) -> Result<(Cluster, String)> {
    let cluster = Cluster::start(arguments, lifecycle).await?;
    match cluster.wait_until_ready().await {
        Ok(_) => {
            let seen = format!("{NODES} nodes Ready; KUBECONFIG={}", cluster.layout().kubeconfig().display());
            Ok((cluster, seen))
        }
        Err(error) => {
            cluster.stop().await?;
            Err(error)
        }
    }
}

fn free_port() -> Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("looking for a free port")?.local_addr()?.port())
}

/// What a cluster could leave on this machine.
struct Host {
    links: BTreeSet<String>,
    routes: String,
}

impl Host {
    fn now() -> Result<Host> {
        let links = std::fs::read_dir("/sys/class/net")?.flatten();
        let links = links.map(|link| link.file_name().to_string_lossy().into_owned()).collect();
        Ok(Host { links, routes: std::fs::read_to_string("/proc/net/route")? })
    }

    /// Fails when something of the cluster at `data_dir` is still there.
    fn is_clean_of(&self, data_dir: &Path, bridge: &str) -> Result<()> {
        let cluster = Layout::new(data_dir).cluster();
        let now = Host::now()?;
        // Other clusters of this machine come and go: only links with our bridge's number are ours.
        let number = bridge.trim_start_matches("orlop");
        let ours = |link: &&String| *link == bridge || link.starts_with(&format!("orl{number}n"));
        if let Some(link) = now.links.difference(&self.links).find(ours) {
            bail!("the link {link} stays");
        }
        if let Some(route) = now.routes.lines().find(|route| route.starts_with(&format!("{bridge}\t"))) {
            bail!("a route stays: {route}");
        }
        if proxy::egress::is_installed(bridge)? {
            bail!("a table of nf_tables stays");
        }
        if Path::new("/run/orlop").join(&cluster).exists() {
            bail!("a namespace stays in /run/orlop/{cluster}");
        }
        no_mount_or_process(data_dir, &cluster)?;
        no_cgroup(Path::new("/sys/fs/cgroup"), &cluster)
    }
}

fn no_mount_or_process(data_dir: &Path, cluster: &str) -> Result<()> {
    let marks = [
        data_dir.to_string_lossy().into_owned(),
        format!("/run/orlop/{cluster}"),
        format!("/orlop/{cluster}"),
    ];
    let marked = |text: &str| marks.iter().any(|mark| text.contains(mark.as_str()));
    let mounts = std::fs::read_to_string("/proc/self/mounts")?;
    if let Some(mount) = mounts.lines().find(|line| marked(line)) {
        bail!("a mount stays: {mount}");
    }
    for process in std::fs::read_dir("/proc")?.flatten() {
        let name = process.file_name();
        let own = name.to_string_lossy() == std::process::id().to_string();
        let cgroups = std::fs::read_to_string(process.path().join("cgroup")).unwrap_or_default();
        let command = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
        if !own && (marked(&cgroups) || marked(&String::from_utf8_lossy(&command))) {
            bail!("process {} stays", name.to_string_lossy());
        }
    }
    Ok(())
}

/// Looks into every hierarchy: cgroup v2 has one, v1 has one for each controller.
fn no_cgroup(root: &Path, cluster: &str) -> Result<()> {
    let hierarchies = std::fs::read_dir(root)?.flatten().map(|entry| entry.path());
    for hierarchy in hierarchies.chain([root.to_owned()]) {
        let path = hierarchy.join("orlop").join(cluster);
        if path.exists() {
            bail!("the cgroup {} stays", path.display());
        }
    }
    Ok(())
}
