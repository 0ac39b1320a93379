//! Hosts the scheduler's core as its shell does: takes changes in, asks for decisions, binds.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use apiserver_core::User;
use client_core::cache::Change;
use client_core::clock::Moment;
use client_core::error::Error;
use client_core::object::{Object, ObjectKey, ResourceType, Target};
use client_core::plan::PatchKind;
use futures::future::select;
use http::Method;
use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use scheduler_core::binding::{Binding, Next};
use scheduler_core::{Causes, Cluster, Decision, NodeChange, PodInfo, Queue};
use serde_json::{Value, json};

use crate::cache::{Cache, Source};
use crate::caller::Caller;
use crate::checkers::watch::Selection;
use crate::clock::Clock;
use crate::kernel::{MS, SECOND, Scope, Signal, Sim, Time};

const NAME: &str = "default-scheduler";
/// How many bindings may be under way at once.
const IN_FLIGHT: usize = 16;

/// The core and what is under way.
pub struct Host {
    sim: Sim,
    clock: Rc<Clock>,
    caller: Caller,
    scope: Scope,
    cluster: RefCell<Cluster>,
    queue: RefCell<Queue>,
    changed: Rc<Signal>,
    in_flight: Cell<usize>,
    pending: Cell<usize>,
    caches: RefCell<Vec<Box<dyn Fn()>>>,
}

/// Starts the scheduler in a process.
pub fn start(caches: &Caller, clock: &Rc<Clock>, scope: Scope) -> Rc<Host> {
    let sim = caches.cluster.sim.clone();
    let host = Rc::new(Host {
        sim: sim.clone(),
        clock: clock.clone(),
        caller: caches.acting_as(User::authenticated("system:kube-scheduler", &[])),
        scope,
        cluster: RefCell::new(Cluster::new()),
        queue: RefCell::new(Queue::new()),
        changed: Rc::default(),
        in_flight: Cell::new(0),
        pending: Cell::new(3),
        caches: RefCell::default(),
    });
    feed(&host, caches, Host::node);
    feed(&host, caches, Host::namespace);
    feed(&host, caches, Host::pod);
    sim.spawn(scope, run(host.clone()));
    host
}

fn feed<K>(host: &Rc<Host>, caches: &Caller, take: fn(&Host, Change<K>))
where
    K: client_core::object::Kind + Object + serde::de::DeserializeOwned,
{
    let source = Source {
        caller: caches.clone(),
        clock: host.clock.clone(),
        resource: ResourceType::of::<K>(),
        selection: Selection::All,
        partial: false,
    };
    let cache = Cache::<K>::new(source);
    let checked = cache.clone();
    host.caches.borrow_mut().push(Box::new(move || checked.check()));
    let told = host.clone();
    let changed = move |change: Change<K>| {
        if matches!(change, Change::Synced) {
            told.pending.set(told.pending.get().saturating_sub(1));
        }
        take(&told, change);
        told.changed.raise();
    };
    host.sim.spawn(host.scope, cache.run(changed));
}

async fn run(host: Rc<Host>) {
    loop {
        if host.pending.get() == 0 {
            host.decide();
        }
        // With all bindings under way, time alone changes nothing.
        let timeout = host.queue.borrow().poll_timeout().filter(|_| host.in_flight.get() < IN_FLIGHT);
        let wait = timeout.map_or(3600 * SECOND, |at| at.saturating_sub(host.moment()).as_micros() as Time);
        let changed = std::pin::pin!(host.changed.wait());
        select(changed, host.sim.sleep(wait.max(MS))).await;
    }
}

// === impl Host ===

impl Host {
    /// Compares the caches with the one order.
    pub fn check(&self) {
        self.caches.borrow().iter().for_each(|check| check());
    }

    fn moment(&self) -> Moment {
        self.clock.now().moment
    }

    fn node(&self, change: Change<Node>) {
        let NodeChange { node, helps } = match change {
            Change::Applied { new, .. } => self.cluster.borrow_mut().set_node(&new),
            Change::Deleted { last } => self.cluster.borrow_mut().remove_node(last.name()),
            Change::Synced | Change::Relisted { .. } => return,
        };
        let cluster = self.cluster.borrow();
        self.queue
            .borrow_mut()
            .wake_all(helps, self.moment(), |pod, failed| cluster.may_admit(&node, pod, failed));
    }

    fn namespace(&self, change: Change<Namespace>) {
        let mut cluster = self.cluster.borrow_mut();
        let helps = match change {
            Change::Applied { new, .. } => {
                cluster.set_namespace(new.name(), new.metadata.labels.clone().unwrap_or_default())
            }
            Change::Deleted { last } => {
                cluster.remove_namespace(last.name());
                Causes::none()
            }
            Change::Synced | Change::Relisted { .. } => Causes::none(),
        };
        self.queue.borrow_mut().wake_all(helps, self.moment(), |_, _| true);
    }

    fn pod(&self, change: Change<Pod>) {
        let now = self.moment();
        let (helps, node) = match change {
            Change::Synced | Change::Relisted { .. } => return,
            Change::Deleted { last } => {
                let key = last.key();
                self.queue.borrow_mut().remove(&key);
                let mut cluster = self.cluster.borrow_mut();
                let node = cluster.node_of(&key).cloned();
                (cluster.remove_pod(&key), node)
            }
            Change::Applied { new, .. } => {
                let info = self.cluster.borrow_mut().read_pod(&new);
                let waits = info.node.is_none() && !info.terminating && !info.finished;
                if waits && info.scheduler == NAME {
                    self.queue.borrow_mut().set(Arc::clone(&info), now);
                } else {
                    self.queue.borrow_mut().remove(&info.key);
                }
                let mut cluster = self.cluster.borrow_mut();
                let node = cluster.node_of(&info.key).cloned();
                (cluster.set_pod(info), node)
            }
        };
        self.wake_for_pod(helps, node.as_deref(), now);
    }

    fn wake_for_pod(&self, helps: Causes, node: Option<&str>, now: Moment) {
        let cluster = self.cluster.borrow();
        self.queue
            .borrow_mut()
            .wake_all(helps, now, |pod, failed| node.is_none_or(|node| cluster.may_admit(node, pod, failed)));
    }

    fn decide(self: &Rc<Self>) {
        while self.in_flight.get() < IN_FLIGHT {
            let Some(pod) = self.queue.borrow_mut().pop(self.moment()) else { return };
            let (decision, report) = self.sim.rng(|rng| self.cluster.borrow_mut().schedule(&pod, rng));
            match decision {
                Decision::Bind { node } => {
                    self.cluster.borrow_mut().assume(&pod, &node);
                    self.in_flight.set(self.in_flight.get() + 1);
                    self.sim.spawn(self.scope, bind(self.clone(), pod, node));
                }
                Decision::Unschedulable => {
                    let now = self.moment();
                    self.queue.borrow_mut().unschedulable(&pod.key, &pod.uid, report.causes(), now);
                    let task = explain(self.clone(), pod, report.message());
                    self.sim.spawn(self.scope, task);
                }
            }
        }
    }
}

async fn bind(host: Rc<Host>, pod: Arc<PodInfo>, node: Arc<str>) {
    let target = Target::of::<Pod>(pod.key.clone()).path(Some("binding"));
    let binding = json!({
        "apiVersion": "v1",
        "kind": "Binding",
        "metadata": {"namespace": &*pod.key.namespace, "name": &*pod.key.name, "uid": &*pod.uid},
        "target": {"apiVersion": "v1", "kind": "Node", "name": &*node},
    });
    let result = send(&host, &pod, &node, &target, &binding).await;
    host.in_flight.set(host.in_flight.get().saturating_sub(1));
    match result {
        Ok(()) => host.queue.borrow_mut().bound(&pod.key, &pod.uid),
        Err(_) => {
            let now = host.moment();
            let helps = host.cluster.borrow_mut().forget(&pod.key, &pod.uid);
            host.wake_for_pod(helps, Some(&node), now);
            host.queue.borrow_mut().failed(&pod.key, &pod.uid, now);
        }
    }
    host.changed.raise();
}

/// Sends a binding, again as long as nobody knows whether the pod is bound.
async fn send(host: &Host, pod: &PodInfo, node: &str, target: &str, document: &Value) -> Result<(), Error> {
    let mut binding = Binding::new(&pod.uid, node);
    loop {
        let Err(error) = host.caller.document(Method::POST, target, document).await else { return Ok(()) };
        let mut next = binding.failed(&error);
        if next == Next::Read {
            let found = host.caller.get(&Target::of::<Pod>(pod.key.clone()).path(None)).await;
            let found = found.and_then(|found| serde_json::from_value::<Pod>(found).map_err(Error::Decode));
            next = binding.read(found.as_ref());
        }
        match next {
            Next::Bound => return Ok(()),
            Next::Read | Next::Fail => return Err(error),
            Next::Again(pause) => host.sim.sleep(pause.as_micros() as Time).await,
        }
    }
}

/// Tells by the pod's condition why it fits nowhere.
async fn explain(host: Rc<Host>, pod: Arc<PodInfo>, message: String) {
    let condition =
        json!({"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message});
    let body = json!({"metadata": {"uid": &*pod.uid}, "status": {"conditions": [condition]}});
    let target = Target::of::<Pod>(ObjectKey::clone(&pod.key)).path(Some("status"));
    // A condition that is not written is written with the next attempt.
    let _ = host.caller.patch(&target, PatchKind::Strategic.content_type(), &body).await;
}
