//! The server: starts from a store and an authority, serves TLS and in-process clients, stops cleanly.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use apiserver_core::authn::oidc::Issuer;
use apiserver_core::{Config, Derived, Ids, genesis};
use arc_swap::ArcSwap;
use jiff::Timestamp;
use store::{CommitError, Event, Observer, Outcome, ReadError, Snapshot, Store, Txn};
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::mpsc;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::connection::{self, Acceptor, Limits, Protocols};
use crate::conversions::Conversions;
use crate::hub::{History, Hub, Unavailable};
use crate::issuers::{IssuerError, Issuers};
use crate::limits::Limiter;
use crate::measure::Measures;
use crate::metrics::Metrics;
use crate::openapi::Documents;
use crate::pki::Authority;
use crate::service::InProcess;
use crate::shell::Shell;
use crate::strangers::Strangers;
use crate::tls::{Tls, TlsError};
use crate::tunnel::Registry;
use crate::turns::Turns;
use crate::webhooks::Webhooks;
use crate::{keyring, servers, upkeep};

/// How often genesis is planned anew when something else writes meanwhile.
const MAX_GENESIS: usize = 16;
/// How long connections and streams have to end when the server stops.
const STOP_DEADLINE: Duration = Duration::from_secs(8);
/// How often a server without confirmed state asks for it again.
const CONFIRM_PAUSE: Duration = Duration::from_millis(100);
/// Connections that wait to be accepted.
const BACKLOG: u32 = 1024;

/// How a server is started.
pub struct Options {
    /// Where to listen for TLS. Port 0 takes any free port.
    pub listen: Vec<SocketAddr>,
    /// The store.
    pub store: Store,
    /// The cluster's authority.
    pub authority: Arc<Authority>,
    /// The settings of the cluster.
    pub config: Config,
    /// Further addresses that the server's certificate is good for, as the nodes'.
    pub addresses: Vec<IpAddr>,
    /// What every part of the cluster agrees on: told to machines that join.
    pub cluster: serde_json::Value,
    /// The bounds of connections and requests.
    pub limits: Limits,
    /// Issuers outside the cluster whose ID tokens are accepted.
    pub issuers: Vec<Issuer>,
}

/// A running API server.
pub struct Server {
    shell: Arc<Shell>,
    addresses: Vec<SocketAddr>,
}

/// Why a server did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address cannot be listened on.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The system's answer.
        source: std::io::Error,
    },
    /// The TLS configuration or certificate failed.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// An issuer of ID tokens cannot be asked.
    #[error(transparent)]
    Issuer(#[from] IssuerError),
    /// What every cluster has from the start could not be written.
    #[error("cannot write the cluster's first objects")]
    Genesis(#[from] CommitError),
    /// The store was closed meanwhile.
    #[error("the store was closed before the server was ready")]
    Closed,
    /// What every cluster has from the start was changed again and again meanwhile.
    #[error("cannot write the cluster's first objects: something else writes them too")]
    Contended,
}

// === impl Options ===

impl Options {
    /// The usual settings: tokens are signed with the authority's key.
    pub fn new(listen: Vec<SocketAddr>, store: Store, authority: Arc<Authority>) -> Options {
        let config = Config::new(authority.signing_keys());
        Options {
            listen,
            store,
            authority,
            config,
            addresses: Vec::new(),
            cluster: serde_json::Value::Null,
            limits: Limits::default(),
            issuers: Vec::new(),
        }
    }
}

// === impl Server ===

impl Server {
    /// Listens, writes what every cluster has from the start, and serves.
    pub async fn start(options: Options) -> Result<Server, StartError> {
        let Options { listen, store, authority, mut config, addresses: names, cluster, limits, issuers } =
            options;
        let issuers = Arc::new(Issuers::new(issuers)?);
        let listeners = listen.into_iter().map(bind).collect::<Result<Vec<_>, _>>()?;
        let addresses: Vec<SocketAddr> = listeners.iter().filter_map(|l| l.local_addr().ok()).collect();
        if config.advertise.is_empty() {
            config.advertise = advertised(&addresses);
        }
        let names = certificate_addresses(&config, &addresses, names);
        let tls = Arc::new(Tls::new(authority.clone(), names)?);

        let stop = CancellationToken::new();
        let tasks = TaskTracker::new();
        let (derived, hub) = observe(&store, &stop, &tasks);
        let metrics = Metrics::new(store.leadership());
        let shell = Arc::new(Shell {
            tunnels: Arc::new(Registry::new(stop.clone())),
            measures: Measures::default(),
            webhooks: Webhooks::default(),
            conversions: Conversions::default(),
            store,
            config: ArcSwap::from_pointee(config),
            tls: tls.clone(),
            authority,
            cluster,
            derived,
            hub,
            metrics,
            limits: limits.clone(),
            limiter: Limiter::default(),
            issuers: issuers.clone(),
            turns: Turns::default(),
            openapi: Documents::default(),
            stop: stop.clone(),
            tasks: tasks.clone(),
            ready: AtomicBool::new(false),
        });
        tasks.spawn(issuers.follow(stop.clone()));
        tasks.spawn(tls.clone().keep(stop));
        let acceptor = Arc::new(Acceptor {
            shell: shell.clone(),
            tls,
            protocols: Protocols::new(&limits),
            strangers: Strangers::new(limits.strangers),
        });
        for listener in listeners {
            tasks.spawn(connection::accept(acceptor.clone(), listener));
        }
        let server = Server { shell, addresses };
        server.become_ready().await?;
        Ok(server)
    }

    /// Waits until the store has confirmed state, which takes the other servers where there are some: they reach this one
    /// meanwhile, clients do not. Then sees to it that the cluster has what every cluster has.
    async fn become_ready(&self) -> Result<(), StartError> {
        let shell = &self.shell;
        loop {
            match shell.store.linearizable().await {
                Ok(_) => break,
                Err(ReadError::Closed) => return Err(StartError::Closed),
                Err(error) => {
                    tracing::info!(%error, "the API waits for the other servers");
                    tokio::time::sleep(CONFIRM_PAUSE).await;
                }
            }
        }
        write_genesis(shell).await?;
        upkeep::keep(shell).await?;
        servers::publish(shell).await?;
        keyring::look(shell, &mut keyring::Seen::default()).await;
        shell.ready.store(true, Ordering::Release);
        shell.tasks.spawn(servers::follow(shell.clone()));
        shell.tasks.spawn(keyring::follow(shell.clone()));
        shell.tasks.spawn(upkeep::follow(shell.clone()));
        Ok(())
    }

    /// The addresses that the server listens on.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// The service for clients in this process: the same requests, RBAC and deadlines, without TLS. Requests carry
    /// their user as the extension [`Identity`](crate::Identity).
    pub fn service(&self) -> InProcess {
        InProcess::new(self.shell.clone())
    }

    /// The tunnels of the nodes' agents.
    pub fn tunnels(&self) -> &Arc<Registry> {
        &self.shell.tunnels
    }

    /// Stops listening, ends watches and streams, lets other requests finish. The store stays open.
    pub async fn shutdown(&self) {
        self.shell.stop.cancel();
        self.shell.tasks.close();
        if tokio::time::timeout(STOP_DEADLINE, self.shell.tasks.wait()).await.is_err() {
            tracing::warn!("some connections did not end in time");
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shell.stop.cancel();
    }
}

fn bind(address: SocketAddr) -> Result<TcpListener, StartError> {
    let listen = || {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        socket.set_reuseaddr(true)?;
        // Accepted connections inherit it: dead clients are noticed.
        socket.set_keepalive(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    listen().map_err(|source| StartError::Listen { address, source })
}

/// Where clients inside the cluster reach the server: what is not the loopback, if there is such an address.
fn advertised(addresses: &[SocketAddr]) -> Vec<(IpAddr, u16)> {
    let reachable = |address: &&SocketAddr| !address.ip().is_loopback() && !address.ip().is_unspecified();
    addresses.iter().filter(reachable).map(|address| (address.ip(), address.port())).collect()
}

/// Every address that a client may dial.
fn certificate_addresses(config: &Config, listening: &[SocketAddr], further: Vec<IpAddr>) -> Vec<IpAddr> {
    let mut names: BTreeSet<IpAddr> = further.into_iter().collect();
    names.extend([IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V4(config.service_cidr.nth(1))]);
    names.extend(config.advertise.iter().map(|(address, _)| *address));
    names.extend(listening.iter().map(SocketAddr::ip).filter(|address| !address.is_unspecified()));
    names.into_iter().collect()
}

/// Writes what every cluster has from the start.
async fn write_genesis(shell: &Shell) -> Result<(), StartError> {
    write_planned(shell, |snapshot, now, ids| genesis::plan(snapshot, &shell.config.load(), now, ids)).await
}

/// Commits what is planned, and plans again while something else writes, until there is nothing left to do.
pub(crate) async fn write_planned(
    shell: &Shell,
    plan: impl Fn(&Snapshot, Timestamp, &mut Ids<'_>) -> Vec<Txn>,
) -> Result<(), StartError> {
    for _ in 0..MAX_GENESIS {
        let txns = {
            let mut rng = rand::rng();
            plan(&shell.store.snapshot(), Timestamp::now(), &mut Ids::new(&mut rng))
        };
        let mut moved_on = false;
        for outcome in futures::future::join_all(txns.into_iter().map(|txn| shell.store.commit(txn))).await {
            moved_on |= matches!(outcome?, Outcome::Conflict { .. });
        }
        if !moved_on {
            return Ok(());
        }
    }
    Err(StartError::Contended)
}

/// Follows the store: keeps the derived indexes in step, and feeds the hub.
fn observe(
    store: &Store,
    stop: &CancellationToken,
    tasks: &TaskTracker,
) -> (Arc<ArcSwap<Derived>>, Arc<Hub>) {
    let derived = Arc::new(ArcSwap::from_pointee(Derived::default()));
    let (batches, receiver) = mpsc::unbounded_channel();
    let follower =
        Follower { derived: derived.clone(), state: Mutex::new(Following::Early(Vec::new())), batches };
    let follower = Arc::new(follower);
    let snapshot = store.observe(Box::new(Shared(follower.clone())));
    follower.begin(&snapshot);
    let hub = Hub::new(Box::new(Past(store.clone())), snapshot.revision());
    tasks.spawn(feed(hub.clone(), receiver, stop.clone()));
    (derived, hub)
}

/// What the hub is told.
enum News {
    Applied(Vec<Arc<Event>>),
    /// The whole state is another one, at this revision.
    Replaced(u64),
}

/// Hands applied events to the hub; what was applied meanwhile goes together.
async fn feed(hub: Arc<Hub>, mut batches: mpsc::UnboundedReceiver<News>, stop: CancellationToken) {
    loop {
        let received = tokio::select! {
            () = stop.cancelled() => None,
            received = batches.recv() => received,
        };
        let mut next = received;
        let mut events = Vec::new();
        loop {
            match next {
                Some(News::Applied(more)) => events.extend(more),
                Some(News::Replaced(revision)) => {
                    // Who watches is cut off: what led up to here is of no use any more.
                    events.clear();
                    hub.restart(revision);
                }
                None => return,
            }
            match batches.try_recv() {
                Ok(more) => next = Some(more),
                Err(_) => break,
            }
        }
        hub.deliver(&events);
    }
}

/// The observer: on the store's thread, so it does as little as it can.
struct Follower {
    derived: Arc<ArcSwap<Derived>>,
    state: Mutex<Following>,
    batches: mpsc::UnboundedSender<News>,
}

enum Following {
    /// The first snapshot is not indexed yet; these events came meanwhile.
    Early(Vec<Arc<Event>>),
    /// The newest indexes.
    Indexed(Box<Derived>),
}

struct Shared(Arc<Follower>);

// === impl Follower ===

impl Follower {
    /// Indexes the state before the first event, and what came meanwhile.
    fn begin(&self, snapshot: &Snapshot) {
        let mut derived = Derived::build(snapshot);
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match &*state {
            Following::Early(events) => derived.apply(events.iter().map(|event| &**event)),
            // The state was replaced meanwhile, and indexed then.
            Following::Indexed(_) => return,
        }
        self.derived.store(Arc::new(derived.clone()));
        *state = Following::Indexed(Box::new(derived));
    }
}

impl Observer for Shared {
    fn applied(&self, events: &[Arc<Event>], _: &Arc<Snapshot>) {
        let mut state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *state {
            Following::Early(early) => early.extend_from_slice(events),
            Following::Indexed(derived) => {
                derived.apply(events.iter().map(|event| &**event));
                self.0.derived.store(Arc::new(Derived::clone(derived)));
            }
        }
        // An error means that the server has stopped.
        let _ = self.0.batches.send(News::Applied(events.to_vec()));
    }

    fn replaced(&self, snapshot: &Arc<Snapshot>) {
        let derived = Derived::build(snapshot);
        let mut state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        self.0.derived.store(Arc::new(derived.clone()));
        *state = Following::Indexed(Box::new(derived));
        // An error means that the server has stopped.
        let _ = self.0.batches.send(News::Replaced(snapshot.revision()));
    }
}

/// The store's history, for the hub.
struct Past(Store);

impl History for Past {
    fn after(&self, revision: u64) -> Result<Vec<Arc<Event>>, Unavailable> {
        self.0.history(revision).map_err(|_| Unavailable)
    }
}
