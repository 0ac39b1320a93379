//! The kernel's side of the service rules: what it was told, and a socket to tell it more.

use std::path::Path;
use std::sync::Arc;

use proxy_core::services::ServiceRules;
use proxy_core::table::{Change, StaleFlow, Table};

use crate::netlink::Socket;
use crate::rules::Networks;
use crate::{Error, conntrack, netlink, netns, rules};

/// Service rules in the kernel.
pub struct DataPlane {
    socket: Arc<Socket>,
    networks: Networks,
    table: Table,
    /// The kernel holds what `table` says.
    whole: bool,
    /// Flows of a transaction that was refused: to be forgotten with the next.
    stale: Vec<StaleFlow>,
}

/// Removes what any data plane has made in the network namespace at `netns`.
pub(crate) fn remove(netns: Option<&Path>) -> Result<(), Error> {
    rules::remove(&open_socket(netns)?).map_err(Error::Install)
}

fn open_socket(netns: Option<&Path>) -> Result<Socket, Error> {
    let opened = netns::within(netns, || Socket::open().map_err(std::io::Error::other));
    opened.map_err(|source| Error::Open { what: "netfilter netlink", source })
}

// === impl DataPlane ===

impl DataPlane {
    /// Opens the socket in the network namespace at `netns`.
    pub fn open(netns: Option<&Path>, networks: Networks) -> Result<DataPlane, Error> {
        Ok(DataPlane {
            socket: Arc::new(open_socket(netns)?),
            networks,
            table: Table::default(),
            whole: true,
            stale: Vec::new(),
        })
    }

    /// The kernel holds what it was told.
    pub fn is_whole(&self) -> bool {
        self.whole
    }

    /// Makes the table with its fixed chains.
    pub async fn install(&self) -> Result<(), netlink::Error> {
        let networks = self.networks;
        self.blocking(move |socket| rules::install(socket, &networks)).await
    }

    /// Sets the rules of services, each by its key, in one transaction. After a failure the kernel is told everything anew.
    pub async fn apply(&mut self, services: Vec<(String, ServiceRules)>) -> Result<(), netlink::Error> {
        let mut changes = Vec::new();
        for (key, rules) in services {
            let transaction = self.table.set(&key, rules);
            changes.extend(transaction.changes);
            self.stale.extend(transaction.stale);
        }
        if !self.whole {
            self.install().await?;
            changes = self.table.rebuild().changes;
        }
        self.whole = false;
        self.send(changes, self.stale.clone()).await?;
        self.stale.clear();
        self.whole = true;
        Ok(())
    }

    /// Removes the table.
    pub async fn remove(&self) -> Result<(), netlink::Error> {
        self.blocking(rules::remove).await
    }

    async fn send(&self, changes: Vec<Change>, stale: Vec<StaleFlow>) -> Result<(), netlink::Error> {
        if changes.is_empty() && stale.is_empty() {
            return Ok(());
        }
        self.blocking(move |socket| {
            rules::apply(socket, &changes)?;
            conntrack::flush(socket, &stale)
        })
        .await
    }

    async fn blocking(
        &self,
        work: impl FnOnce(&Socket) -> Result<(), netlink::Error> + Send + 'static,
    ) -> Result<(), netlink::Error> {
        let socket = self.socket.clone();
        let done = tokio::task::spawn_blocking(move || work(&socket)).await;
        // The work does not panic; a runtime that is shutting down drops it.
        done.unwrap_or(Err(netlink::Error::Socket(nix::errno::Errno::ECANCELED)))
    }
}
