//! Service IPs and DNS on one node.
//!
//! [`run`] hosts the planner of `proxy-core`: changes of Services and EndpointSlices become transactions of nf_tables and
//! names of the cluster's DNS. Every change is published as the resource version that this node has put into effect.

pub mod dns;
pub mod egress;
pub mod observed;

mod conntrack;
mod dataplane;
mod links;
mod netlink;
mod netns;
mod nftables;
mod rules;

use std::collections::BTreeSet;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use client::{Client, Informer, Informers, Scope};
use client_core::cache::Change;
use client_core::object::Object;
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use proxy_core::names::Zone;
use tokio_util::sync::CancellationToken;
use tracing::warn;

pub use crate::dataplane::DataPlane;
pub use crate::netlink::Error as KernelError;
pub use crate::nftables::Network;
pub use crate::rules::Networks;

/// Label that names the Service of an EndpointSlice.
const SERVICE_LABEL: &str = "kubernetes.io/service-name";
const BY_SERVICE: &str = "service";
/// A refused transaction is followed by a rebuild after this long.
const REBUILD_PAUSE: Duration = Duration::from_secs(1);

/// What the proxy of a node is told.
#[derive(Clone, Debug)]
pub struct Config {
    /// Name of the Node object.
    pub node_name: String,
    /// The node's network namespace; `None`: the one of this process.
    pub netns: Option<PathBuf>,
    /// The node's own address, from which its connections to services come.
    pub node_address: Option<Ipv4Addr>,
    /// Addresses of all pods.
    pub pods: Network,
    /// Addresses of all services.
    pub services: Network,
    /// Address of the cluster's DNS.
    pub dns: Ipv4Addr,
    /// The cluster's domain, for instance `cluster.local`.
    pub domain: String,
    /// Resolvers for names outside of the cluster.
    pub upstream: Vec<SocketAddr>,
}

/// Why the proxy cannot work.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A socket could not be opened in the node's network namespace.
    #[error("opening {what} in the node's network namespace")]
    Open {
        /// Which socket.
        what: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The service network could not be claimed.
    #[error("claiming the service network")]
    Claim(#[source] rtnetlink::Error),
    /// The kernel refused the service rules.
    #[error("changing the service rules")]
    Install(#[source] KernelError),
}

/// Keeps service rules and names up to date until `shutdown`. The rules stay, so that services go on working while the
/// process is replaced; [`remove`] takes them away.
///
/// # Errors
/// When it cannot begin. Later failures are logged and mended by a rebuild.
pub async fn run(
    config: Config,
    client: Client,
    informers: Informers,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    let links = open_links(config.netns.as_deref())?;
    links::claim(&links, config.services, config.dns, config.node_address).await.map_err(Error::Claim)?;
    let networks = Networks { pods: config.pods, services: config.services, dns: config.dns };
    let data_plane = DataPlane::open(config.netns.as_deref(), networks)?;
    let zone = Arc::new(ArcSwap::from_pointee(Zone::new(&config.domain)));
    let names = dns::serve(config.dns, config.netns.as_deref(), zone.clone(), config.upstream.clone())
        .map_err(|source| Error::Open { what: "the DNS port", source })?;
    let observed = observed::publish(client, config.node_name.clone());
    let mut proxy = Proxy {
        services: informers.get(Scope::all()),
        slices: informers.get(Scope::all()),
        pods: informers.get(Scope::fields(format!("spec.nodeName={}", config.node_name))),
        node_name: config.node_name,
        data_plane,
        zone,
        observed,
    };
    proxy.slices.add_index(BY_SERVICE, service_of);
    let ended = tokio::select! {
        ended = proxy.follow() => ended,
        () = shutdown.cancelled() => Ok(()),
    };
    drop(names);
    ended
}

/// Removes the service rules in the network namespace at `netns`, and the device that claims the service network.
///
/// # Errors
/// When the namespace cannot be entered or the kernel refuses.
pub async fn remove(netns: Option<&Path>) -> Result<(), Error> {
    dataplane::remove(netns)?;
    links::release(&open_links(netns)?).await.map_err(Error::Claim)
}

/// Leads the service network to a device of its own inside the network namespace at `netns`, and puts the address of the
/// cluster's DNS there. Connections that the node itself opens come from `node`.
///
/// # Errors
/// When the namespace cannot be entered or the kernel refuses.
pub async fn claim(
    netns: &Path,
    services: Network,
    dns: Ipv4Addr,
    node: Option<Ipv4Addr>,
) -> Result<(), Error> {
    links::claim(&open_links(Some(netns))?, services, dns, node).await.map_err(Error::Claim)
}

fn open_links(netns: Option<&Path>) -> Result<rtnetlink::Handle, Error> {
    links::open(netns).map_err(|source| Error::Open { what: "route netlink", source })
}

struct Proxy {
    services: Informer<Service>,
    slices: Informer<EndpointSlice>,
    /// Of this node only.
    pods: Informer<Pod>,
    node_name: String,
    data_plane: DataPlane,
    zone: Arc<ArcSwap<Zone>>,
    observed: tokio::sync::watch::Sender<u64>,
}

/// Namespace and name of a Service.
type Key = (String, String);

impl Proxy {
    /// Applies changes as they come; what has come together is applied together.
    ///
    /// The rules that a process before this one has left are replaced only when the caches are complete: until then they
    /// are the best there is.
    async fn follow(&mut self) -> Result<(), Error> {
        let mut services = self.services.subscribe();
        let mut slices = self.slices.subscribe();
        let mut pods = self.pods.subscribe();
        tokio::join!(self.services.synced(), self.slices.synced(), self.pods.synced());
        self.data_plane.install().await.map_err(Error::Install)?;
        let mut news = News::default();
        loop {
            while let Some(change) = services.try_next() {
                news.service(&change);
            }
            while let Some(change) = slices.try_next() {
                news.slice(&change);
            }
            while let Some(change) = pods.try_next() {
                news.pod(&change);
            }
            let observed = news.observed;
            if !self.apply(std::mem::take(&mut news.services), std::mem::take(&mut news.pods)).await {
                tokio::time::sleep(REBUILD_PAUSE).await;
                continue;
            }
            self.observed.send_if_modified(|published| std::mem::replace(published, observed) != observed);
            let told = tokio::select! {
                change = services.next() => change.map(|change| news.service(&change)),
                change = slices.next() => change.map(|change| news.slice(&change)),
                change = pods.next() => change.map(|change| news.pod(&change)),
            };
            if told.is_none() {
                return Ok(());
            }
        }
    }

    /// Puts the services into effect. On failure everything is to be rebuilt, and it is called again.
    async fn apply(&mut self, dirty: BTreeSet<Key>, pods: BTreeSet<Key>) -> bool {
        if dirty.is_empty() && pods.is_empty() && self.data_plane.is_whole() {
            return true;
        }
        let (services, slices) = (self.services.store(), self.slices.store());
        let mut zone = Zone::clone(&self.zone.load());
        let mut rules = Vec::with_capacity(dirty.len());
        for (namespace, name) in dirty {
            let index = format!("{namespace}/{name}");
            let of_service: Vec<_> = slices.by(BY_SERVICE, &index).collect();
            let service = services.find(&namespace, &name);
            let mut borrowed = of_service.iter().map(|slice| slice.as_ref());
            zone.set(&namespace, &name, service.map(|service| (service.as_ref(), &mut borrowed as _)));
            let planned = service.map(|service| {
                proxy_core::services::plan(
                    service,
                    of_service.iter().map(|slice| slice.as_ref()),
                    &self.node_name,
                )
            });
            rules.push((index, planned.unwrap_or_default()));
        }
        self.zone.store(Arc::new(zone));
        let running = self.pods.store();
        rules.extend(pods.into_iter().map(|(namespace, name)| {
            let planned = running.find(&namespace, &name).map(|pod| proxy_core::host_ports::plan(pod));
            // No service has such a key: its parts hold no second slash.
            (format!("pod/{namespace}/{name}"), planned.unwrap_or_default())
        }));
        match self.data_plane.apply(rules).await {
            Ok(()) => true,
            Err(error) => {
                warn!(error = &error as &dyn std::error::Error, "service rules are rebuilt");
                false
            }
        }
    }
}

fn key<T: Object>(object: &T) -> Key {
    (object.namespace().to_owned(), object.name().to_owned())
}

fn slice_key(slice: &EndpointSlice) -> Option<Key> {
    Some((slice.namespace().to_owned(), slice.label(SERVICE_LABEL)?.to_owned()))
}

fn service_of(slice: &EndpointSlice) -> Vec<Arc<str>> {
    slice_key(slice).map(|(namespace, name)| format!("{namespace}/{name}").into()).into_iter().collect()
}

/// What has changed and is not in effect yet.
#[derive(Default)]
struct News {
    services: BTreeSet<Key>,
    pods: BTreeSet<Key>,
    /// The highest resource version of Services and EndpointSlices that was seen.
    observed: u64,
}

impl News {
    fn service(&mut self, change: &Change<Service>) {
        for service in touched(change) {
            self.services.insert(key(service));
            self.observe(service);
        }
    }

    fn slice(&mut self, change: &Change<EndpointSlice>) {
        for slice in touched(change) {
            self.services.extend(slice_key(slice));
            self.observe(slice);
        }
    }

    fn pod(&mut self, change: &Change<Pod>) {
        self.pods.extend(touched(change).map(key));
    }

    fn observe(&mut self, object: &impl Object) {
        self.observed = self.observed.max(object.resource_version().parse().unwrap_or(0));
    }
}

/// The objects that a change is about: as it was, and as it is.
fn touched<T>(change: &Change<T>) -> impl Iterator<Item = &T> {
    let objects = match change {
        Change::Applied { new, old } => [Some(new), old.as_ref()],
        Change::Deleted { last } => [Some(last), None],
        Change::Synced | Change::Relisted { .. } => [None, None],
    };
    objects.into_iter().flatten().map(AsRef::as_ref)
}
