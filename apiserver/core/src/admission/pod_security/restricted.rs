//! The checks that restricted pods pass besides those of the baseline: no right that is not needed.

use std::collections::BTreeSet;

use serde_json::Value;

use super::baseline::unconfined;
use super::checks::{Pod, Violation, bad_values, counted, name, number, quoted, texts, violation};
use crate::object::items;

/// Kinds of volumes that bring nothing of the node into the pod.
const VOLUMES: &[&str] = &[
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "image",
    "persistentVolumeClaim",
    "projected",
    "secret",
];

pub(super) fn escalation(pod: &Pod<'_>) -> Option<Violation> {
    let containers =
        pod.containers_where(|container| container["securityContext"]["allowPrivilegeEscalation"] != false);
    (!containers.is_empty()).then(|| Violation {
        reason: "allowPrivilegeEscalation != false",
        detail: format!(
            "{} must set securityContext.allowPrivilegeEscalation=false",
            counted("container", &containers)
        ),
    })
}

pub(super) fn escalation_1_25(pod: &Pod<'_>) -> Option<Violation> {
    if pod.is_windows() { None } else { escalation(pod) }
}

pub(super) fn capabilities(pod: &Pod<'_>) -> Option<Violation> {
    let of = |container: &'_ Value, list: &str| -> Vec<String> {
        texts(&container["securityContext"]["capabilities"][list]).map(str::to_owned).collect()
    };
    let keeping = pod.containers_where(|container| !of(container, "drop").iter().any(|name| name == "ALL"));
    let mut added = BTreeSet::new();
    let adding = pod.containers_where(|container| {
        let more: Vec<String> =
            of(container, "add").into_iter().filter(|name| name != "NET_BIND_SERVICE").collect();
        let any = !more.is_empty();
        added.extend(more);
        any
    });
    let mut details = Vec::new();
    if !keeping.is_empty() {
        details.push(format!(
            "{} must set securityContext.capabilities.drop=[\"ALL\"]",
            counted("container", &keeping)
        ));
    }
    if !adding.is_empty() {
        details.push(format!(
            "{} must not include {} in securityContext.capabilities.add",
            counted("container", &adding),
            quoted(added.iter().map(String::as_str))
        ));
    }
    (!details.is_empty())
        .then(|| Violation { reason: "unrestricted capabilities", detail: details.join("; ") })
}

pub(super) fn capabilities_1_25(pod: &Pod<'_>) -> Option<Violation> {
    if pod.is_windows() { None } else { capabilities(pod) }
}

pub(super) fn volumes(pod: &Pod<'_>) -> Option<Violation> {
    let mut kinds = BTreeSet::new();
    let volumes: Vec<&str> = items(&pod.spec["volumes"])
        .iter()
        .filter(|volume| {
            let mut sources =
                volume.as_object().into_iter().flatten().filter(|(_, source)| source.is_object());
            let kind = sources.next().map_or("unknown", |(kind, _)| kind.as_str());
            let bad = !VOLUMES.contains(&kind);
            if bad {
                kinds.insert(kind);
            }
            bad
        })
        .map(name)
        .collect();
    (!volumes.is_empty()).then(|| Violation {
        reason: "restricted volume types",
        detail: format!(
            "{} {} {} {}",
            counted("volume", &volumes),
            number("uses", "use", volumes.len()),
            number("restricted volume type", "restricted volume types", kinds.len()),
            quoted(kinds)
        ),
    })
}

pub(super) fn non_root(pod: &Pod<'_>) -> Option<Violation> {
    const REASON: &str = "runAsNonRoot != true";
    let of = |context: &Value| context["runAsNonRoot"].as_bool();
    let own = of(pod.security());
    let refusing = pod.containers_where(|container| of(&container["securityContext"]) == Some(false));
    if let Some(setters) = pod.setters(own == Some(false), &refusing) {
        return violation(REASON, format!("{setters} must not set securityContext.runAsNonRoot=false"));
    }
    let silent = pod.containers_where(|container| of(&container["securityContext"]).is_none());
    (own.is_none() && !silent.is_empty()).then(|| Violation {
        reason: REASON,
        detail: format!(
            "pod or {} must set securityContext.runAsNonRoot=true",
            counted("container", &silent)
        ),
    })
}

/// In a pod with users of its own, root is nobody outside.
pub(super) fn non_root_1_35(pod: &Pod<'_>) -> Option<Violation> {
    if pod.has_own_users() { None } else { non_root(pod) }
}

pub(super) fn user(pod: &Pod<'_>) -> Option<Violation> {
    let is_root = |context: &Value| context["runAsUser"].as_i64() == Some(0);
    let containers = pod.containers_where(|container| is_root(&container["securityContext"]));
    let setters = pod.setters(is_root(pod.security()), &containers)?;
    violation("runAsUser=0", format!("{setters} must not set runAsUser=0"))
}

pub(super) fn user_1_35(pod: &Pod<'_>) -> Option<Violation> {
    if pod.has_own_users() { None } else { user(pod) }
}

pub(super) fn seccomp(pod: &Pod<'_>) -> Option<Violation> {
    const REASON: &str = "seccompProfile";
    let (own, containers, values) = bad_values(pod, unconfined);
    if let Some(setters) = pod.setters(own, &containers) {
        let values = quoted(values);
        let detail = format!("{setters} must not set securityContext.seccompProfile.type to {values}");
        return violation(REASON, detail);
    }
    let sets = |context: &Value| context["seccompProfile"].is_object();
    let silent = pod.containers_where(|container| !sets(&container["securityContext"]));
    (!sets(pod.security()) && !silent.is_empty()).then(|| Violation {
        reason: REASON,
        detail: format!(
            "pod or {} must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\"",
            counted("container", &silent)
        ),
    })
}

pub(super) fn seccomp_1_25(pod: &Pod<'_>) -> Option<Violation> {
    if pod.is_windows() { None } else { seccomp(pod) }
}
