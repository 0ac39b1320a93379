//! The agent of one node: registers it, keeps its lease, and drives the machines of its pods on a hollow runtime.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use apiserver_core::User;
use client_core::cache::Change;
use client_core::object::{ResourceType, Target};
use client_core::plan::{PatchKind, Precondition, delete_options};
use http::Method;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, NodeSystemInfo, Pod};
use nodeagent_core::PodMachine;
use nodeagent_core::drive::Drive;
use nodeagent_core::lifecycle::{Action, Event, NodeFacts, PatchFailure, State};
use nodeagent_core::node::{self, Health, Machine};
use nodeagent_core::probe::Outcome;
use nodeagent_core::runtime::Image;
use nodeagent_core::{admission, pod};
use serde_json::{Value, json};

use crate::cache::{Cache, Source};
use crate::caller::Caller;
use crate::checkers::watch::Selection;
use crate::clock::Clock;
use crate::cluster::Cluster;
use crate::kernel::{MS, SECOND, Scope, Sim, Time};
use crate::network::Place;
use crate::runtime::Runtime;

const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
/// How often the runtime is looked at although it said nothing.
const LOOK_AGAIN: Time = 60 * SECOND;

/// The pods' machines of a running agent, by uid.
type Drivers = RefCell<BTreeMap<String, Rc<Driver>>>;

/// A node and its agent, whether that runs or not.
pub struct Agent {
    /// The node's name.
    pub name: String,
    /// Its clocks.
    pub clock: Rc<Clock>,
    /// What runs on it.
    pub runtime: Runtime,
    number: u64,
    cpu_milli: i64,
    cluster: Rc<Cluster>,
    caller: Caller,
    process: Cell<Option<Scope>>,
    drivers: Drivers,
    own: RefCell<Option<Node>>,
    cache: RefCell<Option<Rc<Cache<Pod>>>>,
    facts: Arc<NodeFacts>,
}

/// Drives one pod's machine.
struct Driver {
    machine: RefCell<PodMachine>,
    /// What waits for the machine.
    inbox: RefCell<Vec<Event>>,
    /// Whether its task was woken, and has not run yet.
    woken: Cell<bool>,
    armed: Cell<Option<Time>>,
}

/// A pod in the hands of its agent.
struct Driven<'a> {
    agent: &'a Rc<Agent>,
    driver: &'a Driver,
}

// === impl Agent ===

impl Agent {
    /// A node of this size.
    pub fn new(cluster: &Rc<Cluster>, number: u8, cpu_milli: i64) -> Rc<Self> {
        let name = format!("node-{number}");
        let user = User::authenticated(&format!("system:node:{name}"), &["system:nodes".into()]);
        let address = IpAddr::V4(Ipv4Addr::new(10, 89, 0, number));
        Rc::new(Self {
            clock: Rc::new(Clock::new(&cluster.sim)),
            runtime: Runtime::new(number),
            number: u64::from(number),
            cpu_milli,
            cluster: cluster.clone(),
            caller: Caller::new(cluster, Place::Host(u64::from(number)), user),
            process: Cell::new(None),
            drivers: RefCell::default(),
            own: RefCell::default(),
            cache: RefCell::default(),
            facts: Arc::new(NodeFacts { host_ips: vec![address], drain: Duration::ZERO }),
            name,
        })
    }

    /// Where it runs.
    pub fn place(&self) -> Place {
        Place::Host(self.number)
    }

    fn sim(&self) -> &Sim {
        &self.cluster.sim
    }

    /// Starts the agent.
    pub fn start(self: &Rc<Self>) {
        if self.process.get().is_some() {
            return;
        }
        let scope = self.sim().scope();
        self.process.set(Some(scope));
        self.sim().note(format_args!("agent of {} runs", self.name));
        self.sim().spawn(scope, keep_node(self.clone()));
        let source = Source {
            caller: self.caller.clone(),
            clock: self.clock.clone(),
            resource: ResourceType::of::<Pod>(),
            selection: Selection::OnNode(self.name.clone()),
            partial: false,
        };
        let cache = Cache::<Pod>::new(source);
        *self.cache.borrow_mut() = Some(cache.clone());
        let agent = self.clone();
        let known: BTreeSet<String> = self.runtime.pods().into_iter().collect();
        self.sim().spawn(scope, cache.run(move |change| agent.changed(change, &known)));
        let agent = self.clone();
        self.sim().spawn(scope, async move {
            loop {
                agent.sim().sleep(LOOK_AGAIN).await;
                let uids: Vec<String> = agent.drivers.borrow().keys().cloned().collect();
                uids.iter().for_each(|uid| agent.observe(uid));
            }
        });
    }

    /// Ends the agent; containers run on.
    pub fn kill(&self) {
        if let Some(scope) = self.process.take() {
            self.sim().note(format_args!("agent of {} ends", self.name));
            self.sim().kill(scope);
            self.drivers.borrow_mut().clear();
            *self.cache.borrow_mut() = None;
        }
    }

    /// Whether the agent runs.
    pub fn is_alive(&self) -> bool {
        self.process.get().is_some()
    }

    /// Compares its cache with the one order.
    pub fn check(&self) {
        if let Some(cache) = &*self.cache.borrow() {
            cache.check();
        }
    }

    /// A container ends by itself.
    pub fn crash_container(self: &Rc<Self>) {
        let running = self.runtime.running();
        if running.is_empty() {
            return;
        }
        let (uid, id) = &running[self.sim().index(running.len())];
        self.sim().note(format_args!("{}: container {} exits", self.name, id.0));
        self.runtime.stop(id, 1, self.clock.wall());
        self.observe(uid);
    }

    fn changed(self: &Rc<Self>, change: Change<Pod>, known: &BTreeSet<String>) {
        match change {
            Change::Synced => self.remove_orphans(),
            Change::Relisted { .. } => {}
            Change::Deleted { last } => self.tell(pod::uid(&last), Event::Forgotten),
            Change::Applied { new, old } => {
                if let Some(old) = old.filter(|old| pod::uid(old) != pod::uid(&new)) {
                    self.tell(pod::uid(&old), Event::Forgotten);
                }
                let uid = pod::uid(&new).to_owned();
                if self.drivers.borrow().contains_key(&uid) {
                    return self.tell(&uid, Event::Desired(new));
                }
                self.add(new, &uid);
                if known.contains(&uid) {
                    self.observe(&uid);
                } else {
                    let nothing = nodeagent_core::lifecycle::Observed {
                        began: self.clock.wall(),
                        sandboxes: Vec::new(),
                        containers: Vec::new(),
                    };
                    self.tell(&uid, Event::Observed(nothing));
                }
            }
        }
    }

    fn add(self: &Rc<Self>, new: Arc<Pod>, uid: &str) {
        let rejection = self.admit(&new).err();
        let machine = PodMachine::new(new, self.facts.clone(), self.clock.wall());
        let driver = Rc::new(Driver {
            machine: RefCell::new(machine),
            inbox: RefCell::default(),
            woken: Cell::new(false),
            armed: Cell::new(None),
        });
        self.drivers.borrow_mut().insert(uid.to_owned(), driver);
        if let Some(rejection) = rejection {
            self.sim().note(format_args!("{} rejects {uid}: {}", self.name, rejection.message));
            self.tell(uid, Event::Rejected { reason: rejection.reason, message: rejection.message });
        }
    }

    fn admit(&self, new: &Pod) -> Result<(), admission::Rejection> {
        let begun = pod::status(new).start_time.is_some() || new.metadata.deletion_timestamp.is_some();
        let own = self.own.borrow();
        let Some(own) = own.as_ref().filter(|_| !begun && !pod::is_terminal(new)) else { return Ok(()) };
        let others: Vec<_> =
            self.drivers.borrow().values().map(|driver| driver.machine.borrow().pod().clone()).collect();
        let others = others.iter().map(|it| &**it).filter(|it| !pod::is_terminal(it));
        admission::admit(new, own, &node::allocatable(&self.machine()), others)
    }

    fn observe(self: &Rc<Self>, uid: &str) {
        let observed = self.runtime.observe(uid, self.clock.wall());
        self.tell(uid, Event::Observed(observed));
    }

    fn remove_orphans(&self) {
        for uid in self.runtime.pods() {
            if !self.drivers.borrow().contains_key(&uid) {
                for sandbox in self.runtime.sandboxes_of(&uid) {
                    self.runtime.stop_sandbox(&sandbox, self.clock.wall());
                    self.runtime.remove_sandbox(&sandbox);
                }
            }
        }
    }

    /// Leaves something for a machine; its task takes in what waits when it comes to run.
    fn tell(self: &Rc<Self>, uid: &str, event: Event) {
        let Some(driver) = self.drivers.borrow().get(uid).cloned() else { return };
        driver.inbox.borrow_mut().push(event);
        if driver.woken.replace(true) {
            return;
        }
        let (agent, uid) = (self.clone(), uid.to_owned());
        self.sim().after(self.sim().between(0, MS), move || {
            if agent.drives(&uid, &driver) {
                driver.woken.set(false);
                agent.advance(&uid, &driver);
            }
        });
    }

    fn drives(&self, uid: &str, driver: &Rc<Driver>) -> bool {
        self.drivers.borrow().get(uid).is_some_and(|known| Rc::ptr_eq(known, driver))
    }

    fn advance(self: &Rc<Self>, uid: &str, driver: &Rc<Driver>) {
        let (state, wake) = Driven { agent: self, driver }.advance(driver.inbox.take());
        if state == State::Gone {
            self.drivers.borrow_mut().remove(uid);
        } else if let Some(wake) = wake {
            self.arm(uid, driver, wake, self.clock.wall());
        }
    }

    fn arm(self: &Rc<Self>, uid: &str, driver: &Rc<Driver>, wake: Timestamp, now: Timestamp) {
        let wait = Duration::try_from(wake.duration_since(now)).unwrap_or(Duration::ZERO);
        let at = self.sim().now() + (wait.as_micros() as Time).max(MS);
        if driver.armed.get().is_some_and(|armed| armed <= at) {
            return;
        }
        driver.armed.set(Some(at));
        let (agent, driver, uid) = (self.clone(), driver.clone(), uid.to_owned());
        self.sim().at(at, move || {
            if agent.drives(&uid, &driver) && driver.armed.get() == Some(at) {
                driver.armed.set(None);
                agent.tell(&uid, Event::Tick);
            }
        });
    }

    /// Carries an action out: what concerns the runtime takes a while and is done even if the agent ends meanwhile.
    fn perform(self: &Rc<Self>, of: &Arc<Pod>, action: Action) {
        match action {
            Action::PatchStatus(body) => self.in_process(patch_status(self.clone(), of.clone(), body)),
            Action::DeletePod { uid } => self.in_process(delete_pod(self.clone(), of.clone(), uid)),
            Action::Emit(_) => {}
            // What has nothing to do is answered at once.
            Action::MountVolumes | Action::UnmountVolumes | Action::AwaitDrain if self.sim().chance(0.5) => {
                if let Some(event) = self.act(of, action) {
                    self.tell(pod::uid(of), event);
                }
            }
            action => {
                let (agent, of, scope) = (self.clone(), of.clone(), self.process.get());
                let longest =
                    if matches!(action, Action::StopContainer { .. }) { 2000 * MS } else { 200 * MS };
                self.sim().after(self.sim().between(MS, longest), move || {
                    let event = agent.act(&of, action);
                    if let Some(event) = event.filter(|_| agent.process.get() == scope) {
                        agent.tell(pod::uid(&of), event);
                    }
                });
            }
        }
    }

    fn in_process(&self, task: impl Future<Output = ()> + 'static) {
        if let Some(scope) = self.process.get() {
            self.sim().spawn(scope, task);
        }
    }

    fn act(&self, of: &Arc<Pod>, action: Action) -> Option<Event> {
        let now = self.clock.wall();
        Some(match action {
            Action::MountVolumes => Event::Mounted(Ok(())),
            Action::UnmountVolumes => Event::Unmounted(Ok(())),
            Action::PullImage { container } => {
                let image = image(of, &container);
                Event::Image { container, outcome: Ok((image, None)) }
            }
            Action::RunSandbox { attempt } => {
                Event::SandboxRan(Ok(self.runtime.run_sandbox(of, attempt, now)))
            }
            Action::StopSandbox(id) => {
                self.runtime.stop_sandbox(&id, now);
                Event::SandboxStopped(id, Ok(()))
            }
            Action::RemoveSandbox(id) => {
                self.runtime.remove_sandbox(&id);
                Event::SandboxRemoved(id, Ok(()))
            }
            Action::CreateContainer { container, attempt, sandbox, image } => {
                let id = self.runtime.create(of, &container, attempt, &sandbox.id, &image);
                Event::Created { container, outcome: Ok(id) }
            }
            Action::StartContainer { container, id } => {
                let count = self.runtime.start(&id, now);
                self.sim().note(format_args!("{} starts {}", self.name, id.0));
                self.cluster.checks.pods.started(&self.name, pod::uid(of), &container, count);
                Event::Started { container, outcome: Ok(()) }
            }
            Action::StopContainer { id, .. } => {
                self.runtime.stop(&id, 0, now);
                Event::Stopped { id, outcome: Ok(()) }
            }
            Action::RemoveContainer { id } => {
                self.runtime.remove(&id);
                return None;
            }
            Action::RunHook { id, hook, .. } => Event::HookDone { id, hook, outcome: Ok(()) },
            Action::Probe { id, kind, .. } => Event::Probed { id, kind, outcome: Outcome::Success },
            Action::Resize { id, .. } => Event::Resized { id, outcome: Ok(()) },
            Action::AwaitDrain => Event::Drained,
            Action::PatchStatus(_) | Action::DeletePod { .. } | Action::Emit(_) => return None,
        })
    }

    fn machine(&self) -> Machine {
        Machine {
            name: self.name.clone(),
            cpu_milli: self.cpu_milli,
            memory_bytes: 16 << 30,
            disk_bytes: 100 << 30,
            max_pods: 30,
            addresses: self.facts.host_ips.clone(),
            info: NodeSystemInfo { architecture: "amd64".into(), ..NodeSystemInfo::default() },
            ..Machine::default()
        }
    }
}

// === impl Driven ===

impl Drive for Driven<'_> {
    fn machine<T>(&self, with: impl FnOnce(&mut PodMachine) -> T) -> T {
        with(&mut self.driver.machine.borrow_mut())
    }

    fn waiting(&self) -> Vec<Event> {
        self.driver.inbox.take()
    }

    fn now(&self) -> Timestamp {
        self.agent.clock.wall()
    }

    fn perform(&self, pod: &Arc<Pod>, action: Action) {
        self.agent.perform(pod, action);
    }
}

fn image(of: &Pod, container: &str) -> Image {
    let name = pod::container(of, container).and_then(|it| it.image.clone()).unwrap_or_default();
    Image {
        id: format!("hollow:{name}"),
        tags: vec![name],
        digests: Vec::new(),
        size_bytes: 0,
        user: String::new(),
        last_used_at: None,
    }
}

async fn patch_status(agent: Rc<Agent>, of: Arc<Pod>, body: Value) {
    let path = Target::to(&*of).path(Some("status"));
    let outcome = match agent.caller.patch(&path, PatchKind::Strategic.content_type(), &body).await {
        Ok(answer) => {
            let answer: Value = serde_json::from_slice(&answer).unwrap_or_default();
            let version = answer["metadata"]["resourceVersion"].as_str().and_then(|it| it.parse().ok());
            Ok(version.unwrap_or(u64::MAX))
        }
        Err(error) if error.is_not_found() => Err(PatchFailure::Gone),
        Err(_) => Err(PatchFailure::Transient),
    };
    agent.tell(pod::uid(&of), Event::Patched(outcome));
}

async fn delete_pod(agent: Rc<Agent>, of: Arc<Pod>, uid: String) {
    let precondition = Precondition { uid: Some(uid), resource_version: None };
    let options = delete_options(&precondition, Some(0), None);
    let outcome = match agent.caller.delete(&Target::to(&*of), &options).await {
        Ok(_) => Ok(()),
        Err(error) if error.is_not_found() || error.is_conflict() => Ok(()),
        Err(error) => Err(error.to_string()),
    };
    agent.tell(pod::uid(&of), Event::Deleted(outcome));
}

/// Keeps the node registered, its lease renewed and its status true.
async fn keep_node(agent: Rc<Agent>) {
    let sim = agent.sim().clone();
    let path = format!("/api/v1/nodes/{}", agent.name);
    let machine = agent.machine();
    let mut status_sent = false;
    loop {
        let node = match agent.caller.get(&path).await {
            Ok(node) => serde_json::from_value::<Node>(node).ok(),
            Err(error) if error.is_not_found() => register(&agent, &machine).await,
            Err(_) => None,
        };
        if let Some(node) = node {
            renew(&agent, node.metadata.uid.as_deref()).await;
            let old = node.status.as_ref();
            let status = node::status(&machine, &Health::default(), &[], old, agent.clock.wall());
            if !status_sent || old.is_none_or(|old| node::differs(old, &status)) {
                let body = json!({ "status": status });
                let sent = agent
                    .caller
                    .patch(&format!("{path}/status"), PatchKind::Strategic.content_type(), &body)
                    .await;
                status_sent = sent.is_ok();
            }
            *agent.own.borrow_mut() = Some(node);
            sim.sleep(10 * SECOND).await;
        } else {
            sim.sleep(SECOND).await;
        }
    }
}

async fn register(agent: &Agent, machine: &Machine) -> Option<Node> {
    let wanted = json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": agent.name, "labels": node::labels(&agent.name, "amd64")},
        "status": node::status(machine, &Health::default(), &[], None, agent.clock.wall()),
    });
    let made = agent.caller.document(Method::POST, "/api/v1/nodes", &wanted).await.ok()?;
    serde_json::from_value(made).ok()
}

async fn renew(agent: &Agent, uid: Option<&str>) {
    let now = agent.clock.wall().strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string();
    let spec = json!({"holderIdentity": agent.name, "leaseDurationSeconds": 40, "renewTime": now});
    let path = format!("{LEASES}/{}", agent.name);
    let patched = agent.caller.patch(&path, PatchKind::Merge.content_type(), &json!({ "spec": spec })).await;
    if patched.is_err_and(|error| error.is_not_found()) {
        let owner =
            uid.map(|uid| json!([{"apiVersion": "v1", "kind": "Node", "name": agent.name, "uid": uid}]));
        let lease = json!({
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": agent.name, "namespace": "kube-node-lease", "ownerReferences": owner},
            "spec": spec,
        });
        // Who fails here tries again with the next renewal.
        let _ = agent.caller.document(Method::POST, LEASES, &lease).await;
    }
}
