//! The agent processes of a cluster on this machine: started, started anew when they end, told to stop.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};
use apiserver::pki::{Authority, Issued};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use nodeagent::network::fabric::{self, FabricNode};
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, ChildStdin, Command};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::agent::{AgentFile, Role};
use crate::layout::{self, Layout};
use crate::networks::Networks;

use super::plane::Plane;

/// An agent that ends by itself is started anew after this long.
const RESTART_PAUSE: Duration = Duration::from_secs(1);
/// An agent that was told to stop may take this long.
const STOP_PATIENCE: Duration = Duration::from_secs(20);
/// The user of the process that plays all hollow nodes.
const HOLLOW_USER: &str = "system:hollow-nodes";

/// The agents.
pub struct Nodes {
    names: Vec<String>,
    agents: Vec<Agent>,
    supervisors: JoinSet<()>,
    stopping: CancellationToken,
}

/// The agent of a node with containers.
struct Agent {
    node: FabricNode,
    state_dir: PathBuf,
    /// Its process; 0 while there is none.
    pid: Arc<AtomicU32>,
}

impl Agent {
    fn signal(&self, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.pid.load(Ordering::Acquire)).unwrap_or(0);
        if pid == 0 {
            bail!("the agent of {} does not run", self.node.name);
        }
        kill(Pid::from_raw(pid), signal)
            .with_context(|| format!("sending {signal} to the agent of {}", self.node.name))
    }
}

impl Nodes {
    /// One agent for each node of the fabric. `cluster` names what it makes on this machine.
    pub fn embedded(
        layout: &Layout,
        plane: &Plane,
        cluster: &str,
        places: &[FabricNode],
        networks: &Networks,
    ) -> Result<Nodes> {
        let mut nodes = Nodes::none();
        for node in places {
            let state_dir = layout.node(&node.name);
            let role = Role::Embedded {
                name: node.name.clone(),
                address: node.ip,
                netns: Some(node.netns.clone()),
                cgroup_root: format!("/orlop/{cluster}/{}", node.name),
                state_dir: state_dir.clone(),
                images: layout.images(),
            };
            let user = Identity { user: format!("system:node:{}", node.name), group: Some("system:nodes") };
            let pid = nodes.start(&state_dir, plane, user, networks, role)?;
            nodes.names.push(node.name.clone());
            nodes.agents.push(Agent { node: node.clone(), state_dir, pid });
        }
        Ok(nodes)
    }

    /// One process for all nodes, without containers.
    pub fn hollow(layout: &Layout, plane: &Plane, names: Vec<String>, networks: &Networks) -> Result<Nodes> {
        let mut nodes = Nodes::none();
        if !names.is_empty() {
            let user = Identity { user: HOLLOW_USER.to_owned(), group: None };
            let role = Role::Hollow { names: names.clone() };
            nodes.start(&layout.node("hollow"), plane, user, networks, role)?;
        }
        nodes.names = names;
        Ok(nodes)
    }

    /// Their names.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Cuts a node off: its agent falls silent, its link goes down.
    ///
    /// # Errors
    /// When there is no such node with containers.
    pub async fn cut_off(&self, name: &str) -> Result<()> {
        let agent = self.agent(name)?;
        agent.signal(Signal::SIGSTOP)?;
        Ok(fabric::set_link(&agent.node, false).await?)
    }

    /// Undoes [`Nodes::cut_off`].
    ///
    /// # Errors
    /// When there is no such node with containers.
    pub async fn reconnect(&self, name: &str) -> Result<()> {
        let agent = self.agent(name)?;
        fabric::set_link(&agent.node, true).await?;
        agent.signal(Signal::SIGCONT)
    }

    fn agent(&self, name: &str) -> Result<&Agent> {
        self.agents
            .iter()
            .find(|agent| agent.node.name == name)
            .with_context(|| format!("no node {name} with containers"))
    }

    /// Stops the agents with all their containers, and removes what they could not.
    pub async fn stop(mut self) {
        self.stopping.cancel();
        while self.supervisors.join_next().await.is_some() {}
        let agents = std::mem::take(&mut self.agents);
        let purged = tokio::task::spawn_blocking(move || {
            for Agent { state_dir, .. } in agents {
                if let Err(error) = nodeagent::embedded::purge(&state_dir) {
                    eprintln!("orlop: {} is not clean: {error}", state_dir.display());
                }
            }
        });
        if purged.await.is_err() {
            eprintln!("orlop: cleaning up after the nodes failed");
        }
    }

    fn none() -> Nodes {
        Nodes {
            names: Vec::new(),
            supervisors: JoinSet::new(),
            stopping: CancellationToken::new(),
            agents: Vec::new(),
        }
    }

    fn start(
        &mut self,
        dir: &Path,
        plane: &Plane,
        user: Identity,
        networks: &Networks,
        role: Role,
    ) -> Result<Arc<AtomicU32>> {
        std::fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
        let file = AgentFile {
            servers: plane.addresses(),
            authority: dir.join("ca.crt"),
            certificate: dir.join("agent.crt"),
            key: dir.join("agent.key"),
            networks: networks.clone(),
            role,
        };
        // The process that plays all hollow nodes works as hard as a server.
        let heap = matches!(file.role, Role::Embedded { .. }).then_some(nodeagent::SMALL_HEAP);
        std::fs::write(&file.authority, plane.authority().ca_pem())?;
        let issued = user.issue(plane.authority(), &file)?;
        let path = dir.join(layout::AGENT_FILE);
        file.write(&path)?;
        self.supervisors.spawn(renew(plane.authority().clone(), user, file, issued, self.stopping.clone()));
        let pid = Arc::new(AtomicU32::new(0));
        self.supervisors.spawn(supervise(path, heap, pid.clone(), self.stopping.clone()));
        Ok(pid)
    }
}

struct Identity {
    user: String,
    group: Option<&'static str>,
}

impl Identity {
    /// Issues a certificate and puts it where the agent looks for it: the key first, so that a reader of a new certificate
    /// finds its key.
    fn issue(&self, authority: &Authority, file: &AgentFile) -> Result<Issued> {
        let issued = authority.issue_client(&self.user, self.group, apiserver::pki::COMPONENT_LIFETIME)?;
        write_private(&file.key, issued.key_pem.as_bytes())?;
        write_private(&file.certificate, issued.cert_pem.as_bytes())?;
        Ok(issued)
    }
}

fn write_private(path: &Path, bytes: &[u8]) -> Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let new = path.with_extension("new");
    let write = || {
        let mut file =
            std::fs::OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&new)?;
        file.write_all(bytes)?;
        std::fs::rename(&new, path)
    };
    write().with_context(|| format!("writing {}", path.display()))
}

/// Renews the agent's certificate at two thirds of its life, and whenever the cluster's authorities change.
async fn renew(
    authority: Arc<Authority>,
    user: Identity,
    file: AgentFile,
    mut issued: Issued,
    stopping: CancellationToken,
) {
    let mut changes = authority.changes();
    loop {
        let wait = issued.renew_at().duration_since(SystemTime::now()).unwrap_or_default();
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            // The authority lives as long as this task has it.
            _ = changes.changed() => {}
            () = stopping.cancelled() => return,
        }
        let issuing = std::fs::write(&file.authority, authority.ca_pem())
            .map_err(anyhow::Error::from)
            .and_then(|()| user.issue(&authority, &file));
        match issuing {
            Ok(renewed) => issued = renewed,
            Err(error) => {
                warn!(user = user.user, "its certificate was not renewed: {error:#}");
                tokio::time::sleep(RESTART_PAUSE).await;
            }
        }
    }
}

/// Keeps an agent process running until `stopping`. `heap`: what its allocator is told by the environment, unless it is told
/// something already.
async fn supervise(
    file: PathBuf,
    heap: Option<(&'static str, &'static str)>,
    pid: Arc<AtomicU32>,
    stopping: CancellationToken,
) {
    while !stopping.is_cancelled() {
        match spawn(&file, heap) {
            Ok(mut agent) => {
                pid.store(agent.id().unwrap_or(0), Ordering::Release);
                // Waiting would close it, and its end means something to the agent.
                let input = agent.stdin.take();
                tokio::select! {
                    status = agent.wait() => warn!(?status, file = %file.display(), "an agent ended; it is started anew"),
                    () = stopping.cancelled() => return stop(agent, input).await,
                }
                pid.store(0, Ordering::Release);
            }
            Err(error) => warn!(file = %file.display(), "an agent cannot be started: {error:#}"),
        }
        tokio::select! {
            () = tokio::time::sleep(RESTART_PAUSE) => {}
            () = stopping.cancelled() => {}
        }
    }
}

fn spawn(file: &Path, heap: Option<(&str, &str)>) -> Result<Child> {
    let agent = Command::new("/proc/self/exe")
        .args(["agent", "--file"])
        .arg(file)
        .envs(heap.filter(|(variable, _)| std::env::var_os(variable).is_none()))
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        // A signal from the terminal is meant for the whole cluster: this process decides what agents do.
        .process_group(0)
        .spawn()
        .context("starting an agent")?;
    Ok(agent)
}

async fn stop(mut agent: Child, input: Option<ChildStdin>) {
    if let Some(mut input) = input {
        // An agent that has ended already needs no word.
        input.write_all(b"stop\n").await.ok();
    }
    if tokio::time::timeout(STOP_PATIENCE, agent.wait()).await.is_err() {
        warn!("an agent does not stop; it is killed");
        agent.kill().await.ok();
    }
}
