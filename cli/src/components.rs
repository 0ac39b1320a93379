//! The parts of a control plane that run on one server at a time: scheduler and controllers, on the one that holds the Lease.

use std::sync::Arc;

use anyhow::Result;
use apiserver::pki::Authority;
use apiserver::{Identity, InProcess, User};
use clap::Args;
use client::core::election::Held;
use client::{Client, Informers};
use controller::{NodeLifecycleOptions, Pool, PoolError, Settings};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::error;

use crate::elected::Candidate;
use crate::networks::Networks;

/// Every node gets a share of this prefix of the pods' range.
const NODE_PREFIX: u8 = 24;
/// The Lease under which servers run them.
const LEASE: &str = "orlop-control-plane";

/// The user of the caches that controllers, and in a server the scheduler too, look at.
pub const MANAGER: &str = "system:kube-controller-manager";
/// The scheduler's user.
pub const SCHEDULER: &str = "system:kube-scheduler";

/// What a server does not run, because it runs in processes of its own.
#[derive(Args, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Disabled {
    /// Run no scheduler: `orlop scheduler` does
    #[arg(long)]
    pub disable_scheduler: bool,
    /// Run no controllers: `orlop controller` does
    #[arg(long)]
    pub disable_controller: bool,
}

/// What the components are started with.
#[derive(Clone)]
pub struct Components {
    /// The API of this server.
    pub service: InProcess,
    /// The cluster's authority.
    pub authority: Arc<Authority>,
    /// Ranges and names.
    pub networks: Networks,
    /// How patient the cluster is with silent nodes.
    pub node_lifecycle: NodeLifecycleOptions,
    /// The server's name: unique in the cluster, and the same when it starts anew.
    pub server: String,
    /// What runs elsewhere.
    pub disabled: Disabled,
}

// === impl Components ===

impl Components {
    /// Stands for election, and runs the components whenever this server is elected. Returns when told to stop, or as soon
    /// as a component has ended by itself.
    pub async fn run(self, stopping: CancellationToken) {
        if self.disabled.disable_scheduler && self.disabled.disable_controller {
            return stopping.cancelled().await;
        }
        let candidate = Candidate {
            client: self.client(User::authenticated(MANAGER, &[])),
            lease: LEASE,
            identity: self.server.clone(),
            // The authorities are published by what is started with them.
            outdated: Some(self.authority.changes()),
        };
        if let Err(error) = candidate.run(stopping, |held, over| self.start(held, over)).await {
            error!("scheduler and controllers do not start: {error:#}");
        }
    }

    fn start(&self, held: &Held, over: &CancellationToken) -> Result<JoinSet<()>> {
        let mut running = JoinSet::new();
        let caches = caches(self.client(User::authenticated(MANAGER, &[])));
        if !self.disabled.disable_scheduler {
            let client = self.client(User::authenticated(SCHEDULER, &[])).fenced(held);
            spawn_scheduler(&mut running, &client, caches.clone(), over);
        }
        if !self.disabled.disable_controller {
            let settings = Settings {
                pod_network: Some(pool(&self.networks)?),
                root_ca: self.authority.ca_pem(),
                node_lifecycle: self.node_lifecycle.clone(),
                ..Settings::default()
            };
            let (this, held) = (self.clone(), held.clone());
            let identities =
                move |name: &str| this.client(User::service_account("kube-system", name)).fenced(&held);
            spawn_controllers(&mut running, settings, identities, caches, over);
        }
        Ok(running)
    }

    fn client(&self, user: User) -> Client {
        client_of(self.service.clone(), user)
    }
}

/// A client in this process with the identity of `user`.
pub fn client_of(service: InProcess, user: User) -> Client {
    Client::in_process(service, move |extensions| {
        extensions.insert(Identity(user.clone()));
    })
}

/// The caches that scheduler and controllers look at.
pub fn caches(client: Client) -> Informers {
    Informers::new(client).trimmed(&client::core::lean::POD)
}

/// The shares of the pods' range that nodes get.
///
/// # Errors
/// When the range is none, or too small.
pub fn pool(networks: &Networks) -> Result<Pool, PoolError> {
    Pool::new(&networks.pods, NODE_PREFIX)
}

/// Runs the scheduler, which tells its end, until `over`.
pub fn spawn_scheduler(
    running: &mut JoinSet<()>,
    client: &Client,
    caches: Informers,
    over: &CancellationToken,
) {
    let client = client.with_user_agent("kube-scheduler");
    let scheduler = scheduler::run(scheduler::Config::default(), client, caches, over.clone());
    running.spawn(async move {
        if let Err(error) = scheduler.await {
            error!(error = &error as &dyn std::error::Error, "the scheduler ended");
        }
    });
}

/// Runs the controllers, which tell their end, until `over`; `identities` has the client of each ServiceAccount.
pub fn spawn_controllers(
    running: &mut JoinSet<()>,
    settings: Settings,
    identities: impl Fn(&str) -> Client + Send + 'static,
    caches: Informers,
    over: &CancellationToken,
) {
    let config = controller::Config { settings, ..controller::Config::default() };
    let controllers = controller::run(config, identities, caches, over.clone());
    running.spawn(async move {
        if let Err(error) = controllers.await {
            error!(error = &error as &dyn std::error::Error, "the controllers ended");
        }
    });
}
