//! LimitRanges: what containers get that ask for nothing, and how much containers, pods and claims may ask for.

use std::collections::BTreeSet;

use api::quantity::Quantity;
use api::quota::{Amounts, aggregate, amounts};
use serde_json::{Map, Value};

use crate::call::Call;
use crate::failure::Refused;
use crate::keys;
use crate::object::{self, items, meta, meta_mut};

const ANNOTATION: &str = "kubernetes.io/limit-ranger";

/// The LimitRanges of the request's namespace.
fn limit_ranges(call: &Call<'_>) -> Result<Vec<Value>, Refused> {
    let prefix = keys::namespace_prefix("", "limitranges", call.namespace());
    call.world.snapshot.prefix(prefix.as_bytes()).map(|(_, entry)| call.parsed(entry)).collect()
}

/// Gives the containers of a new pod what they do not name themselves.
pub(super) fn default(call: &Call<'_>, pod: &mut Value) -> Result<(), Refused> {
    for range in limit_ranges(call)? {
        let of = |field: &str| -> Map<String, Value> {
            let limits = items(&range["spec"]["limits"]).iter().filter(|limit| limit["type"] == "Container");
            limits.filter_map(|limit| limit[field].as_object()).flatten().map(entry).collect()
        };
        let (requests, limits) = (of("defaultRequest"), of("default"));
        let mut notes = Vec::new();
        for (list, word) in [("containers", "container"), ("initContainers", "init container")] {
            let containers = object::child(pod, "spec").get_mut(list).and_then(Value::as_array_mut);
            for container in containers.into_iter().flatten() {
                for (field, defaults, what) in
                    [("requests", &requests, "request"), ("limits", &limits, "limit")]
                {
                    let set = fill(container, field, defaults);
                    if !set.is_empty() {
                        let name = container["name"].as_str().unwrap_or_default();
                        notes.push(format!("{} {what} for {word} {name}", set.join(", ")));
                    }
                }
            }
        }
        if !notes.is_empty() {
            let text = format!("LimitRanger plugin set: {}", notes.join("; "));
            object::map_child(meta_mut(pod), "annotations").insert(ANNOTATION.into(), text.into());
        }
    }
    Ok(())
}

fn entry((name, value): (&String, &Value)) -> (String, Value) {
    (name.clone(), value.clone())
}

/// Sets what is missing of a container's limits or requests, and says what that was.
fn fill(container: &mut Value, field: &str, defaults: &Map<String, Value>) -> Vec<String> {
    let Some(container) = container.as_object_mut().filter(|_| !defaults.is_empty()) else {
        return Vec::new();
    };
    let present = object::map_child(object::map_child(container, "resources"), field);
    let missing: BTreeSet<&String> = defaults.keys().filter(|name| !present.contains_key(*name)).collect();
    let set: Vec<String> = missing.into_iter().cloned().collect();
    for name in &set {
        present.insert(name.clone(), defaults[name].clone());
    }
    set
}

/// Refuses a pod that asks for less or more than it may.
pub(super) fn check_pod(call: &Call<'_>, pod: &Value) -> Result<(), Refused> {
    for range in limit_ranges(call)? {
        let mut errors = Vec::new();
        for limit in items(&range["spec"]["limits"]) {
            match limit["type"].as_str() {
                Some("Container") => {
                    let spec = &pod["spec"];
                    for container in items(&spec["containers"]).iter().chain(items(&spec["initContainers"])) {
                        let of = |list: &str| amounts(&container["resources"][list]);
                        bounds("Container", limit, &of("requests"), &of("limits"), &mut errors);
                    }
                }
                Some("Pod") => {
                    let of = |list: &str| aggregate(pod, list);
                    bounds("Pod", limit, &of("requests"), &of("limits"), &mut errors);
                }
                _ => {}
            }
        }
        refuse(call, pod, errors)?;
    }
    Ok(())
}

/// Refuses a claim for less or more storage than it may be.
pub(super) fn check_claim(call: &Call<'_>, claim: &Value) -> Result<(), Refused> {
    for range in limit_ranges(call)? {
        let mut errors = Vec::new();
        let requests = amounts(&claim["spec"]["resources"]["requests"]);
        for limit in items(&range["spec"]["limits"]) {
            const TYPE: &str = "PersistentVolumeClaim";
            if limit["type"] != TYPE {
                continue;
            }
            for (name, least) in amounts(&limit["min"]) {
                errors.extend(at_least(TYPE, &name, least, &requests, &Amounts::new()));
            }
            for (name, most) in amounts(&limit["max"]) {
                let about = format!("maximum {name} usage per {TYPE} is {most}");
                match requests.get(&name) {
                    None => errors.push(format!("{about}.  No request is specified")),
                    Some(request) if *request > most => {
                        errors.push(format!("{about}, but request is {request}"));
                    }
                    Some(_) => {}
                }
            }
        }
        refuse(call, claim, errors)?;
    }
    Ok(())
}

fn refuse(call: &Call<'_>, new: &Value, errors: Vec<String>) -> Result<(), Refused> {
    let mut distinct: Vec<String> = Vec::new();
    for error in errors {
        if !distinct.contains(&error) {
            distinct.push(error);
        }
    }
    match distinct.as_slice() {
        [] => Ok(()),
        [only] => Err(call.forbidden(meta(new, "name"), only)),
        several => Err(call.forbidden(meta(new, "name"), format!("[{}]", several.join(", ")))),
    }
}

/// Holds requests and limits against one entry of a LimitRange.
fn bounds(kind: &str, limit: &Value, requests: &Amounts, limits: &Amounts, errors: &mut Vec<String>) {
    for (name, least) in amounts(&limit["min"]) {
        errors.extend(at_least(kind, &name, least, requests, limits));
    }
    for (name, most) in amounts(&limit["max"]) {
        errors.extend(at_most(kind, &name, most, requests, limits));
    }
    for (name, ratio) in amounts(&limit["maxLimitRequestRatio"]) {
        errors.extend(within_ratio(kind, &name, ratio, requests, limits));
    }
}

fn at_least(kind: &str, name: &str, least: Quantity, requests: &Amounts, limits: &Amounts) -> Option<String> {
    let about = format!("minimum {name} usage per {kind} is {least}");
    let Some(request) = requests.get(name) else { return Some(format!("{about}.  No request is specified")) };
    if *request < least {
        return Some(format!("{about}, but request is {request}"));
    }
    let limit = limits.get(name).filter(|limit| **limit < least)?;
    Some(format!("{about}, but limit is {limit}"))
}

fn at_most(kind: &str, name: &str, most: Quantity, requests: &Amounts, limits: &Amounts) -> Option<String> {
    let about = format!("maximum {name} usage per {kind} is {most}");
    let Some(limit) = limits.get(name) else { return Some(format!("{about}.  No limit is specified")) };
    if *limit > most {
        return Some(format!("{about}, but limit is {limit}"));
    }
    let request = requests.get(name).filter(|request| **request > most)?;
    Some(format!("{about}, but request is {request}"))
}

fn within_ratio(
    kind: &str,
    name: &str,
    most: Quantity,
    requests: &Amounts,
    limits: &Amounts,
) -> Option<String> {
    let about = format!("{name} max limit to request ratio per {kind} is {most}, but");
    let set = |amounts: &Amounts| amounts.get(name).copied().filter(|amount| !amount.is_zero());
    let Some(request) = set(requests) else {
        return Some(format!("{about} no request is specified or request is 0"));
    };
    let Some(limit) = set(limits) else {
        return Some(format!("{about} no limit is specified or limit is 0"));
    };
    let ratio = limit.as_f64() / request.as_f64();
    (ratio > most.as_f64()).then(|| format!("{about} provided ratio is {ratio:.6}"))
}
