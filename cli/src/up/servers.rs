//! Several servers on this machine: each a process of `orlop server` in a network namespace, started anew when it ends.

use std::ffi::OsString;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use apiserver::pki::{ADMIN_LIFETIME, Authority};
use client::Client;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use nodeagent::network::fabric::FabricNode;
use tokio::process::{Child, Command};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::front;
use crate::control_plane;
use crate::join::SERVER_NAME;
use crate::layout::Layout;
use crate::verbs::token;

/// The port of each server, in its own namespace.
const PORT: u16 = 6443;
/// A server that ends by itself is started anew after this long.
const RESTART_PAUSE: Duration = Duration::from_secs(1);
/// A server that was told to stop may take this long.
const STOP_PATIENCE: Duration = Duration::from_secs(20);
/// The servers may take this long until they answer.
const READY_PATIENCE: Duration = Duration::from_secs(60);
/// How often a server that does not answer yet is asked again.
const PACE: Duration = Duration::from_millis(20);
/// How often the keys are looked at.
const KEYS_PACE: Duration = Duration::from_secs(2);
/// How long the token with which further servers join can be used.
const TOKEN_LIFE: Duration = Duration::from_secs(600);

/// The servers.
pub struct Servers {
    servers: Vec<Arc<Server>>,
    authority: Arc<Authority>,
    supervisors: JoinSet<()>,
    stopping: CancellationToken,
}

/// One server.
struct Server {
    name: String,
    dir: PathBuf,
    netns: PathBuf,
    address: SocketAddr,
    /// Arguments that are the same for all.
    further: Vec<OsString>,
}

// === impl Servers ===

impl Servers {
    /// Starts the servers, those that are new by joining the first. `port` on this machine leads to one that answers. `further` are
    /// arguments for each.
    pub async fn start(
        layout: &Layout,
        places: &[FabricNode],
        port: u16,
        further: &[OsString],
    ) -> Result<Servers> {
        let servers: Vec<Arc<Server>> =
            places.iter().map(|place| Arc::new(Server::at(layout, place, further))).collect();
        let Some(first) = servers.first() else { bail!("a cluster needs a server") };
        let stopping = CancellationToken::new();
        let guard = stopping.clone().drop_guard();
        let mut supervisors = JoinSet::new();
        // Those that were there before may need each other; the others need those.
        let (known, new): (Vec<_>, Vec<_>) =
            servers.iter().cloned().partition(|server| server.is_known() || Arc::ptr_eq(server, first));
        for server in known {
            supervisors.spawn(supervise(server, None, stopping.clone()));
        }
        let pki = Layout::new(&first.dir).pki();
        let authority = Arc::new(first.until_authority(&pki).await?);
        let administrator = administrator(&authority, &[first.address.to_string()])?;
        answers(&administrator).await?;
        for server in new {
            let token = token::mint(&administrator, true, TOKEN_LIFE).await?;
            let join = (first.address.to_string(), token.to_string());
            supervisors.spawn(supervise(server.clone(), Some(join), stopping.clone()));
            answers(&self::administrator(&authority, &[server.address.to_string()])?).await?;
        }
        let url = format!("https://{}", SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port));
        control_plane::write_kubeconfig(layout, &url, &authority)?;
        supervisors.spawn(follow_keys(authority.clone(), layout.clone(), url, stopping.clone()));
        let addresses = servers.iter().map(|server| server.address).collect();
        supervisors.spawn(front::serve(front::listen(port).await?, addresses, stopping.clone()));
        guard.disarm();
        Ok(Servers { servers, authority, supervisors, stopping })
    }

    /// The cluster's authority.
    pub fn authority(&self) -> &Arc<Authority> {
        &self.authority
    }

    /// `HOST:PORT` of each.
    pub fn addresses(&self) -> Vec<String> {
        self.servers.iter().map(|server| server.address.to_string()).collect()
    }

    /// A client with all rights.
    pub fn administrator(&self) -> Result<Client> {
        administrator(&self.authority, &self.addresses())
    }

    /// Stops all.
    pub async fn stop(mut self) {
        self.stopping.cancel();
        while self.supervisors.join_next().await.is_some() {}
    }
}

// === impl Server ===

impl Server {
    fn at(layout: &Layout, place: &FabricNode, further: &[OsString]) -> Server {
        Server {
            name: place.name.clone(),
            dir: layout.server_dir(&place.name),
            netns: place.netns.clone(),
            address: SocketAddr::new(place.ip.into(), PORT),
            further: further.to_vec(),
        }
    }

    /// Whether it has been a server of the cluster before.
    fn is_known(&self) -> bool {
        Layout::new(&self.dir).server().exists()
    }

    /// Waits until the first server has made the cluster's authority.
    async fn until_authority(&self, pki: &std::path::Path) -> Result<Authority> {
        let made = async {
            while !Authority::is_complete(pki) {
                tokio::time::sleep(PACE).await;
            }
        };
        if tokio::time::timeout(READY_PATIENCE, made).await.is_err() {
            bail!("server {} did not start", self.name);
        }
        Ok(Authority::load_or_create(pki)?)
    }

    fn spawn(&self, join: Option<&(String, String)>) -> Result<Child> {
        let mut command = Command::new("/proc/self/exe");
        command
            .args(["server", "--name", &self.name, "--port", &PORT.to_string()])
            .args(["--advertise", &self.address.ip().to_string()])
            .arg("--data-dir")
            .arg(&self.dir)
            .arg("--netns")
            .arg(&self.netns)
            .args(&self.further)
            // Held for as long as this process lives: a server whose input ends stops.
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            // A signal from the terminal is meant for the whole cluster: this process decides what servers do.
            .process_group(0);
        if let Some((server, token)) = join.filter(|_| !self.is_known()) {
            command.args(["--join", server]).env("ORLOP_TOKEN", token);
        }
        command.spawn().with_context(|| format!("starting server {}", self.name))
    }
}

/// Follows the keys in the files of the first server, and keeps the administrator's kubeconfig good, until `stopping`.
async fn follow_keys(authority: Arc<Authority>, layout: Layout, url: String, stopping: CancellationToken) {
    let mut changes = authority.changes();
    loop {
        tokio::select! {
            () = tokio::time::sleep(KEYS_PACE) => {}
            () = stopping.cancelled() => return,
        }
        if let Err(error) = authority.reload() {
            warn!(error = &error as &dyn std::error::Error, "the keys of the cluster cannot be read");
        }
        if changes.has_changed().unwrap_or(false) {
            changes.mark_unchanged();
            if let Err(error) = control_plane::write_kubeconfig(&layout, &url, &authority) {
                warn!("the kubeconfig was not written anew: {error:#}");
            }
        }
    }
}

/// Keeps a server running until `stopping`. `join` says how it becomes one.
async fn supervise(server: Arc<Server>, join: Option<(String, String)>, stopping: CancellationToken) {
    while !stopping.is_cancelled() {
        match server.spawn(join.as_ref()) {
            Ok(mut process) => {
                // Waiting would close it, and its end means something to the server.
                let _input = process.stdin.take();
                tokio::select! {
                    status = process.wait() => warn!(?status, server = server.name, "a server ended; it is started anew"),
                    () = stopping.cancelled() => return stop(process).await,
                }
            }
            Err(error) => warn!("{error:#}"),
        }
        tokio::select! {
            () = tokio::time::sleep(RESTART_PAUSE) => {}
            () = stopping.cancelled() => {}
        }
    }
}

async fn stop(mut process: Child) {
    if let Some(pid) = process.id().and_then(|pid| i32::try_from(pid).ok()) {
        // One that has ended already needs no signal.
        let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
    }
    if tokio::time::timeout(STOP_PATIENCE, process.wait()).await.is_err() {
        warn!("a server does not stop; it is killed");
        process.kill().await.ok();
    }
}

fn administrator(authority: &Authority, servers: &[String]) -> Result<Client> {
    let issued = authority.issue_client("kubernetes-admin", Some("system:masters"), ADMIN_LIFETIME)?;
    let urls: Vec<String> = servers.iter().map(|server| format!("https://{server}")).collect();
    Ok(Client::from_identity(&urls, SERVER_NAME, &authority.ca_pem(), &issued.cert_pem, &issued.key_pem)?)
}

/// Waits until the server answers what needs the state of the cluster.
async fn answers(client: &Client) -> Result<()> {
    let asked = async {
        while client.get_path::<serde_json::Value>("/api/v1/namespaces/default").await.is_err() {
            tokio::time::sleep(PACE).await;
        }
    };
    match tokio::time::timeout(READY_PATIENCE, asked).await {
        Ok(()) => Ok(()),
        Err(_) => bail!(
            "{} does not answer after {} s",
            client.server_url().unwrap_or_default(),
            READY_PATIENCE.as_secs()
        ),
    }
}
