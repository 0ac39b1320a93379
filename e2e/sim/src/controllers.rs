//! Hosts the planners of `controller-core`: the world, the queues, and the workers between them.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use api::catalogue::{Catalogue, Verb};
use apiserver_core::User;
use client_core::cache::{Cached, Change};
use client_core::object::ResourceType;
use client_core::queue::WorkQueue;
use controller_core::dispatch::{self, Attempt};
use controller_core::execution::{self, Failures, Outcome, Rounds};
use controller_core::feed::{Feeds, Take, follow_all, take_metadata};
use controller_core::node_ipam::Pool;
use controller_core::plan::{Kind, Plan, Report};
use controller_core::world::{Controller, Key, Settings, Work, World};
use futures::future::select;
use jiff::Timestamp;
use serde::de::DeserializeOwned;

use crate::cache::{Cache, Source};
use crate::caller::Caller;
use crate::checkers::watch::Selection;
use crate::clock::Clock;
use crate::execute;
use crate::kernel::{MS, SECOND, Scope, Signal, Sim, Time};

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
    failures: RefCell<Failures>,
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

/// What starts caches and has the world follow them.
struct Follower<'a> {
    host: &'a Rc<Host>,
    caches: &'a Caller,
    scope: Scope,
}

impl Feeds for Follower<'_> {
    fn follow<K: Kind>(&mut self, named: Option<&'static str>, take: Take<K>) {
        let selection = named.map_or(Selection::All, Selection::Named);
        cache(self.host, self.caches, self.scope, ResourceType::of::<K>(), selection, false, take);
    }
}

fn feed(host: &Rc<Host>, caches: &Caller, scope: Scope) {
    let known = follow_all(&mut Follower { host, caches, scope });
    for resource in resources() {
        if !known.contains(&resource) && resource.plural.as_ref() != "events" {
            cache(host, caches, scope, resource, Selection::All, true, take_metadata);
        }
    }
}

fn cache<T: Cached + DeserializeOwned>(
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
        let (outcome, look_again_at) = self.attempt(work, desk).await;
        self.failures.borrow_mut().note(work, &outcome);
        let now = self.clock.now();
        execution::give_back(&mut desk.queue.borrow_mut(), &work.key, &outcome, look_again_at, now);
        desk.added.raise();
    }

    async fn attempt(self: &Rc<Self>, work: &Work, desk: &Desk) -> (Outcome, Option<Timestamp>) {
        let failure = self.failures.borrow().of(work).cloned();
        let mut attempt = Attempt { failure: failure.as_ref(), ..Attempt::default() };
        let mut rounds = Rounds::default();
        let plan = loop {
            let (mut plan, _) = self.plan(work, &attempt);
            match rounds.questions(&mut plan) {
                Some(questions) => attempt.answers.extend(execute::ask(&desk.caller, questions).await),
                None => break plan,
            }
        };
        if !plan.questions.is_empty() {
            return (Outcome::Failed(None), None);
        }
        (execute::carry_out(self, desk, plan.steps).await, plan.look_again_at)
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
