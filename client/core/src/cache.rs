//! The list-watch machine: keeps a local copy of one collection of objects in step with the API server.

mod store;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use rand::Rng;

pub use self::store::{IndexFn, Store};
use crate::backoff::Backoff;
use crate::clock::Moment;
use crate::object::{Object, ObjectKey};

/// How many objects are asked for in one page.
pub const PAGE_SIZE: u32 = 500;

/// A watch that ends sooner than this without an event counts as a failure, so that a server that hangs up is not hammered.
const SHORT_WATCH: Duration = Duration::from_secs(1);

/// What a cache has to know of its objects.
pub trait Cached: Send + Sync + 'static {
    /// Namespace (empty when it has none) and name.
    fn identity(&self) -> ObjectKey;

    /// The resource version, or the empty string.
    fn version(&self) -> Cow<'_, str>;

    /// Lets go of what no cache keeps.
    fn tidy(&mut self) {}

    /// Shares the texts of the key under which it is kept, where it holds any.
    fn adopt(&mut self, _key: &ObjectKey) {}
}

/// What happened outside.
#[derive(Debug)]
pub enum Event<T> {
    /// A page arrived that was asked for with [`Action::List`].
    Page(Page<T>),
    /// One event of the watch arrived.
    Watch(WatchEvent<T>),
    /// The list request failed, or the watch could not be opened, failed or ended.
    Failed(Failure),
    /// The moment of [`ListWatch::poll_timeout`] has come.
    Timeout,
}

/// One page of a list.
#[derive(Debug)]
pub struct Page<T> {
    /// The collection's version, the same on all pages.
    pub resource_version: String,
    /// Names the next page; `None` on the last one.
    pub continue_token: Option<String>,
    /// The objects that could be decoded.
    pub items: Vec<T>,
    /// Those that could not: what the cache has of them stays.
    pub undecodable: Vec<ObjectKey>,
}

/// One event of a watch.
#[derive(Debug)]
pub enum WatchEvent<T> {
    /// The object was created or changed, or came into the selection.
    Applied(T),
    /// The object was deleted or left the selection. Carries its last state.
    Deleted(T),
    /// Nothing changed up to this version.
    Bookmark {
        /// Where a later watch may start.
        resource_version: String,
    },
    /// An event could not be decoded; its object stays as it is until the next list.
    Undecodable,
}

/// Why a request did not bring what was asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// 410: the version, or the list's continue token, is too old.
    #[error("the version is too old")]
    Expired,
    /// The server closed the watch in good order.
    #[error("the watch ended")]
    Ended,
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Ask for one page. Answer with [`Event::Page`] or [`Event::Failed`].
    List {
        /// At most so many objects.
        limit: u32,
        /// `None` starts a new list of the newest state.
        continue_token: Option<String>,
    },
    /// Open a watch with bookmarks. Its events follow as [`Event::Watch`], its end as [`Event::Failed`].
    Watch {
        /// Events after this version.
        resource_version: String,
        /// Ask the server to end the watch after this time.
        timeout: Duration,
    },
}

/// What became of an object in the cache.
#[derive(Debug)]
pub enum Change<T> {
    /// The object is new or changed.
    Applied {
        /// Its state now.
        new: Arc<T>,
        /// Its state before, when there was one.
        old: Option<Arc<T>>,
    },
    /// The object is gone.
    Deleted {
        /// Its last known state.
        last: Arc<T>,
    },
    /// The cache holds everything for the first time. Told once.
    Synced,
    /// A later list is complete: what is as old as it and was not told of is gone.
    Relisted {
        /// The collection's version.
        resource_version: String,
    },
}

/// Where the machine stands.
#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    /// `poll_action` will ask for a page.
    NeedPage { continue_token: Option<String> },
    /// A page was asked for.
    Listing { first: bool },
    /// `poll_action` will open a watch.
    NeedWatch,
    /// A watch is open, or being opened.
    Watching { since: Moment, events: u64 },
    /// Nothing is open until the moment; then list anew, or watch on.
    Waiting { until: Moment, relist: bool },
}

/// The machine. Feed it with [`ListWatch::handle`], ask it with `poll_action`, `poll_change` and `poll_timeout`.
#[derive(Debug)]
pub struct ListWatch<T> {
    state: State,
    store: Store<T>,
    /// Objects of the pages so far; whatever is missing at the end of a list has been deleted.
    listed: BTreeSet<ObjectKey>,
    changes: VecDeque<Change<T>>,
    backoff: Backoff,
    synced: bool,
    relists: u64,
}

// === impl WatchEvent ===

impl<T> WatchEvent<T> {
    /// The object that it is about, to be changed.
    pub fn object_mut(&mut self) -> Option<&mut T> {
        match self {
            Self::Applied(object) | Self::Deleted(object) => Some(object),
            Self::Bookmark { .. } | Self::Undecodable => None,
        }
    }
}

// === impl Change ===

impl<T> Clone for Change<T> {
    fn clone(&self) -> Self {
        match self {
            Self::Applied { new, old } => Self::Applied { new: Arc::clone(new), old: old.clone() },
            Self::Deleted { last } => Self::Deleted { last: Arc::clone(last) },
            Self::Synced => Self::Synced,
            Self::Relisted { resource_version } => {
                Self::Relisted { resource_version: resource_version.clone() }
            }
        }
    }
}

// === impl Cached ===

impl<T: Object> Cached for T {
    fn identity(&self) -> ObjectKey {
        self.key()
    }

    fn version(&self) -> Cow<'_, str> {
        Cow::Borrowed(self.resource_version())
    }

    fn tidy(&mut self) {
        self.metadata_mut().managed_fields = None;
    }
}

// === impl ListWatch ===

impl<T: Cached> Default for ListWatch<T> {
    fn default() -> Self {
        Self::new(Backoff::new(Duration::from_millis(800), Duration::from_secs(30)).with_jitter(1.0))
    }
}

impl<T: Cached> ListWatch<T> {
    /// An empty cache that starts with a list; failures are repeated after `backoff`.
    pub fn new(backoff: Backoff) -> Self {
        Self {
            state: State::NeedPage { continue_token: None },
            store: Store::default(),
            listed: BTreeSet::new(),
            changes: VecDeque::new(),
            backoff,
            synced: false,
            relists: 0,
        }
    }

    /// The objects. Cloning the store is a consistent snapshot.
    pub fn store(&self) -> &Store<T> {
        &self.store
    }

    /// Adds a secondary index over what is there and what will come; a second one of the same name is ignored.
    pub fn add_index(&mut self, name: &'static str, function: IndexFn<T>) {
        self.store.add_index(name, function);
    }

    /// Whether a whole list has been seen.
    pub fn is_synced(&self) -> bool {
        self.synced
    }

    /// How often it had to list anew after the first time.
    pub fn relists(&self) -> u64 {
        self.relists
    }

    /// Takes in what happened.
    pub fn handle(&mut self, event: Event<T>, now: Moment, rng: &mut impl Rng) {
        match (event, &self.state) {
            (Event::Page(page), State::Listing { first }) => {
                let first = *first;
                self.page(page, first);
            }
            (Event::Watch(event), State::Watching { .. }) => self.watched(event),
            (Event::Failed(failure), State::Listing { .. }) => self.list_failed(&failure, now, rng),
            (Event::Failed(failure), State::Watching { since, events }) => {
                let (since, events) = (*since, *events);
                self.watch_failed(&failure, since, events, now, rng);
            }
            (Event::Timeout, State::Waiting { until, relist }) if *until <= now => {
                self.state =
                    if *relist { State::NeedPage { continue_token: None } } else { State::NeedWatch };
            }
            // Late events of a request that was given up.
            _ => {}
        }
    }

    /// What to do next; `None`: wait for events or the timeout.
    pub fn poll_action(&mut self, now: Moment, rng: &mut impl Rng) -> Option<Action> {
        match &mut self.state {
            State::NeedPage { continue_token } => {
                let continue_token = continue_token.take();
                self.state = State::Listing { first: continue_token.is_none() };
                Some(Action::List { limit: PAGE_SIZE, continue_token })
            }
            State::NeedWatch => {
                self.state = State::Watching { since: now, events: 0 };
                Some(Action::Watch {
                    resource_version: self.store.resource_version().to_owned(),
                    timeout: Duration::from_secs(rng.random_range(300..600)),
                })
            }
            State::Listing { .. } | State::Watching { .. } | State::Waiting { .. } => None,
        }
    }

    /// The next change of the cache.
    pub fn poll_change(&mut self) -> Option<Change<T>> {
        self.changes.pop_front()
    }

    /// When to send [`Event::Timeout`].
    pub fn poll_timeout(&self) -> Option<Moment> {
        match self.state {
            State::Waiting { until, .. } => Some(until),
            _ => None,
        }
    }

    fn page(&mut self, page: Page<T>, first: bool) {
        if first {
            self.listed.clear();
        }
        for item in page.items {
            let key = self.apply(item);
            self.listed.insert(key);
        }
        self.listed.extend(page.undecodable);
        if let Some(token) = page.continue_token.filter(|token| !token.is_empty()) {
            self.state = State::NeedPage { continue_token: Some(token) };
            return;
        }
        let listed = std::mem::take(&mut self.listed);
        let gone: Vec<ObjectKey> = self.store.keys().filter(|key| !listed.contains(*key)).cloned().collect();
        for key in gone {
            if let Some(last) = self.store.remove(&key) {
                self.changes.push_back(Change::Deleted { last });
            }
        }
        self.store.set_resource_version(&page.resource_version);
        self.backoff.reset();
        let first = !std::mem::replace(&mut self.synced, true);
        self.changes.push_back(if first {
            Change::Synced
        } else {
            Change::Relisted { resource_version: page.resource_version }
        });
        self.state = State::NeedWatch;
    }

    /// Takes an object in; returns its key.
    fn apply(&mut self, mut item: T) -> ObjectKey {
        let key = self.store.key_of(&item);
        let old = self.store.get(&key);
        if old.is_some_and(|old| !item.version().is_empty() && old.version() == item.version()) {
            return key;
        }
        item.adopt(&key);
        let new = Arc::new(item);
        let old = self.store.insert(key.clone(), Arc::clone(&new));
        self.changes.push_back(Change::Applied { new, old });
        key
    }

    fn watched(&mut self, event: WatchEvent<T>) {
        // A server that is stopping ends every watch with a bookmark: that is no sign that the next one will last.
        if !matches!(event, WatchEvent::Bookmark { .. })
            && let State::Watching { events, .. } = &mut self.state
        {
            *events += 1;
            self.backoff.reset();
        }
        match event {
            WatchEvent::Applied(item) => {
                let version = item.version().into_owned();
                self.apply(item);
                self.store.set_resource_version(&version);
            }
            WatchEvent::Deleted(item) => {
                self.store.set_resource_version(&item.version());
                if self.store.remove(&item.identity()).is_some() {
                    self.changes.push_back(Change::Deleted { last: Arc::new(item) });
                }
            }
            WatchEvent::Bookmark { resource_version } => self.store.set_resource_version(&resource_version),
            WatchEvent::Undecodable => {}
        }
    }

    fn list_failed(&mut self, failure: &Failure, now: Moment, rng: &mut impl Rng) {
        self.listed.clear();
        if *failure == Failure::Expired && self.backoff.failures() == 0 {
            // A continue token that grew too old: the list starts over, the second time after a pause.
            self.backoff.fail(rng);
            self.state = State::NeedPage { continue_token: None };
            return;
        }
        let until = now.saturating_add(self.backoff.fail(rng));
        self.state = State::Waiting { until, relist: true };
    }

    fn watch_failed(
        &mut self,
        failure: &Failure,
        since: Moment,
        events: u64,
        now: Moment,
        rng: &mut impl Rng,
    ) {
        match failure {
            Failure::Expired => {
                self.relists += 1;
                self.state = if self.backoff.failures() == 0 {
                    self.backoff.fail(rng);
                    State::NeedPage { continue_token: None }
                } else {
                    State::Waiting { until: now.saturating_add(self.backoff.fail(rng)), relist: true }
                };
            }
            Failure::Ended if events > 0 || now.saturating_sub(since) >= SHORT_WATCH => {
                self.state = State::NeedWatch;
            }
            Failure::Ended | Failure::Other(_) => {
                let until = now.saturating_add(self.backoff.fail(rng));
                self.state = State::Waiting { until, relist: false };
            }
        }
    }
}
