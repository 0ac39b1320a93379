//! `nothing-orphaned`: in the end no object has an owner that is gone, lies in a namespace that is gone, or holds an
//! address for a service that is gone.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::checkers::replicas::State;

/// What is orphaned, one line each.
pub fn orphans(state: &State) -> Vec<String> {
    let objects: Vec<(String, Value)> = state
        .iter()
        .filter(|(key, _)| !key.starts_with(b"/claims/") && !key.starts_with(b"/registers/"))
        .map(|(key, (_, value))| {
            let value = serde_json::from_slice(value).unwrap_or_default();
            (String::from_utf8_lossy(key).into_owned(), value)
        })
        .collect();
    let uids: BTreeSet<&str> = objects.iter().filter_map(|(_, it)| it["metadata"]["uid"].as_str()).collect();
    let mut found = Vec::new();
    for (key, object) in &objects {
        let owners: Vec<&str> = object["metadata"]["ownerReferences"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|owner| owner["uid"].as_str())
            .collect();
        if !owners.is_empty() && owners.iter().all(|uid| !uids.contains(uid)) {
            found.push(format!("{key} has lost its owners"));
        }
        let namespace = object["metadata"]["namespace"].as_str();
        if let Some(namespace) = namespace {
            let place = format!("/core/namespaces/{namespace}");
            if !state.contains_key(place.as_bytes()) {
                found.push(format!("{key} is left of a namespace that is gone"));
            }
        }
    }
    found.extend(claims(state));
    found
}

/// Addresses and ports that are held for nobody.
fn claims(state: &State) -> Vec<String> {
    let from = bytes::Bytes::from_static(b"/claims/");
    let claims = state.range(from..).take_while(|(key, _)| key.starts_with(b"/claims/"));
    let services: Vec<Value> = state
        .range(bytes::Bytes::from_static(b"/core/services/")..)
        .take_while(|(key, _)| key.starts_with(b"/core/services/"))
        .map(|(_, (_, value))| serde_json::from_slice(value).unwrap_or_default())
        .collect();
    let is_held = |what: &str| {
        services.iter().any(|service| {
            let spec = &service["spec"];
            let addresses = spec["clusterIPs"].as_array().into_iter().flatten().filter_map(Value::as_str);
            let ports = spec["ports"].as_array().into_iter().flatten();
            let mut ports = ports.filter_map(|port| port["nodePort"].as_u64());
            addresses.into_iter().any(|it| it == what) || ports.any(|port| port.to_string() == what)
        })
    };
    claims
        .filter_map(|(key, _)| {
            let key = String::from_utf8_lossy(key);
            let what = key.rsplit('/').next().unwrap_or_default();
            (!is_held(what)).then(|| format!("{key} is held for no service"))
        })
        .collect()
}
