//! The server's side of a cluster in this process: store, API server, scheduler, controllers.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use anyhow::{Context, Result};
use apiserver::pki::{ADMIN_LIFETIME, Authority, kubeconfig};
use apiserver::{Identity, Server, User};
use client::{Client, Informers};
use controller::NodeLifecycleOptions;
use store::Store;
use store_core::crypt::Key;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::error;

use crate::layout::Layout;
use crate::networks::Networks;

/// The first key of a store; rotation counts up.
const STORE_KEY_ID: u64 = 1;
/// Every node gets a share of this prefix of the pods' range.
const NODE_PREFIX: u8 = 24;

/// What a control plane is started with.
pub struct Options {
    /// Where it keeps its data.
    pub layout: Layout,
    /// Where it serves its API. The first address is the one in the kubeconfig.
    pub listen: Vec<SocketAddr>,
    /// Further addresses that its certificate is good for.
    pub addresses: Vec<IpAddr>,
    /// Ranges and names.
    pub networks: Networks,
    /// How patient the cluster is with silent nodes.
    pub node_lifecycle: NodeLifecycleOptions,
}

/// A running control plane.
pub struct ControlPlane {
    server: Server,
    store: Store,
    authority: Arc<Authority>,
    components: JoinSet<()>,
    stopping: CancellationToken,
    /// A component has ended by itself.
    failed: CancellationToken,
}

impl ControlPlane {
    /// Opens the store, serves the API, writes the administrator's kubeconfig, and starts scheduler and controllers.
    pub async fn start(options: Options) -> Result<ControlPlane> {
        let Options { layout, listen, addresses, networks, node_lifecycle } = options;
        let authority = Arc::new(Authority::load_or_create(&layout.pki())?);
        let key = Key::new(STORE_KEY_ID, *authority.store_key());
        let store_options = store::Options::new(layout.store(), key);
        let store = tokio::task::spawn_blocking(move || Store::open(store_options)).await??;
        let mut server_options = apiserver::Options::new(listen, store.clone(), authority.clone())?;
        server_options.addresses = addresses;
        server_options.config.service_cidr =
            apiserver::Ipv4Cidr::parse(&networks.services).context("the range of service addresses")?;
        server_options.config.cluster_domain = networks.domain.clone();
        let server = Server::start(server_options).await?;
        let address = server.addresses().first().context("the API server listens nowhere")?;
        let administrator =
            authority.issue_client("kubernetes-admin", Some("system:masters"), ADMIN_LIFETIME)?;
        let url = format!("https://{address}");
        kubeconfig::write(
            &layout.kubeconfig(),
            "orlop",
            "kubernetes-admin",
            &url,
            authority.ca_pem(),
            &administrator,
        )?;
        let stopping = CancellationToken::new();
        let mut plane = ControlPlane {
            server,
            store,
            authority,
            components: JoinSet::new(),
            stopping,
            failed: CancellationToken::new(),
        };
        plane.start_components(&networks, &node_lifecycle)?;
        Ok(plane)
    }

    /// A client in this process with the identity of `user`.
    pub fn client(&self, user: User) -> Client {
        client_of(&self.server, user)
    }

    /// The port of the API.
    pub fn port(&self) -> u16 {
        self.server.addresses().first().map_or(0, SocketAddr::port)
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
    pub async fn stop(mut self) {
        self.stopping.cancel();
        while self.components.join_next().await.is_some() {}
        self.server.shutdown().await;
        self.store.close().await;
    }

    fn start_components(&mut self, networks: &Networks, node_lifecycle: &NodeLifecycleOptions) -> Result<()> {
        let caches = Informers::new(self.client(User::authenticated("system:kube-controller-manager", &[])))
            .trimmed(&client::core::lean::POD);
        let scheduler = scheduler::run(
            scheduler::Config::default(),
            self.client(User::authenticated("system:kube-scheduler", &[])).with_user_agent("kube-scheduler"),
            caches.clone(),
            self.stopping.clone(),
        );
        let failed = self.failed.clone();
        self.components.spawn(async move {
            if let Err(error) = scheduler.await {
                error!(error = &error as &dyn std::error::Error, "the scheduler ended");
                failed.cancel();
            }
        });
        let service = self.server.service();
        let identities = move |name: &str| {
            let user = User::service_account("kube-system", name);
            let client = Client::in_process(service.clone(), move |extensions| {
                extensions.insert(Identity(user.clone()));
            });
            client.with_user_agent("kube-controller-manager")
        };
        let settings = controller::Settings {
            pod_network: Some(controller::Pool::new(&networks.pods, NODE_PREFIX)?),
            root_ca: self.authority.ca_pem().to_owned(),
            node_lifecycle: node_lifecycle.clone(),
            ..controller::Settings::default()
        };
        let config = controller::Config { settings, ..controller::Config::default() };
        let controllers = controller::run(config, identities, caches, self.stopping.clone());
        let failed = self.failed.clone();
        self.components.spawn(async move {
            if let Err(error) = controllers.await {
                error!(error = &error as &dyn std::error::Error, "the controllers ended");
                failed.cancel();
            }
        });
        Ok(())
    }
}

fn client_of(server: &Server, user: User) -> Client {
    Client::in_process(server.service(), move |extensions| {
        extensions.insert(Identity(user.clone()));
    })
}
