//! One server of a cluster in this process: store, API server, and, while it is elected, scheduler and controllers.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, Result};
use apiserver::oidc::Issuer;
use apiserver::pki::{ADMIN_LIFETIME, Authority, kubeconfig};
use apiserver::{PeerConnector, Server, User};
use client::Client;
use controller::NodeLifecycleOptions;
use store::{Role, Start, Store};
use store_core::crypt::Key;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::components::{Components, Disabled, client_of};
use crate::layout::Layout;
use crate::networks::Networks;

/// The administrator's user name.
const ADMINISTRATOR: &str = "kubernetes-admin";

/// What a control plane is started with.
pub struct Options {
    /// Where it keeps its data.
    pub layout: Layout,
    /// Which of the cluster's servers it is.
    pub member: u64,
    /// How its store begins when it is empty.
    pub start: Start,
    /// Where it serves its API.
    pub listen: Vec<SocketAddr>,
    /// Where the cluster's other machines reach it; none: nowhere.
    pub advertise: Vec<SocketAddr>,
    /// The server in the kubeconfig.
    pub url: SocketAddr,
    /// Ranges and names.
    pub networks: Networks,
    /// Issuers outside the cluster whose ID tokens are accepted.
    pub issuers: Vec<Issuer>,
    /// How patient the cluster is with silent nodes.
    pub node_lifecycle: NodeLifecycleOptions,
    /// What runs in processes of its own.
    pub disabled: Disabled,
}

/// A running control plane.
pub struct ControlPlane {
    server: Server,
    store: Store,
    authority: Arc<Authority>,
    components: JoinHandle<()>,
    stopping: CancellationToken,
    /// A component has ended by itself.
    failed: CancellationToken,
}

impl ControlPlane {
    /// Opens the store, serves the API, writes the administrator's kubeconfig, and stands for running scheduler and
    /// controllers. Waits for the other servers where there are some.
    pub async fn start(options: Options) -> Result<ControlPlane> {
        let Options {
            layout,
            member,
            start,
            listen,
            advertise,
            url,
            networks,
            issuers,
            node_lifecycle,
            disabled,
        } = options;
        let authority = Arc::new(Authority::load_or_create(&layout.pki())?);
        let (Start::First { name, .. } | Start::Join { name, .. }) = &start;
        let name = name.clone();
        let mut keys = store_keys(&authority).into_iter();
        let key = keys.next().context("the store has no key")?;
        let mut store_options = store::Options::new(layout.store(), key);
        store_options.retired_keys = keys.collect();
        store_options.member = member;
        store_options.start = start;
        store_options.peers = Some(Arc::new(PeerConnector::new(authority.clone(), member)));
        // What is in memory may be ahead of the disk, or the cluster counts this server no more: nothing may be served.
        let store_options = store_options.on_fatal(|error| {
            eprintln!("orlop: {error}");
            std::process::exit(1);
        });
        let store = tokio::task::spawn_blocking(move || Store::open(store_options)).await??;
        let mut server_options = apiserver::Options::new(listen, store.clone(), authority.clone());
        server_options.config.advertise = advertise.iter().map(|at| (at.ip(), at.port())).collect();
        server_options.addresses = vec![url.ip()];
        server_options.cluster = serde_json::to_value(&networks)?;
        server_options.config.service_cidr =
            apiserver::Ipv4Cidr::parse(&networks.services).context("the range of service addresses")?;
        server_options.config.cluster_domain = networks.domain.clone();
        server_options.issuers = issuers;
        let server = Server::start(server_options).await?;
        let url = format!("https://{url}");
        write_kubeconfig(&layout, &url, &authority)?;
        let components = Components {
            service: server.service(),
            authority: authority.clone(),
            networks,
            node_lifecycle,
            server: name,
            disabled,
        };
        let (stopping, failed) = (CancellationToken::new(), CancellationToken::new());
        tokio::spawn(follow_authority(layout, url, authority.clone(), stopping.clone()));
        let (told, over) = (stopping.clone(), failed.clone().drop_guard());
        let components = tokio::spawn(async move {
            components.run(told).await;
            drop(over);
        });
        Ok(ControlPlane { server, store, authority, components, stopping, failed })
    }

    /// A client in this process with the identity of `user`.
    pub fn client(&self, user: User) -> Client {
        client_of(self.server.service(), user)
    }

    /// The cluster's authority.
    pub fn authority(&self) -> &Arc<Authority> {
        &self.authority
    }

    /// Returns when a component has ended by itself: a cluster without it would only seem to work.
    pub async fn failed(&self) {
        self.failed.cancelled().await;
    }

    /// Ends the components, then the API, then the store.
    pub async fn stop(self) {
        self.stopping.cancel();
        // A component that panicked has told so.
        let _ = self.components.await;
        hand_over(&self.store).await;
        self.server.shutdown().await;
        self.store.close().await;
    }
}

/// The keys of the store, the one for new files first.
pub fn store_keys(authority: &Authority) -> Vec<Key> {
    authority.store_keys().iter().map(|key| Key::new(key.id(), *key.material)).collect()
}

/// Writes the administrator's kubeconfig.
///
/// # Errors
/// When the certificate cannot be issued, or the file cannot be written.
pub fn write_kubeconfig(layout: &Layout, url: &str, authority: &Authority) -> Result<()> {
    let administrator = authority.issue_client(ADMINISTRATOR, Some("system:masters"), ADMIN_LIFETIME)?;
    let (path, bundle) = (layout.kubeconfig(), authority.ca_pem());
    Ok(kubeconfig::write(&path, "orlop", ADMINISTRATOR, url, &bundle, &administrator)?)
}

/// Writes the administrator's kubeconfig anew whenever the cluster's authorities change.
async fn follow_authority(
    layout: Layout,
    url: String,
    authority: Arc<Authority>,
    stopping: CancellationToken,
) {
    let mut changes = authority.changes();
    loop {
        tokio::select! {
            () = stopping.cancelled() => return,
            changed = changes.changed() => if changed.is_err() { return },
        }
        if let Err(error) = write_kubeconfig(&layout, &url, &authority) {
            tracing::warn!("the kubeconfig was not written anew: {error:#}");
        }
    }
}

/// Gives the lead to another server while the others can still reach this one: they need not notice that it is gone.
async fn hand_over(store: &Store) {
    if !store.leadership().borrow().leads() {
        return;
    }
    for member in store.members().await {
        let able = !member.leads && member.role == Role::Voter && member.applied.is_some();
        if able && store.transfer_lead(member.id).await.is_ok() {
            return;
        }
    }
}
