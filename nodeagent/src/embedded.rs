//! The built-in container runtime: sandboxes and containers of one node, without any engine beside this executable.
//!
//! The directory of each sandbox and container tells everything about it; memory holds a copy. Containers belong to their
//! shims and outlive the agent. See `docs/adr/002-embedded-runtime.md`.

pub mod cgroup;
mod container;
mod purge;
mod sandbox;
mod seccomp;
mod session;
mod shims;
mod spec;
mod state;

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt};
use nodeagent_core::runtime::{
    ContainerConfig, ContainerId, ContainerStats, ContainerStatus, ExecConfig, ExecOutput, Image, NodeStats,
    RegistryAuth, Resources, Runtime, RuntimeError, RuntimeEvent, SandboxConfig, SandboxId, SandboxStatus,
    Session,
};
use serde::{Deserialize, Serialize};
use tokio::sync::{broadcast, watch};

use crate::images::{ImageError, ImageStore};
use crate::network::{Ipv4Cidr, NetworkError, PodNetwork, PodRoute};
use cgroup::Cgroups;
pub use purge::{PurgeError, purge};
use state::{ContainerRecord, Layout, Phase, SandboxRecord};

/// Where a node's runtime keeps its things.
#[derive(Clone)]
pub struct EmbeddedConfig {
    /// State of the node.
    pub state_dir: PathBuf,
    /// Images of the node.
    pub images: Arc<ImageStore>,
    /// Network namespace of the node, when it has one of its own.
    pub netns: Option<PathBuf>,
    /// Path in the cgroup tree, such as `/orlop/node-1`.
    pub cgroup_root: String,
}

/// What [`purge`] must know, kept in the state directory.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct NodeFile {
    netns: Option<PathBuf>,
    cgroup_root: String,
}

const NODE_FILE: &str = "runtime.json";

/// Why the runtime could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The state directory cannot be used.
    #[error("container state: {0}")]
    State(#[from] io::Error),
    /// The node's network namespace cannot be used.
    #[error(transparent)]
    Network(#[from] NetworkError),
}

/// A container with where it is in its life.
#[derive(Clone)]
struct Container {
    record: ContainerRecord,
    phase: Phase,
}

#[derive(Default)]
struct State {
    sandboxes: BTreeMap<String, SandboxRecord>,
    containers: BTreeMap<String, Container>,
}

/// The runtime of one node.
pub struct EmbeddedRuntime {
    /// For tasks that outlive a call.
    this: std::sync::Weak<EmbeddedRuntime>,
    config: EmbeddedConfig,
    layout: Layout,
    boot_id: String,
    cgroups: Cgroups,
    zygote: shims::Zygote,
    network: PodNetwork,
    state: Mutex<State>,
    events: broadcast::Sender<RuntimeEvent>,
    /// Counts changes of any container.
    changes: watch::Sender<u64>,
}

fn internal(what: &str) -> impl FnOnce(io::Error) -> RuntimeError + use<'_> {
    move |error| RuntimeError::Internal(format!("{what}: {error}"))
}

impl From<NetworkError> for RuntimeError {
    fn from(error: NetworkError) -> RuntimeError {
        RuntimeError::Internal(error.to_string())
    }
}

/// Runs blocking work beside the asynchronous tasks.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, RuntimeError> + Send + 'static,
) -> Result<T, RuntimeError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(outcome) => outcome,
        Err(error) => Err(RuntimeError::Internal(error.to_string())),
    }
}

// === impl EmbeddedRuntime ===

impl EmbeddedRuntime {
    /// Opens a node's state: takes over what runs, marks what was lost, removes what was never finished.
    pub async fn open(config: EmbeddedConfig) -> Result<Arc<EmbeddedRuntime>, OpenError> {
        // Shims have another working directory.
        std::fs::create_dir_all(&config.state_dir)?;
        let config = EmbeddedConfig { state_dir: config.state_dir.canonicalize()?, ..config };
        let layout = Layout::new(&config.state_dir);
        let boot_id = state::boot_id()?;
        for dir in [layout.containers(), layout.sandboxes()] {
            std::fs::create_dir_all(&dir)?;
            // Containers leave set-user-id programs and secrets there, which are not for the node's users.
            std::fs::set_permissions(&dir, std::os::unix::fs::PermissionsExt::from_mode(0o700))?;
        }
        let (sandboxes, broken) = layout.load_sandboxes()?;
        let (containers, broken_containers) = layout.load_containers()?;
        for dir in broken.iter().chain(&broken_containers) {
            crate::netns::unmount_below(dir)?;
            std::fs::remove_dir_all(dir)?;
        }
        let node = NodeFile { netns: config.netns.clone(), cgroup_root: config.cgroup_root.clone() };
        state::write(&config.state_dir.join(NODE_FILE), &node)?;
        let cgroups = Cgroups::detect()?;
        let shims = format!("{}/shims", config.cgroup_root);
        cgroups.create(&shims, &Default::default())?;
        let known = sandboxes.iter().filter(|sandbox| sandbox.alive(&boot_id)).flat_map(|sandbox| {
            sandbox.ips.iter().filter_map(|ip| match ip {
                std::net::IpAddr::V4(ip) => Some((*ip, sandbox.id.clone())),
                std::net::IpAddr::V6(_) => None,
            })
        });
        let network = PodNetwork::open(config.netns.as_deref(), known).await?;
        let runtime = Arc::new_cyclic(|this| EmbeddedRuntime {
            this: this.clone(),
            zygote: shims::Zygote::new(cgroups.dirs(&shims)),
            layout,
            boot_id,
            cgroups,
            network,
            config,
            state: Mutex::default(),
            events: broadcast::channel(1024).0,
            changes: watch::channel(0).0,
        });
        runtime.adopt(sandboxes, containers).await;
        Ok(runtime)
    }

    async fn adopt(&self, sandboxes: Vec<SandboxRecord>, containers: Vec<ContainerRecord>) {
        for mut sandbox in sandboxes {
            if sandbox.ready && !sandbox.alive(&self.boot_id) {
                sandbox.ready = false;
                if let Err(error) = self.layout.save_sandbox(&sandbox) {
                    tracing::warn!(sandbox = sandbox.id, %error, "cannot note that a sandbox is gone");
                }
            }
            self.lock().sandboxes.insert(sandbox.id.clone(), sandbox);
        }
        for record in containers {
            let id = record.id.clone();
            let phase = match self.layout.phase(&id, &self.boot_id) {
                Some(phase) => phase,
                None => self.lost(&record),
            };
            let running = matches!(phase, Phase::Running { .. });
            self.lock().containers.insert(id.clone(), Container { record, phase });
            if running {
                self.watch_exit(id);
            }
        }
    }

    /// Makes the pod network when the node's part of it is known. Until then only pods on the node's network can run.
    pub async fn set_pod_cidr(&self, cidr: Ipv4Cidr) -> Result<(), NetworkError> {
        self.network.set_pod_cidr(cidr).await
    }

    /// Makes the routes to other nodes' pods exactly these.
    pub async fn set_routes(&self, routes: &[PodRoute]) -> Result<(), NetworkError> {
        self.network.set_routes(routes).await
    }

    /// The node's images.
    pub fn images(&self) -> &Arc<ImageStore> {
        &self.config.images
    }

    /// Ends the agent's side. Without `keep_containers` everything that runs is killed, and nothing but records stays:
    /// no process, mount, link, or cgroup.
    pub async fn shutdown(&self, keep_containers: bool) {
        if !keep_containers {
            let ids: Vec<String> = self.lock().sandboxes.keys().cloned().collect();
            let stops = ids.iter().map(|id| self.stop_sandbox_now(id));
            for outcome in futures::future::join_all(stops).await {
                if let Err(error) = outcome {
                    tracing::warn!(%error, "cannot stop a sandbox");
                }
            }
        }
        self.zygote.stop();
        if keep_containers {
            return;
        }
        if let Err(error) = self.network.close().await {
            tracing::warn!(%error, "cannot take the pod network down");
        }
        let (cgroups, root) = (self.cgroups.clone(), self.config.cgroup_root.clone());
        let removed =
            blocking(move || purge::remove_cgroups(&cgroups, &root).map_err(internal("cgroups"))).await;
        if let Err(error) = removed {
            tracing::warn!(%error, "cannot remove the node's cgroups");
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn changed(&self, pod_uid: &str) {
        self.changes.send_modify(|count| *count += 1);
        // Nobody listens: then nobody needs to know.
        let _ = self.events.send(RuntimeEvent { pod_uid: pod_uid.to_owned() });
    }
}

impl Runtime for EmbeddedRuntime {
    fn version(&self) -> String {
        format!("orlop://{}", env!("CARGO_PKG_VERSION"))
    }

    fn problem(&self) -> BoxFuture<'_, Option<String>> {
        async {
            let missing = self.network.pod_cidr().await.is_none();
            missing.then(|| {
                format!(
                    "container runtime network not ready: NetworkReady=false reason:NetworkPluginNotReady message:{}",
                    NetworkError::NoPodCidr
                )
            })
        }
        .boxed()
    }

    fn run_sandbox(&self, config: SandboxConfig) -> BoxFuture<'_, Result<SandboxStatus, RuntimeError>> {
        self.run_sandbox_now(config).boxed()
    }

    fn stop_sandbox<'a>(&'a self, id: &'a SandboxId) -> BoxFuture<'a, Result<(), RuntimeError>> {
        self.stop_sandbox_now(&id.0).boxed()
    }

    fn remove_sandbox<'a>(&'a self, id: &'a SandboxId) -> BoxFuture<'a, Result<(), RuntimeError>> {
        self.remove_sandbox_now(&id.0).boxed()
    }

    fn list_sandboxes(&self) -> BoxFuture<'_, Result<Vec<SandboxStatus>, RuntimeError>> {
        let list = self.lock().sandboxes.values().map(SandboxStatus::from).collect();
        futures::future::ready(Ok(list)).boxed()
    }

    fn network_namespace<'a>(
        &'a self,
        id: &'a SandboxId,
    ) -> BoxFuture<'a, Result<Option<PathBuf>, RuntimeError>> {
        let found = match self.lock().sandboxes.get(&id.0) {
            Some(sandbox) if sandbox.host_network => Ok(sandbox.netns.clone()),
            Some(sandbox) => Ok(Some(self.layout.sandbox(&sandbox.id).join("ns/net"))),
            None => Err(RuntimeError::NotFound { what: format!("sandbox {}", id.0) }),
        };
        futures::future::ready(found).boxed()
    }

    fn create_container<'a>(
        &'a self,
        sandbox: &'a SandboxId,
        config: ContainerConfig,
    ) -> BoxFuture<'a, Result<ContainerId, RuntimeError>> {
        self.create_container_now(&sandbox.0, config).boxed()
    }

    fn start_container<'a>(&'a self, id: &'a ContainerId) -> BoxFuture<'a, Result<(), RuntimeError>> {
        self.start_container_now(&id.0).boxed()
    }

    fn stop_container<'a>(
        &'a self,
        id: &'a ContainerId,
        grace: Duration,
    ) -> BoxFuture<'a, Result<(), RuntimeError>> {
        self.stop_container_now(&id.0, grace).boxed()
    }

    fn resize_container<'a>(
        &'a self,
        id: &'a ContainerId,
        container: Resources,
        pod: Resources,
    ) -> BoxFuture<'a, Result<(), RuntimeError>> {
        self.resize_container_now(&id.0, container, pod).boxed()
    }

    fn remove_container<'a>(&'a self, id: &'a ContainerId) -> BoxFuture<'a, Result<(), RuntimeError>> {
        self.remove_container_now(&id.0).boxed()
    }

    fn list_containers(&self) -> BoxFuture<'_, Result<Vec<ContainerStatus>, RuntimeError>> {
        let list = self.lock().containers.values().map(container::status).collect();
        futures::future::ready(Ok(list)).boxed()
    }

    fn reopen_log<'a>(&'a self, id: &'a ContainerId) -> BoxFuture<'a, Result<(), RuntimeError>> {
        self.reopen_log_now(&id.0).boxed()
    }

    fn exec_sync<'a>(
        &'a self,
        id: &'a ContainerId,
        command: Vec<String>,
        timeout: Duration,
    ) -> BoxFuture<'a, Result<ExecOutput, RuntimeError>> {
        async move {
            let dir = self.running_dir(&id.0)?;
            session::exec_sync(&dir, command, timeout).await
        }
        .boxed()
    }

    fn exec<'a>(
        &'a self,
        id: &'a ContainerId,
        config: ExecConfig,
    ) -> BoxFuture<'a, Result<Session, RuntimeError>> {
        async move {
            let dir = self.running_dir(&id.0)?;
            session::exec(&dir, config).await
        }
        .boxed()
    }

    fn attach<'a>(&'a self, id: &'a ContainerId) -> BoxFuture<'a, Result<Session, RuntimeError>> {
        async move {
            let dir = self.running_dir(&id.0)?;
            session::attach(&dir).await
        }
        .boxed()
    }

    fn stats(&self) -> BoxFuture<'_, Result<Vec<ContainerStats>, RuntimeError>> {
        let running: Vec<(String, String)> = self
            .lock()
            .containers
            .values()
            .filter(|container| matches!(container.phase, Phase::Running { .. }))
            .map(|container| (container.record.id.clone(), container.record.cgroup_path.clone()))
            .collect();
        let cgroups = self.cgroups.clone();
        blocking(move || {
            Ok(running
                .into_iter()
                .map(|(id, path)| {
                    let usage = cgroups.usage(&path);
                    ContainerStats {
                        id: ContainerId(id),
                        cpu_usage: usage.cpu,
                        memory_working_set_bytes: usage.working_set,
                    }
                })
                .collect())
        })
        .boxed()
    }

    /// A node with a network of its own shares the machine with others: it uses what its pods use. Any other is the machine.
    fn node_stats(&self) -> BoxFuture<'_, Result<NodeStats, RuntimeError>> {
        let path = if self.config.netns.is_some() { self.config.cgroup_root.clone() } else { "/".to_owned() };
        let cgroups = self.cgroups.clone();
        blocking(move || {
            let usage = cgroups.usage(&path);
            Ok(NodeStats { cpu_usage: usage.cpu, memory_working_set_bytes: usage.working_set })
        })
        .boxed()
    }

    fn events(&self) -> BoxStream<'static, RuntimeEvent> {
        futures::stream::unfold(self.events.subscribe(), |mut receiver| async move {
            loop {
                match receiver.recv().await {
                    Ok(event) => return Some((event, receiver)),
                    Err(broadcast::error::RecvError::Lagged(_)) => continue,
                    Err(broadcast::error::RecvError::Closed) => return None,
                }
            }
        })
        .boxed()
    }

    fn image_status<'a>(&'a self, reference: &'a str) -> BoxFuture<'a, Result<Option<Image>, RuntimeError>> {
        async move {
            let found = self.config.images.find_or_wait(reference).await;
            found
                .map(|record| record.map(|record| Image::from(&*record)))
                .map_err(|error| error.into_runtime(reference))
        }
        .boxed()
    }

    fn pull_image<'a>(
        &'a self,
        reference: &'a str,
        auth: Option<RegistryAuth>,
    ) -> BoxFuture<'a, Result<Image, RuntimeError>> {
        async move {
            let pulled = self.config.images.pull(reference, auth).await;
            pulled.map(|record| Image::from(&*record)).map_err(|error| error.into_runtime(reference))
        }
        .boxed()
    }

    fn list_images(&self) -> BoxFuture<'_, Result<Vec<Image>, RuntimeError>> {
        let list = self.config.images.list().iter().map(|record| Image::from(&**record)).collect();
        futures::future::ready(Ok(list)).boxed()
    }

    fn remove_image<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<(), RuntimeError>> {
        async move {
            let found = self.config.images.find(id).map_err(|error| error.into_runtime(id))?;
            let Some(record) = found else { return Ok(()) };
            let user = |container: &&Container| container.record.image_id == record.id;
            if let Some(container) = self.lock().containers.values().find(user) {
                return Err(RuntimeError::Internal(format!(
                    "image {id} is in use by container {}",
                    container.record.id
                )));
            }
            let (images, id) = (Arc::clone(&self.config.images), id.to_owned());
            blocking(move || match images.remove(&id) {
                Err(ImageError::NotFound(_)) | Ok(()) => Ok(()),
                Err(error) => Err(error.into_runtime(&id)),
            })
            .await
        }
        .boxed()
    }
}
