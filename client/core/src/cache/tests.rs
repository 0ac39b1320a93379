//! The list-watch machine against a scripted server.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::*;
use crate::object::PartialObject;

fn object(name: &str, version: &str) -> PartialObject {
    PartialObject {
        metadata: ObjectMeta {
            namespace: Some("ns".into()),
            name: Some(name.into()),
            resource_version: Some(version.into()),
            ..ObjectMeta::default()
        },
        ..PartialObject::default()
    }
}

/// `a@1 b@2` are objects and their versions.
fn objects(text: &str) -> Vec<PartialObject> {
    text.split_whitespace()
        .filter_map(|word| word.split_once('@'))
        .map(|(name, rv)| object(name, rv))
        .collect()
}

struct Host {
    machine: ListWatch<PartialObject>,
    rng: ChaCha8Rng,
    now: Moment,
    log: String,
}

impl Host {
    fn new() -> Self {
        let backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(8));
        Self {
            machine: ListWatch::new(backoff),
            rng: ChaCha8Rng::seed_from_u64(3),
            now: Moment::ZERO,
            log: String::new(),
        }
    }

    /// Carries out one line of a script:
    /// `page VERSION [>TOKEN] objects…`, `applied a@1`, `deleted a@1`, `bookmark 9`, `ended`, `expired`, `error`,
    /// `lost NAME` (a page with an object that cannot be decoded), `after MS`.
    fn line(&mut self, line: &str) {
        let (word, rest) = line.trim().split_once(' ').unwrap_or((line.trim(), ""));
        let event = match word {
            "page" | "lost" => {
                let mut words = rest.splitn(2, ' ');
                let version = words.next().unwrap_or_default().to_owned();
                let rest = words.next().unwrap_or_default();
                let token =
                    rest.split_whitespace().find_map(|word| word.strip_prefix('>')).map(str::to_owned);
                let undecodable = rest
                    .split_whitespace()
                    .filter_map(|word| word.strip_prefix('?'))
                    .map(|name| ObjectKey::new("ns", name));
                let undecodable = undecodable.collect();
                Event::Page(Page {
                    resource_version: version,
                    continue_token: token,
                    items: objects(rest),
                    undecodable,
                })
            }
            "applied" => Event::Watch(WatchEvent::Applied(objects(rest).remove(0))),
            "deleted" => Event::Watch(WatchEvent::Deleted(objects(rest).remove(0))),
            "bookmark" => Event::Watch(WatchEvent::Bookmark { resource_version: rest.to_owned() }),
            "ended" => Event::Failed(Failure::Ended),
            "expired" => Event::Failed(Failure::Expired),
            "error" => Event::Failed(Failure::Other("connection reset".into())),
            "after" => {
                self.now += Duration::from_millis(rest.parse().expect("milliseconds"));
                Event::Timeout
            }
            _ => panic!("unknown line {line}"),
        };
        self.machine.handle(event, self.now, &mut self.rng);
    }

    fn drain(&mut self) {
        while let Some(change) = self.machine.poll_change() {
            let _ = match change {
                Change::Applied { new, old } => {
                    let old = old.map(|old| old.resource_version().to_owned()).unwrap_or_default();
                    writeln!(self.log, "+ {} {old}->{}", new.name(), new.resource_version())
                }
                Change::Deleted { last } => writeln!(self.log, "- {}", last.name()),
                Change::Synced => writeln!(self.log, "synced"),
                Change::Relisted { resource_version } => writeln!(self.log, "relisted {resource_version}"),
            };
        }
        while let Some(action) = self.machine.poll_action(self.now, &mut self.rng) {
            let _ = match action {
                Action::List { continue_token: None, .. } => writeln!(self.log, "LIST"),
                Action::List { continue_token: Some(token), .. } => writeln!(self.log, "LIST {token}"),
                Action::Watch { resource_version, .. } => writeln!(self.log, "WATCH {resource_version}"),
            };
        }
        if let Some(at) = self.machine.poll_timeout() {
            let _ = writeln!(self.log, "wait {}", at.saturating_sub(self.now).as_millis());
        }
    }
}

#[track_caller]
fn check(script: &str, expected: &str) {
    let mut host = Host::new();
    host.drain();
    for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
        host.line(line);
        host.drain();
    }
    let expected: Vec<&str> = expected.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    assert_eq!(host.log.lines().collect::<Vec<_>>(), expected);
}

#[test]
fn lists_pages_then_watches() {
    check(
        "page 10 >t a@1 b@2
         page 10 c@3
         applied a@11
         deleted b@12
         bookmark 20
         after 5000
         ended",
        "LIST
         + a ->1
         + b ->2
         LIST t
         + c ->3
         synced
         WATCH 10
         + a 1->11
         - b
         WATCH 20",
    );
}

#[test]
fn a_server_that_ends_every_watch_is_not_asked_at_once() {
    check(
        "page 10
         bookmark 11
         ended",
        "LIST
         synced
         WATCH 10
         wait 1000",
    );
}

#[test]
fn too_old_a_version_lists_anew_and_reports_the_difference() {
    check(
        "page 10 a@1 b@2 c@3
         expired
         page 50 a@1 c@30 d@40",
        "LIST
         + a ->1
         + b ->2
         + c ->3
         synced
         WATCH 10
         LIST
         + c 3->30
         + d ->40
         - b
         relisted 50
         WATCH 50",
    );
}

#[test]
fn expired_again_and_again_backs_off() {
    check(
        "page 10
         expired
         page 11
         expired
         expired
         after 2000",
        "LIST
         synced
         WATCH 10
         LIST
         relisted 11
         WATCH 11
         LIST
         wait 2000
         LIST",
    );
}

#[test]
fn an_expired_page_starts_the_list_over_and_keeps_what_is_known() {
    check(
        "page 10 >t a@1 b@2
         expired
         page 12 b@2 c@3",
        "LIST
         + a ->1
         + b ->2
         LIST t
         LIST
         + c ->3
         - a
         synced
         WATCH 12",
    );
}

#[test]
fn failures_wait_longer_each_time_and_resume_where_they_were() {
    check(
        "error
         after 999
         after 1
         page 10 a@1
         applied a@11
         error
         after 1000
         error
         after 2000
         applied a@15
         error",
        "LIST
         wait 1000
         wait 1
         LIST
         + a ->1
         synced
         WATCH 10
         + a 1->11
         wait 1000
         WATCH 11
         wait 2000
         WATCH 11
         + a 11->15
         wait 1000",
    );
}

#[test]
fn a_watch_that_ends_at_once_is_not_reopened_at_once() {
    check(
        "page 10
         ended
         after 1000
         after 1500
         ended",
        "LIST
         synced
         WATCH 10
         wait 1000
         WATCH 10
         WATCH 10",
    );
}

#[test]
fn an_undecodable_object_stays_as_it_was() {
    check(
        "page 10 a@1 b@2
         expired
         lost 20 ?a b@2",
        "LIST
         + a ->1
         + b ->2
         synced
         WATCH 10
         LIST
         relisted 20
         WATCH 20",
    );
}

#[test]
fn events_of_a_given_up_request_are_ignored() {
    check("applied a@1\nerror\npage 3", "LIST\nwait 1000\nwait 1000");
}

#[test]
fn snapshots_do_not_change_and_indexes_follow() {
    fn by_version(object: &PartialObject) -> Vec<Arc<str>> {
        vec![Arc::from(object.resource_version())]
    }
    let mut store: Store<PartialObject> = objects("a@1 b@1 c@2").into_iter().collect();
    store.add_index("version", by_version);
    let before = store.clone();
    let names = |store: &Store<PartialObject>, value: &str| -> Vec<String> {
        store.by("version", value).map(|object| object.name().to_owned()).collect()
    };
    store.insert(ObjectKey::new("ns", "a"), Arc::new(object("a", "2")));
    store.remove(&ObjectKey::new("ns", "b"));
    assert_eq!(names(&before, "1"), ["a", "b"]);
    assert!(names(&store, "1").is_empty());
    assert_eq!(names(&store, "2"), ["a", "c"]);
    assert!(names(&store, "3").is_empty());
    assert_eq!(store.in_namespace("ns").count(), 2);
    assert_eq!(store.in_namespace("n").count(), 0);
    assert_eq!(store.by("none", "2").count(), 0);
}
