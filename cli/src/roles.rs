//! Parts of a cluster as processes of their own: `orlop scheduler`, `orlop controller`, `orlop proxy`.
//!
//! Each has the rights of its own identity only, which its kubeconfig proves; `orlop kubeconfig` makes one. Of several
//! schedulers, and of several controllers, one works at a time.

mod accounts;
mod proxy;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Args;
use client::Client;
use client::core::election::Held;
use controller::Settings;
use rand::RngCore;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::components::{self, caches};
use crate::elected::{Candidate, End};
use crate::networks::Networks;
use crate::server;
use accounts::Accounts;

pub use proxy::{Proxy, config as proxy_config, run as proxy};

/// The Lease under which schedulers work, as Kubernetes names it.
const SCHEDULER_LEASE: &str = "kube-scheduler";
/// The Lease under which controllers work, as Kubernetes names it.
const CONTROLLER_LEASE: &str = "kube-controller-manager";

/// Runs the scheduler of a cluster whose servers were started with --disable-scheduler.
#[derive(Args, Clone, Debug)]
pub struct Scheduler {
    /// How the scheduler reaches the cluster, as `orlop kubeconfig --client-name system:kube-scheduler` prints it
    #[arg(long, env = "KUBECONFIG")]
    kubeconfig: PathBuf,
}

/// Runs the controllers of a cluster whose servers were started with --disable-controller.
#[derive(Args, Clone, Debug)]
pub struct Controller {
    /// How the controllers reach the cluster, as `orlop kubeconfig --client-name system:kube-controller-manager` prints it
    #[arg(long, env = "KUBECONFIG")]
    kubeconfig: PathBuf,
    /// Addresses of pods, as the cluster was founded with
    #[arg(long, value_name = "CIDR")]
    pod_network: Option<String>,
}

/// Runs `orlop scheduler`.
pub async fn scheduler(arguments: Scheduler) -> Result<()> {
    let client = connect(&arguments.kubeconfig).await?;
    let caches = caches(client.clone());
    let start = |held: &Held, over: &CancellationToken| {
        let mut running = JoinSet::new();
        components::spawn_scheduler(&mut running, &client.fenced(held), caches.clone(), over);
        Ok(running)
    };
    stand("scheduler", client.clone(), SCHEDULER_LEASE, start).await
}

/// Runs `orlop controller`.
pub async fn controller(arguments: Controller) -> Result<()> {
    let mut networks = Networks::default();
    if let Some(pods) = &arguments.pod_network {
        networks.pods.clone_from(pods);
    }
    networks.check().context("--pod-network")?;
    let settings = Settings {
        pod_network: Some(components::pool(&networks)?),
        root_ca: authority(&arguments.kubeconfig)?,
        ..Settings::default()
    };
    let client = connect(&arguments.kubeconfig).await?.with_user_agent("kube-controller-manager");
    let names = ::controller::Controller::ALL.iter().map(|controller| controller.account());
    let accounts = Accounts::obtain(&client, names).await?;
    let renewed = tokio::spawn(accounts.clone().renew(client.clone()));
    let start = |held: &Held, over: &CancellationToken| {
        let mut running = JoinSet::new();
        let (accounts, held) = (accounts.clone(), held.clone());
        let identities = move |name: &str| accounts.client(name).fenced(&held);
        components::spawn_controllers(
            &mut running,
            settings.clone(),
            identities,
            caches(client.clone()),
            over,
        );
        Ok(running)
    };
    let ended = stand("controllers", client.clone(), CONTROLLER_LEASE, start).await;
    renewed.abort();
    ended
}

/// Stands for election and works when elected, until a signal comes.
async fn stand(
    what: &str,
    client: Client,
    lease: &'static str,
    start: impl Fn(&Held, &CancellationToken) -> Result<JoinSet<()>>,
) -> Result<()> {
    let stopping = CancellationToken::new();
    stop_on_signal(stopping.clone())?;
    // A process that starts anew is another one: what it was in the middle of is lost.
    let identity = format!("{}_{:016x}", server::hostname()?, rand::rng().next_u64());
    let candidate = Candidate { client, lease, identity, outdated: None };
    match candidate.run(stopping, start).await? {
        End::Told => Ok(()),
        End::Failed => bail!("the {what} ended by themselves; the log says why"),
    }
}

fn stop_on_signal(stopping: CancellationToken) -> Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::spawn(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        stopping.cancel();
    });
    Ok(())
}

async fn connect(kubeconfig: &Path) -> Result<Client> {
    Client::from_kubeconfig(Some(kubeconfig), None)
        .await
        .with_context(|| format!("using {}", kubeconfig.display()))
}

/// The authority that a kubeconfig trusts, PEM: every namespace gets it.
fn authority(kubeconfig: &Path) -> Result<String> {
    let read = client::kube::config::Kubeconfig::read_from(kubeconfig)
        .with_context(|| format!("reading {}", kubeconfig.display()))?;
    let current = read.current_context.as_deref();
    let context = read.contexts.iter().find(|context| Some(context.name.as_str()) == current);
    let cluster = context.and_then(|context| context.context.as_ref()).map(|context| &context.cluster);
    let cluster = read.clusters.iter().find(|one| Some(&one.name) == cluster);
    let Some(cluster) = cluster.and_then(|cluster| cluster.cluster.as_ref()) else {
        bail!("{} has no current context, or one without a cluster", kubeconfig.display());
    };
    let pem = match (&cluster.certificate_authority_data, &cluster.certificate_authority) {
        (Some(data), _) => {
            use base64::Engine as _;
            base64::engine::general_purpose::STANDARD
                .decode(data)
                .context("certificate-authority-data is not base64")?
        }
        (None, Some(path)) => std::fs::read(path).with_context(|| format!("reading {path}"))?,
        (None, None) => bail!("{} names no certificate authority", kubeconfig.display()),
    };
    String::from_utf8(pem).context("the certificate authority is not PEM")
}
