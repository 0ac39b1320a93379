//! Whatever the connection does, a cache ends up with what the server has, and its changes tell how it came there.

#![allow(clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::time::Duration;

use client_core::backoff::Backoff;
use client_core::cache::{Action, Change, Event, Failure, ListWatch, Page, WatchEvent};
use client_core::clock::Moment;
use client_core::object::{Object, PartialObject};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use proptest::prelude::*;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

/// What happens next in the world.
#[derive(Clone, Copy, Debug)]
enum Step {
    Put(u8),
    Delete(u8),
    /// The server forgets all history so far.
    Compact,
    /// The connection breaks.
    Break,
    /// The server ends the watch.
    End,
    Bookmark,
    /// The cache gets to read so many events.
    Read(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..8_u8).prop_map(Step::Put),
        2 => (0..8_u8).prop_map(Step::Delete),
        1 => Just(Step::Compact),
        1 => Just(Step::Break),
        1 => Just(Step::End),
        1 => Just(Step::Bookmark),
        5 => (1..4_usize).prop_map(Step::Read),
    ]
}

/// Pages have two objects, so that lists take several requests.
const PAGE: usize = 2;

#[derive(Default)]
struct Server {
    version: u64,
    compacted: u64,
    objects: BTreeMap<u8, u64>,
    /// Version, object, deleted.
    history: Vec<(u64, u8, bool)>,
    /// States of the past, for consistent pages.
    past: BTreeMap<u64, BTreeMap<u8, u64>>,
}

impl Server {
    fn commit(&mut self, name: u8, delete: bool) {
        if delete && !self.objects.contains_key(&name) {
            return;
        }
        self.version += 1;
        if delete {
            self.objects.remove(&name);
        } else {
            self.objects.insert(name, self.version);
        }
        self.history.push((self.version, name, delete));
        self.past.insert(self.version, self.objects.clone());
    }

    fn list(&self, token: Option<&str>) -> Event<PartialObject> {
        let (version, from) = match token.and_then(|token| token.split_once('/')) {
            Some((version, from)) => (version.parse().expect("ours"), from.parse().expect("ours")),
            None => (self.version, 0_usize),
        };
        if token.is_some() && version < self.compacted {
            return Event::Failed(Failure::Expired);
        }
        let empty = BTreeMap::new();
        let objects = self.past.get(&version).unwrap_or(&empty);
        let items =
            objects.iter().skip(from).take(PAGE).map(|(name, version)| object(*name, *version)).collect();
        let more = objects.len() > from + PAGE;
        Event::Page(Page {
            resource_version: version.to_string(),
            continue_token: more.then(|| format!("{version}/{}", from + PAGE)),
            items,
            undecodable: Vec::new(),
        })
    }
}

fn object(name: u8, version: u64) -> PartialObject {
    let metadata = ObjectMeta {
        name: Some(name.to_string()),
        resource_version: Some(version.to_string()),
        ..ObjectMeta::default()
    };
    PartialObject { metadata, ..PartialObject::default() }
}

struct World {
    server: Server,
    machine: ListWatch<PartialObject>,
    rng: ChaCha8Rng,
    now: Moment,
    /// The version up to which the open watch has delivered.
    watch: Option<u64>,
    /// Rebuilt from changes alone.
    mirror: BTreeMap<String, String>,
}

impl World {
    fn handle(&mut self, event: Event<PartialObject>) {
        if matches!(event, Event::Failed(_)) {
            self.watch = None;
        }
        self.machine.handle(event, self.now, &mut self.rng);
        while let Some(change) = self.machine.poll_change() {
            match change {
                Change::Applied { new, old } => {
                    let before = self.mirror.insert(new.name().to_owned(), new.resource_version().to_owned());
                    assert_eq!(before.as_deref(), old.as_deref().map(Object::resource_version), "old state");
                }
                Change::Deleted { last } => {
                    assert!(self.mirror.remove(last.name()).is_some(), "deleted twice");
                }
                Change::Synced | Change::Relisted { .. } => {}
            }
        }
    }

    /// Lets the cache make one request or read one event, if it can.
    fn turn(&mut self) -> bool {
        if let Some(at) = self.machine.poll_timeout() {
            self.now = self.now.max(at);
            self.handle(Event::Timeout);
            return true;
        }
        match self.machine.poll_action(self.now, &mut self.rng) {
            Some(Action::List { continue_token, .. }) => {
                let answer = self.server.list(continue_token.as_deref());
                self.handle(answer);
                return true;
            }
            Some(Action::Watch { resource_version, .. }) => {
                let from: u64 = resource_version.parse().expect("a version of ours");
                if from < self.server.compacted {
                    self.handle(Event::Failed(Failure::Expired));
                } else {
                    self.watch = Some(from);
                }
                return true;
            }
            None => {}
        }
        let Some(from) = self.watch else { return false };
        let Some((version, name, deleted)) = self.server.history.iter().find(|event| event.0 > from).copied()
        else {
            return false;
        };
        self.watch = Some(version);
        let object = object(name, version);
        let event = if deleted { WatchEvent::Deleted(object) } else { WatchEvent::Applied(object) };
        self.handle(Event::Watch(event));
        true
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Put(name) => self.server.commit(name, false),
            Step::Delete(name) => self.server.commit(name, true),
            Step::Compact => {
                self.server.compacted = self.server.version;
                // A watch that lags behind what is compacted is told so.
                if self.watch.is_some_and(|at| at < self.server.compacted) {
                    self.handle(Event::Failed(Failure::Expired));
                }
            }
            Step::Break if self.watch.is_some() => {
                self.handle(Event::Failed(Failure::Other("connection reset".to_owned())));
            }
            Step::End if self.watch.is_some() => self.handle(Event::Failed(Failure::Ended)),
            Step::Bookmark => {
                if let Some(at) = self.watch {
                    self.handle(Event::Watch(WatchEvent::Bookmark { resource_version: at.to_string() }));
                }
            }
            Step::Read(count) => (0..count).for_each(|_| {
                self.turn();
            }),
            Step::Break | Step::End => {}
        }
        self.now += Duration::from_millis(300);
    }
}

proptest! {
    #[test]
    fn a_cache_converges(steps in prop::collection::vec(step(), 0..120)) {
        let backoff = Backoff::new(Duration::from_millis(800), Duration::from_secs(30)).with_jitter(1.0);
        let mut world = World {
            server: Server::default(),
            machine: ListWatch::new(backoff),
            rng: ChaCha8Rng::seed_from_u64(9),
            now: Moment::ZERO,
            watch: None,
            mirror: BTreeMap::new(),
        };
        for step in steps {
            world.step(step);
        }
        let mut turns = 0;
        while world.turn() {
            turns += 1;
            prop_assert!(turns < 1000, "it never comes to rest");
        }
        let server: BTreeMap<String, String> =
            world.server.objects.iter().map(|(name, version)| (name.to_string(), version.to_string())).collect();
        let cache: BTreeMap<String, String> = world
            .machine
            .store()
            .iter()
            .map(|object| (object.name().to_owned(), object.resource_version().to_owned()))
            .collect();
        prop_assert!(world.machine.is_synced());
        prop_assert_eq!(&cache, &server);
        prop_assert_eq!(&world.mirror, &server);
    }
}
