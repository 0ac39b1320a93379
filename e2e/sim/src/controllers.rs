//! Hosts the planners of `controller-core`: the world, the queues, and the workers between them.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use api::catalogue::{Catalogue, Verb};
use apiserver_core::User;
use client_core::cache::Change;
use client_core::object::{Kind, Object, PartialObject, ResourceType};
use client_core::queue::WorkQueue;
use controller_core::dispatch::{self, Attempt};
use controller_core::namespaced_defaults::{DEFAULT_ACCOUNT, ROOT_CA};
use controller_core::node_ipam::Pool;
use controller_core::plan::{Failure, Plan, Report};
use controller_core::world::{Controller, Key, Settings, Tracked, Work, World};
use futures::future::select;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet, Deployment, ReplicaSet};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{
    ConfigMap, Endpoints, Namespace, Node, PersistentVolumeClaim, Pod, ResourceQuota, Service, ServiceAccount,
};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde::de::DeserializeOwned;

use crate::cache::{Cache, Source};
use crate::caller::Caller;
use crate::checkers::watch::Selection;
use crate::clock::Clock;
use crate::execute::{self, Outcome};
use crate::kernel::{MS, SECOND, Scope, Signal, Sim, Time};

/// How often a plan may ask before it is left for later.
const ROUNDS: usize = 4;
/// How many keys of one controller are handled at once.
const WORKERS: usize = 3;

/// The world and the queues.
pub struct Host {
    /// The kernel.
    pub sim: Sim,
    /// The clocks of the process.
    pub clock: Rc<Clock>,
    world: RefCell<World>,
    desks: BTreeMap<Controller, Desk>,
    failures: RefCell<BTreeMap<Work, Failure>>,
    /// Caches that do not hold everything yet.
    pending: Cell<usize>,
    caches: RefCell<Vec<Box<dyn Fn()>>>,
}

/// Where one controller's work is done.
pub struct Desk {
    queue: RefCell<WorkQueue<Key>>,
    added: Rc<Signal>,
    /// Carries the controller's identity.
    pub caller: Caller,
}

/// How a cache's objects enter the world.
type Take<T> = fn(&mut World, &ResourceType, Change<T>, Timestamp) -> Vec<Work>;

/// Starts all controllers in a process.
pub fn start(caches: &Caller, clock: &Rc<Clock>, scope: Scope) -> Rc<Host> {
    let sim = caches.cluster.sim.clone();
    let desk = |controller: &Controller| {
        let user = User::service_account("kube-system", controller.account());
        (
            *controller,
            Desk { queue: RefCell::default(), added: Rc::default(), caller: caches.acting_as(user) },
        )
    };
    let settings = Settings {
        pod_network: Pool::new("10.200.0.0/16", 24).ok(),
        root_ca: "a certificate".into(),
        ..Settings::default()
    };
    let host = Rc::new(Host {
        sim: sim.clone(),
        clock: clock.clone(),
        world: RefCell::new(World::new(settings)),
        desks: Controller::ALL.iter().map(desk).collect(),
        failures: RefCell::default(),
        pending: Cell::new(0),
        caches: RefCell::default(),
    });
    discover(&host);
    feed(&host, caches, scope);
    for controller in Controller::ALL {
        for _ in 0..WORKERS {
            sim.spawn(scope, work(host.clone(), controller));
        }
    }
    let expiring = host.clone();
    sim.spawn(scope, async move {
        loop {
            expiring.sim.sleep(60 * SECOND).await;
            expiring.change(|world, now| world.expire(now));
        }
    });
    host
}

/// What the API server serves, as discovery tells it.
fn discover(host: &Host) {
    let mut world = host.world.borrow_mut();
    for resource in resources() {
        if resource.namespaced {
            world.discovery.resources.push(resource.clone());
        }
        world.kinds.insert((resource.api_version(), resource.kind.to_string()), resource);
    }
}

/// The resources whose objects can be listed and deleted.
fn resources() -> impl Iterator<Item = ResourceType> {
    let can = |verbs: &[Verb], verb: Verb| verbs.contains(&verb);
    Catalogue::builtin()
        .resources()
        .filter(move |resource| {
            resource.stored && can(&resource.verbs, Verb::Delete) && can(&resource.verbs, Verb::List)
        })
        .map(|resource| {
            ResourceType::new(
                resource.group.as_ref(),
                resource.version.as_ref(),
                resource.kind.as_ref(),
                resource.plural.as_ref(),
                resource.namespaced(),
            )
        })
}

fn feed(host: &Rc<Host>, caches: &Caller, scope: Scope) {
    let mut typed = BTreeSet::new();
    macro_rules! typed {
        ($($kind:ty),*) => {$(
            let resource = ResourceType::of::<$kind>();
            typed.insert((resource.group.to_string(), resource.plural.to_string()));
            cache(host, caches, scope, resource, Selection::All, false, take::<$kind>);
        )*};
    }
    typed!(
        Pod,
        ReplicaSet,
        Deployment,
        DaemonSet,
        ControllerRevision,
        Node,
        Service,
        EndpointSlice,
        Endpoints,
        Namespace,
        ResourceQuota,
        PersistentVolumeClaim
    );
    let leases = ResourceType::of::<Lease>();
    typed.insert((leases.group.to_string(), leases.plural.to_string()));
    cache(host, caches, scope, leases, Selection::All, false, take_lease);
    let accounts = ResourceType::of::<ServiceAccount>();
    cache(host, caches, scope, accounts, Selection::Named(DEFAULT_ACCOUNT), false, take::<ServiceAccount>);
    let maps = ResourceType::of::<ConfigMap>();
    cache(host, caches, scope, maps, Selection::Named(ROOT_CA), false, take::<ConfigMap>);
    for resource in resources() {
        let known = typed.contains(&(resource.group.to_string(), resource.plural.to_string()));
        if !known && resource.plural.as_ref() != "events" {
            cache(host, caches, scope, resource, Selection::All, true, take_meta);
        }
    }
}

fn cache<T: Object + DeserializeOwned>(
    host: &Rc<Host>,
    caches: &Caller,
    scope: Scope,
    resource: ResourceType,
    selection: Selection,
    partial: bool,
    take: Take<T>,
) {
    host.pending.set(host.pending.get() + 1);
    let source = Source {
        caller: caches.clone(),
        clock: host.clock.clone(),
        resource: resource.clone(),
        selection,
        partial,
    };
    let cache = Cache::<T>::new(source);
    let checked = cache.clone();
    host.caches.borrow_mut().push(Box::new(move || checked.check()));
    let told = host.clone();
    let changed = move |change: Change<T>| {
        if matches!(change, Change::Synced) {
            told.pending.set(told.pending.get().saturating_sub(1));
            if told.pending.get() == 0 {
                told.desks.values().for_each(|desk| desk.added.raise());
            }
        }
        told.change(|world, now| take(world, &resource, change, now));
    };
    host.sim.spawn(scope, cache.run(changed));
}

fn take<K: Tracked + Kind>(
    world: &mut World,
    _: &ResourceType,
    change: Change<K>,
    now: Timestamp,
) -> Vec<Work> {
    match change {
        Change::Applied { new, .. } => world.applied(new, now),
        Change::Deleted { last } => world.deleted(&*last, now),
        Change::Synced => Vec::new(),
    }
}

fn take_lease(world: &mut World, _: &ResourceType, change: Change<Lease>, now: Timestamp) -> Vec<Work> {
    match change {
        Change::Applied { new, .. } => world.lease_applied(&new, now),
        Change::Deleted { last } => world.lease_deleted(&last),
        Change::Synced => Vec::new(),
    }
}

fn take_meta(
    world: &mut World,
    resource: &ResourceType,
    change: Change<PartialObject>,
    _: Timestamp,
) -> Vec<Work> {
    match change {
        Change::Applied { new, .. } => world.applied_meta(resource, &new.metadata),
        Change::Deleted { last } => world.deleted_meta(resource, &last.metadata),
        Change::Synced => Vec::new(),
    }
}

// === impl Host ===

impl Host {
    /// Changes the world and queues the work that follows.
    pub fn change(&self, change: impl FnOnce(&mut World, Timestamp) -> Vec<Work>) {
        let work = change(&mut self.world.borrow_mut(), self.clock.wall());
        for Work { controller, key } in work {
            let Some(desk) = self.desks.get(&controller) else { continue };
            desk.queue.borrow_mut().add(key);
            desk.added.raise();
        }
    }

    /// Compares the caches with the one order.
    pub fn check(&self) {
        self.caches.borrow().iter().for_each(|check| check());
    }

    async fn handle(self: &Rc<Self>, work: &Work, desk: &Desk) {
        let outcome = self.attempt(work, desk).await;
        let mut queue = desk.queue.borrow_mut();
        let now = self.clock.now();
        match &outcome {
            Ok(look_again_at) => {
                queue.forget(&work.key);
                if let Some(at) = look_again_at {
                    let wait = Duration::try_from(at.duration_since(now.wall)).unwrap_or(Duration::ZERO);
                    queue.add_after(work.key.clone(), wait.max(Duration::from_millis(1)), now.moment);
                }
            }
            Err(()) => {
                queue.add_failed(work.key.clone(), now.moment);
            }
        }
        queue.done(&work.key);
        drop(queue);
        desk.added.raise();
    }

    async fn attempt(self: &Rc<Self>, work: &Work, desk: &Desk) -> Result<Option<Timestamp>, ()> {
        let failure = self.failures.borrow().get(work).cloned();
        let mut attempt = Attempt { failure: failure.as_ref(), ..Attempt::default() };
        let mut planned = self.plan(work, &attempt);
        for _ in 0..ROUNDS {
            if planned.0.questions.is_empty() {
                break;
            }
            let questions = std::mem::take(&mut planned.0.questions);
            attempt.answers.extend(execute::ask(&desk.caller, questions).await);
            planned = self.plan(work, &attempt);
        }
        let Plan { steps, look_again_at, questions } = planned.0;
        if !questions.is_empty() {
            return Err(());
        }
        match execute::carry_out(self, desk, steps).await {
            Outcome::Done => {
                self.failures.borrow_mut().remove(work);
                Ok(look_again_at)
            }
            Outcome::GivenUp => Ok(look_again_at),
            Outcome::Failed(failure) => {
                if let Some(failure) = failure {
                    self.failures.borrow_mut().insert(work.clone(), failure);
                }
                Err(())
            }
        }
    }

    fn plan(&self, work: &Work, attempt: &Attempt<'_>) -> (Plan, Report) {
        let now = self.clock.wall();
        self.sim.rng(|rng| dispatch::plan(&mut self.world.borrow_mut(), work, attempt, now, rng))
    }
}

async fn work(host: Rc<Host>, controller: Controller) {
    let Some(desk) = host.desks.get(&controller) else { return };
    loop {
        let (key, wake_at) = {
            let mut queue = desk.queue.borrow_mut();
            // Nothing is judged before all is known.
            let key = if host.pending.get() == 0 { queue.pop(host.clock.now().moment) } else { None };
            (key, queue.poll_timeout())
        };
        if let Some(key) = key {
            host.handle(&Work::new(controller, key), desk).await;
            continue;
        }
        let wait = wake_at
            .map_or(3600 * SECOND, |at| at.saturating_sub(host.clock.now().moment).as_micros() as Time);
        let added = std::pin::pin!(desk.added.wait());
        select(added, host.sim.sleep(wait.max(MS))).await;
    }
}
