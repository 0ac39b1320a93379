//! A whole cluster on this machine, in the foreground: `orlop up`.

mod front;
mod nodes;
mod plane;
mod servers;

use std::fs::File;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use client::{Client, Informers, Scope};
use controller::NodeLifecycleOptions;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Node;
use nodeagent::network::fabric::{self, Fabric, FabricConfig};
use tokio::signal::unix::{SignalKind, signal};

use crate::layout::{self, Layout};
use crate::networks::Networks;
use crate::oidc::Oidc;
use crate::{doctor, lock};
use nodes::Nodes;
use plane::Plane;
use servers::Servers;

/// A process of an earlier `up` may take this long to end.
const LEFTOVER_PATIENCE: Duration = Duration::from_secs(10);
/// Nodes that are not Ready after this long are reported, and waited for no more.
const READY_PATIENCE: Duration = Duration::from_secs(60);

/// Starts a cluster on this machine and runs it until Ctrl-C.
#[derive(Args, Clone, Debug)]
pub struct Up {
    /// How many nodes.
    #[arg(long, default_value_t = 1)]
    pub nodes: usize,
    /// How many servers: with several, each is a process in a network namespace of its own.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=7))]
    pub servers: u8,
    /// Where the cluster is kept; the same directory resumes it with all its objects.
    #[arg(long, env = layout::DATA_DIR_VARIABLE, default_value = layout::DATA_DIR)]
    pub data_dir: PathBuf,
    /// Port of the API.
    #[arg(long, default_value_t = 6443)]
    pub port: u16,
    /// What runs containers.
    #[arg(long, value_enum, default_value_t = RuntimeKind::Embedded)]
    pub runtime: RuntimeKind,
    /// Users of an issuer outside the cluster.
    #[command(flatten)]
    pub oidc: Oidc,
}

/// What runs containers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum RuntimeKind {
    /// Orlop itself.
    Embedded,
    /// Nothing: pods are reported as running. For tests of scale.
    Hollow,
}

/// A cluster that runs in this process and its children.
pub struct Cluster {
    layout: Layout,
    /// Held for as long as this process uses the data directory.
    _lock: File,
    plane: Plane,
    nodes: Nodes,
    fabric: Option<Fabric>,
    started: Instant,
}

/// What a cluster is started on: the machine's part is ready.
struct Ground {
    layout: Layout,
    lock: File,
    /// Names of the servers that are processes of their own.
    servers: Vec<String>,
    /// Names of the nodes.
    names: Vec<String>,
    networks: Networks,
    fabric: Option<Fabric>,
    started: Instant,
}

/// Runs `orlop up`.
pub async fn run(arguments: Up) -> Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let cluster = Cluster::start(&arguments, NodeLifecycleOptions::default()).await?;
    let ready = async {
        match cluster.wait_until_ready().await {
            Ok(line) => println!("{line}"),
            Err(error) => eprintln!("orlop: {error:#}"),
        }
        std::future::pending::<()>().await;
    };
    let mut failed = false;
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        () = ready => {}
        () = cluster.plane.failed() => failed = true,
    }
    eprintln!("orlop: stopping");
    cluster.stop().await?;
    if failed {
        bail!("a part of the control plane ended by itself");
    }
    Ok(())
}

impl Cluster {
    /// Checks the host, then starts everything. Nothing stays behind when it fails.
    pub async fn start(arguments: &Up, node_lifecycle: NodeLifecycleOptions) -> Result<Cluster> {
        let started = Instant::now();
        let names: Vec<String> = (1..=arguments.nodes).map(|number| format!("node-{number}")).collect();
        let servers: Vec<String> = match arguments.servers {
            1 => Vec::new(),
            several => (1..=several).map(|number| format!("server-{number}")).collect(),
        };
        let embedded = arguments.runtime == RuntimeKind::Embedded;
        if embedded || !servers.is_empty() {
            doctor::first_problem()?;
        }
        check_port(arguments.port)?;
        let layout = prepare(&arguments.data_dir)?;
        let Some(lock) = lock::take(&layout.lock())? else {
            bail!(
                "another cluster runs on {}; stop it first, or choose another with --data-dir",
                layout.root().display()
            );
        };
        let networks = Networks::for_nodes(names.len());
        check_servers(&layout, servers.len())?;
        let mut places = servers.clone();
        if embedded {
            places.extend(names.iter().cloned());
        }
        let fabric =
            if places.is_empty() { None } else { Some(build_fabric(&layout, &places, &networks).await?) };
        let ground = Ground { layout, lock, servers, names, networks, fabric: fabric.clone(), started };
        let cluster = Self::start_on(ground, arguments, node_lifecycle).await;
        if let (Err(_), Some(fabric)) = (&cluster, &fabric) {
            take_down(fabric).await;
        }
        cluster
    }

    async fn start_on(
        ground: Ground,
        arguments: &Up,
        node_lifecycle: NodeLifecycleOptions,
    ) -> Result<Cluster> {
        let Ground { layout, lock, servers, names, networks, fabric, started } = ground;
        let places = fabric.as_ref().map_or(&[][..], |fabric| &fabric.nodes);
        let (server_places, node_places) = places.split_at(servers.len());
        let plane = match servers.is_empty() {
            true => {
                let (port, issuers) = (arguments.port, arguments.oidc.issuers()?);
                Plane::here(&layout, fabric.as_ref(), port, &networks, issuers, node_lifecycle).await?
            }
            false => {
                let further = arguments.oidc.arguments();
                Plane::Apart(Servers::start(&layout, server_places, arguments.port, &further).await?)
            }
        };
        let nodes = match (&fabric, arguments.runtime) {
            (Some(fabric), RuntimeKind::Embedded) => {
                Nodes::embedded(&layout, &plane, &fabric.cluster, node_places, &networks)
            }
            _ => Nodes::hollow(&layout, &plane, names, &networks),
        };
        match nodes {
            Ok(nodes) => Ok(Cluster { layout, _lock: lock, plane, nodes, fabric, started }),
            Err(error) => {
                plane.stop().await;
                Err(error)
            }
        }
    }

    /// Waits until all nodes are Ready; returns the line that says so.
    pub async fn wait_until_ready(&self) -> Result<String> {
        let count = self.nodes.names().len();
        // A resumed cluster remembers nodes as Ready: what counts is what they have said since the start.
        let since = Timestamp::now() - self.started.elapsed().try_into().unwrap_or(SignedDuration::ZERO);
        let since = since.as_second();
        let informers = Informers::new(self.administrator()?);
        let nodes = informers.get::<Node>(Scope::all());
        let mut changes = nodes.subscribe();
        let all = async {
            while nodes.store().iter().filter(|node| is_ready_since(node, since)).count() < count {
                if changes.next().await.is_none() {
                    break;
                }
            }
        };
        if tokio::time::timeout(READY_PATIENCE, all).await.is_err() {
            let ready = nodes.store().iter().filter(|node| is_ready_since(node, since)).count();
            bail!("{ready} of {count} nodes are Ready after {} s", READY_PATIENCE.as_secs());
        }
        let nodes = if count == 1 { "1 node is".to_owned() } else { format!("{count} nodes are") };
        Ok(format!(
            "{nodes} ready after {:.1} s; use it with: export KUBECONFIG={}",
            self.started.elapsed().as_secs_f64(),
            self.layout.kubeconfig().display()
        ))
    }

    /// A client with all rights.
    ///
    /// # Errors
    /// When its certificate cannot be issued.
    pub fn administrator(&self) -> Result<Client> {
        self.plane.administrator()
    }

    /// The nodes.
    pub fn nodes(&self) -> &Nodes {
        &self.nodes
    }

    /// The network of the nodes; hollow nodes have none.
    pub fn fabric(&self) -> Option<&Fabric> {
        self.fabric.as_ref()
    }

    /// Where it is kept.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Stops everything and leaves nothing behind but the data directory.
    pub async fn stop(self) -> Result<()> {
        self.nodes.stop().await;
        self.plane.stop().await;
        if let Some(fabric) = &self.fabric {
            take_down(fabric).await;
        }
        Ok(())
    }
}

/// Whether a node is Ready.
pub fn is_ready(node: &Node) -> bool {
    is_ready_since(node, 0)
}

/// Whether a node has said that it is Ready in this second since 1970 or later.
fn is_ready_since(node: &Node, second: i64) -> bool {
    let conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|one| {
        let said = one.last_heartbeat_time.as_ref().map_or(0, |time| time.0.as_second());
        one.type_ == "Ready" && one.status == "True" && said >= second
    })
}

/// A cluster keeps to one server in this process, or to several of their own: the data is elsewhere.
fn check_servers(layout: &Layout, apart: usize) -> Result<()> {
    let known = std::fs::read_dir(layout.servers()).map_or(0, |servers| servers.flatten().count());
    let root = layout.root().display();
    if apart > 0 && layout.store().exists() {
        bail!(
            "the cluster in {root} has one server; start it without --servers, or choose another --data-dir"
        );
    }
    if known > apart {
        bail!(
            "the cluster in {root} has {known} servers; start it with --servers {known}, or choose another --data-dir"
        );
    }
    Ok(())
}

fn check_port(port: u16) -> Result<()> {
    match TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
        Ok(_) => Ok(()),
        Err(error) => bail!(
            "port {port} of 127.0.0.1 cannot be used ({error}); stop what uses it, or choose another with --port"
        ),
    }
}

/// Makes the data directory, and removes what a killed cluster has left running.
fn prepare(data_dir: &Path) -> Result<Layout> {
    let made = || -> std::io::Result<PathBuf> {
        use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(data_dir)?;
        std::fs::set_permissions(data_dir, std::fs::Permissions::from_mode(0o700))?;
        data_dir.canonicalize()
    };
    let root = made().with_context(|| format!("the data directory {} cannot be used", data_dir.display()))?;
    Ok(Layout::new(root))
}

async fn build_fabric(layout: &Layout, names: &[String], networks: &Networks) -> Result<Fabric> {
    let root = layout.clone();
    tokio::task::spawn_blocking(move || clear_leftovers(&root)).await??;
    let config = FabricConfig {
        cluster: layout.cluster(),
        nodes: names.to_vec(),
        service_cidr: networks.services.parse()?,
        state_dir: layout.root().to_owned(),
    };
    let fabric = fabric::up(&config).await?;
    let inside = proxy::Network { address: fabric.bridge_ip, prefix: fabric.prefix };
    if let Err(error) = proxy::egress::install(&fabric.bridge, inside) {
        take_down(&fabric).await;
        return Err(error).context("letting the nodes reach the world");
    }
    Ok(fabric)
}

/// Waits for the processes of a killed `up` to end, and removes what its agents have left on this machine. Nobody else runs a
/// cluster there: the data directory is locked.
fn clear_leftovers(layout: &Layout) -> Result<()> {
    for server in directories(&layout.servers())? {
        lock::wait(&Layout::new(server).lock(), LEFTOVER_PATIENCE)?;
    }
    for node in directories(&layout.nodes())? {
        lock::wait(&node.join(layout::AGENT_LOCK), LEFTOVER_PATIENCE)?;
        nodeagent::embedded::purge(&node)?;
    }
    Ok(())
}

/// What is in a directory; nothing when there is none.
fn directories(path: &Path) -> Result<Vec<PathBuf>> {
    let entries = match std::fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(|| format!("reading {}", path.display())),
    };
    entries.map(|entry| Ok(entry.with_context(|| format!("reading {}", path.display()))?.path())).collect()
}

async fn take_down(fabric: &Fabric) {
    if let Err(error) = proxy::egress::remove(&fabric.bridge) {
        eprintln!("orlop: the table that let the nodes reach the world stays behind: {error}");
    }
    if let Err(error) = fabric::down(fabric).await {
        eprintln!("orlop: a part of the nodes' network stays behind: {error}");
    }
}
