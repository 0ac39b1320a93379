//! What the agent asks of a container runtime: sandboxes, containers, images. Modelled on CRI v1, without its transport.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use jiff::Timestamp;

/// A pod's sandbox: its namespaces and its part of the cgroup tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SandboxConfig {
    /// `metadata.uid` of the pod; one live sandbox per pod and attempt.
    pub pod_uid: String,
    /// `metadata.name` of the pod.
    pub pod_name: String,
    /// `metadata.namespace` of the pod.
    pub pod_namespace: String,
    /// Counts sandboxes of the same pod.
    pub attempt: u32,
    /// Name seen by `hostname` inside; empty with the host's network.
    pub hostname: String,
    /// The pod uses the node's network namespace.
    pub host_network: bool,
    /// The pod sees the node's processes.
    pub host_pid: bool,
    /// The pod uses the node's IPC namespace.
    pub host_ipc: bool,
    /// Containers of the pod see each other's processes.
    pub share_process_namespace: bool,
    /// Kernel parameters set inside, by name.
    pub sysctls: BTreeMap<String, String>,
    /// Quality of service class decides where in the cgroup tree the pod lives.
    pub qos: QosClass,
    /// Limits of the whole pod.
    pub resources: Resources,
    /// Labels kept with the sandbox so that it can be recognised after a restart of the agent.
    pub labels: BTreeMap<String, String>,
}

/// Quality of service class of a pod.
/// <https://kubernetes.io/docs/concepts/workloads/pods/pod-qos/>
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum QosClass {
    /// Every container has limits equal to requests.
    Guaranteed,
    /// Some container has a request or a limit.
    Burstable,
    /// No container has either.
    BestEffort,
}

/// cgroup settings. `None` leaves the kernel's default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    /// Relative weight in cgroup v1 units (2..=262144); v2 weights are computed from it.
    pub cpu_shares: Option<u64>,
    /// CFS quota in microseconds per period.
    pub cpu_quota_us: Option<i64>,
    /// CFS period in microseconds.
    pub cpu_period_us: Option<u64>,
    /// Hard memory limit in bytes.
    pub memory_limit_bytes: Option<i64>,
    /// Most processes and threads.
    pub pids_limit: Option<i64>,
    /// `oom_score_adj` of the first process.
    pub oom_score_adj: Option<i32>,
}

/// Identifies a sandbox to its runtime.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SandboxId(pub String);

/// Identifies a container to its runtime.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContainerId(pub String);

/// What is known of a sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SandboxStatus {
    /// The runtime's id.
    pub id: SandboxId,
    /// `metadata.uid` of its pod.
    pub pod_uid: String,
    /// `metadata.name` of its pod.
    pub pod_name: String,
    /// `metadata.namespace` of its pod.
    pub pod_namespace: String,
    /// Counts sandboxes of the same pod.
    pub attempt: u32,
    /// Its namespaces exist and its network is set up.
    pub ready: bool,
    /// When it was made.
    pub created_at: Timestamp,
    /// Addresses in the pod network; empty with the host's network.
    pub ips: Vec<IpAddr>,
    /// As given in [`SandboxConfig::labels`].
    pub labels: BTreeMap<String, String>,
}

/// A container to be created in a sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerConfig {
    /// `name` in the pod's spec.
    pub name: String,
    /// Counts starts of the same container of the pod (`restartCount`).
    pub attempt: u32,
    /// Image id as returned by [`Runtime::pull_image`] or [`Runtime::image_status`].
    pub image_id: String,
    /// Replaces the image's entrypoint when not empty.
    pub command: Vec<String>,
    /// Replaces the image's arguments when not empty, or when `command` is set.
    pub args: Vec<String>,
    /// Working directory; the image's when `None`.
    pub working_dir: Option<String>,
    /// Environment in order, already expanded; laid over the image's.
    pub env: Vec<(String, String)>,
    /// Volumes and files mounted into the container.
    pub mounts: Vec<Mount>,
    /// Where the shim writes the CRI-format log.
    pub log_path: PathBuf,
    /// Keep standard input open.
    pub stdin: bool,
    /// Close standard input after the first attach ends.
    pub stdin_once: bool,
    /// Give the container a terminal.
    pub tty: bool,
    /// The container of the same sandbox whose processes it sees; its own when `None`.
    pub processes_of: Option<String>,
    /// cgroup settings.
    pub resources: Resources,
    /// Users, capabilities, seccomp and the like.
    pub security: Security,
    /// Kept with the container so that it can be recognised after a restart of the agent.
    pub labels: BTreeMap<String, String>,
}

/// A path of the node shown inside a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Absolute path on the node.
    pub host_path: PathBuf,
    /// Absolute path in the container.
    pub container_path: PathBuf,
    /// Read-only inside.
    pub read_only: bool,
    /// `mountPropagation`.
    pub propagation: Propagation,
}

/// `mountPropagation` of a volume mount.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Propagation {
    /// Private.
    #[default]
    None,
    /// rslave.
    HostToContainer,
    /// rshared.
    Bidirectional,
}

/// Security settings after pod and container `securityContext` were merged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Security {
    /// User id; the image's user when `None`.
    pub run_as_user: Option<i64>,
    /// Group id; the image's group when `None`.
    pub run_as_group: Option<i64>,
    /// Refuse to start as uid 0.
    pub run_as_non_root: bool,
    /// Groups beside the primary one (`fsGroup`, `supplementalGroups`).
    pub supplemental_groups: Vec<i64>,
    /// All devices and capabilities, no seccomp.
    pub privileged: bool,
    /// The root file system is read-only.
    pub read_only_root: bool,
    /// Sets `no_new_privs`.
    pub no_new_privileges: bool,
    /// Capabilities added to the runtime's default set, without `CAP_`; `ALL` means all.
    pub capabilities_add: Vec<String>,
    /// Capabilities taken from the runtime's default set; `ALL` means all.
    pub capabilities_drop: Vec<String>,
    /// System call filter.
    pub seccomp: Seccomp,
}

/// `seccompProfile`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Seccomp {
    /// The runtime's own profile.
    #[default]
    RuntimeDefault,
    /// No filter.
    Unconfined,
    /// A profile in the OCI JSON form, by path on the node.
    Localhost(PathBuf),
}

/// What is known of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerStatus {
    /// The runtime's id.
    pub id: ContainerId,
    /// The sandbox that it lives in.
    pub sandbox: SandboxId,
    /// `name` in the pod's spec.
    pub name: String,
    /// Counts starts of the same container of the pod.
    pub attempt: u32,
    /// Image as the pod named it.
    pub image: String,
    /// Content address of the image.
    pub image_id: String,
    /// Where it is in its life.
    pub state: ContainerState,
    /// Where its log is.
    pub log_path: PathBuf,
    /// As given in [`ContainerConfig::labels`].
    pub labels: BTreeMap<String, String>,
}

/// Where a container is in its life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ContainerState {
    /// Created, not started.
    Created,
    /// Its first process runs.
    Running {
        /// When it was started.
        started_at: Timestamp,
    },
    /// Its first process ended.
    Exited {
        /// When it was started.
        started_at: Option<Timestamp>,
        /// When it ended.
        finished_at: Timestamp,
        /// Exit status, or 128 + signal.
        exit_code: i32,
        /// Killed by the kernel for lack of memory.
        oom_killed: bool,
        /// `Error`, `Completed`, `OOMKilled`, `StartError`, …
        reason: String,
        /// Why it could not start, for people.
        message: String,
    },
    /// The runtime has lost it.
    Unknown,
}

/// Something happened that the pod lifecycle should look at. Carries no state: the reader asks again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuntimeEvent {
    /// `metadata.uid` of the pod concerned.
    pub pod_uid: String,
}

/// Result of a command run to its end inside a container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExecOutput {
    /// Exit status.
    pub exit_code: i32,
    /// Standard output, bounded to 16 KiB.
    pub stdout: Bytes,
    /// Standard error, bounded to 16 KiB.
    pub stderr: Bytes,
}

/// A command to run interactively.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecConfig {
    /// Program and arguments.
    pub command: Vec<String>,
    /// Whether standard input is connected.
    pub stdin: bool,
    /// Whether it runs on a terminal.
    pub tty: bool,
}

/// What goes into an interactive session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionInput {
    /// Bytes for standard input.
    Stdin(Bytes),
    /// No more input.
    CloseStdin,
    /// The terminal's new size in characters.
    Resize {
        /// Columns.
        width: u16,
        /// Rows.
        height: u16,
    },
}

/// What comes out of an interactive session; `Exit` is the last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionOutput {
    /// Bytes of standard output (all output with a terminal).
    Stdout(Bytes),
    /// Bytes of standard error.
    Stderr(Bytes),
    /// The command ended with this status. An attach that ends with its container says so too.
    Exit(i32),
}

/// Takes what goes into an interactive session. Ready only when the session has room.
pub type SessionSink = Pin<Box<dyn futures::Sink<SessionInput, Error = RuntimeError> + Send>>;

/// An interactive session: exec or attach.
pub struct Session {
    /// Towards the process.
    pub input: SessionSink,
    /// From the process.
    pub output: BoxStream<'static, Result<SessionOutput, RuntimeError>>,
}

/// An image on the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// Content address of its configuration, `sha256:…`.
    pub id: String,
    /// `name:tag` references.
    pub tags: Vec<String>,
    /// `name@sha256:…` references.
    pub digests: Vec<String>,
    /// Bytes on disk.
    pub size_bytes: u64,
    /// User of the image's configuration, as written there.
    pub user: String,
    /// When a container last used it.
    pub last_used_at: Option<Timestamp>,
}

/// Credentials for a registry.
#[derive(Clone, PartialEq, Eq)]
pub struct RegistryAuth {
    /// User name.
    pub username: String,
    /// Password or token.
    pub password: String,
}

impl std::fmt::Debug for RegistryAuth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RegistryAuth").field("username", &self.username).finish_non_exhaustive()
    }
}

/// Resource use of one container at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerStats {
    /// The container.
    pub id: ContainerId,
    /// Processor time since its start.
    pub cpu_usage: Duration,
    /// Memory that cannot be reclaimed easily, in bytes.
    pub memory_working_set_bytes: u64,
}

/// Resource use of the whole node at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NodeStats {
    /// Processor time since some moment that stays the same.
    pub cpu_usage: Duration,
    /// Memory that cannot be reclaimed easily, in bytes.
    pub memory_working_set_bytes: u64,
}

/// Why a runtime could not do what it was asked.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
pub enum RuntimeError {
    /// There is no such sandbox, container or image.
    #[error("{what} not found")]
    NotFound {
        /// What was looked for.
        what: String,
    },
    /// The image reference cannot be parsed.
    #[error("couldn't parse image name {reference:?}: {detail}")]
    InvalidImageName {
        /// As the pod wrote it.
        reference: String,
        /// What is wrong with it.
        detail: String,
    },
    /// The registry could not be reached or refused.
    #[error("failed to pull image {reference:?}: {detail}")]
    Pull {
        /// As the pod wrote it.
        reference: String,
        /// What the registry or the network said.
        detail: String,
    },
    /// The container cannot be made from what the pod and the image say.
    #[error("{0}")]
    InvalidConfig(String),
    /// The first process could not be started.
    #[error("{0}")]
    Start(String),
    /// The command took longer than it was given.
    #[error("command timed out after {0:?}")]
    Timeout(Duration),
    /// The disk, the kernel or a shim failed.
    #[error("{0}")]
    Internal(String),
}

/// A container runtime on one node. Every call is idempotent where CRI's is.
pub trait Runtime: Send + Sync {
    /// Name and version, as `status.nodeInfo.containerRuntimeVersion` shows it.
    fn version(&self) -> String;
    /// Why pods with a network of their own cannot run right now; `None` when they can.
    fn problem(&self) -> BoxFuture<'_, Option<String>> {
        Box::pin(std::future::ready(None))
    }
    /// Makes a sandbox with its network.
    fn run_sandbox(&self, config: SandboxConfig) -> BoxFuture<'_, Result<SandboxStatus, RuntimeError>>;
    /// Kills what still runs in the sandbox and takes its network down.
    fn stop_sandbox<'a>(&'a self, id: &'a SandboxId) -> BoxFuture<'a, Result<(), RuntimeError>>;
    /// Removes the sandbox and its containers.
    fn remove_sandbox<'a>(&'a self, id: &'a SandboxId) -> BoxFuture<'a, Result<(), RuntimeError>>;
    /// All sandboxes, also those of earlier agents.
    fn list_sandboxes(&self) -> BoxFuture<'_, Result<Vec<SandboxStatus>, RuntimeError>>;
    /// Where the sandbox's network namespace is pinned; `None` when it is the agent's own.
    fn network_namespace<'a>(
        &'a self,
        id: &'a SandboxId,
    ) -> BoxFuture<'a, Result<Option<PathBuf>, RuntimeError>>;
    /// Makes a container; it does not run yet.
    fn create_container<'a>(
        &'a self,
        sandbox: &'a SandboxId,
        config: ContainerConfig,
    ) -> BoxFuture<'a, Result<ContainerId, RuntimeError>>;
    /// Starts a created container.
    fn start_container<'a>(&'a self, id: &'a ContainerId) -> BoxFuture<'a, Result<(), RuntimeError>>;
    /// Sends the stop signal, waits for `grace`, then kills.
    fn stop_container<'a>(
        &'a self,
        id: &'a ContainerId,
        grace: Duration,
    ) -> BoxFuture<'a, Result<(), RuntimeError>>;
    /// Gives a running container, and the pod around it, other limits.
    fn resize_container<'a>(
        &'a self,
        id: &'a ContainerId,
        container: Resources,
        pod: Resources,
    ) -> BoxFuture<'a, Result<(), RuntimeError>>;
    /// Removes a stopped container, not its log.
    fn remove_container<'a>(&'a self, id: &'a ContainerId) -> BoxFuture<'a, Result<(), RuntimeError>>;
    /// All containers, also those of earlier agents.
    fn list_containers(&self) -> BoxFuture<'_, Result<Vec<ContainerStatus>, RuntimeError>>;
    /// Starts a new log file after rotation.
    fn reopen_log<'a>(&'a self, id: &'a ContainerId) -> BoxFuture<'a, Result<(), RuntimeError>>;
    /// Runs a command to its end.
    fn exec_sync<'a>(
        &'a self,
        id: &'a ContainerId,
        command: Vec<String>,
        timeout: Duration,
    ) -> BoxFuture<'a, Result<ExecOutput, RuntimeError>>;
    /// Runs a command with its streams connected.
    fn exec<'a>(
        &'a self,
        id: &'a ContainerId,
        config: ExecConfig,
    ) -> BoxFuture<'a, Result<Session, RuntimeError>>;
    /// Connects to the streams of the container's first process.
    fn attach<'a>(&'a self, id: &'a ContainerId) -> BoxFuture<'a, Result<Session, RuntimeError>>;
    /// Resource use of all running containers.
    fn stats(&self) -> BoxFuture<'_, Result<Vec<ContainerStats>, RuntimeError>>;
    /// Resource use of the whole node.
    fn node_stats(&self) -> BoxFuture<'_, Result<NodeStats, RuntimeError>>;
    /// Hints that a pod's containers changed. Lossy: a slow reader must look at all pods.
    fn events(&self) -> BoxStream<'static, RuntimeEvent>;
    /// The image of that name, if the node has it.
    fn image_status<'a>(&'a self, reference: &'a str) -> BoxFuture<'a, Result<Option<Image>, RuntimeError>>;
    /// Fetches an image; returns it as [`Runtime::image_status`] would.
    fn pull_image<'a>(
        &'a self,
        reference: &'a str,
        auth: Option<RegistryAuth>,
    ) -> BoxFuture<'a, Result<Image, RuntimeError>>;
    /// All images on the node.
    fn list_images(&self) -> BoxFuture<'_, Result<Vec<Image>, RuntimeError>>;
    /// Removes an image that no container uses.
    fn remove_image<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<(), RuntimeError>>;
}
