//! Nodes without containers: real API traffic, the same pod machines, and nothing that runs. For scale tests.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use client::core::cache::Change;
use client::core::lean::{self, Trim};
use client::events::Recorder;
use client::{Client, Informers, Scope};
use futures::StreamExt;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use nodeagent_core::lifecycle::{Action, Event, NodeFacts, PodMachine};
use nodeagent_core::node::Health;
use nodeagent_core::pod;
use nodeagent_core::probe::Outcome;
use nodeagent_core::runtime::{ContainerId, Image, SandboxId, SandboxStatus};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio_util::sync::CancellationToken;

use crate::agent::{Config, Error};
use crate::driver::{Hands, Inbox, PodHandle};
use crate::{hands, node};

const RENEW: Duration = Duration::from_secs(10);
/// Nodes registered at the same time.
const REGISTRATIONS: usize = 16;
/// Writes about pods at the same time, of all nodes together: each needs a connection while it is under way, and a
/// connection costs more than many writes.
const WRITES: usize = 32;

/// How hollow nodes are set up.
#[derive(Clone, Debug)]
pub struct HollowConfig {
    /// Their names.
    pub nodes: Vec<String>,
    /// Thousandths of a core of each.
    pub cpu_milli: i64,
    /// Bytes of memory of each.
    pub memory_bytes: i64,
    /// The most pods on each.
    pub max_pods: i64,
    /// How long a container takes to start.
    pub start_delay: Duration,
    /// Send the events that a kubelet sends.
    pub events: bool,
}

impl HollowConfig {
    /// Nodes of these names, of usual size, that start containers at once.
    pub fn new(nodes: Vec<String>) -> Self {
        Self {
            nodes,
            cpu_milli: 32_000,
            memory_bytes: 64 << 30,
            max_pods: 110,
            start_delay: Duration::ZERO,
            events: false,
        }
    }
}

/// What all hollow nodes share.
struct Hollow {
    config: HollowConfig,
    client: Client,
    recorder: Recorder,
    next_ip: AtomicU32,
    writes: UnboundedSender<Write>,
}

/// A write about a pod that waits for its turn.
struct Write {
    of: Arc<Pod>,
    action: PodWrite,
    reply: Inbox,
}

enum PodWrite {
    /// Patch the pod's status. As text: many may wait.
    Status(String),
    /// Delete the pod of this uid.
    Delete(String),
}

struct HollowHands(Arc<Hollow>);

/// Runs hollow nodes until told to stop.
///
/// # Errors
/// None at present: an API server that is away is waited for.
pub async fn run(config: HollowConfig, client: Client, shutdown: CancellationToken) -> Result<(), Error> {
    let recorder = if config.events { Recorder::new(&client, "kubelet", None) } else { Recorder::disabled() };
    let (writes, waiting) = unbounded_channel();
    let mut tasks = tokio::task::JoinSet::new();
    let waiting = Arc::new(tokio::sync::Mutex::new(waiting));
    for _ in 0..WRITES {
        tasks.spawn(write(client.clone(), waiting.clone()));
    }
    let hollow = Arc::new(Hollow { config, client, recorder, next_ip: AtomicU32::new(1), writes });
    tasks.spawn(nodes(hollow.clone()));
    tasks.spawn(pods(hollow));
    shutdown.cancelled().await;
    tasks.shutdown().await;
    Ok(())
}

/// Carries out writes, one after another.
async fn write(client: Client, waiting: Arc<tokio::sync::Mutex<UnboundedReceiver<Write>>>) {
    loop {
        let next = waiting.lock().await.recv().await;
        let Some(Write { of, action, reply }) = next else { return };
        reply.tell(match action {
            PodWrite::Status(body) => Event::Patched(hands::patch_status(&client, &of, body).await),
            PodWrite::Delete(uid) => Event::Deleted(hands::delete_pod(&client, &of, uid).await),
        });
    }
}

fn address(index: usize) -> IpAddr {
    let index = u32::try_from(index).unwrap_or(0);
    IpAddr::V4(Ipv4Addr::from(0x0a_c0_00_01_u32.wrapping_add(index)))
}

/// Registers all nodes, then renews their leases, spread over the period.
async fn nodes(hollow: Arc<Hollow>) {
    let all = hollow.config.nodes.clone().into_iter().enumerate();
    let registered: Vec<_> = futures::stream::iter(all)
        .map(|(index, name)| {
            let hollow = hollow.clone();
            let name = name.clone();
            async move {
                let mut config = Config::new(&name, PathBuf::from("/"), vec![address(index)]);
                config.cpu_milli = Some(hollow.config.cpu_milli);
                config.memory_bytes = Some(hollow.config.memory_bytes);
                config.max_pods = hollow.config.max_pods;
                let machine = node::machine(&config, "hollow://1");
                let node = node::register(&hollow.client, &machine, &config, &Health::default(), &[]).await;
                let uid = node.metadata.uid;
                node::renew_lease(&hollow.client, &name, uid.as_deref(), true).await;
                (name, uid)
            }
        })
        .buffer_unordered(REGISTRATIONS)
        .collect()
        .await;
    let pace = RENEW / u32::try_from(registered.len().max(1)).unwrap_or(1);
    let mut tick = tokio::time::interval(pace);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    for (name, uid) in registered.iter().cycle() {
        tick.tick().await;
        let (hollow, name, uid) = (hollow.clone(), name.clone(), uid.clone());
        tokio::spawn(async move { node::renew_lease(&hollow.client, &name, uid.as_deref(), false).await });
    }
}

/// One watch for the pods of all nodes: those that are bound to any.
async fn pods(hollow: Arc<Hollow>) {
    let informers = Informers::new(hollow.client.clone()).trimmed(&TRIM);
    let names: BTreeSet<String> = hollow.config.nodes.iter().cloned().collect();
    let facts: BTreeMap<String, Arc<NodeFacts>> = hollow
        .config
        .nodes
        .iter()
        .enumerate()
        .map(|(index, name)| {
            (name.clone(), Arc::new(NodeFacts { host_ips: vec![address(index)], drain: Duration::ZERO }))
        })
        .collect();
    let handles: Arc<Mutex<BTreeMap<String, PodHandle>>> = Arc::default();
    let hands: Arc<dyn Hands> = Arc::new(HollowHands(hollow));
    let mut changes = informers.get::<Pod>(Scope::fields("spec.nodeName!=")).subscribe();
    while let Some(change) = changes.next().await {
        let lock = || handles.lock().unwrap_or_else(PoisonError::into_inner);
        match change {
            Change::Synced | Change::Relisted { .. } => {}
            Change::Deleted { last } => {
                if let Some(handle) = lock().get(pod::uid(&last)) {
                    handle.tell(Event::Forgotten);
                }
            }
            Change::Applied { new, .. } => {
                let Some(name) = pod::spec(&new).node_name.as_ref().filter(|name| names.contains(*name))
                else {
                    continue;
                };
                let uid = pod::uid(&new).to_owned();
                if let Some(handle) = lock().get(&uid) {
                    handle.tell(Event::Desired(new.clone()));
                    continue;
                }
                let facts = facts.get(name).cloned().unwrap_or_default();
                let machine = PodMachine::new(new, facts, Timestamp::now());
                let (all, gone) = (handles.clone(), uid.clone());
                let handle = PodHandle::start(machine, hands.clone(), move || {
                    all.lock().unwrap_or_else(PoisonError::into_inner).remove(&gone);
                });
                handle.tell(hands::nothing(Timestamp::now()));
                lock().insert(uid, handle);
            }
        }
    }
}

/// What the machine of a pod does not look at where there is nothing to run and nothing to take room.
static TRIM: Trim<Pod> = Trim { lists: lean::POD.lists, object: trim };

fn trim(of: &mut Pod) {
    lean::unrun(of);
    if let Some(spec) = &mut of.spec {
        spec.tolerations = None;
        let inits = spec.init_containers.iter_mut().flatten();
        spec.containers.iter_mut().chain(inits).for_each(|container| container.resources = None);
    }
}

impl HollowHands {
    fn write(&self, of: &Arc<Pod>, action: PodWrite, reply: &Inbox) {
        // Fails only when the hollow nodes end.
        let _ = self.0.writes.send(Write { of: of.clone(), action, reply: reply.clone() });
    }

    fn sandbox(&self, of: &Pod, attempt: u32) -> SandboxStatus {
        let number = self.0.next_ip.fetch_add(1, Ordering::Relaxed) & 0x003f_ffff;
        SandboxStatus {
            id: SandboxId(format!("{}-{attempt}", pod::uid(of))),
            pod_uid: pod::uid(of).to_owned(),
            pod_name: pod::name(of).to_owned(),
            pod_namespace: pod::namespace(of).to_owned(),
            attempt,
            ready: true,
            created_at: Timestamp::now(),
            ips: vec![IpAddr::V4(Ipv4Addr::from(0x0a_80_00_00 | number))],
            labels: BTreeMap::new(),
        }
    }

    fn image(&self, of: &Pod, container: &str) -> Image {
        let name = pod::any_container(of, container).and_then(|it| it.image.clone()).unwrap_or_default();
        Image {
            id: format!("hollow:{name}"),
            tags: vec![name],
            digests: Vec::new(),
            size_bytes: 0,
            user: String::new(),
            last_used_at: None,
        }
    }
}

impl Hands for HollowHands {
    fn perform(&self, of: &Arc<Pod>, action: Action, reply: &Inbox) {
        let hollow = &self.0;
        let answer = match action {
            Action::MountVolumes => Event::Mounted(Ok(())),
            Action::UnmountVolumes => Event::Unmounted(Ok(())),
            Action::PullImage { container } => {
                let image = self.image(of, &container);
                Event::Image { container, outcome: Ok((image, None)) }
            }
            Action::RunSandbox { attempt } => Event::SandboxRan(Ok(self.sandbox(of, attempt))),
            Action::StopSandbox(id) => Event::SandboxStopped(id, Ok(())),
            Action::RemoveSandbox(id) => Event::SandboxRemoved(id, Ok(())),
            Action::CreateContainer { container, attempt, .. } => {
                let id = ContainerId(format!("{}-{container}-{attempt}", pod::uid(of)));
                Event::Created { container, outcome: Ok(id) }
            }
            Action::StartContainer { container, .. } => {
                let event = Event::Started { container, outcome: Ok(()) };
                if hollow.config.start_delay.is_zero() {
                    event
                } else {
                    let (delay, reply) = (hollow.config.start_delay, reply.clone());
                    tokio::spawn(async move {
                        tokio::time::sleep(delay).await;
                        reply.tell(event);
                    });
                    return;
                }
            }
            Action::StopContainer { id, .. } => Event::Stopped { id, outcome: Ok(()) },
            Action::RemoveContainer { .. } => return,
            Action::RunHook { id, hook, .. } => Event::HookDone { id, hook, outcome: Ok(()) },
            Action::Probe { id, kind, .. } => Event::Probed { id, kind, outcome: Outcome::Success },
            Action::Resize { id, .. } => Event::Resized { id, outcome: Ok(()) },
            Action::AwaitDrain => Event::Drained,
            Action::Emit(note) => return hands::emit(&hollow.recorder, of, note),
            Action::PatchStatus(body) => return self.write(of, PodWrite::Status(body.to_string()), reply),
            Action::DeletePod { uid } => return self.write(of, PodWrite::Delete(uid), reply),
        };
        reply.tell(answer);
    }
}
