//! Reconciles workloads: hosts the planners of `controller-core`.
//!
//! The caches feed one [`World`](controller_core::world::World); what a change concerns goes into the work
//! queue of each controller; its workers plan under the world's lock, carry the plan out with the
//! controller's own identity, and give the answers of the API server back to the world.

mod discovery;
mod execute;
mod feed;
mod host;
mod why;

use std::sync::Arc;

use client::{Client, Informers};
pub use controller_core::world::{Controller, Settings};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub use self::why::{Because, Why};
use crate::host::Host;
pub use controller_core::node_ipam::{Pool, PoolError};
pub use controller_core::node_lifecycle::Options as NodeLifecycleOptions;

/// What runs, and how.
#[derive(Clone, Debug)]
pub struct Config {
    /// The controllers that run.
    pub controllers: Vec<Controller>,
    /// Settings of the planners.
    pub settings: Settings,
    /// How many keys of one controller are handled at once.
    pub workers: usize,
    /// How many writes of one plan are under way at once.
    pub writes: usize,
    /// Where the reasons of the last plans are kept.
    pub why: Why,
}

/// Why the controllers ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A part of them panicked.
    #[error("a controller ended unexpectedly")]
    Ended(#[source] tokio::task::JoinError),
}

impl Default for Config {
    fn default() -> Self {
        Config {
            controllers: Controller::ALL.to_vec(),
            settings: Settings::default(),
            workers: 8,
            writes: 32,
            why: Why::default(),
        }
    }
}

/// Runs the controllers until `shutdown`. `clients` gives each the client that carries its own identity: it
/// is called with the name of a ServiceAccount in `kube-system`. Must be called within a runtime.
///
/// Where several processes could run them, the caller runs them only while it holds the lease.
///
/// # Errors
/// When a part of them ended although nobody asked.
pub async fn run(
    config: Config,
    clients: impl Fn(&str) -> Client,
    informers: Informers,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    let stop = shutdown.child_token();
    let _stop_on_return = stop.clone().drop_guard();
    let host = Arc::new(Host::new(&config, clients));
    let mut tasks = JoinSet::new();
    // Kinds and namespaces' contents come first: nothing is judged garbage before all is known.
    let found = tokio::select! {
        () = stop.cancelled() => return Ok(()),
        found = discovery::find(informers.client(), &stop) => found,
    };
    let synced = feed::start(&host, &informers, found, &stop, &mut tasks);
    tokio::select! {
        () = stop.cancelled() => return Ok(()),
        () = synced => {}
    }
    for controller in &config.controllers {
        tasks.spawn(Arc::clone(&host).work(*controller, stop.clone()));
    }
    tasks.spawn(Arc::clone(&host).expire(stop.clone()));
    tracing::info!(controllers = config.controllers.len(), "controllers started");
    while let Some(ended) = tasks.join_next().await {
        if let Err(error) = ended
            && error.is_panic()
        {
            return Err(Error::Ended(error));
        }
    }
    Ok(())
}
