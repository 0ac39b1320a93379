//! From the caches into the world.

use std::sync::Arc;
use std::time::Duration;

use client::{Changes, Informer, Informers, Scope};
use client_core::cache::{Cached, Change};
use client_core::footprint::Footprint;
use client_core::object::ResourceType;
use controller_core::feed::{self, Feeds, Take, take_metadata};
use controller_core::plan::Kind;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::discovery::{self, Found};
use crate::host::Host;

/// How many changes are taken in under one lock.
const BATCH: usize = 256;
/// How often the API server is asked for new resources, if nothing tells of them.
const REDISCOVER: Duration = Duration::from_secs(300);
/// The resource whose objects bring new resources.
const DEFINITIONS: &str = "customresourcedefinitions";

/// Counts the caches that do not yet hold everything.
#[derive(Clone)]
struct Pending(Arc<watch::Sender<usize>>);

/// What starts caches and has the world follow them.
struct Follower<'a> {
    host: &'a Arc<Host>,
    informers: &'a Informers,
    pending: &'a Pending,
    stop: &'a CancellationToken,
    tasks: &'a mut JoinSet<()>,
}

impl Feeds for Follower<'_> {
    fn follow<K: Kind>(&mut self, named: Option<&'static str>, take: Take<K>) {
        let scope = named.map_or(Scope::all(), |name| Scope::fields(format!("metadata.name={name}")));
        let informer = self.informers.get::<K>(scope);
        spawn(self.host, informer, ResourceType::of::<K>(), take, self.pending, self.stop, self.tasks);
    }
}

/// Starts all caches. The future ends when each of them has told everything.
pub(crate) fn start(
    host: &Arc<Host>,
    informers: &Informers,
    found: Found,
    stop: &CancellationToken,
    tasks: &mut JoinSet<()>,
) -> impl Future<Output = ()> + use<> {
    let pending = Pending(Arc::new(watch::Sender::new(0)));
    let known = feed::follow_all(&mut Follower { host, informers, pending: &pending, stop, tasks });
    let discoverer = Discoverer {
        host: Arc::clone(host),
        informers: informers.clone(),
        pending: pending.clone(),
        stop: stop.clone(),
        known,
        cached: Vec::new(),
        changed: Arc::new(tokio::sync::Notify::new()),
    };
    // The discoverer counts itself until it has counted its caches.
    pending.0.send_modify(|count| *count += 1);
    let mut receiver = pending.0.subscribe();
    tasks.spawn(discoverer.run(found));
    async move {
        // The senders live in the tasks; without them there is nothing to wait for.
        let _ = receiver.wait_for(|count| *count == 0).await;
    }
}

fn spawn<T: Cached>(
    host: &Arc<Host>,
    informer: Informer<T>,
    resource: ResourceType,
    take: Take<T>,
    pending: &Pending,
    stop: &CancellationToken,
    tasks: &mut JoinSet<()>,
) {
    pending.0.send_modify(|count| *count += 1);
    let (host, pending, stop) = (Arc::clone(host), pending.clone(), stop.clone());
    tasks.spawn(async move {
        let changes = informer.subscribe();
        // The changes end when nobody keeps the cache any more.
        drop(informer);
        tokio::select! {
            () = stop.cancelled() => {}
            () = pump(&host, changes, &resource, take, &pending) => {}
        }
    });
}

/// Takes in what comes, many changes under one lock.
async fn pump<T: Cached>(
    host: &Host,
    mut changes: Changes<T>,
    resource: &ResourceType,
    take: Take<T>,
    pending: &Pending,
) {
    let mut waits = true;
    while let Some(first) = changes.next().await {
        let mut synced = false;
        host.change(|world, now| {
            let mut work = Vec::new();
            let mut next = Some(first);
            let mut taken = 0;
            while let Some(change) = next {
                synced |= matches!(change, Change::Synced);
                work.extend(take(world, resource, change, now));
                taken += 1;
                next = if taken < BATCH { changes.try_next() } else { None };
            }
            work
        });
        if synced {
            waits = false;
            pending.0.send_modify(|count| *count = count.saturating_sub(1));
        }
    }
    if waits {
        pending.0.send_modify(|count| *count = count.saturating_sub(1));
    }
}

/// Keeps a metadata cache of every resource that has no cache of its own here.
struct Discoverer {
    host: Arc<Host>,
    informers: Informers,
    pending: Pending,
    stop: CancellationToken,
    /// Resources that have a cache.
    known: Vec<ResourceType>,
    /// Those whose cache was made here.
    cached: Vec<ResourceType>,
    changed: Arc<tokio::sync::Notify>,
}

impl Discoverer {
    async fn run(mut self, mut found: Found) {
        let mut tasks = JoinSet::new();
        let mut first = true;
        loop {
            self.take(found, &mut tasks);
            if std::mem::take(&mut first) {
                self.pending.0.send_modify(|count| *count = count.saturating_sub(1));
            }
            let stop = self.stop.clone();
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.changed.notified() => tokio::time::sleep(Duration::from_millis(200)).await,
                () = tokio::time::sleep(REDISCOVER) => {}
            }
            found = discovery::find(self.informers.client(), &self.stop).await;
        }
    }

    fn take(&mut self, found: Found, tasks: &mut JoinSet<()>) {
        let Found { namespaced, kinds, deletable } = found;
        if namespaced.failure.is_none() {
            self.forget_all_but(&deletable);
        }
        self.host.change(|world, _| {
            world.kinds = kinds;
            world.discovered(namespaced)
        });
        for resource in deletable {
            if self.known.contains(&resource) {
                continue;
            }
            let informer = self.informers.metadata(resource.clone(), Scope::all());
            if resource.plural == DEFINITIONS {
                tasks.spawn(announce(informer.subscribe(), self.host.clone(), self.changed.clone()));
            }
            spawn(&self.host, informer, resource.clone(), take_metadata, &self.pending, &self.stop, tasks);
            self.cached.push(resource.clone());
            self.known.push(resource);
        }
    }

    /// Ends the caches of resources that are served no longer: they would ask for them again and again.
    fn forget_all_but(&mut self, served: &[ResourceType]) {
        let gone: Vec<ResourceType> = self.cached.extract_if(.., |cached| !served.contains(cached)).collect();
        for resource in gone {
            self.informers.forget(&resource);
            self.known.retain(|known| *known != resource);
        }
    }
}

/// Wakes the discoverer when a definition changes. Until it has looked, nothing is known to be the last of a namespace.
async fn announce(mut changes: Changes<Footprint>, host: Arc<Host>, changed: Arc<tokio::sync::Notify>) {
    let mut synced = false;
    while let Some(change) = changes.next().await {
        synced |= matches!(change, Change::Synced);
        if synced {
            host.change(|world, _| {
                world.discovery.failure = Some("definitions of custom resources have changed".to_owned());
                Vec::new()
            });
            changed.notify_one();
        }
    }
}
