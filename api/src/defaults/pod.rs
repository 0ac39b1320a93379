//! Defaults of pods and pod templates.

use serde_json::Value;

use super::{Object, child, each, empty, present, put, text};

/// A pod: what its template would get, and what only a running pod gets.
pub(super) fn pod(map: &mut Object) {
    let Some(spec) = child(map, "spec") else { return };
    put(spec, "enableServiceLinks", true);
    let host_network = spec.get("hostNetwork") == Some(&Value::Bool(true));
    for list in ["initContainers", "containers"] {
        each(spec, list, |container| {
            requests_from_limits(container);
            if host_network {
                each(container, "ports", host_port);
            }
        });
    }
    requests_from_limits(spec);
    pod_spec(spec);
}

/// What is not requested but limited is requested as far as it is limited.
fn requests_from_limits(holder: &mut Object) {
    let Some(resources) = present(holder, "resources") else { return };
    let Some(Value::Object(limits)) = resources.get("limits").cloned() else { return };
    if limits.is_empty() {
        return;
    }
    if let Some(requests) = child(resources, "requests") {
        for (name, limit) in limits {
            put(requests, &name, limit);
        }
    }
}

fn host_port(port: &mut Object) {
    if let Some(number) = port.get("containerPort").cloned() {
        put(port, "hostPort", number);
    }
}

/// The spec of a pod or of a template.
pub(super) fn pod_spec(spec: &mut Object) {
    put(spec, "dnsPolicy", "ClusterFirst");
    put(spec, "restartPolicy", "Always");
    put(spec, "schedulerName", "default-scheduler");
    put(spec, "terminationGracePeriodSeconds", 30);
    put(spec, "securityContext", empty());
    match (spec.get("serviceAccountName").cloned(), spec.get("serviceAccount").cloned()) {
        (Some(name), _) => {
            spec.insert("serviceAccount".to_owned(), name);
        }
        (None, Some(name)) => {
            spec.insert("serviceAccountName".to_owned(), name);
        }
        (None, None) => {}
    }
    each(spec, "volumes", volume);
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        each(spec, list, container);
    }
}

fn container(container: &mut Object) {
    if !container.contains_key("imagePullPolicy") {
        let policy = pull_policy(text(container, "image"));
        put(container, "imagePullPolicy", policy);
    }
    put(container, "terminationMessagePath", "/dev/termination-log");
    put(container, "terminationMessagePolicy", "File");
    put(container, "resources", empty());
    each(container, "ports", |port| put(port, "protocol", "TCP"));
    each(container, "env", |variable| {
        if let Some(from) = present(variable, "valueFrom") {
            field_ref(from);
            if let Some(file) = present(from, "fileKeyRef") {
                put(file, "optional", false);
            }
        }
    });
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(probe) = present(container, name) {
            put(probe, "timeoutSeconds", 1);
            put(probe, "periodSeconds", 10);
            put(probe, "successThreshold", 1);
            put(probe, "failureThreshold", 3);
            handler(probe);
        }
    }
    if let Some(lifecycle) = present(container, "lifecycle") {
        for name in ["postStart", "preStop"] {
            if let Some(hook) = present(lifecycle, name) {
                handler(hook);
            }
        }
    }
}

fn handler(handler: &mut Object) {
    if let Some(get) = present(handler, "httpGet") {
        put(get, "path", "/");
        put(get, "scheme", "HTTP");
    }
    if let Some(grpc) = present(handler, "grpc") {
        put(grpc, "service", "");
    }
}

fn field_ref(holder: &mut Object) {
    if let Some(field) = present(holder, "fieldRef") {
        put(field, "apiVersion", "v1");
    }
}

/// Images named by a moving tag are always pulled.
fn pull_policy(image: &str) -> &'static str {
    if image.contains('@') {
        return "IfNotPresent";
    }
    let last = image.rsplit('/').next().unwrap_or(image);
    match last.split_once(':') {
        None | Some((_, "latest")) => "Always",
        Some(_) => "IfNotPresent",
    }
}

const DEFAULT_MODE: i32 = 0o644;

fn volume(volume: &mut Object) {
    let has_source = volume.keys().any(|name| name != "name");
    if !has_source {
        put(volume, "emptyDir", empty());
    }
    for source in ["secret", "configMap", "downwardAPI", "projected"] {
        if let Some(source) = present(volume, source) {
            put(source, "defaultMode", DEFAULT_MODE);
        }
    }
    if let Some(source) = present(volume, "downwardAPI") {
        each(source, "items", field_ref);
    }
    if let Some(source) = present(volume, "projected") {
        each(source, "sources", |source| {
            if let Some(token) = present(source, "serviceAccountToken") {
                put(token, "expirationSeconds", 3600);
            }
            if let Some(downward) = present(source, "downwardAPI") {
                each(downward, "items", field_ref);
            }
        });
    }
    if let Some(source) = present(volume, "hostPath") {
        put(source, "type", "");
    }
    if let Some(source) = present(volume, "image") {
        let policy = pull_policy(text(source, "reference"));
        put(source, "pullPolicy", policy);
    }
    if let Some(spec) = present(volume, "ephemeral")
        .and_then(|source| present(source, "volumeClaimTemplate"))
        .and_then(|claim| present(claim, "spec"))
    {
        put(spec, "volumeMode", "Filesystem");
    }
    azure_disk(volume);
}

fn azure_disk(volume: &mut Object) {
    if let Some(disk) = present(volume, "azureDisk") {
        put(disk, "cachingMode", "ReadWrite");
        put(disk, "kind", "Shared");
    }
}
