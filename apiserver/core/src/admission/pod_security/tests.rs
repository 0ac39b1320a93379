use serde_json::{Value, json};

use super::policy::{Level, Policy, Standard, Version};
use super::*;

/// `spec` is the spec of a pod; `expected` the violations in words, in lines.
fn check(level: Level, minor: Option<u32>, spec: Value, expected: &[&str]) {
    let version = minor.map_or(Version::Latest, Version::Minor);
    let found = violations(Standard { level, version }, &json!({"spec": spec}));
    let found: Vec<String> = found.iter().map(|found| details(std::slice::from_ref(found))).collect();
    assert_eq!(found, expected);
}

fn container(name: &str, context: Value) -> Value {
    json!({"name": name, "image": "i", "securityContext": context})
}

fn confined() -> Value {
    json!({"allowPrivilegeEscalation": false, "runAsNonRoot": true, "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"}})
}

#[test]
fn a_pod_that_says_nothing_is_baseline_and_not_restricted() {
    let spec = json!({"containers": [container("c", json!({}))]});
    check(Level::Baseline, None, spec.clone(), &[]);
    check(
        Level::Restricted,
        None,
        spec.clone(),
        &[
            "allowPrivilegeEscalation != false (container \"c\" must set securityContext.allowPrivilegeEscalation=false)",
            "unrestricted capabilities (container \"c\" must set securityContext.capabilities.drop=[\"ALL\"])",
            "runAsNonRoot != true (pod or container \"c\" must set securityContext.runAsNonRoot=true)",
            "seccompProfile (pod or container \"c\" must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\")",
        ],
    );
    check(
        Level::Restricted,
        Some(7),
        spec,
        &["runAsNonRoot != true (pod or container \"c\" must set securityContext.runAsNonRoot=true)"],
    );
    check(Level::Restricted, None, json!({"containers": [container("c", confined())]}), &[]);
}

#[test]
fn what_leads_out_of_a_pod_is_not_baseline() {
    let spec = json!({
        "hostNetwork": true, "hostPID": true,
        "securityContext": {"sysctls": [{"name": "kernel.msgmax"}, {"name": "net.ipv4.tcp_rmem"}],
            "appArmorProfile": {"type": "Unconfined"}, "windowsOptions": {"hostProcess": true},
            "seccompProfile": {"type": "Unconfined"}, "seLinuxOptions": {"user": "u"}},
        "volumes": [{"name": "root", "hostPath": {"path": "/"}}, {"name": "nfs", "nfs": {}}],
        "initContainers": [container("i", json!({"privileged": true, "procMount": "Unmasked"}))],
        "containers": [
            {"name": "c", "ports": [{"hostPort": 80}, {"containerPort": 81}],
                "securityContext": {"capabilities": {"add": ["NET_ADMIN", "CHOWN"]}, "seLinuxOptions": {"type": "spc_t"}}},
            {"name": "d", "livenessProbe": {"httpGet": {"host": "example.com"}},
                "securityContext": {"privileged": true, "seccompProfile": {"type": "RuntimeDefault"}}}]});
    let expected = [
        "forbidden AppArmor profile (pod must not set AppArmor profile type to \"Unconfined\")",
        "non-default capabilities (container \"c\" must not include \"NET_ADMIN\" in securityContext.capabilities.add)",
        "host namespaces (hostNetwork=true, hostPID=true)",
        "hostPath volumes (volume \"root\")",
        "hostPort (container \"c\" uses hostPort 80)",
        "probe or lifecycle host (container \"d\" uses probe or lifecycle host \"example.com\")",
        "privileged (containers \"i\", \"d\" must not set securityContext.privileged=true)",
        "procMount (container \"i\" must not set securityContext.procMount to \"Unmasked\")",
        "seLinuxOptions (pod and container \"c\" set forbidden securityContext.seLinuxOptions: type \"spc_t\"; user may not be set)",
        "seccompProfile (pod must not set securityContext.seccompProfile.type to \"Unconfined\")",
        "forbidden sysctls (kernel.msgmax)",
        "hostProcess (pod must not set securityContext.windowsOptions.hostProcess=true)",
    ];
    check(Level::Baseline, None, spec, &expected);
}

#[test]
fn stricter_checks_take_the_place_of_laxer_ones() {
    let mut context = confined();
    context["capabilities"]["add"] = json!(["NET_ADMIN"]);
    context["procMount"] = "Unmasked".into();
    context["runAsUser"] = 0.into();
    let spec = json!({"hostUsers": false, "containers": [container("c", context)],
        "volumes": [{"name": "root", "hostPath": {"path": "/"}}, {"name": "tmp", "emptyDir": {}}]});
    let capabilities = "(container \"c\" must not include \"NET_ADMIN\" in securityContext.capabilities.add)";
    let unrestricted = format!("unrestricted capabilities {capabilities}");
    let proc_mount = "procMount (container \"c\" must not set securityContext.procMount to \"Unmasked\")";
    let volumes = "restricted volume types (volume \"root\" uses restricted volume type \"hostPath\")";
    let root = "runAsUser=0 (container \"c\" must not set runAsUser=0)";
    check(Level::Restricted, None, spec.clone(), &[&unrestricted, proc_mount, volumes]);
    check(Level::Restricted, Some(34), spec.clone(), &[proc_mount, &unrestricted, volumes, root]);
    let lax = format!("non-default capabilities {capabilities}");
    check(Level::Baseline, None, spec, &[&lax, "hostPath volumes (volume \"root\")"]);
}

#[test]
fn pods_of_windows_are_not_asked_for_what_windows_lacks() {
    let spec = json!({"os": {"name": "windows"}, "securityContext": {"runAsNonRoot": true},
        "containers": [container("c", json!({}))]});
    check(Level::Restricted, None, spec.clone(), &[]);
    let found = violations(
        Standard { level: Level::Restricted, version: Version::Minor(24) },
        &json!({"spec": spec}),
    );
    assert_eq!(found.len(), 3);
}

#[test]
fn sysctls_are_allowed_from_a_version_on() {
    let spec = |name: &str| json!({"securityContext": {"sysctls": [{"name": name}]}});
    let name = "net.ipv4.tcp_keepalive_time";
    check(Level::Baseline, Some(28), spec(name), &["forbidden sysctls (net.ipv4.tcp_keepalive_time)"]);
    check(Level::Baseline, Some(29), spec(name), &[]);
}

#[test]
fn labels_that_cannot_be_read_demand_the_most() {
    let (policy, errors) = Policy::of(&json!({"metadata": {"labels": {
        "pod-security.kubernetes.io/enforce": "strict", "pod-security.kubernetes.io/enforce-version": "1.30",
        "pod-security.kubernetes.io/warn": "baseline", "pod-security.kubernetes.io/warn-version": "v1.30"}}}));
    assert_eq!(
        (policy.enforce.to_string().as_str(), policy.warn.to_string().as_str()),
        ("restricted:latest", "baseline:v1.30")
    );
    let words: Vec<String> = errors.iter().map(ToString::to_string).collect();
    assert_eq!(
        words,
        [
            "metadata.labels[pod-security.kubernetes.io/enforce]: Invalid value: \"strict\": must be one of privileged, baseline, restricted",
            "metadata.labels[pod-security.kubernetes.io/enforce-version]: Invalid value: \"1.30\": must be \"latest\" or \"v1.x\"",
        ]
    );
}
