//! What the hub promises: no gap, no duplicate, nobody disturbed by what does not concern him.

use std::time::Duration;

use api::catalogue::Catalogue;
use apiserver_core::negotiate::{Accepted, Encoding};
use apiserver_core::output::Output;
use apiserver_core::request::Options;
use apiserver_core::selection::Selection;
use apiserver_core::served::Served;
use apiserver_core::watch::Footing;
use http_body_util::BodyExt as _;

use super::*;

/// A history that grows apart from what the hub was told, as the store's does.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<Arc<Event>>>>);

impl Log {
    fn push(&self, event: Event) -> Arc<Event> {
        let event = Arc::new(event);
        self.0.lock().expect("locked").push(event.clone());
        event
    }
}

impl History for Log {
    fn after(&self, revision: u64) -> Result<Vec<Arc<Event>>, Unavailable> {
        let events = self.0.lock().expect("locked");
        if events.first().is_some_and(|first| first.revision > revision + 1) {
            return Err(Unavailable);
        }
        Ok(events.iter().filter(|event| event.revision > revision).cloned().collect())
    }
}

fn pod(revision: u64, name: &str, node: &str) -> Event {
    let value = format!(
        r#"{{"metadata":{{"name":"{name}","resourceVersion":"{revision}"}},"spec":{{"nodeName":"{node}"}}}}"#
    );
    let change = Change::Put { value: value.into(), previous: None };
    Event::for_tests(revision, format!("/core/pods/default/{name}"), change)
}

fn plan(after: u64, node: Option<&str>) -> WatchPlan {
    let resource = Catalogue::builtin().resource("", "v1", "pods").expect("pods are served");
    let field_selector = node.map(|node| format!("spec.nodeName={node}")).unwrap_or_default();
    let options = Options { field_selector, ..Options::default() };
    let accepted = apiserver_core::negotiate::accept(&http::HeaderMap::new(), false)
        .unwrap_or_else(|_| panic!("accepted"));
    WatchPlan {
        prefix: Bytes::from_static(b"/core/pods/"),
        key: None,
        namespace: String::new(),
        node: node.map(str::to_owned),
        initial: Vec::new(),
        after,
        bookmarks: false,
        timeout: Some(Duration::from_secs(600)),
        content_type: "application/json",
        selection: Selection::parse(resource, &options).unwrap_or_else(|_| panic!("a selector")),
        output: Output::new(Served::Builtin(resource), accepted, None, jiff::Timestamp::UNIX_EPOCH),
        footing: None,
    }
}

/// The revisions of the lines in a chunk.
fn revisions(chunk: &[u8]) -> Vec<u64> {
    let text = std::str::from_utf8(chunk).expect("text");
    text.lines()
        .map(|line| {
            let line: serde_json::Value = serde_json::from_str(line).expect("JSON");
            line["object"]["metadata"]["resourceVersion"]
                .as_str()
                .and_then(|text| text.parse().ok())
                .expect("a revision")
        })
        .collect()
}

async fn next(watcher: &mut Watcher) -> Option<Bytes> {
    let frame = watcher.frame().await?.expect("watches do not fail");
    Some(frame.into_data().expect("data"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_gap_and_no_duplicate_over_reconnects_under_writes() {
    const LAST: u64 = 4000;
    let log = Log::default();
    let hub = Hub::new(Box::new(log.clone()), 0);
    let writer = std::thread::spawn({
        let (log, hub) = (log.clone(), hub.clone());
        move || {
            let mut batch = Vec::new();
            for revision in 1..=LAST {
                batch.push(log.push(pod(revision, &format!("p{revision}"), "a")));
                // The hub lags behind the history by a varying number of events.
                if batch.len() as u64 > revision % 7 {
                    hub.deliver(&batch);
                    batch.clear();
                }
            }
            hub.deliver(&batch);
        }
    });
    let mut readers = tokio::task::JoinSet::new();
    for reader in 0..8u64 {
        let hub = hub.clone();
        readers.spawn(async move {
            let mut seen = 0;
            let mut connections = 0;
            while seen < LAST {
                let mut watcher = hub.watch(plan(seen, None)).expect("nothing is forgotten");
                connections += 1;
                for _ in 0..=(reader + connections) % 5 {
                    let Some(chunk) = next(&mut watcher).await else { break };
                    for revision in revisions(&chunk) {
                        assert_eq!(revision, seen + 1, "reader {reader}");
                        seen = revision;
                    }
                    if seen == LAST {
                        break;
                    }
                }
            }
        });
    }
    while let Some(reader) = readers.join_next().await {
        reader.expect("a reader saw every event once");
    }
    writer.join().expect("written");
    assert!(hub.topics().watchers.is_empty(), "watchers leave nothing behind");
}

#[tokio::test]
async fn who_does_not_read_is_cut_off_and_nobody_else() {
    let log = Log::default();
    let hub = Hub::new(Box::new(log.clone()), 0);
    let mut slow = hub.watch(plan(0, None)).expect("started");
    let mut quick = hub.watch(plan(0, None)).expect("started");
    for revision in 1..=mailbox::MAX_EVENTS as u64 + 1 {
        hub.deliver(&[log.push(pod(revision, "p", "a"))]);
        assert_eq!(revisions(&next(&mut quick).await.expect("a line")), [revision]);
    }
    assert!(next(&mut slow).await.is_none(), "the stream ends");
}

#[tokio::test]
async fn all_watchers_end_when_the_state_is_replaced() {
    let log = Log::default();
    let hub = Hub::new(Box::new(log.clone()), 0);
    let mut early = hub.watch(plan(0, None)).expect("started");
    hub.deliver(&[log.push(pod(1, "p", "a"))]);
    hub.restart(7);
    assert!(next(&mut early).await.is_none(), "nothing of the old state is sent after the new one");
    let mut late = hub.watch(plan(7, None)).expect("started");
    hub.deliver(&[log.push(pod(8, "p", "a"))]);
    assert_eq!(revisions(&next(&mut late).await.expect("a line")), [8]);
}

#[tokio::test]
async fn watchers_of_other_nodes_are_not_disturbed() {
    let log = Log::default();
    let hub = Hub::new(Box::new(log.clone()), 0);
    let mut here = hub.watch(plan(0, Some("here"))).expect("started");
    let there = hub.watch(plan(0, Some("there"))).expect("started");
    hub.deliver(&[log.push(pod(1, "p", "here"))]);
    assert_eq!(revisions(&next(&mut here).await.expect("a line")), [1]);
    assert!(there.is_idle(), "nothing was put into the other node's mailbox");
}

#[tokio::test]
async fn all_plain_watchers_share_one_line() {
    let log = Log::default();
    let hub = Hub::new(Box::new(log.clone()), 0);
    let mut first = hub.watch(plan(0, None)).expect("started");
    let mut second = hub.watch(plan(0, None)).expect("started");
    hub.deliver(&[log.push(pod(1, "p", "a"))]);
    let (one, other) = (next(&mut first).await.expect("a line"), next(&mut second).await.expect("a line"));
    assert_eq!(one.as_ptr(), other.as_ptr());
}

#[tokio::test]
async fn all_watchers_in_protobuf_share_one_frame() {
    let log = Log::default();
    let hub = Hub::new(Box::new(log.clone()), 0);
    let plan = || {
        let resource = Catalogue::builtin().resource("", "v1", "pods").expect("pods are served");
        let accepted = Accepted { encoding: Encoding::Protobuf, ..Accepted::default() };
        let output = Output::new(Served::Builtin(resource), accepted, None, jiff::Timestamp::UNIX_EPOCH);
        WatchPlan { output, ..plan(0, None) }
    };
    let mut first = hub.watch(plan()).expect("started");
    let mut second = hub.watch(plan()).expect("started");
    let change = Change::Put {
        value: Bytes::from_static(
            br#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"p","resourceVersion":"1"}}"#,
        ),
        previous: None,
    };
    hub.deliver(&[log.push(Event::for_tests(1, "/core/pods/default/p".to_owned(), change))]);
    let (one, other) = (next(&mut first).await.expect("a frame"), next(&mut second).await.expect("a frame"));
    assert_eq!(one.as_ptr(), other.as_ptr());
    let length = u32::from_be_bytes(one[..4].try_into().expect("a length"));
    assert_eq!(one.len(), 4 + length as usize);
}

#[tokio::test]
async fn a_watch_ends_with_its_definition_behind_all_that_was_before() {
    const KEY: &str = "/apiextensions.k8s.io/customresourcedefinitions/pods";
    let log = Log::default();
    let hub = Hub::new(Box::new(log.clone()), 0);
    let standing = |after, revision| WatchPlan {
        bookmarks: true,
        footing: Some(Footing { key: KEY.into(), revision }),
        ..plan(after, None)
    };
    let definition = |versions: &str, status: u8| -> Bytes {
        format!(r#"{{"spec":{{"versions":{versions}}},"status":{status}}}"#).into()
    };
    let put = |revision, value: &Bytes, previous: &Bytes| {
        let change = Change::Put { value: value.clone(), previous: Some(previous.clone()) };
        Event::for_tests(revision, KEY.to_owned(), change)
    };
    let (old, told, new) = (definition("[1]", 1), definition("[1]", 2), definition("[1,2]", 2));
    let mut early = hub.watch(standing(0, 0)).expect("started");
    hub.deliver(&[log.push(pod(1, "p", "a")), log.push(put(2, &told, &old))]);
    assert_eq!(revisions(&next(&mut early).await.expect("a line")), [1]);
    hub.deliver(&[log.push(pod(3, "p", "a")), log.push(put(4, &new, &told)), log.push(pod(5, "p", "a"))]);
    let mut rest = Vec::new();
    while let Some(chunk) = next(&mut early).await {
        rest.extend(revisions(&chunk));
    }
    assert_eq!(rest, [3, 5, 5], "the last is a bookmark");
    // Who was planned on the new definition resumes from before it, and stays.
    let mut late = hub.watch(standing(4, 5)).expect("started");
    assert_eq!(revisions(&next(&mut late).await.expect("a line")), [5]);
    // Who was planned before it, and comes after it, ends at once.
    let mut between = hub.watch(standing(3, 3)).expect("started");
    assert_eq!(revisions(&next(&mut between).await.expect("a bookmark")), [4]);
    assert!(next(&mut between).await.is_none());
    let last = Change::Delete { previous: new.clone(), last: new };
    hub.deliver(&[log.push(Event::for_tests(6, KEY.to_owned(), last))]);
    assert_eq!(revisions(&next(&mut late).await.expect("a bookmark")), [6]);
    assert!(next(&mut late).await.is_none());
    drop((early, late, between));
    assert!(hub.topics().standing.is_empty(), "watchers leave nothing behind");
}

#[tokio::test]
async fn a_forgotten_beginning_is_told() {
    let log = Log::default();
    let hub = Hub::new(Box::new(log.clone()), 9);
    log.push(pod(10, "p", "a"));
    let Err(Forgotten { line, .. }) = hub.watch(plan(3, None)) else { panic!("a gap was accepted") };
    let line: serde_json::Value = serde_json::from_slice(&line).expect("JSON");
    assert_eq!((&line["type"], &line["object"]["code"]), (&"ERROR".into(), &410.into()));
    assert!(hub.topics().watchers.is_empty());
}

#[tokio::test]
async fn a_watch_ends_with_a_bookmark_of_all_that_was_delivered() {
    let log = Log::default();
    let hub = Hub::new(Box::new(log.clone()), 0);
    let timeout = Some(Duration::from_millis(20));
    let plan = WatchPlan { bookmarks: true, timeout, ..plan(0, Some("quiet")) };
    let mut watcher = hub.watch(plan).expect("started");
    hub.deliver(&[log.push(pod(1, "p", "elsewhere")), log.push(pod(2, "p", "elsewhere"))]);
    assert_eq!(revisions(&next(&mut watcher).await.expect("the last bookmark")), [2]);
    assert!(next(&mut watcher).await.is_none());
}
