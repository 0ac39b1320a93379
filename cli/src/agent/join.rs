//! An agent on a host of its own: it joins a cluster once, and renews its certificate by itself from then on.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};
use apiserver::join::{AUTHORITY, CERTIFICATE, JOIN_NODE, NodeAnswer, NodeRequest};
use apiserver::pki::write_private;
use clap::Args;
use client::Client;
use http::Method;
use rcgen::{CertificateParams, KeyPair};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::{AgentFile, Role};
use crate::join::{Invitation, JoinToken, ask};
use crate::layout::{self, Layout};
use crate::{doctor, server};

/// A renewal that failed is tried again after this long.
const RETRY: Duration = Duration::from_secs(60);
/// The cluster is asked this often which authorities it has: one that takes another's place waits for all agents.
const LOOK: Duration = Duration::from_secs(10);

/// A host that is a node.
#[derive(Args, Clone, Debug)]
pub struct Host {
    /// HOST:PORT of any server of the cluster; needed the first time only
    #[arg(long, value_name = "HOST:PORT", requires = "token")]
    join: Option<String>,
    /// What `orlop token create` printed
    #[arg(long, env = "ORLOP_TOKEN", hide_env_values = true)]
    token: Option<JoinToken>,
    /// Where the node keeps its data
    #[arg(long, env = layout::DATA_DIR_VARIABLE, default_value = layout::DATA_DIR)]
    data_dir: PathBuf,
    /// The name of the Node; the host's name unless given
    #[arg(long)]
    name: Option<String>,
    /// The address at which other nodes reach this one; found out unless given
    #[arg(long)]
    address: Option<Ipv4Addr>,
    /// Run no service proxy and DNS: `orlop proxy` does
    #[arg(long)]
    pub disable_proxy: bool,
}

/// Joins the cluster, unless this host has already. Returns where the agent's file is.
pub async fn prepare(host: &Host) -> Result<PathBuf> {
    doctor::first_problem()?;
    let layout = Layout::new(&host.data_dir);
    if let Some(known) = known(&layout)? {
        return Ok(known);
    }
    let (Some(server), Some(token)) = (&host.join, &host.token) else {
        bail!(
            "{} does not say which cluster this host belongs to; join one with --join HOST:PORT --token TOKEN (`orlop token create` prints both)",
            layout.root().display()
        );
    };
    let name = match &host.name {
        Some(name) => name.clone(),
        None => server::hostname()?,
    };
    let address = match host.address {
        Some(address) => address,
        None => match server::own_address_towards(server).await {
            Ok(IpAddr::V4(address)) => address,
            _ => bail!("this host's IPv4 address towards {server} was not found; name it with --address"),
        },
    };
    let invitation = Invitation::accept(server, token).await?;
    let (key, request) = signing_request(&name)?;
    let answer: NodeAnswer = invitation
        .ask(JOIN_NODE, &request)
        .await
        .with_context(|| format!("joining the cluster of {server} as node {name:?}"))?;
    let dir = layout.node(&name);
    std::fs::create_dir_all(&dir).with_context(|| format!("making {}", dir.display()))?;
    let mut servers = answer.servers;
    if servers.is_empty() {
        servers.push(server.clone());
    }
    let file = AgentFile {
        servers,
        authority: dir.join("ca.crt"),
        certificate: dir.join("agent.crt"),
        key: dir.join("agent.key"),
        networks: serde_json::from_value(answer.cluster).context("the cluster's answer cannot be read")?,
        role: Role::Embedded {
            cgroup_root: format!("/orlop/{}/{name}", layout.cluster()),
            name,
            address,
            netns: None,
            state_dir: dir.clone(),
            images: layout.images(),
        },
    };
    write_private(&file.authority, answer.authorities.as_bytes())?;
    write_private(&file.key, key.as_bytes())?;
    write_private(&file.certificate, answer.certificate.as_bytes())?;
    let path = dir.join(layout::AGENT_FILE);
    // Written last: with it the host has joined.
    file.write(&path)?;
    Ok(path)
}

/// The file of the node that this host is already.
fn known(layout: &Layout) -> Result<Option<PathBuf>> {
    let Ok(nodes) = std::fs::read_dir(layout.nodes()) else { return Ok(None) };
    let files: Vec<PathBuf> = nodes
        .flatten()
        .map(|node| node.path().join(layout::AGENT_FILE))
        .filter(|path| path.exists())
        .collect();
    match &files[..] {
        [] => Ok(None),
        [file] => Ok(Some(file.clone())),
        _ => bail!(
            "{} holds several nodes, as those of `orlop up`; choose another directory with --data-dir",
            layout.root().display()
        ),
    }
}

/// A fresh key, and the request to certify it. The key never leaves this host.
fn signing_request(name: &str) -> Result<(String, NodeRequest)> {
    let key = KeyPair::generate().context("making a key")?;
    let request = CertificateParams::default()
        .serialize_request(&key)
        .and_then(|request| request.pem())
        .context("making a signing request")?;
    Ok((key.serialize_pem(), NodeRequest { name: name.to_owned(), signing_request: request }))
}

/// Renews the certificate at two thirds of its life, and whenever the cluster's authorities change.
pub async fn renew(file: AgentFile, client: Client, shutdown: CancellationToken) {
    let Role::Embedded { name, .. } = &file.role else { return };
    let mut due = renewal_time(&file);
    loop {
        let left = due.duration_since(SystemTime::now()).unwrap_or_default();
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(left.min(LOOK)) => {}
        }
        if SystemTime::now() < due && !authorities_changed(&file, &client).await {
            continue;
        }
        due = match renew_once(name, &file, &client).await {
            Ok(()) => renewal_time(&file),
            Err(error) => {
                warn!("the node's certificate was not renewed: {error:#}");
                SystemTime::now() + RETRY
            }
        };
    }
}

/// Whether the cluster has other authorities than the agent knows.
async fn authorities_changed(file: &AgentFile, client: &Client) -> bool {
    let Ok(request) = Client::build(Method::GET, AUTHORITY) else { return false };
    match (client.request_text(request).await, std::fs::read_to_string(&file.authority)) {
        (Ok(now), Ok(known)) => now != known,
        // It is asked again.
        _ => false,
    }
}

async fn renew_once(name: &str, file: &AgentFile, client: &Client) -> Result<()> {
    let (key, request) = signing_request(name)?;
    let answer: NodeAnswer = ask(client, CERTIFICATE, &request).await?;
    // Between the writes a reader finds files that do not fit, and reads again.
    write_private(&file.authority, answer.authorities.as_bytes())?;
    write_private(&file.key, key.as_bytes())?;
    write_private(&file.certificate, answer.certificate.as_bytes())?;
    Ok(())
}

/// At two thirds of the certificate's life; at once when that cannot be told.
fn renewal_time(file: &AgentFile) -> SystemTime {
    let validity =
        std::fs::read_to_string(&file.certificate).ok().and_then(|pem| apiserver::pki::validity(&pem));
    match validity {
        Some((from, until)) => from + until.duration_since(from).unwrap_or_default() * 2 / 3,
        None => SystemTime::now(),
    }
}
