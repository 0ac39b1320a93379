//! `orlop server`: one server of a cluster, the first or one that joins others, on a host of its own.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use apiserver::join::{JOIN_SERVER, ServerAnswer, ServerRequest};
use apiserver::pki::Authority;
use clap::Args;
use controller::NodeLifecycleOptions;
use serde::{Deserialize, Serialize};
use store::Start;
use tokio::io::AsyncReadExt;
use tokio::signal::unix::{SignalKind, signal};

use crate::components::Disabled;
use crate::control_plane::{self, ControlPlane};
use crate::join::{Invitation, JoinToken};
use crate::layout::{self, Layout};
use crate::lock;
use crate::networks::Networks;
use crate::oidc::Oidc;

/// An address of no network (RFC 5737): a datagram socket that is connected to it has the host's own address, and sends
/// nothing.
const ANYWHERE: (Ipv4Addr, u16) = (Ipv4Addr::new(192, 0, 2, 1), 9);

/// Starts a server of a cluster on this host, in the foreground.
#[derive(Args, Clone, Debug)]
pub struct Server {
    /// Where the server keeps its data; the same directory resumes it.
    #[arg(long, env = layout::DATA_DIR_VARIABLE, default_value = layout::DATA_DIR)]
    pub data_dir: PathBuf,
    /// Its name, unique in the cluster; the host's name unless given.
    #[arg(long)]
    pub name: Option<String>,
    /// The address to listen on.
    #[arg(long, default_value_t = IpAddr::V4(Ipv4Addr::UNSPECIFIED))]
    pub listen: IpAddr,
    /// The port to listen on.
    #[arg(long, default_value_t = 6443)]
    pub port: u16,
    /// The address at which other machines reach this server; found out unless given.
    #[arg(long)]
    pub advertise: Option<IpAddr>,
    /// HOST:PORT of any server of the cluster to join; without it this server is the first of a new cluster.
    #[arg(long, value_name = "HOST:PORT", requires = "token")]
    pub join: Option<String>,
    /// What `orlop token create --for-server` printed.
    #[arg(long, env = "ORLOP_TOKEN", hide_env_values = true)]
    pub token: Option<JoinToken>,
    /// Addresses of pods, in a new cluster.
    #[arg(long, value_name = "CIDR")]
    pub pod_network: Option<String>,
    /// Addresses of services, in a new cluster.
    #[arg(long, value_name = "CIDR")]
    pub service_network: Option<String>,
    /// Users of an issuer outside the cluster.
    #[command(flatten)]
    pub oidc: Oidc,
    #[command(flatten)]
    pub disabled: Disabled,
    /// The network namespace to live in; `orlop up` names it.
    #[arg(long, hide = true)]
    pub netns: Option<PathBuf>,
}

// === impl Server ===

impl Server {
    /// Moves the process into its network namespace. Must come before there is a second thread.
    ///
    /// # Errors
    /// When it cannot be entered.
    pub fn enter(&self) -> Result<()> {
        let Some(path) = &self.netns else { return Ok(()) };
        let entered = fs::File::open(path)
            .and_then(|namespace| Ok(nix::sched::setns(namespace, nix::sched::CloneFlags::CLONE_NEWNET)?));
        entered.with_context(|| format!("entering the network namespace {}", path.display()))
    }
}

/// What a server remembers of itself.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServerFile {
    /// Its name.
    pub name: String,
    /// Its id among the members.
    pub member: u64,
    /// Where others reach it.
    pub address: SocketAddr,
    /// Whether the cluster was there before this server.
    pub joined: bool,
    /// Ranges and names.
    pub networks: Networks,
}

// === impl ServerFile ===

impl ServerFile {
    /// What the server of a data directory remembers; `None` when there is none.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn read(layout: &Layout) -> Result<Option<ServerFile>> {
        let path = layout.server();
        match fs::read(&path) {
            Ok(bytes) => Ok(Some(
                serde_json::from_slice(&bytes).with_context(|| format!("reading {}", path.display()))?,
            )),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("reading {}", path.display())),
        }
    }

    /// Remembers it.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, layout: &Layout) -> Result<()> {
        Ok(apiserver::pki::write_private(&layout.server(), &serde_json::to_vec_pretty(self)?)?)
    }
}

/// Runs `orlop server`.
pub async fn run(arguments: Server) -> Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let layout = Layout::new(&arguments.data_dir);
    fs::create_dir_all(layout.root()).with_context(|| format!("making {}", layout.root().display()))?;
    let Some(_lock) = lock::take(&layout.lock())? else {
        bail!(
            "another process uses {}; stop it first, or choose another with --data-dir",
            layout.root().display()
        );
    };
    let file = identify(&arguments, &layout).await?;
    let starting = start(&arguments, layout.clone(), &file);
    let plane = tokio::select! {
        plane = starting => plane?,
        _ = interrupt.recv() => return Ok(()),
        _ = terminate.recv() => return Ok(()),
        () = abandoned(&arguments) => return Ok(()),
    };
    println!(
        "server {} is ready at {}; use it with: export KUBECONFIG={}",
        file.name,
        file.address,
        layout.kubeconfig().display()
    );
    let failed = tokio::select! {
        _ = interrupt.recv() => false,
        _ = terminate.recv() => false,
        () = abandoned(&arguments) => false,
        () = plane.failed() => true,
    };
    eprintln!("orlop: stopping");
    plane.stop().await;
    if failed {
        bail!("a part of the control plane ended by itself");
    }
    Ok(())
}

/// Returns when `orlop up`, which has started this server and holds its standard input, has ended.
async fn abandoned(arguments: &Server) {
    if arguments.netns.is_none() {
        return std::future::pending().await;
    }
    let mut byte = [0];
    // Nothing is ever written there; an error is an end too.
    while matches!(tokio::io::stdin().read(&mut byte).await, Ok(1..)) {}
}

async fn start(arguments: &Server, layout: Layout, file: &ServerFile) -> Result<ControlPlane> {
    let (name, address) = (file.name.clone(), file.address.to_string());
    let listen = SocketAddr::new(arguments.listen, arguments.port);
    let url = if arguments.listen.is_unspecified() {
        SocketAddr::new(Ipv4Addr::LOCALHOST.into(), arguments.port)
    } else {
        listen
    };
    ControlPlane::start(control_plane::Options {
        layout,
        member: file.member,
        start: if file.joined { Start::Join { name, address } } else { Start::First { name, address } },
        listen: vec![listen],
        advertise: vec![file.address],
        url,
        networks: file.networks.clone(),
        issuers: arguments.oidc.issuers()?,
        node_lifecycle: NodeLifecycleOptions::default(),
        disabled: arguments.disabled,
    })
    .await
}

/// Who this server is: as it remembers, or as the cluster that it joins says, or the first of a new cluster.
async fn identify(arguments: &Server, layout: &Layout) -> Result<ServerFile> {
    if let Some(mut file) = ServerFile::read(layout)? {
        if let Some(advertise) = arguments.advertise {
            file.address = SocketAddr::new(advertise, arguments.port);
        }
        file.address.set_port(arguments.port);
        return Ok(file);
    }
    if layout.store().exists() {
        bail!(
            "{} holds a store but does not say whose (server.json is missing); restore that file, or choose another directory with --data-dir",
            layout.root().display()
        );
    }
    let name = match &arguments.name {
        Some(name) => name.clone(),
        None => hostname()?,
    };
    let file = match (&arguments.join, &arguments.token) {
        (Some(server), Some(token)) => join(arguments, layout, name, server, token).await?,
        _ => found(arguments, name)?,
    };
    file.write(layout)?;
    Ok(file)
}

/// The first server of a new cluster.
fn found(arguments: &Server, name: String) -> Result<ServerFile> {
    let mut networks = Networks::default();
    if let Some(pods) = &arguments.pod_network {
        networks.pods = pods.clone();
    }
    if let Some(services) = &arguments.service_network {
        networks.set_services(services).context("--service-network")?;
    }
    networks.check()?;
    let address = advertised(arguments.advertise);
    Ok(ServerFile {
        name,
        member: 1,
        address: SocketAddr::new(address, arguments.port),
        joined: false,
        networks,
    })
}

/// Becomes a server of the cluster that `server` belongs to.
async fn join(
    arguments: &Server,
    layout: &Layout,
    name: String,
    server: &str,
    token: &JoinToken,
) -> Result<ServerFile> {
    let listen = SocketAddr::new(arguments.listen, arguments.port);
    // Before the cluster counts on this server.
    std::net::TcpListener::bind(listen)
        .with_context(|| format!("{listen} cannot be listened on; choose another with --listen or --port"))?;
    let invitation = Invitation::accept(server, token).await?;
    let address = match arguments.advertise {
        Some(address) => address,
        None => own_address_towards(server).await.with_context(|| {
            format!("finding the address at which {server} reaches this host; name it with --advertise")
        })?,
    };
    let address = SocketAddr::new(address, arguments.port);
    let request = ServerRequest { name: name.clone(), address: address.to_string() };
    let answer: ServerAnswer = invitation
        .ask(JOIN_SERVER, &request)
        .await
        .with_context(|| format!("joining the cluster of {server}"))?;
    let networks = serde_json::from_value(answer.cluster).context("the cluster's answer cannot be read")?;
    Authority::install(&layout.pki(), &answer.keyring)?;
    Ok(ServerFile { name, member: answer.member, address, joined: true, networks })
}

/// The address at which others reach this host: as given, or that of the default route.
pub fn advertised(given: Option<IpAddr>) -> IpAddr {
    given.or_else(|| own_address(ANYWHERE.into())).unwrap_or_else(|| {
        tracing::warn!("this host has no route to others: the server is reached from this host only; name its address with --advertise");
        Ipv4Addr::LOCALHOST.into()
    })
}

/// This host's name, in lower case.
pub fn hostname() -> Result<String> {
    let name = nix::unistd::gethostname().context("the host's name")?;
    let name = name.into_string().unwrap_or_default().to_lowercase();
    if name.is_empty() {
        bail!("this host has no name; choose one with --name");
    }
    Ok(name)
}

/// The address by which this host goes to `target`. Sends nothing.
fn own_address(target: SocketAddr) -> Option<IpAddr> {
    let any = if target.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any).ok()?;
    socket.connect(target).ok()?;
    let address = socket.local_addr().ok()?.ip();
    (!address.is_unspecified()).then_some(address)
}

/// The address by which this host goes to `HOST:PORT`.
pub async fn own_address_towards(server: &str) -> Result<IpAddr> {
    for target in tokio::net::lookup_host(server).await? {
        if let Some(address) = own_address(target) {
            return Ok(address);
        }
    }
    bail!("there is no route")
}
