//! Shared caches: one list-watch for each kind and scope in the process, whoever asks for it.

use std::any::{Any, TypeId};
use std::collections::BTreeMap;
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use client_core::cache::{Action, Cached, Change, Event, Failure, IndexFn, ListWatch, Page, Store};
use client_core::footprint::Footprint;
use client_core::lean::{MANAGED_FIELDS, Trim};
use client_core::object::{Kind, Object, ObjectKey, ResourceType};
use client_core::wire::{JSON, METADATA, METADATA_LIST, decode_line, decode_page};
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde::de::DeserializeOwned;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::params::{ListParams, Query};
use crate::{Client, Error};

/// Which part of a collection is cached.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Scope {
    /// `None`: all namespaces.
    pub namespace: Option<String>,
    /// `None`: whatever labels.
    pub label_selector: Option<String>,
    /// `None`: whatever fields.
    pub field_selector: Option<String>,
}

/// The caches of a process. Clones share them; they end with the last clone.
#[derive(Clone)]
pub struct Informers {
    client: Client,
    shared: Arc<Registry>,
}

type CacheId = (TypeId, ResourceType, Scope);

struct Registry {
    caches: Mutex<BTreeMap<CacheId, Running>>,
    /// By the type of the objects; each is a [`Trim`] of them.
    trims: Mutex<BTreeMap<TypeId, Box<dyn Any + Send>>>,
    stop: CancellationToken,
    _stop_on_drop: DropGuard,
}

/// A cache that is kept up to date until it is dropped here.
struct Running {
    /// An [`Informer`] of the objects' type.
    informer: Box<dyn Any + Send>,
    _stop_on_drop: DropGuard,
}

/// One cache. Clones share it.
pub struct Informer<T> {
    shared: Arc<Shared<T>>,
}

struct Shared<T> {
    state: Mutex<Locked<T>>,
    synced: watch::Sender<bool>,
}

struct Locked<T> {
    machine: ListWatch<T>,
    subscribers: Vec<mpsc::UnboundedSender<Change<T>>>,
}

/// The changes of a cache from the moment of subscription on, what was there then included. It must be read
/// quickly, into a work queue for example: what is not read is kept.
#[derive(Debug)]
pub struct Changes<T> {
    receiver: mpsc::UnboundedReceiver<Change<T>>,
}

// === impl Scope ===

impl Scope {
    /// The whole collection.
    pub fn all() -> Self {
        Self::default()
    }

    /// Only objects with these fields, for example `spec.nodeName=node-1`.
    pub fn fields(selector: impl Into<String>) -> Self {
        Self { field_selector: Some(selector.into()), ..Self::default() }
    }

    /// Only objects of this namespace.
    pub fn namespace(namespace: impl Into<String>) -> Self {
        Self { namespace: Some(namespace.into()), ..Self::default() }
    }

    fn params(&self) -> ListParams {
        ListParams {
            label_selector: self.label_selector.clone(),
            field_selector: self.field_selector.clone(),
            ..ListParams::default()
        }
    }
}

// === impl Informers ===

impl Informers {
    /// No caches yet.
    pub fn new(client: Client) -> Self {
        let stop = CancellationToken::new();
        let shared = Registry {
            caches: Mutex::default(),
            trims: Mutex::default(),
            _stop_on_drop: stop.clone().drop_guard(),
            stop,
        };
        Self { client, shared: Arc::new(shared) }
    }

    /// Lets the caches of a type keep no more of each object than `trim` leaves. Caches that were asked for before keep all.
    #[must_use]
    pub fn trimmed<K: Object>(self, trim: &'static Trim<K>) -> Self {
        let mut trims = self.shared.trims.lock().unwrap_or_else(PoisonError::into_inner);
        trims.insert(TypeId::of::<K>(), Box::new(trim));
        drop(trims);
        self
    }

    fn trim<T: 'static>(&self) -> Option<&'static Trim<T>> {
        let trims = self.shared.trims.lock().unwrap_or_else(PoisonError::into_inner);
        trims.get(&TypeId::of::<T>()).and_then(|trim| trim.downcast_ref::<&'static Trim<T>>()).copied()
    }

    /// The client that they use.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The cache of a typed kind. Started when it is first asked for; must be called within a runtime.
    pub fn get<K: Kind>(&self, scope: Scope) -> Informer<K> {
        self.cache(ResourceType::of::<K>(), scope, false)
    }

    /// The cache of the metadata of a resource that is known only at run time: of its objects only footprints are kept.
    pub fn metadata(&self, resource: ResourceType, scope: Scope) -> Informer<Footprint> {
        self.cache(resource, scope, true)
    }

    /// Ends the caches of a resource that is served no longer. Who holds one keeps what was in it last; who asks again gets a
    /// new one.
    pub fn forget(&self, resource: &ResourceType) {
        let mut caches = self.shared.caches.lock().unwrap_or_else(PoisonError::into_inner);
        caches.retain(|(_, cached, _), _| cached != resource);
    }

    fn cache<T: Cached + DeserializeOwned>(
        &self,
        resource: ResourceType,
        scope: Scope,
        partial: bool,
    ) -> Informer<T> {
        let id = (TypeId::of::<T>(), resource.clone(), scope.clone());
        let mut caches = self.shared.caches.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = caches.get(&id).and_then(|cache| cache.informer.downcast_ref::<Informer<T>>()) {
            return known.clone();
        }
        let informer = Informer::new();
        let stop = self.shared.stop.child_token();
        let running =
            Running { informer: Box::new(informer.clone()), _stop_on_drop: stop.clone().drop_guard() };
        caches.insert(id, running);
        let source = Source { client: self.client.clone(), resource, scope, partial, trim: self.trim() };
        let shared = Arc::clone(&informer.shared);
        tokio::spawn(async move {
            tokio::select! {
                // A server that stops after us must not be asked again.
                biased;
                () = stop.cancelled() => {}
                () = source.run(&shared) => {}
            }
        });
        informer
    }
}

impl fmt::Debug for Informers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Informers").field("client", &self.client).finish_non_exhaustive()
    }
}

// === impl Informer ===

impl<T> Clone for Informer<T> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<T> fmt::Debug for Informer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Informer").finish_non_exhaustive()
    }
}

impl<T: Cached> Informer<T> {
    fn new() -> Self {
        let state = Locked { machine: ListWatch::default(), subscribers: Vec::new() };
        Self { shared: Arc::new(Shared { state: Mutex::new(state), synced: watch::Sender::new(false) }) }
    }

    /// A consistent snapshot of the objects. Cheap.
    pub fn store(&self) -> Store<T> {
        self.shared.lock().machine.store().clone()
    }

    /// One object, without a snapshot.
    pub fn find(&self, key: &ObjectKey) -> Option<Arc<T>> {
        self.shared.lock().machine.store().get(key).cloned()
    }

    /// Adds a secondary index (see [`Store::by`]); a second one of the same name is ignored.
    pub fn add_index(&self, name: &'static str, function: IndexFn<T>) {
        self.shared.lock().machine.add_index(name, function);
    }

    /// The changes from now on, after what is there now.
    pub fn subscribe(&self) -> Changes<T> {
        let (sender, receiver) = mpsc::unbounded_channel();
        let mut state = self.shared.lock();
        for object in state.machine.store().iter() {
            // The receiver is alive: it is in our hands.
            let _ = sender.send(Change::Applied { new: Arc::clone(object), old: None });
        }
        if state.machine.is_synced() {
            let _ = sender.send(Change::Synced);
        }
        state.subscribers.push(sender);
        Changes { receiver }
    }

    /// Waits until the cache holds everything.
    pub async fn synced(&self) {
        // The sender lives as long as we do.
        let _ = self.shared.synced.subscribe().wait_for(|synced| *synced).await;
    }

    /// Whether the cache holds everything.
    pub fn is_synced(&self) -> bool {
        *self.shared.synced.borrow()
    }
}

// === impl Shared ===

impl<T: Cached> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, Locked<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes events in, tells subscribers, and returns what to do next.
    fn advance(&self, events: impl IntoIterator<Item = Event<T>>, rng: &mut StdRng) -> Next {
        let now = crate::clock::moment();
        let mut state = self.lock();
        let state = &mut *state;
        for event in events {
            state.machine.handle(event, now, rng);
        }
        let mut synced = false;
        while let Some(change) = state.machine.poll_change() {
            synced |= matches!(change, Change::Synced);
            state.subscribers.retain(|subscriber| subscriber.send(change.clone()).is_ok());
        }
        if synced {
            self.synced.send_replace(true);
        }
        match state.machine.poll_action(now, rng) {
            Some(action) => Next::Do(action),
            None => Next::Wait(state.machine.poll_timeout()),
        }
    }
}

enum Next {
    Do(Action),
    Wait(Option<client_core::clock::Moment>),
}

// === impl Changes ===

impl<T> Changes<T> {
    /// The next change; `None` when the cache has ended.
    pub async fn next(&mut self) -> Option<Change<T>> {
        self.receiver.recv().await
    }

    /// The next change, if it is there already.
    pub fn try_next(&mut self) -> Option<Change<T>> {
        self.receiver.try_recv().ok()
    }
}

impl<T> futures::Stream for Changes<T> {
    type Item = Change<T>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Change<T>>> {
        self.receiver.poll_recv(context)
    }
}

/// Where a cache's objects come from.
struct Source<T: 'static> {
    client: Client,
    resource: ResourceType,
    scope: Scope,
    /// Ask for metadata only.
    partial: bool,
    trim: Option<&'static Trim<T>>,
}

// === impl Source ===

impl<T: Cached + DeserializeOwned> Source<T> {
    /// Hosts the machine until the task is dropped.
    async fn run(&self, shared: &Shared<T>) {
        let mut rng = StdRng::from_os_rng();
        let mut next = shared.advance([], &mut rng);
        loop {
            next = match next {
                Next::Do(Action::List { limit, continue_token }) => {
                    let event = match self.page(limit, continue_token).await {
                        Ok(page) => Event::Page(page),
                        Err(error) => Event::Failed(self.failure("list", &error)),
                    };
                    shared.advance([event], &mut rng)
                }
                Next::Do(Action::Watch { resource_version, timeout }) => {
                    self.watch(shared, resource_version, timeout, &mut rng).await
                }
                Next::Wait(until) => {
                    crate::clock::sleep_until(until).await;
                    shared.advance([Event::Timeout], &mut rng)
                }
            };
        }
    }

    async fn page(&self, limit: u32, continue_token: Option<String>) -> Result<Page<T>, Error> {
        let params = ListParams { limit: Some(limit), continue_token, ..self.scope.params() };
        let mut query = Query::new(self.resource.collection_path(self.scope.namespace.as_deref()));
        params.add_to(&mut query);
        let mut request = Client::build(http::Method::GET, &query.finish())?;
        if self.partial {
            request.headers_mut().insert(http::header::ACCEPT, http::HeaderValue::from_static(METADATA_LIST));
        }
        let bytes = self.client.request_bytes(request).await?;
        let mut page: Page<T> = decode_page(&bytes, &self.lists(), &mut unreadable).map_err(Error::Decode)?;
        if let Some(trim) = self.trim {
            page.items.iter_mut().for_each(trim.object);
        }
        Ok(page)
    }

    async fn watch(
        &self,
        shared: &Shared<T>,
        resource_version: String,
        timeout: std::time::Duration,
        rng: &mut StdRng,
    ) -> Next {
        let params = ListParams { resource_version: Some(resource_version), ..self.scope.params() };
        let accept = if self.partial { METADATA } else { JSON };
        let namespace = self.scope.namespace.as_deref();
        let opened = self.client.watch_as(&self.resource, namespace, &params, Some(timeout), accept).await;
        let mut lines = match opened {
            Ok(lines) => lines,
            Err(error) => return shared.advance([Event::Failed(self.failure("watch", &error))], rng),
        };
        let lists = self.lists();
        loop {
            let mut failed = None;
            let events: Vec<Event<T>> = match lines.next_batch().await {
                Ok(Some(batch)) => batch
                    .iter()
                    .map_while(|line| match decode_line::<T>(line, &lists, &mut unreadable) {
                        Ok(mut event) => {
                            if let (Some(trim), Some(object)) = (self.trim, event.object_mut()) {
                                (trim.object)(object);
                            }
                            Some(Event::Watch(event))
                        }
                        Err(failure) => {
                            failed = Some(failure);
                            None
                        }
                    })
                    .collect(),
                Ok(None) => {
                    failed = Some(Failure::Ended);
                    Vec::new()
                }
                Err(error) => {
                    failed = Some(self.failure("watch", &error));
                    Vec::new()
                }
            };
            let over = failed.is_some();
            let next = shared.advance(events.into_iter().chain(failed.map(Event::Failed)), rng);
            if over {
                return next;
            }
        }
    }

    /// What is not decoded of an object.
    fn lists(&self) -> Vec<&'static str> {
        std::iter::once(MANAGED_FIELDS)
            .chain(self.trim.into_iter().flat_map(|trim| trim.lists).copied())
            .collect()
    }

    fn failure(&self, verb: &str, error: &Error) -> Failure {
        if error.is_expired() {
            tracing::debug!(resource = %self.resource, verb, "the version is too old: listing anew");
            return Failure::Expired;
        }
        tracing::warn!(resource = %self.resource, verb, %error, "cache is behind");
        Failure::Other(error.to_string())
    }
}

/// Says which object of a list or watch cannot be decoded.
fn unreadable(key: Option<&ObjectKey>, error: serde_json::Error) {
    tracing::warn!(%error, object = ?key, "an object cannot be decoded");
}

#[cfg(test)]
mod tests;
