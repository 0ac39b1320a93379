//! A process that stands for election and runs controllers and scheduler while it leads.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use apiserver_core::User;
use client_core::election::{Action, Config, Election, Event, Held, Role};
use client_core::error::Error;
use client_core::object::{ObjectKey, ResourceType};
use futures::future::{Either, select};
use http::Method;
use k8s_openapi::api::coordination::v1::Lease;
use serde::Serialize;

use crate::caller::Caller;
use crate::clock::Clock;
use crate::cluster::Cluster;
use crate::kernel::{MS, SECOND, Scope, Sim, Time};
use crate::network::Place;
use crate::{controllers, scheduler};

/// The user whose caches controllers and scheduler share.
const CACHES: &str = "system:kube-controller-manager";

/// How long others wait for a leader that does not renew its lease.
const LEASE_DURATION: Duration = Duration::from_secs(8);
/// When a leader that cannot renew its lease stops.
const RENEW_DEADLINE: Duration = Duration::from_secs(5);
/// How often the lease is looked at.
const RETRY_PERIOD: Duration = Duration::from_secs(2);

/// One such process, whether it runs or not.
pub struct Manager {
    /// Counts them.
    pub number: u64,
    /// Its clocks.
    pub clock: Rc<Clock>,
    lease: ObjectKey,
    cluster: Rc<Cluster>,
    process: Cell<Option<Scope>>,
    working: Cell<Option<Scope>>,
    boots: Cell<u64>,
    parts: RefCell<Option<Parts>>,
}

/// What runs while it leads.
struct Parts {
    controllers: Rc<controllers::Host>,
    scheduler: Rc<scheduler::Host>,
}

// === impl Manager ===

impl Manager {
    /// A process beside a server, not started yet.
    pub fn new(cluster: &Rc<Cluster>, number: u64) -> Rc<Self> {
        Rc::new(Self {
            number,
            clock: Rc::new(Clock::new(&cluster.sim)),
            lease: ObjectKey::new("kube-system", "orlop-control-plane"),
            cluster: cluster.clone(),
            process: Cell::new(None),
            working: Cell::new(None),
            boots: Cell::new(0),
            parts: RefCell::default(),
        })
    }

    /// Starts the process.
    pub fn start(self: &Rc<Self>) {
        if self.process.get().is_some() {
            return;
        }
        let sim = &self.cluster.sim;
        let scope = sim.scope();
        self.process.set(Some(scope));
        self.boots.set(self.boots.get() + 1);
        sim.note(format_args!("manager {} runs", self.number));
        sim.spawn(scope, stand(self.clone()));
    }

    /// Ends the process.
    pub fn kill(&self) {
        self.rest();
        if let Some(scope) = self.process.take() {
            self.cluster.sim.note(format_args!("manager {} ends", self.number));
            self.cluster.sim.kill(scope);
        }
    }

    /// Stops the process as SIGSTOP does.
    pub fn pause(&self) {
        [self.process.get(), self.working.get()]
            .into_iter()
            .flatten()
            .for_each(|scope| self.cluster.sim.pause(scope));
    }

    /// Lets it go on. Its threads wake in any order: what leads may work before it notices that its term is over.
    pub fn resume(&self) {
        let sim = self.cluster.sim.clone();
        if let Some(working) = self.working.get() {
            sim.resume(working);
        }
        if let Some(process) = self.process.get() {
            sim.clone().after(sim.between(0, SECOND / 2), move || sim.resume(process));
        }
    }

    /// Who this run of the process is in elections.
    fn identity(&self) -> String {
        format!("manager-{}-{}", self.number, self.boots.get())
    }

    /// Whether controllers and scheduler run here.
    pub fn works(&self) -> bool {
        self.working.get().is_some()
    }

    /// Compares its caches with the one order.
    pub fn check(&self) {
        if let Some(parts) = &*self.parts.borrow() {
            parts.controllers.check();
            parts.scheduler.check();
        }
    }

    fn work(self: &Rc<Self>, held: &Held) {
        let sim = &self.cluster.sim;
        let scope = sim.scope();
        self.working.set(Some(scope));
        sim.note(format_args!("manager {} leads: {}", self.number, held.fence()));
        let place = Place::Server(self.number);
        let caches = Caller::new(&self.cluster, place, User::authenticated(CACHES, &[]));
        let caches = caches.in_process().fenced(held);
        *self.parts.borrow_mut() = Some(Parts {
            controllers: controllers::start(&caches, &self.clock, scope),
            scheduler: scheduler::start(&caches, &self.clock, scope),
        });
    }

    fn rest(&self) {
        if let Some(scope) = self.working.take() {
            self.cluster.sim.note(format_args!("manager {} leads no more", self.number));
            self.cluster.sim.kill(scope);
            *self.parts.borrow_mut() = None;
        }
    }
}

async fn stand(manager: Rc<Manager>) {
    let sim = manager.cluster.sim.clone();
    let (lease, identity) = (manager.lease.clone(), manager.identity());
    let caller =
        Caller::new(&manager.cluster, Place::Server(manager.number), User::authenticated(CACHES, &[]))
            .in_process();
    let mut election = Election::new(Config {
        lease_duration: LEASE_DURATION,
        renew_deadline: RENEW_DEADLINE,
        retry_period: RETRY_PERIOD,
        ..Config::new(lease.clone(), identity)
    });
    loop {
        let event = match election.poll_action(manager.clock.now()) {
            Some(action) => {
                let request = std::pin::pin!(perform(&caller, &lease, action));
                // A leader whose request hangs must still notice that its time is over.
                match select(request, until(&sim, &manager.clock, &election)).await {
                    Either::Left((event, _)) => event,
                    Either::Right((_, request)) => {
                        tell(&manager, &mut election, Event::Timeout);
                        request.await
                    }
                }
            }
            None => {
                until(&sim, &manager.clock, &election).await;
                Event::Timeout
            }
        };
        tell(&manager, &mut election, event);
    }
}

fn until(sim: &Sim, clock: &Clock, election: &Election) -> crate::kernel::Sleep {
    let wait = election
        .poll_timeout()
        .map_or(3600 * SECOND, |at| at.saturating_sub(clock.now().moment).as_micros() as Time);
    sim.sleep(wait.max(MS))
}

fn tell(manager: &Rc<Manager>, election: &mut Election, event: Event) {
    let now = manager.clock.now();
    manager.cluster.sim.rng(|rng| election.handle(event, now, rng));
    let held = match election.role() {
        Role::Leader { transitions } => Some(Held {
            lease: manager.lease.clone(),
            identity: manager.identity(),
            transitions: *transitions,
        }),
        Role::Follower { .. } => None,
    };
    match (&held, manager.works()) {
        (Some(held), false) => manager.work(held),
        (None, true) => manager.rest(),
        _ => {}
    }
}

async fn perform(caller: &Caller, key: &ObjectKey, action: Action) -> Event {
    let resource = ResourceType::of::<Lease>();
    let path = resource.object_path(key.namespace_opt(), &key.name, None);
    let written = match action {
        Action::Read => {
            return match caller.get(&path).await {
                Ok(lease) => {
                    serde_json::from_value(lease).map_or(Event::Failed, |lease| Event::Read(Some(lease)))
                }
                Err(failure) if failure.is_not_found() => Event::Read(None),
                Err(_) => Event::Failed,
            };
        }
        Action::Create(lease) => {
            write(caller, Method::POST, &resource.collection_path(key.namespace_opt()), &*lease).await
        }
        Action::Update(lease) => write(caller, Method::PUT, &path, &*lease).await,
    };
    written.ok().and_then(|lease| serde_json::from_value(lease).ok()).map_or(Event::Failed, Event::Written)
}

async fn write(
    caller: &Caller,
    method: Method,
    path: &str,
    object: &impl Serialize,
) -> Result<serde_json::Value, Error> {
    let document = serde_json::to_value(object).unwrap_or_default();
    caller.document(method, path, &document).await
}
