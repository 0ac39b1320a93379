//! One node's process: the agent with its runtime, the proxy and DNS.
//!
//! `up` starts it with a file that says everything, and holds its standard input: the word `stop` there ends the
//! containers too, the end of the input leaves them running for the next agent. On a host of its own an agent writes that
//! file itself when it joins (`join`).

mod certificate;
mod join;
mod servers;

use std::fs::File;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use clap::Args;
use client::{Client, Informers};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use nodeagent::embedded::{EmbeddedConfig, EmbeddedRuntime};
use nodeagent::images::{ImageStore, ImageStoreConfig, SelfImage};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use crate::join::SERVER_NAME;
use crate::networks::Networks;
use crate::{layout, lock, pod_routes, roles};

/// What pods may name without any registry.
pub const DEMO_IMAGE: &str = "orlop.dev/demo";
/// Releases of the demo workload.
pub const DEMO_RELEASES: [&str; 2] = ["v1", "v2"];
/// Layers fetched at the same time.
const PARALLEL_LAYERS: usize = 3;

/// What an agent process is told. Kept as JSON in the node's directory.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AgentFile {
    /// `HOST:PORT` of each server.
    pub servers: Vec<String>,
    /// Certificates of the cluster's authorities, PEM.
    pub authority: PathBuf,
    /// Own certificate, PEM.
    pub certificate: PathBuf,
    /// Own key, PEM.
    pub key: PathBuf,
    /// Ranges and names.
    pub networks: Networks,
    /// What kind of node it is.
    pub role: Role,
}

/// What kind of node an agent process is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Role {
    /// A node that runs containers.
    Embedded {
        /// Name of the Node.
        name: String,
        /// The node's address.
        address: Ipv4Addr,
        /// The node's network namespace; `None`: the one of the process.
        netns: Option<PathBuf>,
        /// Path in the cgroup tree.
        cgroup_root: String,
        /// State of the node.
        state_dir: PathBuf,
        /// Image content, shared by the nodes of this machine.
        images: PathBuf,
    },
    /// Nodes without containers, all in one process.
    Hollow {
        /// Names of the Nodes.
        names: Vec<String>,
    },
}

// === impl AgentFile ===

impl AgentFile {
    /// Writes the file, whole or not at all.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn write(&self, path: &Path) -> Result<()> {
        Ok(apiserver::pki::write_private(path, &serde_json::to_vec_pretty(self)?)?)
    }
}

/// How an agent process is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// Containers go on running.
    Leave,
    /// Nothing stays.
    Stop,
}

/// Runs one node's agent.
#[derive(Args, Clone, Debug)]
pub struct Agent {
    /// What the agent is told, as JSON; `orlop up` writes it.
    #[arg(long, hide = true, conflicts_with_all = ["join", "data_dir", "name", "address"])]
    file: Option<PathBuf>,
    #[command(flatten)]
    host: join::Host,
}

/// Who ends an agent process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Master {
    /// The process that holds its standard input.
    Parent,
    /// Signals.
    Signals,
}

/// Runs an agent process until it is told to end.
pub async fn run(arguments: Agent) -> Result<()> {
    match &arguments.file {
        Some(path) => run_as(path, Master::Parent, false).await,
        None => {
            let path = join::prepare(&arguments.host).await?;
            run_as(&path, Master::Signals, arguments.host.disable_proxy).await
        }
    }
}

async fn run_as(path: &Path, master: Master, without_proxy: bool) -> Result<()> {
    let text = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    let file: AgentFile =
        serde_json::from_str(&text).with_context(|| format!("reading {}", path.display()))?;
    let client = connect(&file)?;
    let shutdown = CancellationToken::new();
    tokio::spawn(certificate::follow(file.clone(), client.clone(), shutdown.clone()));
    if master == Master::Signals {
        tokio::spawn(join::renew(file.clone(), client.clone(), shutdown.clone()));
    }
    match &file.role {
        Role::Hollow { names } => {
            let config = nodeagent::hollow::HollowConfig::new(names.clone());
            let hollow = nodeagent::hollow::run(config, client, shutdown.clone());
            tokio::select! {
                ended = hollow => ended.context("the hollow nodes ended"),
                _ = told_to_end(master) => { shutdown.cancel(); Ok(()) }
            }
        }
        Role::Embedded { .. } => {
            Node::start(path, &file, client, without_proxy, shutdown).await?.run(master).await
        }
    }
}

fn connect(file: &AgentFile) -> Result<Client> {
    let read =
        |path: &Path| std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()));
    let (authority, certificate, key) = (read(&file.authority)?, read(&file.certificate)?, read(&file.key)?);
    let urls = servers::urls(&file.servers);
    let client = Client::from_identity(&urls, SERVER_NAME, &authority, &certificate, &key)?;
    Ok(client.with_user_agent("kubelet"))
}

/// Waits for the word of the process that started this one, or for a signal.
async fn told_to_end(master: Master) -> End {
    let asked = async {
        if master == Master::Signals {
            return std::future::pending().await;
        }
        let mut lines = BufReader::new(tokio::io::stdin()).lines();
        match lines.next_line().await {
            Ok(Some(line)) if line == "stop" => End::Stop,
            _ => End::Leave,
        }
    };
    let signalled = async {
        match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
            Ok(mut terminate) => terminate.recv().await,
            Err(_) => std::future::pending().await,
        }
    };
    // Ctrl-C on a terminal reaches the whole group; a process that started this one decides what it means.
    let interrupted = async {
        while tokio::signal::ctrl_c().await.is_ok() {
            if master == Master::Signals {
                return;
            }
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        end = asked => end,
        _ = signalled => End::Leave,
        () = interrupted => End::Leave,
    }
}

/// A node with containers.
struct Node {
    runtime: Arc<EmbeddedRuntime>,
    netns: Option<PathBuf>,
    tasks: tokio::task::JoinSet<()>,
    shutdown: CancellationToken,
    _lock: File,
}

impl Node {
    async fn start(
        path: &Path,
        file: &AgentFile,
        client: Client,
        without_proxy: bool,
        shutdown: CancellationToken,
    ) -> Result<Node> {
        let Role::Embedded { name, address, netns, cgroup_root, state_dir, images } = &file.role else {
            bail!("not a node with containers");
        };
        let Some(held) = lock::take(&state_dir.join(layout::AGENT_LOCK))? else {
            bail!("another process uses {}", state_dir.display())
        };
        let store = open_images(images.clone(), name.clone()).await?;
        let runtime = EmbeddedRuntime::open(EmbeddedConfig {
            state_dir: state_dir.clone(),
            images: store,
            netns: netns.clone(),
            cgroup_root: cgroup_root.clone(),
        })
        .await?;
        let informers = Informers::new(client.clone());
        let mut node =
            Node { runtime, netns: netns.clone(), tasks: tokio::task::JoinSet::new(), shutdown, _lock: held };
        let routes =
            pod_routes::follow(name.clone(), informers.get(client::Scope::all()), node.runtime.clone());
        node.spawn("the pod routes", async move {
            routes.await;
            Ok(())
        });
        if !without_proxy {
            let config = roles::proxy_config(name.clone(), &file.networks, Some(*address), netns.clone())?;
            let client = client.with_user_agent("kube-proxy");
            let proxy = proxy::run(config, client, informers.clone(), node.shutdown.clone());
            node.spawn("the proxy", async move { Ok(proxy.await?) });
        }
        let (tunnels, known) = watch::channel(servers::tunnels(file));
        let slices = informers.get::<EndpointSlice>(client::Scope::all());
        let followed = servers::follow(path.to_owned(), file.clone(), client.clone(), slices, tunnels);
        node.spawn("the list of servers", async move {
            followed.await;
            Ok(())
        });
        let agent = nodeagent::run(
            agent_config(file, known)?,
            client,
            informers,
            node.runtime.clone(),
            node.shutdown.clone(),
        );
        node.spawn("the node agent", async move { Ok(agent.await?) });
        Ok(node)
    }

    fn spawn(&mut self, what: &'static str, task: impl Future<Output = Result<()>> + Send + 'static) {
        let shutdown = self.shutdown.clone();
        self.tasks.spawn(async move {
            if let Err(error) = task.await {
                error!("{what} ended: {error:#}");
                // Half a node serves nobody: the process ends and is started anew.
                shutdown.cancel();
            }
        });
    }

    async fn run(mut self, master: Master) -> Result<()> {
        let end = tokio::select! {
            end = told_to_end(master) => Some(end),
            () = self.shutdown.cancelled() => None,
        };
        self.shutdown.cancel();
        self.tasks.join_next().await;
        self.tasks.shutdown().await;
        self.runtime.shutdown(end != Some(End::Stop)).await;
        if end == Some(End::Stop)
            && let Err(error) = proxy::remove(self.netns.as_deref()).await
        {
            warn!(error = &error as &dyn std::error::Error, "service rules stay behind");
        }
        match end {
            Some(_) => Ok(()),
            None => bail!("a part of the node failed"),
        }
    }
}

/// Opens the node's images. The demo's are packed beside what else is to be done.
async fn open_images(content: PathBuf, owner: String) -> Result<Arc<ImageStore>> {
    let opened = tokio::task::spawn_blocking(move || {
        let store = ImageStore::open(ImageStoreConfig {
            content,
            owner,
            mirrors: Default::default(),
            plain_http: Vec::new(),
            parallel_layers: PARALLEL_LAYERS,
        })?;
        Ok::<_, nodeagent::images::ImageError>(store)
    });
    let store = opened.await??;
    let demo = DEMO_RELEASES.map(|release| SelfImage {
        reference: format!("{DEMO_IMAGE}:{release}"),
        arguments: vec!["internal".to_owned(), "workload".to_owned()],
        env: vec![("RELEASE".to_owned(), release.to_owned())],
        labels: Default::default(),
    });
    store.pack_in_background(demo.into());
    Ok(store)
}

fn agent_config(
    file: &AgentFile,
    tunnels: watch::Receiver<Vec<nodeagent::TunnelConfig>>,
) -> Result<nodeagent::Config> {
    let Role::Embedded { name, address, netns, state_dir, .. } = &file.role else {
        bail!("not a node with containers")
    };
    let mut config = nodeagent::Config::new(name, state_dir, vec![(*address).into()]);
    config.netns = netns.clone();
    config.cluster_dns = vec![file.networks.dns.into()];
    config.cluster_domain = file.networks.domain.clone();
    config.tunnels = tunnels;
    Ok(config)
}
