//! `orlop proxy`: service addresses and DNS of a host whose agent was started with --disable-proxy.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;
use client::Informers;
use tokio_util::sync::CancellationToken;

use super::{connect, stop_on_signal};
use crate::networks::Networks;
use crate::server;

/// Runs the service proxy and DNS of this host.
#[derive(Args, Clone, Debug)]
pub struct Proxy {
    /// How the proxy reaches the cluster, as `orlop kubeconfig --client-name system:kube-proxy` prints it
    #[arg(long, env = "KUBECONFIG")]
    kubeconfig: PathBuf,
    /// The name of this host's Node; the host's name unless given
    #[arg(long)]
    name: Option<String>,
    /// The node's address, from which its connections to services come
    #[arg(long)]
    address: Option<Ipv4Addr>,
    /// Addresses of pods, as the cluster was founded with
    #[arg(long, value_name = "CIDR")]
    pod_network: Option<String>,
    /// Addresses of services, as the cluster was founded with
    #[arg(long, value_name = "CIDR")]
    service_network: Option<String>,
}

/// Runs `orlop proxy`.
pub async fn run(arguments: Proxy) -> Result<()> {
    let mut networks = Networks::default();
    if let Some(pods) = &arguments.pod_network {
        networks.pods.clone_from(pods);
    }
    if let Some(services) = &arguments.service_network {
        networks.set_services(services).context("--service-network")?;
    }
    networks.check()?;
    let name = match &arguments.name {
        Some(name) => name.clone(),
        None => server::hostname()?,
    };
    let client = connect(&arguments.kubeconfig).await?.with_user_agent("kube-proxy");
    let stopping = CancellationToken::new();
    stop_on_signal(stopping.clone())?;
    let config = config(name, &networks, arguments.address, None)?;
    Ok(proxy::run(config, client.clone(), Informers::new(client), stopping).await?)
}

/// What the proxy of a node is told.
///
/// # Errors
/// When a range is none.
pub fn config(
    node_name: String,
    networks: &Networks,
    node_address: Option<Ipv4Addr>,
    netns: Option<PathBuf>,
) -> Result<proxy::Config> {
    Ok(proxy::Config {
        node_name,
        netns,
        node_address,
        pods: networks.pods.parse().map_err(anyhow::Error::msg)?,
        services: networks.services.parse().map_err(anyhow::Error::msg)?,
        dns: networks.dns,
        domain: networks.domain.clone(),
        upstream: proxy::dns::upstream(&std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default()),
    })
}
