//! Checks the containers of a pod.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{Errors, Path, entries, given, list, pod_parts, probes, text};
use crate::field::FieldError;
use crate::name;
use crate::quantity::Quantity;

const PROTOCOLS: [&str; 3] = ["TCP", "UDP", "SCTP"];
const PULL_POLICIES: [&str; 3] = ["Always", "IfNotPresent", "Never"];
/// User and group ids that fit into the kernel's.
const ID_MAX: i64 = i32::MAX as i64;

/// Checks all kinds of containers of a pod. `volumes` are the names that mounts may use.
pub fn check(spec: &Value, path: &Path<'_>, volumes: &BTreeSet<String>, errors: &mut Errors) {
    let mut names = BTreeSet::new();
    let mut host_ports = BTreeSet::new();
    let containers = list(&spec["containers"]);
    if containers.is_empty() {
        errors.required(&path.field("containers"), "");
    }
    for field in ["containers", "initContainers", "ephemeralContainers"] {
        let place = path.field(field);
        for (index, container) in list(&spec[field]).iter().enumerate() {
            let place = place.index(index);
            check_one(container, &place, volumes, errors);
            let name = text(&container["name"]);
            if !name.is_empty() && !names.insert(name.to_owned()) {
                errors.duplicate(&place.field("name"), name);
            }
            match field {
                "ephemeralContainers" => pod_parts::check_ephemeral(spec, container, &place, errors),
                _ => check_lifecycle(field, container, &place, errors),
            }
            if field == "containers" {
                check_host_ports(spec, container, &place, &mut host_ports, errors);
            }
        }
    }
}

fn check_one(container: &Value, path: &Path<'_>, volumes: &BTreeSet<String>, errors: &mut Errors) {
    match text(&container["name"]) {
        "" => errors.required(&path.field("name"), ""),
        name => errors.reasons(&path.field("name"), name, name::dns1123_label(name)),
    }
    let image = text(&container["image"]);
    if image.is_empty() {
        errors.required(&path.field("image"), "");
    } else if image.trim() != image {
        errors.invalid(&path.field("image"), image, "must not have leading or trailing whitespace");
    }
    errors.one_of(&path.field("imagePullPolicy"), &container["imagePullPolicy"], &PULL_POLICIES);
    let policies = ["File", "FallbackToLogsOnError"];
    errors.one_of(&path.field("terminationMessagePolicy"), &container["terminationMessagePolicy"], &policies);
    check_ports(&container["ports"], &path.field("ports"), errors);
    check_env(&container["env"], &path.field("env"), errors);
    check_env_from(&container["envFrom"], &path.field("envFrom"), errors);
    check_mounts(&container["volumeMounts"], &path.field("volumeMounts"), volumes, errors);
    check_resources(&container["resources"], &path.field("resources"), errors);
    check_security(&container["securityContext"], &path.field("securityContext"), errors);
}

fn check_lifecycle(kind: &str, container: &Value, path: &Path<'_>, errors: &mut Errors) {
    let restarts = text(&container["restartPolicy"]);
    let is_init = kind == "initContainers";
    if given(&container["restartPolicy"]) && !(is_init && restarts == "Always") && kind == "containers" {
        errors.forbidden(&path.field("restartPolicy"), "may not be set for non-init containers");
    } else if is_init && given(&container["restartPolicy"]) && restarts != "Always" {
        errors.add(FieldError::not_supported(path.field("restartPolicy").to_string(), restarts, &["Always"]));
    }
    let lasting = kind == "containers" || (is_init && restarts == "Always");
    for field in ["livenessProbe", "readinessProbe", "startupProbe", "lifecycle"] {
        if container[field].is_null() {
            continue;
        }
        if !lasting {
            errors.forbidden(
                &path.field(field),
                "may not be set for init containers without restartPolicy=Always",
            );
        } else if field == "lifecycle" {
            probes::check_hooks(&container[field], &path.field(field), errors);
        } else {
            probes::check(field, &container[field], &path.field(field), errors);
        }
    }
}

fn check_ports(ports: &Value, path: &Path<'_>, errors: &mut Errors) {
    let mut names = BTreeSet::new();
    for (index, port) in list(ports).iter().enumerate() {
        let place = path.index(index);
        let name = text(&port["name"]);
        if !name.is_empty() {
            errors.reasons(&place.field("name"), name, name::port_name(name));
            if !names.insert(name) {
                errors.duplicate(&place.field("name"), name);
            }
        }
        match port["containerPort"].as_i64() {
            None | Some(0) => errors.required(&place.field("containerPort"), ""),
            Some(_) => errors.port(&place.field("containerPort"), &port["containerPort"]),
        }
        if port["hostPort"].as_i64() != Some(0) {
            errors.port(&place.field("hostPort"), &port["hostPort"]);
        }
        errors.one_of(&place.field("protocol"), &port["protocol"], &PROTOCOLS);
    }
}

fn check_host_ports(
    spec: &Value,
    container: &Value,
    path: &Path<'_>,
    taken: &mut BTreeSet<(String, String, i64)>,
    errors: &mut Errors,
) {
    let ports = path.field("ports");
    for (index, port) in list(&container["ports"]).iter().enumerate() {
        let host = port["hostPort"].as_i64().unwrap_or(0);
        let place = ports.index(index);
        if spec["hostNetwork"] == true && host != 0 && port["containerPort"].as_i64() != Some(host) {
            errors.invalid(
                &place.field("containerPort"),
                port["containerPort"].clone(),
                "must match `hostPort` when `hostNetwork` is true",
            );
        }
        let key = (text(&port["protocol"]).to_owned(), text(&port["hostIP"]).to_owned(), host);
        if host != 0 && !taken.insert(key) {
            let shown = format!("{}/{}/{host}", text(&port["protocol"]), text(&port["hostIP"]));
            errors.duplicate(&place.field("hostPort"), shown);
        }
    }
}

fn check_env(env: &Value, path: &Path<'_>, errors: &mut Errors) {
    for (index, variable) in list(env).iter().enumerate() {
        let place = path.index(index);
        match text(&variable["name"]) {
            "" => errors.required(&place.field("name"), ""),
            name => errors.reasons(&place.field("name"), name, name::env_var_name(name)),
        }
        let source = &variable["valueFrom"];
        if source.is_null() {
            continue;
        }
        let place = place.field("valueFrom");
        let kinds = ["fieldRef", "resourceFieldRef", "configMapKeyRef", "secretKeyRef", "fileKeyRef"];
        match kinds.iter().filter(|kind| !source[**kind].is_null()).count() {
            0 => errors.invalid(&place, "", "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`"),
            1 => {}
            _ => errors.invalid(&place, "", "may not have more than one field specified at a time"),
        }
        if given(&variable["value"]) {
            errors.invalid(&place, "", "may not be specified when `value` is not empty");
        }
        check_field(&source["fieldRef"], &place.field("fieldRef"), ENV_FIELDS, errors);
        for kind in ["configMapKeyRef", "secretKeyRef"] {
            let reference = &source[kind];
            if reference.is_null() {
                continue;
            }
            let place = place.field(kind);
            if !given(&reference["name"]) {
                errors.required(&place.field("name"), "");
            }
            match text(&reference["key"]) {
                "" => errors.required(&place.field("key"), ""),
                key => errors.reasons(&place.field("key"), key, name::config_map_key(key)),
            }
        }
    }
}

/// Fields of a pod that may become environment variables.
const ENV_FIELDS: &[&str] = &[
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];

/// Checks a reference to a field of the pod itself.
pub fn check_field(reference: &Value, path: &Path<'_>, accepted: &[&str], errors: &mut Errors) {
    if reference.is_null() {
        return;
    }
    let place = path.field("fieldPath");
    let field = text(&reference["fieldPath"]);
    let keyed = ["metadata.labels['", "metadata.annotations['"]
        .iter()
        .any(|start| field.starts_with(start) && field.ends_with("']"));
    if field.is_empty() {
        errors.required(&place, "");
    } else if !keyed && !accepted.contains(&field) {
        errors.add(FieldError::not_supported(place.to_string(), field, accepted));
    }
}

fn check_env_from(sources: &Value, path: &Path<'_>, errors: &mut Errors) {
    for (index, source) in list(sources).iter().enumerate() {
        let place = path.index(index);
        let kinds: Vec<&str> =
            ["configMapRef", "secretRef"].into_iter().filter(|kind| !source[*kind].is_null()).collect();
        match kinds.as_slice() {
            [] => errors.invalid(&place, "", "must specify one of: `configMapRef` or `secretRef`"),
            [kind] => {
                if !given(&source[*kind]["name"]) {
                    errors.required(&place.field(kind).field("name"), "");
                }
            }
            _ => errors.invalid(&place, "", "may not have more than one field specified at a time"),
        }
    }
}

fn check_mounts(mounts: &Value, path: &Path<'_>, volumes: &BTreeSet<String>, errors: &mut Errors) {
    let mut paths = BTreeSet::new();
    for (index, mount) in list(mounts).iter().enumerate() {
        let place = path.index(index);
        let name = text(&mount["name"]);
        if name.is_empty() {
            errors.required(&place.field("name"), "");
        } else if !volumes.contains(name) {
            let mut error = FieldError::invalid(place.field("name").to_string(), name, "");
            error.kind = crate::field::ErrorKind::NotFound;
            errors.add(error);
        }
        match text(&mount["mountPath"]) {
            "" => errors.required(&place.field("mountPath"), ""),
            mounted if !paths.insert(mounted) => {
                errors.invalid(&place.field("mountPath"), mounted, "must be unique")
            }
            _ => {}
        }
        for field in ["subPath", "subPathExpr"] {
            let sub_path = text(&mount[field]);
            if sub_path.starts_with('/') {
                errors.invalid(&place.field(field), sub_path, "must be a relative path");
            }
            if sub_path.split('/').any(|part| part == "..") {
                errors.invalid(&place.field(field), sub_path, "must not contain '..'");
            }
        }
        if given(&mount["subPath"]) && given(&mount["subPathExpr"]) {
            errors.invalid(
                &place.field("subPathExpr"),
                mount["subPathExpr"].clone(),
                "subPathExpr and subPath are mutually exclusive",
            );
        }
        let propagation = ["Bidirectional", "HostToContainer", "None"];
        errors.optional_one_of(&place.field("mountPropagation"), &mount["mountPropagation"], &propagation);
    }
}

fn check_resources(resources: &Value, path: &Path<'_>, errors: &mut Errors) {
    let parsed = |value: &Value| text(value).parse::<Quantity>().ok();
    for field in ["limits", "requests"] {
        let place = path.field(field);
        for (resource, amount) in entries(&resources[field]) {
            let place = place.entry(resource);
            let standard = matches!(resource, "cpu" | "memory" | "ephemeral-storage")
                || resource.starts_with("hugepages-");
            if !standard {
                if !resource.contains('/') {
                    errors.invalid(&place, resource, "must be a standard resource for containers");
                }
                errors.reasons(&place, resource, name::qualified_name(resource));
            }
            match parsed(amount) {
                Some(amount) if amount.is_negative() => {
                    errors.invalid(&place, amount.to_string(), "must be greater than or equal to 0");
                }
                Some(amount) if !standard && !amount.is_whole() => {
                    errors.invalid(&place, amount.to_string(), "must be an integer")
                }
                _ => {}
            }
        }
    }
    let place = path.field("requests");
    for (resource, request) in entries(&resources["requests"]) {
        let limit = &resources["limits"][resource];
        let (Some(requested), Some(limited)) = (parsed(request), parsed(limit)) else { continue };
        let extended = resource.contains('/');
        if requested > limited {
            let detail = format!("must be less than or equal to {resource} limit of {}", text(limit));
            errors.invalid(&place, text(request), detail);
        } else if extended && requested != limited {
            let detail = format!("must be equal to {resource} limit of {}", text(limit));
            errors.invalid(&place, text(request), detail);
        }
    }
}

/// Checks a user or group id.
pub fn check_id(id: &Value, path: &Path<'_>, errors: &mut Errors) {
    if id.as_i64().is_some_and(|id| !(0..=ID_MAX).contains(&id)) {
        errors.invalid(path, id.clone(), format!("must be between 0 and {ID_MAX}, inclusive"));
    }
}

/// Checks a `seccompProfile`.
pub fn check_seccomp(profile: &Value, path: &Path<'_>, errors: &mut Errors) {
    if profile.is_null() {
        return;
    }
    let kinds = ["Localhost", "RuntimeDefault", "Unconfined"];
    errors.one_of(&path.field("type"), &profile["type"], &kinds);
    let file = &profile["localhostProfile"];
    let place = path.field("localhostProfile");
    match (text(&profile["type"]) == "Localhost", given(file)) {
        (true, false) => errors.required(&place, "must be set when seccomp type is Localhost"),
        (false, true) => {
            errors.invalid(&place, file.clone(), "can only be set when seccomp type is Localhost")
        }
        (true, true) if text(file).starts_with('/') || text(file).split('/').any(|part| part == "..") => {
            errors.invalid(&place, file.clone(), "must be a relative path without '..'");
        }
        _ => {}
    }
}

fn check_security(context: &Value, path: &Path<'_>, errors: &mut Errors) {
    for field in ["runAsUser", "runAsGroup"] {
        check_id(&context[field], &path.field(field), errors);
    }
    check_seccomp(&context["seccompProfile"], &path.field("seccompProfile"), errors);
    errors.optional_one_of(&path.field("procMount"), &context["procMount"], &["Default", "Unmasked"]);
    if context["allowPrivilegeEscalation"] == false {
        if context["privileged"] == true {
            errors.invalid(
                path,
                context.clone(),
                "cannot set `allowPrivilegeEscalation` to false and `privileged` to true",
            );
        }
        if list(&context["capabilities"]["add"]).iter().any(|one| text(one) == "CAP_SYS_ADMIN") {
            let detail =
                "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN";
            errors.invalid(path, context.clone(), detail);
        }
    }
}
