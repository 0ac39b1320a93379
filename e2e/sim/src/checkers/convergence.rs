//! `converges`: after all faults have ended the cluster comes to what is desired, and stays there.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use serde_json::Value;

use crate::checkers::replicas::{Order, State};

/// The objects of a resource.
fn objects<'a>(state: &'a State, prefix: &'static str) -> impl Iterator<Item = (String, Value)> + use<'a> {
    state
        .range(Bytes::from_static(prefix.as_bytes())..)
        .take_while(move |(key, _)| key.starts_with(prefix.as_bytes()))
        .map(|(key, (_, value))| {
            (String::from_utf8_lossy(key).into_owned(), serde_json::from_slice(value).unwrap_or_default())
        })
}

/// What is not as it is desired, one line each. `running`: the uids of the pods that run on each node.
pub fn unfinished(state: &State, running: &BTreeMap<String, BTreeSet<String>>) -> Vec<String> {
    let mut found = Vec::new();
    deployments(state, &mut found);
    daemon_sets(state, &mut found);
    pods(state, running, &mut found);
    nodes(state, &mut found);
    services(state, &mut found);
    for (key, _) in objects(state, "/core/namespaces/").filter(|(_, it)| is_deleted(it)) {
        found.push(format!("{key} is still being deleted"));
    }
    found
}

/// What was written after a revision, but for signs of life.
pub fn unrest(order: &Order, after: u64) -> Vec<String> {
    let is_life = |key: &[u8]| {
        key.starts_with(b"/coordination.k8s.io/leases/")
            || key.starts_with(b"/core/nodes/")
            || key.starts_with(b"/core/events/")
            || key.starts_with(b"/events.k8s.io/")
    };
    let later = (after + 1..=order.revision()).filter_map(|revision| order.event(revision));
    later
        .filter(|event| !is_life(&event.key))
        .map(|event| format!("{} was written at {}", String::from_utf8_lossy(&event.key), event.revision))
        .collect()
}

fn is_deleted(object: &Value) -> bool {
    !object["metadata"]["deletionTimestamp"].is_null()
}

fn number(value: &Value) -> i64 {
    value.as_i64().unwrap_or(0)
}

fn deployments(state: &State, found: &mut Vec<String>) {
    for (key, object) in objects(state, "/apps/deployments/") {
        let (spec, status) = (&object["spec"], &object["status"]);
        let wanted = number(&spec["replicas"]);
        let counts = ["replicas", "updatedReplicas", "availableReplicas"].map(|field| number(&status[field]));
        let seen = number(&status["observedGeneration"]) == number(&object["metadata"]["generation"]);
        if is_deleted(&object) || !seen || counts != [wanted; 3] {
            found.push(format!("{key} wants {wanted} and has {counts:?}"));
        }
    }
    let mut pods: BTreeMap<String, i64> = BTreeMap::new();
    for (_, pod) in objects(state, "/core/pods/").filter(|(_, it)| is_ready(it)) {
        for owner in pod["metadata"]["ownerReferences"].as_array().into_iter().flatten() {
            *pods.entry(owner["uid"].as_str().unwrap_or_default().to_owned()).or_default() += 1;
        }
    }
    for (key, set) in objects(state, "/apps/replicasets/") {
        let wanted = number(&set["spec"]["replicas"]);
        let have = pods.get(set["metadata"]["uid"].as_str().unwrap_or_default()).copied().unwrap_or(0);
        if wanted != have {
            found.push(format!("{key} wants {wanted} and has {have} ready pods"));
        }
    }
}

fn daemon_sets(state: &State, found: &mut Vec<String>) {
    for (key, object) in objects(state, "/apps/daemonsets/") {
        let status = &object["status"];
        let wanted = number(&status["desiredNumberScheduled"]);
        let fields = ["currentNumberScheduled", "updatedNumberScheduled", "numberReady"];
        let counts = fields.map(|field| number(&status[field]));
        let seen = number(&status["observedGeneration"]) == number(&object["metadata"]["generation"]);
        let nodes = objects(state, "/core/nodes/").count() as i64;
        if is_deleted(&object) || !seen || counts != [wanted; 3] || wanted != nodes {
            found.push(format!("{key} wants {wanted} on {nodes} nodes and has {counts:?}"));
        }
    }
}

fn is_ready(pod: &Value) -> bool {
    let mut conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
    !is_deleted(pod) && conditions.any(|it| it["type"] == "Ready" && it["status"] == "True")
}

fn pods(state: &State, running: &BTreeMap<String, BTreeSet<String>>, found: &mut Vec<String>) {
    let mut bound: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (key, pod) in objects(state, "/core/pods/") {
        let ended = matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
        // An ended pod stays until there are too many of them.
        if ended && !is_deleted(&pod) {
            continue;
        }
        if !is_ready(&pod) {
            found.push(format!("{key} is not ready: {}", pod["status"]["phase"]));
        }
        let node = pod["spec"]["nodeName"].as_str().unwrap_or_default().to_owned();
        let uid = pod["metadata"]["uid"].as_str().unwrap_or_default().to_owned();
        bound.entry(node).or_default().insert(uid);
    }
    for (node, uids) in running {
        let wanted = bound.get(node).cloned().unwrap_or_default();
        if *uids != wanted {
            let surplus: Vec<_> = uids.difference(&wanted).collect();
            let missing: Vec<_> = wanted.difference(uids).collect();
            found.push(format!("{node} runs {surplus:?} too many and lacks {missing:?}"));
        }
    }
}

fn nodes(state: &State, found: &mut Vec<String>) {
    for (key, node) in objects(state, "/core/nodes/") {
        let mut conditions = node["status"]["conditions"].as_array().into_iter().flatten();
        let ready = conditions.any(|it| it["type"] == "Ready" && it["status"] == "True");
        let taints = node["spec"]["taints"].as_array().map_or(0, Vec::len);
        if !ready || taints > 0 || node["spec"]["podCIDR"].is_null() {
            found.push(format!("{key}: ready {ready}, {taints} taints, network {}", node["spec"]["podCIDR"]));
        }
    }
}

/// The ready addresses of each service's slices are those of the ready pods that it selects.
fn services(state: &State, found: &mut Vec<String>) {
    let slices: Vec<(String, Value)> = objects(state, "/discovery.k8s.io/endpointslices/").collect();
    let pods: Vec<(String, Value)> = objects(state, "/core/pods/").filter(|(_, it)| is_ready(it)).collect();
    for (key, service) in objects(state, "/core/services/") {
        let Some(selector) = service["spec"]["selector"].as_object() else { continue };
        let (name, namespace) = (&service["metadata"]["name"], &service["metadata"]["namespace"]);
        let selects = |pod: &Value| {
            pod["metadata"]["namespace"] == *namespace
                && selector.iter().all(|(label, value)| pod["metadata"]["labels"][label] == *value)
        };
        let wanted: BTreeSet<&str> = pods
            .iter()
            .filter(|(_, pod)| selects(pod))
            .filter_map(|(_, pod)| pod["status"]["podIP"].as_str())
            .collect();
        let own: Vec<_> = slices
            .iter()
            .filter(|(_, slice)| {
                slice["metadata"]["namespace"] == *namespace
                    && slice["metadata"]["labels"]["kubernetes.io/service-name"] == *name
            })
            .collect();
        if own.is_empty() {
            found.push(format!("{key} has no slice"));
        }
        let endpoints =
            own.into_iter().flat_map(|(_, slice)| slice["endpoints"].as_array().into_iter().flatten());
        let ready = endpoints.filter(|it| it["conditions"]["ready"] == true);
        let have: BTreeSet<&str> = ready
            .flat_map(|it| it["addresses"].as_array().into_iter().flatten())
            .filter_map(Value::as_str)
            .collect();
        if wanted != have {
            found.push(format!("{key} leads to {have:?}, not to {wanted:?}"));
        }
    }
}
