//! Objects that are stored in another version than they are served in: events of `events.k8s.io` live as core events,
//! autoscalers as those of `autoscaling/v2`.

mod autoscaling;

use std::borrow::Cow;

use serde_json::{Map, Value};

use crate::catalogue::{Resource, api_version};

/// Fields of `events.k8s.io/v1`, and their names in the core version; all others have one name.
const EVENT_FIELDS: [(&str, &str); 7] = [
    ("deprecatedCount", "count"),
    ("deprecatedFirstTimestamp", "firstTimestamp"),
    ("deprecatedLastTimestamp", "lastTimestamp"),
    ("deprecatedSource", "source"),
    ("note", "message"),
    ("regarding", "involvedObject"),
    ("reportingController", "reportingComponent"),
];

/// Whether objects of a resource are stored as they are served.
pub fn stored_as_served(resource: &Resource) -> bool {
    resource.stored_as.is_none()
}

/// From the version in which a resource is served to the one in which it is stored. Objects that a webhook converts are left to it.
pub fn to_stored(resource: &Resource, object: &mut Value) {
    let Some((group, version)) = resource.stored_as.as_ref().filter(|_| !by_webhook(resource)) else {
        return;
    };
    if resource.is("events.k8s.io", "events") {
        rename(object, EVENT_FIELDS.iter().map(|(served, stored)| (*served, *stored)));
        if let Value::Object(map) = object {
            // What Go always writes.
            for field in ["involvedObject", "source"] {
                map.entry(field).or_insert_with(|| Value::Object(Map::new()));
            }
            for field in ["firstTimestamp", "lastTimestamp"] {
                map.entry(field).or_insert(Value::Null);
            }
        }
    }
    if let (true, Value::Object(map)) = (resource.is("autoscaling", "horizontalpodautoscalers"), &mut *object)
    {
        autoscaling::to_v2(map);
    }
    name_version(object, api_version(group, version));
}

/// From the version in which a resource is stored to the one in which it is served. Objects that a webhook converts are left to it.
pub fn from_stored(resource: &Resource, object: &mut Value) {
    if resource.stored_as.is_none() || by_webhook(resource) {
        return;
    }
    if resource.is("events.k8s.io", "events") {
        rename(object, EVENT_FIELDS.iter().map(|(served, stored)| (*stored, *served)));
    }
    if let (true, Value::Object(map)) = (resource.is("autoscaling", "horizontalpodautoscalers"), &mut *object)
    {
        autoscaling::to_v1(map);
    }
    name_version(object, resource.api_version());
}

/// Whether the definition of a resource names a webhook for this.
fn by_webhook(resource: &Resource) -> bool {
    resource.custom.as_ref().is_some_and(|custom| custom.converter.is_some())
}

fn name_version(object: &mut Value, api_version: Cow<'_, str>) {
    if let Value::Object(map) = object {
        map.insert("apiVersion".to_owned(), api_version.into_owned().into());
    }
}

fn rename<'a>(object: &mut Value, names: impl Iterator<Item = (&'a str, &'a str)>) {
    let Value::Object(map) = object else { return };
    let mut renamed = Map::new();
    for (from, to) in names {
        if let Some(value) = map.remove(from) {
            renamed.insert(to.to_owned(), value);
        }
    }
    map.extend(renamed);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{catalogue::Catalogue, schema};

    #[test]
    fn events_go_and_come_back() {
        let events = Catalogue::builtin().resource("events.k8s.io", "v1", "events").expect("events");
        let served = json!({"apiVersion": "events.k8s.io/v1", "kind": "Event", "note": "hello", "reason": "Started",
            "regarding": {"kind": "Pod"}, "deprecatedCount": 2, "reportingController": "kubelet"});
        let mut object = served.clone();
        to_stored(events, &mut object);
        assert_eq!(object["message"], "hello");
        assert_eq!(object["apiVersion"], "v1");
        let core = Catalogue::builtin().resource("", "v1", "events").expect("events");
        assert!(schema::builtin().decode(core.schema, &mut object).is_clean());
        from_stored(events, &mut object);
        assert!(schema::builtin().decode(events.schema, &mut object).is_clean());
        assert_eq!((&object["note"], &object["regarding"]), (&served["note"], &served["regarding"]));
        assert_eq!(object["apiVersion"], served["apiVersion"]);
    }
}
