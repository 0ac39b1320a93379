//! The parts of a control plane that run on one server at a time: scheduler and controllers, on the one that holds the Lease.
//!
//! Every write of theirs names the term in which the Lease was held, so that a server that was paused while another took
//! over can do no harm when it wakes up.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use apiserver::pki::Authority;
use apiserver::{Identity, InProcess, User};
use client::core::election::{self, Held};
use client::core::object::ObjectKey;
use client::{Client, Informers};
use controller::NodeLifecycleOptions;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use crate::networks::Networks;

/// Every node gets a share of this prefix of the pods' range.
const NODE_PREFIX: u8 = 24;
/// The Lease's name; it is in kube-system.
const LEASE: &str = "orlop-control-plane";
/// So long others wait for a server that has fallen silent.
const LEASE_DURATION: Duration = Duration::from_secs(8);
/// So long a server that cannot renew goes on.
const RENEW_DEADLINE: Duration = Duration::from_secs(5);
/// How often the Lease is renewed, or looked at.
const RETRY_PERIOD: Duration = Duration::from_secs(2);

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
}

// === impl Components ===

impl Components {
    /// Stands for election, and runs the components whenever this server is elected. Returns when told to stop, or as soon
    /// as a component has ended by itself.
    pub async fn run(self, stopping: CancellationToken) {
        let config = election::Config {
            lease_duration: LEASE_DURATION,
            renew_deadline: RENEW_DEADLINE,
            retry_period: RETRY_PERIOD,
            ..election::Config::new(ObjectKey::new("kube-system", LEASE), self.server.clone())
        };
        let lease = config.lease.clone();
        let candidate = self.client(User::authenticated("system:kube-controller-manager", &[]));
        // The Lease is given back only after the components have ended, so that no two run at the same time.
        let ended = CancellationToken::new();
        let _release = ended.clone().drop_guard();
        let mut authorities = self.authority.changes();
        let mut role = client::election::stand(candidate, config, ended.clone());
        loop {
            let transitions = tokio::select! {
                () = stopping.cancelled() => break,
                transitions = elected(&mut role) => transitions,
            };
            let Some(transitions) = transitions else { break };
            let held = Held { lease: lease.clone(), identity: self.server.clone(), transitions };
            let over = CancellationToken::new();
            let mut running = match self.start(&held, &over) {
                Ok(running) => running,
                Err(error) => {
                    error!("scheduler and controllers do not start: {error:#}");
                    return;
                }
            };
            let failed = tokio::select! {
                () = stopping.cancelled() => false,
                // They begin anew, and publish the authorities of now.
                _ = authorities.changed() => false,
                () = deposed(&mut role, transitions) => {
                    warn!("another server runs scheduler and controllers now");
                    false
                }
                _ = running.join_next() => true,
            };
            over.cancel();
            while running.join_next().await.is_some() {}
            if failed {
                return;
            }
            if stopping.is_cancelled() {
                break;
            }
        }
        ended.cancel();
        // The channel closes when the Lease was given back.
        while role.changed().await.is_ok() {}
    }

    fn start(&self, held: &Held, over: &CancellationToken) -> Result<JoinSet<()>> {
        let mut running = JoinSet::new();
        let caches = Informers::new(self.client(User::authenticated("system:kube-controller-manager", &[])))
            .trimmed(&client::core::lean::POD);
        let scheduler = scheduler::run(
            scheduler::Config::default(),
            self.client(User::authenticated("system:kube-scheduler", &[]))
                .with_user_agent("kube-scheduler")
                .fenced(held),
            caches.clone(),
            over.clone(),
        );
        running.spawn(async move {
            if let Err(error) = scheduler.await {
                error!(error = &error as &dyn std::error::Error, "the scheduler ended");
            }
        });
        let settings = controller::Settings {
            pod_network: Some(controller::Pool::new(&self.networks.pods, NODE_PREFIX)?),
            root_ca: self.authority.ca_pem(),
            node_lifecycle: self.node_lifecycle.clone(),
            ..controller::Settings::default()
        };
        let config = controller::Config { settings, ..controller::Config::default() };
        let (this, held) = (self.clone(), held.clone());
        let identities =
            move |name: &str| this.client(User::service_account("kube-system", name)).fenced(&held);
        let controllers = controller::run(config, identities, caches, over.clone());
        running.spawn(async move {
            if let Err(error) = controllers.await {
                error!(error = &error as &dyn std::error::Error, "the controllers ended");
            }
        });
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

/// Waits until this candidate leads; `None` when it has stopped.
async fn elected(role: &mut watch::Receiver<election::Role>) -> Option<i32> {
    let leader = role.wait_for(|role| matches!(role, election::Role::Leader { .. })).await.ok()?;
    match *leader {
        election::Role::Leader { transitions } => Some(transitions),
        election::Role::Follower { .. } => None,
    }
}

/// Waits until this candidate's term is over.
async fn deposed(role: &mut watch::Receiver<election::Role>, term: i32) {
    let same = |role: &election::Role| *role == election::Role::Leader { transitions: term };
    // An error means that the candidate has stopped.
    let _ = role.wait_for(|role| !same(role)).await;
}
