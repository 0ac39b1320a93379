//! Hosts a list-watch cache, as the client's informers do, and tells the watch checker what comes.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use client_core::cache::{Action, Change, Event, Failure as Failed, ListWatch, Page, WatchEvent};
use client_core::object::{Object, ObjectKey, PartialObject, ResourceType};
use futures::StreamExt as _;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use crate::caller::{Caller, Failure, JSON};
use crate::checkers::watch::{Selection, Stream};
use crate::clock::Clock;
use crate::kernel::Time;
use crate::streams::Line;

const METADATA: &str = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json";
const METADATA_LIST: &str =
    "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json";

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

#[derive(Deserialize)]
struct RawPage<'a> {
    #[serde(default)]
    metadata: RawMeta,
    #[serde(borrow, default)]
    items: Option<Vec<&'a RawValue>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawMeta {
    resource_version: Option<String>,
    #[serde(rename = "continue")]
    continue_token: Option<String>,
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    #[serde(borrow)]
    object: &'a RawValue,
}

// === impl Cache ===

impl<T: Object + DeserializeOwned> Cache<T> {
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

    async fn page(&self, limit: u32, token: Option<String>) -> Result<Page<T>, Failure> {
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
        let page = decode_page::<T>(&body).ok_or(Failure::Transport)?;
        if whole && page.continue_token.is_none() {
            let shown =
                page.items.iter().map(|item| (item.key(), item.resource_version().to_owned())).collect();
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
                    let Some((kind, version, event)) = decode::<T>(&line) else {
                        return vec![Event::Failed(failed(&failure_of(&line)))];
                    };
                    checks.watch.line(&checks.replicas.order(), &mut stream, kind, &version);
                    if let Some(action) = self.advance(vec![Event::Watch(event)], changed) {
                        let message = format!("the cache asks for {action:?} while its watch is open");
                        self.source.caller.cluster.sim.violated("watch-exact", message);
                    }
                }
                Some(Line::End) => return vec![Event::Failed(Failed::Ended)],
                None => return vec![Event::Failed(Failed::Other("the connection broke".into()))],
            }
        }
    }

    /// The objects that it shows, with their versions, and the version up to which it has seen everything.
    pub fn shown(&self) -> (String, Vec<(ObjectKey, String)>) {
        let machine = self.machine.borrow();
        let store = machine.store();
        let objects =
            store.iter().map(|object| (object.key(), object.resource_version().to_owned())).collect();
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

fn failed(failure: &Failure) -> Failed {
    match failure {
        failure if failure.is_expired() => Failed::Expired,
        Failure::Status { code, reason, .. } => Failed::Other(format!("{code} {reason}")),
        Failure::Transport => Failed::Other("no answer".into()),
    }
}

fn decode_page<T: Object + DeserializeOwned>(body: &[u8]) -> Option<Page<T>> {
    let page: RawPage<'_> = serde_json::from_slice(body).ok()?;
    let items: Result<Vec<T>, _> =
        page.items.unwrap_or_default().iter().map(|item| serde_json::from_str(item.get())).collect();
    Some(Page {
        resource_version: page.metadata.resource_version.unwrap_or_default(),
        continue_token: page.metadata.continue_token,
        items: items.ok()?,
        undecodable: Vec::new(),
    })
}

/// One line of a watch; `None` when it says why the watch failed.
fn decode<T: Object + DeserializeOwned>(line: &[u8]) -> Option<(&'static str, String, WatchEvent<T>)> {
    let envelope: Envelope<'_> = serde_json::from_slice(line).ok()?;
    let object = || serde_json::from_str::<T>(envelope.object.get()).ok();
    let version = |object: &T| object.resource_version().to_owned();
    match envelope.kind {
        "ADDED" => object().map(|object| ("ADDED", version(&object), WatchEvent::Applied(object))),
        "MODIFIED" => object().map(|object| ("MODIFIED", version(&object), WatchEvent::Applied(object))),
        "DELETED" => object().map(|object| ("DELETED", version(&object), WatchEvent::Deleted(object))),
        "BOOKMARK" => {
            let bookmark: PartialObject = serde_json::from_str(envelope.object.get()).ok()?;
            let resource_version = bookmark.metadata.resource_version.unwrap_or_default();
            Some(("BOOKMARK", resource_version.clone(), WatchEvent::Bookmark { resource_version }))
        }
        _ => None,
    }
}

fn failure_of(line: &[u8]) -> Failure {
    let value: serde_json::Value = serde_json::from_slice(line).unwrap_or_default();
    let code = value["object"]["code"].as_u64().and_then(|code| u16::try_from(code).ok()).unwrap_or(500);
    Failure::Status { code, reason: String::new(), body: bytes::Bytes::new() }
}
