//! The events of an object.

use client::core::object::ResourceType;
use client::params::ListParams;
use jiff::Timestamp;
use serde_json::Value;

use super::text::{Text, age_of};
use crate::verbs::select::Found;
use crate::verbs::session::{Session, text_at};

/// The resource.
pub fn resource() -> ResourceType {
    ResourceType::new("", "v1", "Event", "events", true)
}

/// The events of an object, oldest first.
pub async fn of(session: &Session, found: &Found) -> Vec<Value> {
    let mut selector = format!("involvedObject.name={}", found.target.key.name);
    selector.push_str(&format!(",involvedObject.kind={}", found.api.resource.kind));
    if let Some(namespace) = found.target.key.namespace_opt() {
        selector.push_str(&format!(",involvedObject.namespace={namespace}"));
    }
    let uid = text_at(&found.value, "/metadata/uid");
    // Nodes name themselves as the uid of their events, as kubelets do.
    if !uid.is_empty() && found.api.resource.kind != "Node" {
        selector.push_str(&format!(",involvedObject.uid={uid}"));
    }
    let params = ListParams::all().fields(selector);
    let mut events = super::list(session, &resource(), found.target.key.namespace_opt(), params).await;
    events.sort_by_key(|event| last_seen(event).to_owned());
    events
}

/// When an event was last seen.
pub fn last_seen(event: &Value) -> &str {
    ["/series/lastObservedTime", "/lastTimestamp", "/eventTime", "/metadata/creationTimestamp"]
        .into_iter()
        .map(|pointer| text_at(event, pointer))
        .find(|time| !time.is_empty())
        .unwrap_or_default()
}

/// When an event was first seen.
pub fn first_seen(event: &Value) -> &str {
    ["/firstTimestamp", "/eventTime", "/metadata/creationTimestamp"]
        .into_iter()
        .map(|pointer| text_at(event, pointer))
        .find(|time| !time.is_empty())
        .unwrap_or_default()
}

/// How often an event was seen.
pub fn count(event: &Value) -> i64 {
    let count = event.pointer("/series/count").or_else(|| event.get("count"));
    count.and_then(Value::as_i64).unwrap_or(1)
}

/// Who saw it.
pub fn source(event: &Value) -> &str {
    match text_at(event, "/source/component") {
        "" => text_at(event, "/reportingComponent"),
        component => component,
    }
}

/// `5s`, or `5s (x3 over 2m)`.
pub fn age(event: &Value, now: Timestamp) -> String {
    let last = age_of(last_seen(event), now);
    match count(event) {
        ..=1 => last,
        count => format!("{last} (x{count} over {})", age_of(first_seen(event), now)),
    }
}

/// Writes the table of events.
pub fn write(text: &mut Text, events: &[Value], now: Timestamp) {
    if events.is_empty() {
        return text.field(0, "Events", "<none>");
    }
    text.line(0, "Events:");
    text.line(1, "Type\tReason\tAge\tFrom\tMessage");
    text.line(1, "----\t------\t----\t----\t-------");
    for event in events {
        let message = text_at(event, "/message").trim().replace('\n', " ");
        text.line(
            1,
            format!(
                "{}\t{}\t{}\t{}\t{message}",
                text_at(event, "/type"),
                text_at(event, "/reason"),
                age(event, now),
                source(event)
            ),
        );
    }
}
