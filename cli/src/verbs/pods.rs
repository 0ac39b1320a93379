//! Finds the pods behind a name: a pod itself, or those of a workload or service.

use client::core::object::{ObjectKey, ResourceType, Target};
use client::params::ListParams;
use serde_json::Value;

use super::error::{Result, message};
use super::rollout::history::selector_of;
use super::session::{Session, text_at};

/// Names the container that is meant when none is.
const DEFAULT_CONTAINER: &str = "/metadata/annotations/kubectl.kubernetes.io~1default-container";

/// The resource `pods`.
pub fn resource() -> ResourceType {
    ResourceType::new("", "v1", "Pod", "pods", true)
}

/// A pod by `NAME`, `pod/NAME`, or any pod of `deployment/NAME`, `service/NAME` and the like.
pub async fn one(session: &Session, word: &str) -> Result<Value> {
    let (kind, name) = match word.split_once('/') {
        Some((kind, name)) => (kind, name),
        None => ("pods", word),
    };
    let api = session.find(kind).await?;
    let target = session.target(&api, name);
    let object = session.client.get_object(&target).await.map_err(|error| session.refused(error.into()))?;
    if api.resource.kind == "Pod" && api.resource.group.is_empty() {
        return Ok(object);
    }
    let mut pods = of(session, &object).await?;
    pods.sort_by_key(rank);
    if pods.is_empty() {
        return message(format!("no pods found for {word}"));
    }
    Ok(pods.swap_remove(0))
}

/// Running pods that are ready go first, then the older ones.
fn rank(pod: &Value) -> (bool, bool, String) {
    let ready = condition(pod, "Ready") == "True";
    (
        text_at(pod, "/status/phase") != "Running",
        !ready,
        text_at(pod, "/metadata/creationTimestamp").to_owned(),
    )
}

/// The status of a condition.
pub fn condition<'a>(object: &'a Value, kind: &str) -> &'a str {
    let conditions = object.pointer("/status/conditions").and_then(Value::as_array);
    conditions
        .into_iter()
        .flatten()
        .find(|condition| text_at(condition, "/type") == kind)
        .map(|condition| text_at(condition, "/status"))
        .unwrap_or_default()
}

/// The pods that an object selects.
pub async fn of(session: &Session, object: &Value) -> Result<Vec<Value>> {
    let service = text_at(object, "/kind") == "Service";
    let selector = if service {
        let labels = object.pointer("/spec/selector").and_then(Value::as_object);
        labels.filter(|labels| !labels.is_empty()).map(|labels| {
            let pairs: Vec<String> = labels
                .iter()
                .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
                .collect();
            pairs.join(",")
        })
    } else {
        selector_of(object)
    };
    let Some(selector) = selector else {
        return message(format!("{} has no selector for pods", text_at(object, "/kind").to_lowercase()));
    };
    list(session, Some(text_at(object, "/metadata/namespace")), ListParams::all().labels(selector)).await
}

/// The pods of a list.
pub async fn list(session: &Session, namespace: Option<&str>, params: ListParams) -> Result<Vec<Value>> {
    let page = session.client.list_page(&resource(), namespace, &params).await;
    let mut page = page.map_err(|error| session.refused(error.into()))?;
    match page.get_mut("items").map(Value::take) {
        Some(Value::Array(items)) => Ok(items),
        _ => Ok(Vec::new()),
    }
}

/// The place of a pod.
pub fn target(pod: &Value) -> Target {
    let key = ObjectKey::new(text_at(pod, "/metadata/namespace"), text_at(pod, "/metadata/name"));
    Target { resource: resource(), key }
}

/// The names of all containers, those that run first included.
pub fn containers(pod: &Value) -> Vec<(&str, &'static str)> {
    let of = |list: &str, suffix: &'static str| {
        let containers = pod.pointer(list).and_then(Value::as_array);
        containers.into_iter().flatten().map(move |container| (text_at(container, "/name"), suffix))
    };
    of("/spec/containers", "")
        .chain(of("/spec/initContainers", " (init)"))
        .chain(of("/spec/ephemeralContainers", " (ephem)"))
        .collect()
}

/// The container that is meant: the one that was named, the default one, or the first one, which is told.
pub fn container(pod: &Value, named: Option<&str>) -> Result<String> {
    let all = containers(pod);
    let pod_name = text_at(pod, "/metadata/name");
    if let Some(name) = named.filter(|name| !name.is_empty()) {
        return match all.iter().any(|(known, _)| *known == name) {
            true => Ok(name.to_owned()),
            false => message(format!("container {name} is not valid for pod {pod_name}")),
        };
    }
    let preferred = text_at(pod, DEFAULT_CONTAINER);
    if all.iter().any(|(known, _)| *known == preferred) {
        return Ok(preferred.to_owned());
    }
    let Some((first, _)) = all.first() else { return message(format!("pod {pod_name} has no containers")) };
    if all.len() > 1 {
        let names: Vec<String> = all.iter().map(|(name, suffix)| format!("{name}{suffix}")).collect();
        eprintln!("Defaulted container \"{first}\" out of: {}", names.join(", "));
    }
    Ok((*first).to_owned())
}
