//! Pod Security Standards: what the labels of a namespace demand of its pods.
//!
//! Pods are refused by what is enforced, and pods and workloads are warned of by what is to be warned of. There is no audit
//! log, so that what is to be audited is only checked to be well formed.

use serde_json::Value;

use self::checks::{Pod, Violation};
use self::policy::{Level, Policy, Standard};
use crate::call::Call;
use crate::failure::Refused;
use crate::keys;
use crate::kinds::Part;
use crate::object::{items, meta};
use crate::scan;

mod baseline;
mod checks;
mod policy;
mod restricted;
#[cfg(test)]
mod tests;

/// Existing pods that a namespace's new standard is held against.
const MAX_CHECKED: usize = 3000;

/// What the labels of the request's namespace demand; `None` when they demand nothing.
fn demanded(call: &Call<'_>) -> Result<Option<Policy>, Refused> {
    let key = keys::object("", "namespaces", "", call.namespace());
    let Some(entry) = call.world.snapshot.get(&key) else { return Ok(None) };
    // Most namespaces have no such label: their labels are not read.
    let labels = scan::locate(&entry.value, &["metadata", "labels"]);
    let labels = labels.map(|range| &entry.value[range]).unwrap_or_default();
    if memchr::memmem::find(labels, policy::PREFIX.as_bytes()).is_none() {
        return Ok(None);
    }
    // What cannot be read is taken for the strictest, as the labels may have been written before they were checked.
    let (policy, _) = Policy::of(&call.parsed(entry)?);
    Ok(Some(policy))
}

/// Checks a new pod.
pub(super) fn create_pod(call: &Call<'_>, pod: &Value, warnings: &mut Vec<String>) -> Result<(), Refused> {
    match demanded(call)? {
        Some(policy) => check(call, &policy, pod, warnings),
        None => Ok(()),
    }
}

/// Checks a pod of which something changes that a standard looks at.
pub(super) fn update_pod(
    call: &Call<'_>,
    new: &Value,
    old: &Value,
    part: Part,
    warnings: &mut Vec<String>,
) -> Result<(), Refused> {
    let looked_at = matches!(part, Part::Main | Part::Sub("ephemeralcontainers" | "resize"));
    match looked_at && is_significant(new, old) {
        true => create_pod(call, new, warnings),
        false => Ok(()),
    }
}

fn check(call: &Call<'_>, policy: &Policy, pod: &Value, warnings: &mut Vec<String>) -> Result<(), Refused> {
    let found = violations(policy.enforce, pod);
    if !found.is_empty() {
        let why = format!("violates PodSecurity \"{}\": {}", policy.enforce, details(&found));
        return Err(call.forbidden(meta(pod, "name"), why));
    }
    warn(policy, pod, warnings);
    Ok(())
}

fn warn(policy: &Policy, pod: &Value, warnings: &mut Vec<String>) {
    let found = violations(policy.warn, pod);
    if !found.is_empty() {
        warnings.push(format!("would violate PodSecurity \"{}\": {}", policy.warn, details(&found)));
    }
}

/// What of a pod, or of a template of one, is against a standard.
fn violations(standard: Standard, pod: &Value) -> Vec<Violation> {
    checks::violations(standard, &Pod { annotations: &pod["metadata"]["annotations"], spec: &pod["spec"] })
}

fn details(violations: &[Violation]) -> String {
    let words = violations.iter().map(|violation| match violation.detail.as_str() {
        "" => violation.reason.to_owned(),
        detail => format!("{} ({detail})", violation.reason),
    });
    words.collect::<Vec<_>>().join(", ")
}

/// Whether images, security annotations or the number of containers differ: nothing else of a pod can change that matters.
fn is_significant(new: &Value, old: &Value) -> bool {
    const POD: &str = "seccomp.security.alpha.kubernetes.io/pod";
    let annotation = |pod: &Value, key: &str| pod["metadata"]["annotations"].get(key).cloned();
    let differs = |container: &Value, before: &Value| {
        let name = container["name"].as_str().unwrap_or_default();
        let key = format!("container.seccomp.security.alpha.kubernetes.io/{name}");
        container["image"] != before["image"] || annotation(new, &key) != annotation(old, &key)
    };
    let lists = ["containers", "initContainers", "ephemeralContainers"];
    annotation(new, POD) != annotation(old, POD)
        || lists.into_iter().any(|list| {
            let (new, old) = (items(&new["spec"][list]), items(&old["spec"][list]));
            new.len() != old.len() || new.iter().zip(old).any(|(new, old)| differs(new, old))
        })
}

/// Warns of a workload whose pods would not be as they should.
pub(super) fn workload(call: &Call<'_>, workload: &Value, warnings: &mut Vec<String>) -> Result<(), Refused> {
    let Some(template) = template(call, workload) else { return Ok(()) };
    if let Some(policy) = demanded(call)? {
        warn(&policy, template, warnings);
    }
    Ok(())
}

/// The template of a workload's pods.
fn template<'w>(call: &Call<'_>, workload: &'w Value) -> Option<&'w Value> {
    let template = match (&*call.resource.group, &*call.resource.plural) {
        ("", "podtemplates") => &workload["template"],
        ("", "replicationcontrollers")
        | ("apps", "daemonsets" | "deployments" | "replicasets" | "statefulsets")
        | ("batch", "jobs") => &workload["spec"]["template"],
        ("batch", "cronjobs") => &workload["spec"]["jobTemplate"]["spec"]["template"],
        _ => return None,
    };
    template.is_object().then_some(template)
}

/// Checks the labels of a new namespace.
pub(super) fn create_namespace(call: &Call<'_>, new: &Value) -> Result<(), Refused> {
    let (_, errors) = Policy::of(new);
    refuse(call, new, &errors)
}

/// Checks the labels of a namespace, and warns of pods that are not as a stricter standard wants them.
pub(super) fn update_namespace(
    call: &Call<'_>,
    new: &Value,
    old: &Value,
    warnings: &mut Vec<String>,
) -> Result<(), Refused> {
    if new["metadata"]["labels"] == old["metadata"]["labels"] {
        return Ok(());
    }
    let ((after, errors), (before, known)) = (Policy::of(new), Policy::of(old));
    if errors != known {
        refuse(call, new, &errors)?;
    }
    let (after, before) = (after.enforce, before.enforce);
    let is_relaxed = after.version == before.version && after.level <= before.level;
    if after != before && after.level != Level::Privileged && !is_relaxed {
        existing_pods(call, meta(new, "name"), after, warnings)?;
    }
    Ok(())
}

fn refuse(call: &Call<'_>, new: &Value, errors: &[api::field::FieldError]) -> Result<(), Refused> {
    match errors {
        [] => Ok(()),
        errors => {
            let kind = &call.resource.kind;
            Err(api::status::Status::invalid("", kind, meta(new, "name"), errors).into())
        }
    }
}

/// Says which pods of a namespace are against a standard, those with the same reasons together.
fn existing_pods(
    call: &Call<'_>,
    namespace: &str,
    standard: Standard,
    warnings: &mut Vec<String>,
) -> Result<(), Refused> {
    let prefix = keys::namespace_prefix("", "pods", namespace);
    let (mut total, mut found) = (0, std::collections::BTreeMap::<String, (String, usize)>::new());
    for (_, entry) in call.world.snapshot.prefix(prefix.as_bytes()) {
        total += 1;
        if total > MAX_CHECKED {
            continue;
        }
        let pod = call.parsed(entry)?;
        let reasons: Vec<&str> =
            violations(standard, &pod).iter().map(|violation| violation.reason).collect();
        if !reasons.is_empty() {
            // Pods come in the order of their names.
            let first = || (meta(&pod, "name").to_owned(), 0);
            found.entry(reasons.join(", ")).or_insert_with(first).1 += 1;
        }
    }
    if total > MAX_CHECKED {
        warnings.push(format!(
            "new PodSecurity enforce level only checked against the first {MAX_CHECKED} of {total} existing pods"
        ));
    }
    if !found.is_empty() {
        warnings.push(format!(
            "existing pods in namespace {namespace:?} violate the new PodSecurity enforce level \"{standard}\""
        ));
    }
    let mut lines: Vec<String> = found
        .into_iter()
        .map(|(reasons, (name, count))| match count {
            1 => format!("{name}: {reasons}"),
            2 => format!("{name} (and 1 other pod): {reasons}"),
            more => format!("{name} (and {} other pods): {reasons}", more - 1),
        })
        .collect();
    lines.sort();
    warnings.extend(lines);
    Ok(())
}
