//! The servers of a cluster of `up`: one in this process, or several in processes of their own.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use anyhow::Result;
use apiserver::User;
use apiserver::oidc::Issuer;
use apiserver::pki::Authority;
use client::Client;
use controller::NodeLifecycleOptions;
use nodeagent::network::fabric::Fabric;
use store::Start;

use super::servers::Servers;
use crate::components::Disabled;
use crate::control_plane::{self, ControlPlane};
use crate::layout::Layout;
use crate::networks::Networks;
use crate::server::ServerFile;

/// The servers of a cluster.
pub enum Plane {
    /// One, in this process.
    Here {
        /// The server.
        server: Box<ControlPlane>,
        /// Where agents reach it.
        address: SocketAddr,
    },
    /// Several, each a process in a network namespace.
    Apart(Servers),
}

// === impl Plane ===

impl Plane {
    /// Starts one server in this process.
    pub async fn here(
        layout: &Layout,
        fabric: Option<&Fabric>,
        port: u16,
        networks: &Networks,
        issuers: Vec<Issuer>,
        node_lifecycle: NodeLifecycleOptions,
    ) -> Result<Plane> {
        let local = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port);
        let inside = fabric.map(|fabric| SocketAddr::new(fabric.bridge_ip.into(), port));
        let address = inside.unwrap_or(local);
        let server = ControlPlane::start(control_plane::Options {
            layout: layout.clone(),
            // A directory that was restored from a backup says which member it is.
            member: ServerFile::read(layout)?.map_or(1, |file| file.member),
            start: Start::First { name: "server-1".to_owned(), address: address.to_string() },
            listen: [Some(local), inside].into_iter().flatten().collect(),
            advertise: inside.into_iter().collect(),
            url: local,
            networks: networks.clone(),
            issuers,
            node_lifecycle,
            disabled: Disabled::default(),
        })
        .await?;
        Ok(Plane::Here { server: Box::new(server), address })
    }

    /// The cluster's authority.
    pub fn authority(&self) -> &Arc<Authority> {
        match self {
            Plane::Here { server, .. } => server.authority(),
            Plane::Apart(servers) => servers.authority(),
        }
    }

    /// `HOST:PORT` of each server, as agents reach them.
    pub fn addresses(&self) -> Vec<String> {
        match self {
            Plane::Here { address, .. } => vec![address.to_string()],
            Plane::Apart(servers) => servers.addresses(),
        }
    }

    /// A client with all rights.
    ///
    /// # Errors
    /// When its certificate cannot be issued.
    pub fn administrator(&self) -> Result<Client> {
        match self {
            Plane::Here { server, .. } => {
                Ok(server.client(User::authenticated("kubernetes-admin", &["system:masters".to_owned()])))
            }
            Plane::Apart(servers) => servers.administrator(),
        }
    }

    /// Returns when a part has ended by itself, and nothing starts it anew.
    pub async fn failed(&self) {
        match self {
            Plane::Here { server, .. } => server.failed().await,
            Plane::Apart(_) => std::future::pending().await,
        }
    }

    /// Stops the servers.
    pub async fn stop(self) {
        match self {
            Plane::Here { server, .. } => server.stop().await,
            Plane::Apart(servers) => servers.stop().await,
        }
    }
}
