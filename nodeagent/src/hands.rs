//! Carries out what pod machines ask for, with the runtime, the disk and the API.

mod writes;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use client::core::events::{EventNote, EventType};
use client::events::Recorder;
use client::{Client, Informers, Scope};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod, Secret, Service};
use nodeagent_core::build::{self, ContainerParts};
use nodeagent_core::fields::FieldContext;
use nodeagent_core::lifecycle::{
    Action, CreateFailure, Event, Hook, ImageFailure, NodeFacts, Note, Observed, ResizeFailure, State,
};
use nodeagent_core::netfiles::{self, DnsSettings};
use nodeagent_core::runtime::{
    ContainerId, Image, Mount, Propagation, RegistryAuth, Runtime, RuntimeError, SandboxStatus,
};
use nodeagent_core::usage::Meter;
use nodeagent_core::{cgroup, env, pod, security};
use serde_json::Value;

use crate::driver::{Hands, Inbox};
use crate::objects::Objects;
use crate::pods::Pods;
use crate::tokens::Tokens;
use crate::{agent, drain, node, prober, volumes};

pub(crate) use writes::{delete_pod, patch_status};

/// A node that has just started gets its part of the pod network soon: only a longer wait is worth telling.
const NETWORK_PATIENCE: Duration = Duration::from_secs(2);
/// How often the network is looked at, rarer and rarer.
const NETWORK_PAUSE: Duration = Duration::from_millis(20);
const NETWORK_PAUSE_MAX: Duration = Duration::from_secs(1);

/// What everything in one agent shares.
pub(crate) struct Node {
    pub(crate) config: agent::Config,
    pub(crate) client: Client,
    pub(crate) informers: Informers,
    pub(crate) runtime: Arc<dyn Runtime>,
    pub(crate) recorder: Recorder,
    pub(crate) objects: Objects,
    pub(crate) tokens: Tokens,
    pub(crate) facts: Arc<NodeFacts>,
    pub(crate) machine: nodeagent_core::node::Machine,
    /// By uid; sandboxes are asked for more often than they change.
    pub(crate) pod_ips: Mutex<BTreeMap<String, Vec<IpAddr>>>,
    meter: Mutex<Meter>,
}

// === impl Node ===

impl Node {
    /// What the node and its containers use.
    pub(crate) fn meter(&self) -> MutexGuard<'_, Meter> {
        self.meter.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn new(
        config: agent::Config,
        client: Client,
        informers: Informers,
        runtime: Arc<dyn Runtime>,
        recorder: Recorder,
    ) -> Arc<Self> {
        let facts = Arc::new(NodeFacts { host_ips: config.addresses.clone(), drain: config.drain });
        Arc::new(Self {
            machine: node::machine(&config, &runtime.version()),
            objects: Objects::new(&client),
            tokens: Tokens::new(client.clone()),
            config,
            client,
            informers,
            runtime,
            recorder,
            facts,
            pod_ips: Mutex::default(),
            meter: Mutex::default(),
        })
    }

    pub(crate) fn pod_ips(&self, of: &Pod) -> Vec<IpAddr> {
        self.pod_ips
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(pod::uid(of))
            .cloned()
            .unwrap_or_default()
    }

    pub(crate) fn fields<'a>(&'a self, of: &'a Pod, pod_ips: &'a [IpAddr]) -> FieldContext<'a> {
        FieldContext {
            pod: of,
            pod_ips,
            host_ips: &self.config.addresses,
            node_name: &self.config.node_name,
            node_cpu_milli: self.machine.cpu_milli,
            node_memory: self.machine.memory_bytes,
        }
    }

    /// Where the log of an instance goes.
    pub(crate) fn log_path(&self, of: &Pod, container: &str, attempt: u32) -> PathBuf {
        self.config
            .data_dir
            .join("logs")
            .join(format!("{}_{}_{}", pod::namespace(of), pod::name(of), pod::uid(of)))
            .join(container)
            .join(format!("{attempt}.log"))
    }

    /// Where an instance leaves its last words.
    pub(crate) fn message_path(&self, of: &Pod, container: &str, attempt: u32) -> PathBuf {
        volumes::pod_dir(self, pod::uid(of)).join("containers").join(container).join(attempt.to_string())
    }

    async fn pull(
        &self,
        of: &Pod,
        container: &str,
        reply: &Inbox,
    ) -> Result<(Image, Option<std::time::Duration>), ImageFailure> {
        let spec = pod::any_container(of, container);
        let spec = spec.as_deref();
        let name = spec.and_then(|it| it.image.as_deref()).unwrap_or_default();
        let policy = spec.and_then(|it| it.image_pull_policy.as_deref()).unwrap_or("IfNotPresent");
        let failed = |error: RuntimeError| match error {
            RuntimeError::InvalidImageName { detail, .. } => ImageFailure::InvalidName(detail),
            // Whoever tells it names the image.
            RuntimeError::Pull { detail, .. } => ImageFailure::Pull(detail),
            error => ImageFailure::Pull(error.to_string()),
        };
        let present = self.runtime.image_status(name).await.map_err(failed)?;
        match (policy, present) {
            ("IfNotPresent" | "Never", Some(image)) => return Ok((image, None)),
            ("Never", None) => return Err(ImageFailure::NeverPull),
            _ => {}
        }
        reply.tell(Event::Pulling { container: container.to_owned() });
        let began = Instant::now();
        let auth = self.registry_auth(of, name).await;
        let image = self.runtime.pull_image(name, auth).await.map_err(failed)?;
        Ok((image, Some(began.elapsed())))
    }

    /// The credentials among the pod's pull secrets that fit the image's registry.
    async fn registry_auth(&self, of: &Pod, image: &str) -> Option<RegistryAuth> {
        for reference in pod::spec(of).image_pull_secrets.iter().flatten() {
            let secret = self.objects.secrets.get(pod::namespace(of), &reference.name).await.ok().flatten();
            if let Some(auth) = secret.and_then(|secret| credentials(&secret, image)) {
                return Some(auth);
            }
        }
        None
    }

    async fn create(
        &self,
        of: &Arc<Pod>,
        container: &str,
        attempt: u32,
        sandbox: &SandboxStatus,
        image: Image,
    ) -> Result<ContainerId, CreateFailure> {
        let config_error = |text: String| CreateFailure::Config(text);
        let spec = pod::any_container(of, container);
        let spec = spec.as_deref().ok_or_else(|| config_error("no such container".into()))?;
        self.pod_ips
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(pod::uid(of).to_owned(), sandbox.ips.clone());
        let security = security::merge(of, spec, &image, &self.config.data_dir.join("seccomp"))
            .map_err(|error| config_error(error.to_string()))?;
        let env = self.environment(of, spec, &sandbox.ips).await?;
        let mut mounts = volumes::mounts(self, of, spec, &env).map_err(config_error)?;
        self.own_files(of, spec, attempt, &sandbox.ips, &mut mounts)
            .map_err(|error| CreateFailure::Runtime(format!("cannot prepare the pod's files: {error}")))?;
        let log_path = self.log_path(of, container, attempt);
        if let Some(dir) = log_path.parent() {
            std::fs::create_dir_all(dir).map_err(|error| CreateFailure::Runtime(error.to_string()))?;
        }
        let node_memory = self.machine.memory_bytes;
        let parts = ContainerParts { attempt, image, env, mounts, log_path, security, node_memory };
        let config = build::container(of, spec, parts);
        self.runtime.create_container(&sandbox.id, config).await.map_err(|error| match error {
            RuntimeError::InvalidConfig(text) => CreateFailure::Config(text),
            error => CreateFailure::Runtime(error.to_string()),
        })
    }

    async fn environment(
        &self,
        of: &Pod,
        spec: &Container,
        ips: &[IpAddr],
    ) -> Result<Vec<(String, String)>, CreateFailure> {
        let api = |error: client::Error| CreateFailure::Config(error.to_string());
        let (maps, secrets) = env::references(spec);
        let mut sources = env::Sources::default();
        for name in maps {
            let object = self.objects.config_maps.get(pod::namespace(of), name).await.map_err(api)?;
            sources.config_maps.insert(name.to_owned(), object);
        }
        for name in secrets {
            let object = self.objects.secrets.get(pod::namespace(of), name).await.map_err(api)?;
            sources.secrets.insert(name.to_owned(), object);
        }
        let informer = self.informers.get::<Service>(Scope::all());
        informer.synced().await;
        let store = informer.store();
        let services = env::services(of, store.iter().map(|service| &**service));
        env::build(&self.fields(of, ips), spec, &sources, &services)
            .map_err(|error| CreateFailure::Config(error.to_string()))
    }

    /// hosts, resolv.conf and the termination message: files that the node gives to every container.
    fn own_files(
        &self,
        of: &Pod,
        spec: &Container,
        attempt: u32,
        ips: &[IpAddr],
        mounts: &mut Vec<Mount>,
    ) -> std::io::Result<()> {
        let dir = volumes::pod_dir(self, pod::uid(of));
        std::fs::create_dir_all(&dir)?;
        let settings = DnsSettings {
            cluster_dns: self.config.cluster_dns.clone(),
            cluster_domain: self.config.cluster_domain.clone(),
            node_resolv_conf: self.config.resolv_conf.clone(),
        };
        let node_hosts = if pod::host_network(of) {
            std::fs::read_to_string("/etc/hosts").unwrap_or_default()
        } else {
            String::new()
        };
        let hosts =
            netfiles::hosts(of, ips, &self.config.node_name, &self.config.cluster_domain, &node_hosts);
        let message = self.message_path(of, &spec.name, attempt);
        if let Some(parent) = message.parent() {
            std::fs::create_dir_all(parent)?;
        }
        let inside = spec.termination_message_path.as_deref().unwrap_or("/dev/termination-log");
        let files = [
            (dir.join("etc-hosts"), hosts, "/etc/hosts"),
            (dir.join("resolv.conf"), netfiles::resolv_conf(of, &settings), "/etc/resolv.conf"),
            (message.clone(), String::new(), inside),
        ];
        for (host_path, text, container_path) in files {
            if mounts.iter().any(|it| it.container_path == std::path::Path::new(container_path)) {
                continue;
            }
            std::fs::write(&host_path, text)?;
            mounts.push(Mount {
                host_path,
                container_path: container_path.into(),
                read_only: false,
                propagation: Propagation::None,
            });
        }
        // Whoever the container runs as may write its last words.
        if message.exists() {
            std::fs::set_permissions(&message, std::os::unix::fs::PermissionsExt::from_mode(0o666))?;
        }
        Ok(())
    }
}

/// The credentials for the registry of `image` in a secret of type `kubernetes.io/dockerconfigjson`.
fn credentials(secret: &Secret, image: &str) -> Option<RegistryAuth> {
    let raw = secret.data.as_ref()?.get(".dockerconfigjson")?;
    let config: Value = serde_json::from_slice(&raw.0).ok()?;
    let host = image.split('/').next().filter(|part| part.contains(['.', ':']) || *part == "localhost");
    let host = host.unwrap_or("docker.io");
    let fits = |name: &str| {
        let name = name.trim_start_matches("https://").trim_start_matches("http://");
        let name = name.split('/').next().unwrap_or_default();
        name == host || host == "docker.io" && name == "index.docker.io"
    };
    let entry = config.get("auths")?.as_object()?.iter().find(|(name, _)| fits(name))?.1;
    let text = |key: &str| entry.get(key).and_then(Value::as_str).map(str::to_owned);
    Some(RegistryAuth { username: text("username")?, password: text("password")? })
}

/// The hands of a real node.
pub(crate) struct NodeHands {
    pub(crate) node: Arc<Node>,
    pub(crate) pods: Weak<Pods>,
}

impl Hands for NodeHands {
    fn perform(&self, of: &Arc<Pod>, action: Action, reply: &Inbox) {
        let (node, pods, of, reply) = (self.node.clone(), self.pods.clone(), of.clone(), reply.clone());
        if let Action::Emit(note) = action {
            return emit(&node.recorder, &of, note);
        }
        tokio::spawn(async move {
            if let Some(event) = carry_out(&node, &pods, &of, action, &reply).await {
                reply.tell(event);
            }
        });
    }
}

/// Tells users.
pub(crate) fn emit(recorder: &Recorder, of: &Pod, note: Note) {
    let kind = if note.warning { EventType::Warning } else { EventType::Normal };
    let mut event = EventNote::about(of, kind, note.reason, note.message);
    event.regarding.field_path = Some(note.field_path).filter(|path| !path.is_empty());
    recorder.note(event);
}

fn text<T>(outcome: Result<T, impl std::fmt::Display>) -> Result<T, String> {
    outcome.map_err(|error| error.to_string())
}

async fn carry_out(
    node: &Arc<Node>,
    pods: &Weak<Pods>,
    of: &Arc<Pod>,
    action: Action,
    reply: &Inbox,
) -> Option<Event> {
    Some(match action {
        Action::MountVolumes => Event::Mounted(text(volumes::set_up(node, of).await)),
        Action::UnmountVolumes => Event::Unmounted(clear(node, of).await),
        Action::PullImage { container } => {
            let outcome = node.pull(of, &container, reply).await;
            Event::Image { container, outcome }
        }
        Action::RunSandbox { attempt } => Event::SandboxRan(run_sandbox(node, pods, of, attempt).await),
        Action::StopSandbox(id) => {
            let outcome = absent_is_fine(node.runtime.stop_sandbox(&id).await);
            Event::SandboxStopped(id, outcome)
        }
        Action::RemoveSandbox(id) => {
            let outcome = absent_is_fine(node.runtime.remove_sandbox(&id).await);
            Event::SandboxRemoved(id, outcome)
        }
        Action::CreateContainer { container, attempt, sandbox, image } => {
            let outcome = node.create(of, &container, attempt, &sandbox, image).await;
            Event::Created { container, outcome }
        }
        Action::StartContainer { container, id } => {
            Event::Started { container, outcome: text(node.runtime.start_container(&id).await) }
        }
        Action::StopContainer { id, grace } => {
            let outcome = absent_is_fine(node.runtime.stop_container(&id, grace).await);
            if let Some(pods) = pods.upgrade() {
                pods.observe_one(pod::uid(of)).await;
            }
            Event::Stopped { id, outcome }
        }
        Action::RemoveContainer { id } => {
            if let Err(error) = node.runtime.remove_container(&id).await {
                tracing::debug!(id = id.0, %error, "a dead container was not removed");
            }
            return None;
        }
        Action::RunHook { container, id, hook, timeout } => {
            let outcome = prober::hook(node, of, &container, &id, hook == Hook::PreStop, timeout).await;
            Event::HookDone { id, hook, outcome }
        }
        Action::Probe { container, id, kind, timeout } => {
            let outcome = prober::probe(node, of, &container, &id, kind, timeout).await;
            Event::Probed { id, kind, outcome }
        }
        Action::Resize { container, id } => {
            let outcome = resize(node, pods, of, &container, &id).await;
            Event::Resized { id, outcome }
        }
        Action::AwaitDrain => {
            drain::wait(node, of).await;
            Event::Drained
        }
        Action::PatchStatus(body) => Event::Patched(patch_status(&node.client, of, body.to_string()).await),
        Action::DeletePod { uid } => Event::Deleted(delete_pod(&node.client, of, uid).await),
        Action::Emit(note) => {
            emit(&node.recorder, of, note);
            return None;
        }
    })
}

/// Takes the pod's volumes down, and removes what the node keeps of it besides.
async fn clear(node: &Node, of: &Pod) -> Result<(), String> {
    let dir = volumes::pod_dir(node, pod::uid(of));
    let outcome = tokio::task::spawn_blocking(move || volumes::tear_down(&dir)).await;
    node.tokens.forget(pod::uid(of));
    node.pod_ips.lock().unwrap_or_else(PoisonError::into_inner).remove(pod::uid(of));
    let logs = node.log_path(of, "", 0);
    if let Some(dir) = logs.parent() {
        // A pod that never ran has none.
        let _ = tokio::fs::remove_dir_all(dir).await;
    }
    text(outcome).and_then(text)
}

/// Makes a sandbox, as soon as the node has a network for it.
async fn run_sandbox(
    node: &Node,
    pods: &Weak<Pods>,
    of: &Pod,
    attempt: u32,
) -> Result<SandboxStatus, String> {
    if !pod::host_network(of) {
        await_network(node, pods, of).await?;
    }
    let config = build::sandbox(of, attempt, &node.config.node_name, &node.config.cluster_domain);
    let status = text(node.runtime.run_sandbox(config).await)?;
    let mut ips = node.pod_ips.lock().unwrap_or_else(PoisonError::into_inner);
    ips.insert(pod::uid(of).to_owned(), status.ips.clone());
    Ok(status)
}

/// Gives a container the size that its spec says, if the node has room for it.
async fn resize(
    node: &Node,
    pods: &Weak<Pods>,
    of: &Pod,
    container: &str,
    id: &ContainerId,
) -> Result<(), ResizeFailure> {
    if let Some(pods) = pods.upgrade() {
        pods.fits(of)?;
    }
    let failed = |error: String| ResizeFailure::Failed(error);
    let spec = pod::container(of, container).ok_or_else(|| failed("no such container".to_owned()))?;
    let resources = cgroup::container(of, spec, node.machine.memory_bytes, None);
    let whole = cgroup::whole_pod(of, None);
    node.runtime.resize_container(id, resources, whole).await.map_err(|error| failed(error.to_string()))
}

/// Waits until the node has its part of the pod network, or until the pod is not to run any more.
async fn await_network(node: &Node, pods: &Weak<Pods>, of: &Pod) -> Result<(), String> {
    let (began, mut told, mut pause) = (Instant::now(), false, NETWORK_PAUSE);
    while let Some(problem) = node.runtime.problem().await {
        let found =
            pods.upgrade().and_then(|pods| pods.find(pod::namespace(of), pod::name(of), pod::uid(of)));
        if found.is_none_or(|handle| handle.machine().state() != State::Active) {
            return Err(problem);
        }
        if !told && began.elapsed() >= NETWORK_PATIENCE {
            told = true;
            let note = Note {
                warning: true,
                reason: "NetworkNotReady".into(),
                message: format!("network is not ready: {problem}"),
                field_path: String::new(),
            };
            emit(&node.recorder, of, note);
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(NETWORK_PAUSE_MAX);
    }
    Ok(())
}

fn absent_is_fine(outcome: Result<(), RuntimeError>) -> Result<(), String> {
    match outcome {
        Ok(()) | Err(RuntimeError::NotFound { .. }) => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}

/// A look at nothing, for a pod that the runtime has never seen.
pub(crate) fn nothing(began: Timestamp) -> Event {
    Event::Observed(Observed { began, sandboxes: Vec::new(), containers: Vec::new() })
}
