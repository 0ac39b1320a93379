//! The agent of one node: registers the node, runs the pods that are bound to it, answers through the tunnel.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use client::events::Recorder;
use client::{Client, Informers};
use k8s_openapi::api::core::v1::Taint;
use nodeagent_core::runtime::{Runtime, RuntimeError};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::hands::Node;
use crate::{housekeeping, node, pods, tunnel};

/// How an agent is set up.
#[derive(Clone, Debug)]
pub struct Config {
    /// Name of the node.
    pub node_name: String,
    /// Where the node keeps its state.
    pub data_dir: PathBuf,
    /// The node's addresses, the most important first.
    pub addresses: Vec<IpAddr>,
    /// The node's network namespace, when it is not the agent's own.
    pub netns: Option<PathBuf>,
    /// Addresses of the cluster's DNS.
    pub cluster_dns: Vec<IpAddr>,
    /// For example `cluster.local`.
    pub cluster_domain: String,
    /// Text of the `/etc/resolv.conf` that pods with `dnsPolicy: Default` get.
    pub resolv_conf: String,
    /// The most pods on the node.
    pub max_pods: i64,
    /// Thousandths of a core; `None`: what the machine has.
    pub cpu_milli: Option<i64>,
    /// Bytes of memory; `None`: what the machine has.
    pub memory_bytes: Option<i64>,
    /// Labels of the node beside the usual ones.
    pub labels: BTreeMap<String, String>,
    /// Taints that the node is registered with.
    pub taints: Vec<Taint>,
    /// How long a stop signal may wait until the proxies have let go of a pod.
    pub drain: Duration,
    /// The servers that may open sessions, now and whenever they change; none: no exec, attach or logs.
    pub tunnels: watch::Receiver<Vec<TunnelConfig>>,
}

/// A server to keep a tunnel to. The files are read anew for each connection: certificates are replaced while the agent runs.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TunnelConfig {
    /// `host:port`.
    pub address: String,
    /// The name that its certificate must have.
    pub server_name: String,
    /// Certificates of the CA, PEM.
    pub authority: PathBuf,
    /// The node's certificate, PEM.
    pub certificate: PathBuf,
    /// The key to it, PEM.
    pub key: PathBuf,
}

/// Why an agent cannot run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The state directory cannot be used.
    #[error("cannot use the state directory {path}")]
    State {
        /// The directory.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The runtime does not answer.
    #[error("the container runtime does not answer")]
    Runtime(#[source] RuntimeError),
}

impl Config {
    /// A node of that name with the usual settings.
    pub fn new(node_name: impl Into<String>, data_dir: impl Into<PathBuf>, addresses: Vec<IpAddr>) -> Self {
        Self {
            node_name: node_name.into(),
            data_dir: data_dir.into(),
            addresses,
            netns: None,
            cluster_dns: vec![IpAddr::from([10, 96, 0, 10])],
            cluster_domain: "cluster.local".into(),
            resolv_conf: std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default(),
            max_pods: 110,
            cpu_milli: None,
            memory_bytes: None,
            labels: BTreeMap::new(),
            taints: Vec::new(),
            drain: Duration::from_secs(2),
            tunnels: watch::Sender::default().subscribe(),
        }
    }
}

/// Runs an agent until it is told to stop. Containers keep running.
///
/// # Errors
/// When the state directory or the runtime cannot be used at all. An API server that is away is waited for.
pub async fn run(
    config: Config,
    client: Client,
    informers: Informers,
    runtime: Arc<dyn Runtime>,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    for dir in ["pods", "logs"] {
        let path = config.data_dir.join(dir);
        std::fs::create_dir_all(&path).map_err(|source| Error::State { path, source })?;
    }
    runtime.list_sandboxes().await.map_err(Error::Runtime)?;
    let recorder = Recorder::new(&client, "kubelet", Some(&config.node_name));
    let node = Node::new(config, client, informers, runtime, recorder);
    let pods = pods::Pods::new(node.clone());
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(node::keep(node.clone()));
    tasks.spawn(pods.clone().run());
    tasks.spawn(housekeeping::run(pods.clone()));
    tasks.spawn(housekeeping::measure(node.clone()));
    tasks.spawn(tunnel::keep_all(node.config.tunnels.clone(), pods.clone()));
    shutdown.cancelled().await;
    tasks.shutdown().await;
    Ok(())
}
