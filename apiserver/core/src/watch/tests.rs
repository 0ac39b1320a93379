//! What a watcher with a selector is told when objects come into view, change in view, and leave it.

use api::catalogue::Catalogue;

use super::*;
use crate::negotiate::Accepted;
use crate::request::Options;
use crate::served::Served;

fn plan(labels: &str) -> WatchPlan {
    let pods = Catalogue::builtin().resource("", "v1", "pods").expect("pods");
    let options = Options { label_selector: labels.into(), ..Options::default() };
    WatchPlan {
        prefix: Bytes::from_static(b"/core/pods/default/"),
        key: None,
        namespace: "default".into(),
        node: None,
        initial: Vec::new(),
        after: 0,
        bookmarks: false,
        timeout: None,
        content_type: "application/json",
        selection: Selection::parse(pods, &options).expect("selection"),
        output: Output::new(Served::Builtin(pods), Accepted::default(), None, jiff::Timestamp::UNIX_EPOCH),
        footing: None,
    }
}

fn pod(app: &str, revision: u64) -> Bytes {
    format!(r#"{{"metadata":{{"labels":{{"app":"{app}"}},"name":"p","resourceVersion":"{revision}"}}}}"#)
        .into()
}

fn check(labels: &str, previous: Option<&str>, next: Option<&str>, expected: &str) {
    let previous = previous.map(|app| pod(app, 5));
    let change = match next {
        Some(app) => Change::Put { value: pod(app, 9), previous },
        None => Change::Delete { last: pod("a", 9), previous: previous.expect("a pod to delete") },
    };
    let event = Event::for_tests(9, "/core/pods/default/p", change);
    let line = plan(labels).line(&event).map(|line| String::from_utf8_lossy(&line).into_owned());
    assert_eq!(line.as_deref().unwrap_or_default().trim_end(), expected, "{labels}");
}

fn line(kind: &str, app: &str) -> String {
    let pod = pod(app, 9);
    format!(r#"{{"type":"{kind}","object":{}}}"#, String::from_utf8_lossy(&pod))
}

#[test]
fn without_a_selector_everything_is_told() {
    check("", None, Some("a"), &line("ADDED", "a"));
    check("", Some("a"), Some("b"), &line("MODIFIED", "b"));
    check("", Some("a"), None, &line("DELETED", "a"));
}

#[test]
fn a_selector_turns_changes_into_comings_and_goings() {
    check("app=a", None, Some("b"), "");
    check("app=a", Some("b"), Some("a"), &line("ADDED", "a"));
    check("app=a", Some("a"), Some("a"), &line("MODIFIED", "a"));
    // What leaves is shown as it last was in view, at the revision that took it out.
    check("app=a", Some("a"), Some("b"), &line("DELETED", "a"));
    check("app=a", Some("b"), None, "");
}

#[test]
fn other_namespaces_are_not_covered() {
    let event = Event::for_tests(9, "/core/pods/other/p", Change::Put { value: pod("a", 9), previous: None });
    assert_eq!(plan("").line(&event), None);
}
