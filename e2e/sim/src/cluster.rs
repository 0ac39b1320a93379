//! The cluster: its servers, the network between all machines, and what checks them.

mod membership;

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;

use apiserver_core::Config;
use futures::channel::oneshot;
use futures::future::{Either, select};
use store_core::node::Settings;

use crate::checkers::Checks;
use crate::kernel::{MS, SECOND, Scope, Sim, Time};
use crate::network::{Network, Place};
use crate::server::Server;
use membership::Group;

/// What a server's part of a request is.
pub type Work<T> = Pin<Box<dyn Future<Output = T>>>;

/// What is called when a server's process has started.
type OnStart = Box<dyn Fn(&Rc<Server>, Scope)>;

/// The cluster.
pub struct Cluster {
    /// The kernel.
    pub sim: Sim,
    /// The network.
    pub network: Network,
    /// The checkers.
    pub checks: Checks,
    /// The settings of its API servers; `None` when they make no sense.
    pub config: Option<Config>,
    /// What all members are told once, but for their ids.
    pub settings: Settings,
    servers: RefCell<Vec<Rc<Server>>>,
    group: RefCell<Group>,
    on_start: RefCell<Vec<OnStart>>,
}

// === impl Cluster ===

impl Cluster {
    /// A cluster without servers.
    pub fn new(sim: &Sim) -> Rc<Self> {
        Rc::new(Self {
            sim: sim.clone(),
            network: Network::new(sim),
            checks: Checks::new(sim),
            config: crate::serve::config(),
            settings: membership::settings(sim),
            servers: RefCell::default(),
            group: RefCell::default(),
            on_start: RefCell::default(),
        })
    }

    /// All servers that the group has or is about to have.
    pub fn servers(&self) -> Vec<Rc<Server>> {
        self.servers.borrow().clone()
    }

    /// Any of them.
    pub fn any(&self) -> Option<Rc<Server>> {
        let servers = self.servers.borrow();
        servers.get(self.sim.index(servers.len())).cloned()
    }

    /// The server with this member id.
    pub fn server(&self, member: u64) -> Option<Rc<Server>> {
        self.servers.borrow().iter().find(|server| server.member == member).cloned()
    }

    /// Has `run` called whenever a server's process starts.
    pub fn on_start(&self, run: impl Fn(&Rc<Server>, Scope) + 'static) {
        self.on_start.borrow_mut().push(Box::new(run));
    }

    /// A server's process has started.
    pub fn started(&self, server: &Rc<Server>, scope: Scope) {
        self.on_start.borrow().iter().for_each(|run| run(server, scope));
    }

    /// Cuts a server off from all others, until all cuts are mended within a time.
    pub fn cut_off(self: &Rc<Self>, server: &Server, within: Time) {
        for other in self.servers() {
            self.network.cut(server.place(), other.place());
            self.network.cut(other.place(), server.place());
        }
        self.mend_later(within);
    }

    /// Mends all cuts within a time.
    pub fn mend_later(self: &Rc<Self>, within: Time) {
        let cluster = self.clone();
        self.sim.after(self.sim.between(SECOND / 2, within), move || cluster.network.mend());
    }

    /// A server has ended by itself: its disk failed. What was not synced is lost, and it is started again.
    pub fn stopped(&self, server: &Rc<Server>) {
        server.cut_power();
        let server = server.clone();
        let longest = if self.sim.chance(0.5) { SECOND } else { 10 * SECOND };
        self.sim.after(self.sim.between(SECOND / 100, longest), move || server.start());
    }

    /// Asks a server, over the network. `None`: there is no answer, and nothing is known of what was done.
    pub fn ask<T: 'static, S: FnOnce(Rc<Server>) -> Work<T> + 'static>(
        self: &Rc<Self>,
        from: Place,
        member: u64,
        timeout: Time,
        serve: S,
    ) -> impl Future<Output = Option<T>> + use<T, S> {
        let (answer, answered) = oneshot::channel::<T>();
        let sim = self.sim.clone();
        let give_up = sim.now() + timeout;
        if let Some(server) = self.server(member) {
            let place = server.place();
            match self.network.delay_in_order(from, place) {
                Some(delay) => {
                    let cluster = self.clone();
                    sim.after(delay, move || cluster.serve(from, &server, give_up, serve, answer));
                }
                // The answer lives until the client gives up.
                None => sim.at(give_up, move || drop(answer)),
            }
        }
        async move {
            let sleep = sim.sleep(timeout);
            match select(answered, sleep).await {
                Either::Left((answered, _)) => answered.ok(),
                Either::Right(_) => None,
            }
        }
    }

    fn serve<T: 'static>(
        self: &Rc<Self>,
        from: Place,
        server: &Rc<Server>,
        give_up: Time,
        serve: impl FnOnce(Rc<Server>) -> Work<T>,
        answer: oneshot::Sender<T>,
    ) {
        let place = server.place();
        let Some(scope) = server.scope() else {
            // The connection is refused; the client hears of it.
            self.sim.after(MS, move || drop(answer));
            return;
        };
        let work = serve(server.clone());
        let cluster = self.clone();
        self.sim.spawn(scope, async move {
            let found = work.await;
            match cluster.network.delay_in_order(place, from) {
                Some(delay) => cluster.sim.after(delay, move || {
                    // Who asked may have given up.
                    let _ = answer.send(found);
                }),
                None => cluster.sim.at(give_up, move || drop(answer)),
            }
        });
    }
}
