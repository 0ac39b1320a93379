//! Hosts a list-watch cache, as the client's informers do, and tells the watch checker what comes.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use client_core::cache::{Action, Cached, Change, Event, Failure, ListWatch, Page, WatchEvent};
use client_core::error::Error;
use client_core::lean::MANAGED_FIELDS;
use client_core::object::{ObjectKey, ResourceType};
use client_core::wire::{JSON, METADATA, METADATA_LIST, decode_line, decode_page, opened};
use futures::StreamExt as _;
use serde::de::DeserializeOwned;

use crate::caller::Caller;
use crate::checkers::watch::{Selection, Stream};
use crate::clock::Clock;
use crate::kernel::Time;
use crate::streams::Line;

/// What is not decoded of objects.
const LISTS: &[&str] = &[MANAGED_FIELDS];

/// What is cached.
pub struct Source {
    /// Through whom it is asked for.
    pub caller: Caller,
    /// The clocks of the process.
    pub clock: Rc<Clock>,
    /// Of what.
    pub resource: ResourceType,
    /// Which of them.
    pub selection: Selection,
    /// Whether only metadata is asked for.
    pub partial: bool,
}

/// One cache.
pub struct Cache<T> {
    source: Source,
    machine: RefCell<ListWatch<T>>,
}

// === impl Cache ===

impl<T: Cached + DeserializeOwned> Cache<T> {
    /// An empty cache; [`Cache::run`] fills it.
    pub fn new(source: Source) -> Rc<Self> {
        Rc::new(Self { source, machine: RefCell::new(ListWatch::default()) })
    }

    /// One object.
    pub fn find(&self, key: &ObjectKey) -> Option<std::sync::Arc<T>> {
        self.machine.borrow().store().get(key).cloned()
    }

    /// Keeps the cache in step, and tells of each change, until its process ends.
    pub async fn run(self: Rc<Self>, mut changed: impl FnMut(Change<T>)) {
        let sim = self.source.caller.cluster.sim.clone();
        let mut events: Vec<Event<T>> = Vec::new();
        loop {
            let action = self.advance(std::mem::take(&mut events), &mut changed);
            match action {
                Some(Action::List { limit, continue_token }) => {
                    events.push(match self.page(limit, continue_token).await {
                        Ok(page) => Event::Page(page),
                        Err(failure) => Event::Failed(failed(&failure)),
                    });
                }
                Some(Action::Watch { resource_version, timeout }) => {
                    events = self.watch(&resource_version, timeout, &mut changed).await;
                }
                None => {
                    let until = self.machine.borrow().poll_timeout().unwrap_or_default();
                    let wait = until.saturating_sub(self.source.clock.now().moment);
                    sim.sleep((wait.as_micros() as Time).max(1)).await;
                    events.push(Event::Timeout);
                }
            }
        }
    }

    fn advance(&self, events: Vec<Event<T>>, changed: &mut impl FnMut(Change<T>)) -> Option<Action> {
        let sim = &self.source.caller.cluster.sim;
        let now = self.source.clock.now().moment;
        let mut machine = self.machine.borrow_mut();
        for event in events {
            sim.rng(|rng| machine.handle(event, now, rng));
        }
        let changes: Vec<Change<T>> = std::iter::from_fn(|| machine.poll_change()).collect();
        let action = sim.rng(|rng| machine.poll_action(now, rng));
        drop(machine);
        changes.into_iter().for_each(changed);
        action
    }

    async fn page(&self, limit: u32, token: Option<String>) -> Result<Page<T>, Error> {
        let path = self.source.resource.collection_path(None);
        let mut target = format!("{path}?limit={limit}{}", self.source.selection.query());
        let whole = token.is_none();
        if let Some(token) = token {
            target.push_str("&continue=");
            target.push_str(&token);
        }
        let accept = if self.source.partial { METADATA_LIST } else { JSON };
        let floor = self.source.caller.cluster.checks.store.acknowledged();
        let body = self.source.caller.get_as(&target, accept).await?;
        let page =
            decode_page::<T>(&body, LISTS, &mut |_, error| self.unreadable(&error)).map_err(Error::Decode)?;
        if whole && page.continue_token.is_none() {
            let shown =
                page.items.iter().map(|item| (item.identity(), item.version().into_owned())).collect();
            let checks = &self.source.caller.cluster.checks;
            let order = checks.replicas.order();
            checks.watch.listed(
                &order,
                &self.source.resource,
                &self.source.selection,
                floor,
                &page.resource_version,
                shown,
            );
        }
        Ok(page)
    }

    async fn watch(
        &self,
        version: &str,
        timeout: Duration,
        changed: &mut impl FnMut(Change<T>),
    ) -> Vec<Event<T>> {
        let path = self.source.resource.collection_path(None);
        let query = self.source.selection.query();
        let seconds = timeout.as_secs();
        let target = format!(
            "{path}?watch=true&allowWatchBookmarks=true&resourceVersion={version}&timeoutSeconds={seconds}{query}"
        );
        let accept = if self.source.partial { METADATA } else { JSON };
        let mut lines = match self.source.caller.watch(&target, accept).await {
            Ok(lines) => lines,
            Err(failure) => return vec![Event::Failed(failed(&failure))],
        };
        let checks = &self.source.caller.cluster.checks;
        let mut stream = Stream::new(&self.source.resource, self.source.selection.clone(), version);
        loop {
            match lines.next().await {
                Some(Line::Event(line)) => {
                    let event = match decode_line::<T>(&line, LISTS, &mut |_, error| self.unreadable(&error))
                    {
                        Ok(event) => event,
                        Err(failure) => return vec![Event::Failed(failure)],
                    };
                    let (kind, version) = told(&line, &event);
                    checks.watch.line(&checks.replicas.order(), &mut stream, &kind, &version);
                    if let Some(action) = self.advance(vec![Event::Watch(event)], changed) {
                        let message = format!("the cache asks for {action:?} while its watch is open");
                        self.source.caller.cluster.sim.violated("watch-exact", message);
                    }
                }
                Some(Line::End) => return vec![Event::Failed(Failure::Ended)],
                None => return vec![Event::Failed(Failure::Other("the connection broke".into()))],
            }
        }
    }

    /// Every object that a server sends can be read.
    fn unreadable(&self, error: &serde_json::Error) {
        let message = format!("an object of {} cannot be read: {error}", self.source.resource.plural);
        self.source.caller.cluster.sim.violated("watch-exact", message);
    }

    /// The objects that it shows, with their versions, and the version up to which it has seen everything.
    pub fn shown(&self) -> (String, Vec<(ObjectKey, String)>) {
        let machine = self.machine.borrow();
        let store = machine.store();
        let objects = store.iter().map(|object| (object.identity(), object.version().into_owned())).collect();
        (store.resource_version().to_owned(), objects)
    }

    /// Compares what the cache holds with the one order.
    pub fn check(&self) {
        if !self.machine.borrow().is_synced() {
            return;
        }
        let checks = &self.source.caller.cluster.checks;
        let (version, shown) = self.shown();
        checks.watch.cached(
            &checks.replicas.order(),
            &self.source.resource,
            &self.source.selection,
            &version,
            shown,
        );
    }
}

fn failed(error: &Error) -> Failure {
    if error.is_expired() { Failure::Expired } else { Failure::Other(error.to_string()) }
}

/// The kind of an event as its line spells it, and the version that it tells.
fn told<T: Cached>(line: &[u8], event: &WatchEvent<T>) -> (String, String) {
    let kind = opened(line).map_or(String::new(), |(kind, _)| kind.into_owned());
    let version = match event {
        WatchEvent::Applied(object) | WatchEvent::Deleted(object) => object.version(),
        WatchEvent::Bookmark { resource_version } => resource_version.into(),
        WatchEvent::Undecodable => "".into(),
    };
    (kind, version.into_owned())
}
