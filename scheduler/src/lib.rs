//! Binds pods to nodes: observes pods, nodes and namespaces, lets `scheduler-core` decide, and carries decisions out.

mod host;

use std::time::Duration;

use client::events::Recorder;
use client::{Client, Informers, Scope};
use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use tokio_util::sync::CancellationToken;

/// How the scheduler runs.
#[derive(Clone, Debug)]
pub struct Config {
    /// Only pods that name this scheduler are bound.
    pub name: String,
    /// How many bindings may be under way at once.
    pub in_flight: usize,
    /// Seed of the choice between equal nodes; `None`: from the system.
    pub seed: Option<u64>,
}

/// Why the scheduler ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The caches ended before the scheduler did.
    #[error("the cache of {0} has ended")]
    CacheEnded(&'static str),
}

// === impl Config ===

impl Default for Config {
    fn default() -> Self {
        Self { name: "default-scheduler".to_owned(), in_flight: 128, seed: None }
    }
}

/// Runs until `shutdown`. Bindings that are under way then are given a moment to end. Where several processes could run it,
/// the caller runs it only while it holds the lease.
///
/// # Errors
/// When the caches end while the scheduler still runs.
pub async fn run(
    config: Config,
    client: Client,
    informers: Informers,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    let pods = informers.get::<Pod>(Scope::all());
    let nodes = informers.get::<Node>(Scope::all());
    let namespaces = informers.get::<Namespace>(Scope::all());
    let recorder = Recorder::new(&client, &config.name, None);
    let synced = async { tokio::join!(pods.synced(), nodes.synced(), namespaces.synced()) };
    tokio::select! {
        _ = synced => {}
        () = shutdown.cancelled() => return Ok(()),
    }
    let sources = host::Sources {
        pod_changes: pods.subscribe(),
        node_changes: nodes.subscribe(),
        namespace_changes: namespaces.subscribe(),
        pods,
    };
    let mut host = host::Host::new(&config, client, recorder.clone());
    host.run(sources, &shutdown).await?;
    // What cannot be written in this time is lost: bindings are safe, only their events are not.
    let _ = tokio::time::timeout(Duration::from_secs(2), async {
        host.drain().await;
        recorder.flush().await;
    })
    .await;
    Ok(())
}

#[cfg(test)]
mod tests;
