//! The checks of the baseline: no known way to more rights than a pod has.

use std::collections::BTreeSet;

use serde_json::Value;

use super::checks::{Pod, Violation, bad_values, counted, name, number, quoted, texts, violation};
use crate::object::items;

const CAPABILITIES: &[&str] = &[
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

const APP_ARMOR: &str = "container.apparmor.security.beta.kubernetes.io/";
const SECCOMP_POD: &str = "seccomp.security.alpha.kubernetes.io/pod";
const SECCOMP_CONTAINER: &str = "container.seccomp.security.alpha.kubernetes.io/";

/// Sysctls that stay inside a pod, each with the minor version since when it is allowed.
const SYSCTLS: &[(&str, u32)] = &[
    ("kernel.shm_rmid_forced", 0),
    ("net.ipv4.ip_local_port_range", 0),
    ("net.ipv4.tcp_syncookies", 0),
    ("net.ipv4.ping_group_range", 0),
    ("net.ipv4.ip_unprivileged_port_start", 0),
    ("net.ipv4.ip_local_reserved_ports", 27),
    ("net.ipv4.tcp_keepalive_time", 29),
    ("net.ipv4.tcp_fin_timeout", 29),
    ("net.ipv4.tcp_keepalive_intvl", 29),
    ("net.ipv4.tcp_keepalive_probes", 29),
    ("net.ipv4.tcp_rmem", 32),
    ("net.ipv4.tcp_wmem", 32),
];

/// Profiles of AppArmor: the runtime's, or one of the node's own.
pub(super) fn app_armor(pod: &Pod<'_>) -> Option<Violation> {
    let (own, containers, values) = bad_values(pod, |context| {
        let kind = context["appArmorProfile"]["type"].as_str()?;
        (!matches!(kind, "RuntimeDefault" | "Localhost")).then_some(kind)
    });
    let allowed = |value: &str| matches!(value, "" | "runtime/default") || value.starts_with("localhost/");
    let annotations: BTreeSet<String> = pod
        .annotations
        .as_object()
        .into_iter()
        .flatten()
        .filter_map(|(key, value)| Some((key, value.as_str()?)))
        .filter(|(key, value)| key.starts_with(APP_ARMOR) && !allowed(value))
        .map(|(key, value)| format!("{key}={value:?}"))
        .collect();
    let mut setters: Vec<String> = pod.setters(own, &containers).into_iter().collect();
    if !annotations.is_empty() {
        setters.push(number("annotation", "annotations", annotations.len()).to_owned());
    }
    if setters.is_empty() {
        return None;
    }
    let values: Vec<&str> = values.into_iter().chain(annotations.iter().map(String::as_str)).collect();
    let reason = number("forbidden AppArmor profile", "forbidden AppArmor profiles", values.len());
    let setters = setters.join(" and ");
    violation(reason, format!("{setters} must not set AppArmor profile type to {}", quoted(values)))
}

/// Capabilities beyond those that containers usually have.
pub(super) fn capabilities(pod: &Pod<'_>) -> Option<Violation> {
    let mut added = BTreeSet::new();
    let containers = pod.containers_where(|container| {
        let before: Vec<&str> = texts(&container["securityContext"]["capabilities"]["add"])
            .filter(|capability| !CAPABILITIES.contains(capability))
            .collect();
        added.extend(before.iter().copied());
        !before.is_empty()
    });
    (!containers.is_empty()).then(|| Violation {
        reason: "non-default capabilities",
        detail: format!(
            "{} must not include {} in securityContext.capabilities.add",
            counted("container", &containers),
            quoted(added)
        ),
    })
}

pub(super) fn host_namespaces(pod: &Pod<'_>) -> Option<Violation> {
    let shared: Vec<String> = ["hostNetwork", "hostPID", "hostIPC"]
        .into_iter()
        .filter(|field| pod.spec[*field] == true)
        .map(|field| format!("{field}=true"))
        .collect();
    (!shared.is_empty()).then(|| Violation { reason: "host namespaces", detail: shared.join(", ") })
}

pub(super) fn host_path(pod: &Pod<'_>) -> Option<Violation> {
    let volumes: Vec<&str> = items(&pod.spec["volumes"])
        .iter()
        .filter(|volume| volume["hostPath"].is_object())
        .map(name)
        .collect();
    (!volumes.is_empty())
        .then(|| Violation { reason: "hostPath volumes", detail: counted("volume", &volumes) })
}

pub(super) fn host_ports(pod: &Pod<'_>) -> Option<Violation> {
    let mut ports = BTreeSet::new();
    let containers = pod.containers_where(|container| {
        let used = items(&container["ports"]).iter().filter_map(|port| port["hostPort"].as_u64());
        let used: Vec<String> = used.filter(|port| *port != 0).map(|port| port.to_string()).collect();
        let any = !used.is_empty();
        ports.extend(used);
        any
    });
    (!containers.is_empty()).then(|| Violation {
        reason: "hostPort",
        detail: format!(
            "{} {} {} {}",
            counted("container", &containers),
            number("uses", "use", containers.len()),
            number("hostPort", "hostPorts", ports.len()),
            ports.iter().cloned().collect::<Vec<_>>().join(", ")
        ),
    })
}

/// Probes and hooks that ask others than their own pod.
pub(super) fn probe_hosts(pod: &Pod<'_>) -> Option<Violation> {
    let mut hosts = BTreeSet::new();
    let containers: BTreeSet<&str> = pod
        .containers_where(|container| {
            let hooks = &container["lifecycle"];
            let askers = [
                &container["livenessProbe"],
                &container["readinessProbe"],
                &container["startupProbe"],
                &hooks["postStart"],
                &hooks["preStop"],
            ];
            let named: Vec<&str> = askers
                .into_iter()
                .flat_map(|asker| [&asker["httpGet"]["host"], &asker["tcpSocket"]["host"]])
                .filter_map(Value::as_str)
                .filter(|host| !host.is_empty())
                .collect();
            hosts.extend(named.iter().copied());
            !named.is_empty()
        })
        .into_iter()
        .collect();
    let containers: Vec<&str> = containers.into_iter().collect();
    (!containers.is_empty()).then(|| Violation {
        reason: "probe or lifecycle host",
        detail: format!(
            "{} {} {} {}",
            counted("container", &containers),
            number("uses", "use", containers.len()),
            number("probe or lifecycle host", "probe or lifecycle hosts", hosts.len()),
            quoted(hosts)
        ),
    })
}

pub(super) fn privileged(pod: &Pod<'_>) -> Option<Violation> {
    let containers = pod.containers_where(|container| container["securityContext"]["privileged"] == true);
    (!containers.is_empty()).then(|| Violation {
        reason: "privileged",
        detail: format!("{} must not set securityContext.privileged=true", counted("container", &containers)),
    })
}

/// The masks over `/proc`.
pub(super) fn proc_mount(pod: &Pod<'_>) -> Option<Violation> {
    let mut kinds = BTreeSet::new();
    let containers = pod.containers_where(|container| {
        let kind = container["securityContext"]["procMount"].as_str().filter(|kind| *kind != "Default");
        kinds.extend(kind);
        kind.is_some()
    });
    (!containers.is_empty()).then(|| Violation {
        reason: "procMount",
        detail: format!(
            "{} must not set securityContext.procMount to {}",
            counted("container", &containers),
            quoted(kinds)
        ),
    })
}

/// A pod with users of its own may see all of `/proc`.
pub(super) fn proc_mount_1_35(pod: &Pod<'_>) -> Option<Violation> {
    if pod.has_own_users() { None } else { proc_mount(pod) }
}

pub(super) fn se_linux(pod: &Pod<'_>) -> Option<Violation> {
    se_linux_of(pod, &["", "container_t", "container_init_t", "container_kvm_t"])
}

pub(super) fn se_linux_1_31(pod: &Pod<'_>) -> Option<Violation> {
    se_linux_of(pod, &["", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"])
}

fn se_linux_of(pod: &Pod<'_>, allowed: &[&str]) -> Option<Violation> {
    let (mut types, mut user, mut role) = (BTreeSet::new(), false, false);
    let mut is_bad = |context: &Value| {
        let of = |field: &str| context["seLinuxOptions"][field].as_str().unwrap_or_default().to_owned();
        let (kind, has_user, has_role) = (of("type"), !of("user").is_empty(), !of("role").is_empty());
        let bad_type = !allowed.contains(&kind.as_str());
        (user, role) = (user | has_user, role | has_role);
        if bad_type {
            types.insert(kind);
        }
        bad_type || has_user || has_role
    };
    let own = is_bad(pod.security());
    let containers = pod.containers_where(|container| is_bad(&container["securityContext"]));
    let setters = pod.setters(own, &containers)?;
    let mut data = Vec::new();
    if !types.is_empty() {
        let types: Vec<&str> = types.iter().map(String::as_str).collect();
        data.push(counted("type", &types));
    }
    data.extend(user.then(|| "user may not be set".to_owned()));
    data.extend(role.then(|| "role may not be set".to_owned()));
    violation(
        "seLinuxOptions",
        format!("{setters} set forbidden securityContext.seLinuxOptions: {}", data.join("; ")),
    )
}

/// Before profiles had a field of their own.
pub(super) fn seccomp_annotations(pod: &Pod<'_>) -> Option<Violation> {
    let allowed = |value: &str| {
        matches!(value, "runtime/default" | "docker/default") || value.starts_with("localhost/")
    };
    let keys = pod.containers().map(|container| format!("{SECCOMP_CONTAINER}{}", name(container)));
    let forbidden: BTreeSet<String> = std::iter::once(SECCOMP_POD.to_owned())
        .chain(keys)
        .filter_map(|key| {
            let value = pod.annotations.get(&key)?.as_str()?;
            (!allowed(value)).then(|| format!("{key}={value:?}"))
        })
        .collect();
    (!forbidden.is_empty()).then(|| Violation {
        reason: "seccompProfile",
        detail: format!(
            "forbidden {} {}",
            number("annotation", "annotations", forbidden.len()),
            forbidden.iter().cloned().collect::<Vec<_>>().join(", ")
        ),
    })
}

/// The profile that a security context sets, when it is none that confines.
pub(super) fn unconfined(context: &Value) -> Option<&str> {
    let profile = context.get("seccompProfile").filter(|profile| profile.is_object())?;
    let kind = profile["type"].as_str().unwrap_or_default();
    (!matches!(kind, "RuntimeDefault" | "Localhost")).then_some(kind)
}

pub(super) fn seccomp(pod: &Pod<'_>) -> Option<Violation> {
    let (own, containers, values) = bad_values(pod, unconfined);
    let setters = pod.setters(own, &containers)?;
    let values = quoted(values);
    violation(
        "seccompProfile",
        format!("{setters} must not set securityContext.seccompProfile.type to {values}"),
    )
}

pub(super) fn sysctls(pod: &Pod<'_>) -> Option<Violation> {
    sysctls_since(pod, 0)
}

pub(super) fn sysctls_1_27(pod: &Pod<'_>) -> Option<Violation> {
    sysctls_since(pod, 27)
}

pub(super) fn sysctls_1_29(pod: &Pod<'_>) -> Option<Violation> {
    sysctls_since(pod, 29)
}

pub(super) fn sysctls_1_32(pod: &Pod<'_>) -> Option<Violation> {
    sysctls_since(pod, 32)
}

fn sysctls_since(pod: &Pod<'_>, minor: u32) -> Option<Violation> {
    let allowed = |sysctl: &str| SYSCTLS.iter().any(|(name, since)| *name == sysctl && *since <= minor);
    let forbidden: Vec<&str> =
        items(&pod.security()["sysctls"]).iter().map(name).filter(|sysctl| !allowed(sysctl)).collect();
    (!forbidden.is_empty()).then(|| Violation { reason: "forbidden sysctls", detail: forbidden.join(", ") })
}

/// Containers of Windows that are processes of their node.
pub(super) fn host_process(pod: &Pod<'_>) -> Option<Violation> {
    let is_bad = |context: &Value| context["windowsOptions"]["hostProcess"] == true;
    let containers = pod.containers_where(|container| is_bad(&container["securityContext"]));
    let setters = pod.setters(is_bad(pod.security()), &containers)?;
    violation(
        "hostProcess",
        format!("{setters} must not set securityContext.windowsOptions.hostProcess=true"),
    )
}
