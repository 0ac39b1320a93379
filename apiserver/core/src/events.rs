//! One Event, two groups: `events.k8s.io/v1` names the fields of a core `v1` Event in other words.

use serde_json::{Map, Value};

/// (name in the core group, name in events.k8s.io).
const NAMES: &[(&str, &str)] = &[
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("reportingComponent", "reportingController"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
];

/// Turns a stored core Event into one of `events.k8s.io/v1`.
pub fn to_events_group(event: &mut Value) {
    rename(event, "events.k8s.io/v1", |core, new| (core, new));
}

/// Turns an Event of `events.k8s.io/v1` into the core Event that is stored.
pub fn to_core(event: &mut Value) {
    rename(event, "v1", |core, new| (new, core));
    if let Some(map) = event.as_object_mut() {
        // What Go always writes.
        map.entry("involvedObject").or_insert_with(|| Value::Object(Map::new()));
        map.entry("source").or_insert_with(|| Value::Object(Map::new()));
        for field in ["firstTimestamp", "lastTimestamp"] {
            map.entry(field).or_insert(Value::Null);
        }
    }
}

fn rename(
    event: &mut Value,
    api_version: &str,
    pair: impl Fn(&'static str, &'static str) -> (&'static str, &'static str),
) {
    let Some(map) = event.as_object_mut() else { return };
    for (core, new) in NAMES {
        let (from, to) = pair(core, new);
        if let Some(value) = map.remove(from) {
            map.insert(to.to_owned(), value);
        }
    }
    map.insert("apiVersion".into(), api_version.into());
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn both_groups_show_the_same_event() {
        let core = json!({"apiVersion": "v1", "involvedObject": {"name": "a"}, "message": "m",
            "source": {}, "firstTimestamp": null, "lastTimestamp": null});
        let mut event = core.clone();
        to_events_group(&mut event);
        assert_eq!(event["regarding"]["name"], "a");
        assert_eq!(event["note"], "m");
        to_core(&mut event);
        assert_eq!(event, core);
    }
}
