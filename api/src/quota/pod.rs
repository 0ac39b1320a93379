//! What a pod uses: the sum over its containers, by the rules of scheduling.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::{Amounts, add, amounts, number};

/// Names that quotas know of pods, besides those with a prefix.
const NAMES: &[&str] = &[
    "pods",
    "cpu",
    "memory",
    "ephemeral-storage",
    "requests.cpu",
    "requests.memory",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
];

/// What every container has to name where a quota limits it.
const DEMANDED: &[&str] =
    &["cpu", "memory", "requests.cpu", "requests.memory", "limits.cpu", "limits.memory"];

const STANDARD: &[&str] = &["cpu", "memory", "ephemeral-storage"];

/// Whether pods count towards the limit of that name.
pub(super) fn counts_as(name: &str) -> bool {
    NAMES.contains(&name)
        || name.starts_with("hugepages-")
        || name
            .strip_prefix("requests.")
            .is_some_and(|rest| rest.starts_with("hugepages-") || is_extended(rest))
}

/// Whether a resource is one that nodes advertise of their own accord: it has a domain other than Kubernetes' own.
fn is_extended(name: &str) -> bool {
    name.split_once('/')
        .is_some_and(|(domain, _)| domain != "kubernetes.io" && !domain.ends_with(".kubernetes.io"))
}

/// Adds what the pod uses. A pod that has ended uses nothing; it is counted as an object only.
pub(super) fn usage(pod: &Value, now: Timestamp, usage: &mut Amounts) {
    if has_ended(pod, now) {
        return;
    }
    named(&aggregate(pod, "requests"), &aggregate(pod, "limits"), usage);
    usage.insert("pods".to_owned(), number(1));
}

/// Requests and limits by the names that quotas have for them.
fn named(requests: &Amounts, limits: &Amounts, usage: &mut Amounts) {
    for name in STANDARD {
        if let Some(amount) = requests.get(*name) {
            usage.insert((*name).to_owned(), *amount);
            usage.insert(format!("requests.{name}"), *amount);
        }
        if let Some(amount) = limits.get(*name) {
            usage.insert(format!("limits.{name}"), *amount);
        }
    }
    for (name, amount) in requests {
        if name.starts_with("hugepages-") {
            usage.insert(name.clone(), *amount);
        }
        if name.starts_with("hugepages-") || is_extended(name) {
            usage.insert(format!("requests.{name}"), *amount);
        }
    }
}

fn has_ended(pod: &Value, now: Timestamp) -> bool {
    matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"))
        || stays_counted_until(pod).is_some_and(|end| now > end)
}

/// When a pod that is being deleted is not counted any more; `None` for one that stays.
pub fn stays_counted_until(pod: &Value) -> Option<Timestamp> {
    let deleted = crate::time::parse(pod["metadata"]["deletionTimestamp"].as_str()?).ok()?;
    let grace = pod["metadata"]["deletionGracePeriodSeconds"].as_i64()?;
    deleted.checked_add(SignedDuration::from_secs(grace)).ok()
}

/// The `requests` or `limits` of a pod as a whole: containers and sidecars together, or what an init container needs when that
/// is more; what is set for the pod takes the place of both; overhead comes on top.
pub fn aggregate(pod: &Value, list: &str) -> Amounts {
    let spec = &pod["spec"];
    let mut total = Amounts::new();
    for container in items(&spec["containers"]) {
        add(&mut total, &of_container(pod, container, list));
    }
    let (mut sidecars, mut peak) = (Amounts::new(), Amounts::new());
    for container in items(&spec["initContainers"]) {
        let own = of_container(pod, container, list);
        let mut together = sidecars.clone();
        add(&mut together, &own);
        if container["restartPolicy"] == "Always" {
            sidecars = together.clone();
        }
        raise(&mut peak, &together);
    }
    add(&mut total, &sidecars);
    raise(&mut total, &peak);
    total.extend(amounts(&spec["resources"][list]));
    for (name, overhead) in amounts(&spec["overhead"]) {
        match total.get_mut(&name) {
            Some(amount) if list == "requests" || !amount.is_zero() => *amount += overhead,
            None if list == "requests" => drop(total.insert(name, overhead)),
            _ => {}
        }
    }
    total
}

/// What a container asks for, or what it still has when that is more: a resize frees nothing before it was carried out.
fn of_container(pod: &Value, container: &Value, list: &str) -> Amounts {
    let mut own = amounts(&container["resources"][list]);
    let statuses = ["containerStatuses", "initContainerStatuses"];
    let mut statuses = statuses.iter().flat_map(|field| items(&pod["status"][*field]));
    if let Some(status) = statuses.find(|status| status["name"] == container["name"]) {
        let held = amounts(&status["resources"][list]);
        let resized = held.into_iter().filter(|(name, _)| own.contains_key(name)).collect();
        raise(&mut own, &resized);
    }
    own
}

fn raise(to: &mut Amounts, other: &Amounts) {
    for (name, amount) in other {
        let present = to.entry(name.clone()).or_insert(*amount);
        if *present < *amount {
            *present = *amount;
        }
    }
}

/// What containers leave out of what `demanded` names, in Kubernetes' words; `None` when nothing is missing.
pub fn missing<'n>(pod: &Value, demanded: impl Iterator<Item = &'n str>) -> Option<String> {
    let spec = &pod["spec"];
    let set = |list: &str| spec["resources"][list].as_object().is_some_and(|map| !map.is_empty());
    if set("requests") || set("limits") {
        return None;
    }
    let demanded: BTreeSet<&str> = demanded.filter(|name| DEMANDED.contains(name)).collect();
    let mut missing: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for container in items(&spec["containers"]).chain(items(&spec["initContainers"])) {
        let mut usage = Amounts::new();
        let resources = &container["resources"];
        named(&amounts(&resources["requests"]), &amounts(&resources["limits"]), &mut usage);
        for name in demanded.iter().filter(|name| !usage.contains_key(**name)) {
            missing.entry(name).or_default().insert(container["name"].as_str().unwrap_or_default());
        }
    }
    let words: Vec<String> = missing
        .into_iter()
        .map(|(name, containers)| {
            format!("{name} for: {}", containers.into_iter().collect::<Vec<_>>().join(","))
        })
        .collect();
    (!words.is_empty()).then(|| format!("must specify {}", words.join("; ")))
}

fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}
