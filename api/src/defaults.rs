//! Defaults that no declaration can express, kind by kind, exactly as Kubernetes v1 sets them.

use serde_json::{Map, Value, json};

use crate::{catalogue::Resource, schema::Schemas};

mod batch;
mod pod;
mod policy;
mod storage;

/// A document's object.
type Object = Map<String, Value>;

/// Fills in all defaults of an object, the declared ones included.
pub fn apply(resource: &Resource, object: &mut Value) {
    apply_kind(resource.schemas(), resource, object);
}

/// As [`apply`], with the schemas of a custom resource.
pub fn apply_kind(schemas: &Schemas, resource: &Resource, object: &mut Value) {
    if let (Value::Object(map), None) = (&mut *object, &resource.custom) {
        match (&*resource.group, &*resource.kind) {
            ("", "Pod") => pod::pod(map),
            ("", "Service") => service(map),
            ("", "Secret") => secret(map),
            ("", "Namespace") => namespace(map),
            ("", "Node") => node(map),
            ("", "Endpoints") => endpoints(map),
            ("apps", "Deployment") => deployment(map),
            ("apps", "ReplicaSet") => replica_set(map),
            ("apps", "DaemonSet") => daemon_set(map),
            ("discovery.k8s.io", "EndpointSlice") => endpoint_slice(map),
            ("rbac.authorization.k8s.io", "RoleBinding" | "ClusterRoleBinding") => binding(map),
            ("scheduling.k8s.io", "PriorityClass") => {
                put(map, "preemptionPolicy", "PreemptLowerPriority");
            }
            _ => kept(resource, map),
        }
    }
    schemas.default(resource.schema, object);
}

/// Defaults of the kinds that are kept for others to act on.
fn kept(resource: &Resource, map: &mut Object) {
    match (&*resource.group, &*resource.kind) {
        ("", "LimitRange") => policy::limit_range(map),
        ("", "PersistentVolume") => storage::volume(map),
        ("", "PersistentVolumeClaim") => storage::claim(map),
        ("", "PodTemplate") => batch::pod_template(map),
        ("", "ReplicationController") => batch::replication_controller(map),
        ("apps", "StatefulSet") => batch::stateful_set(map),
        ("autoscaling", "HorizontalPodAutoscaler") => batch::autoscaler(map),
        ("batch", "Job") => batch::job(map),
        ("batch", "CronJob") => batch::cron_job(map),
        ("networking.k8s.io", "NetworkPolicy") => policy::network_policy(map),
        ("networking.k8s.io", "IngressClass") => policy::ingress_class(map),
        ("storage.k8s.io", "StorageClass") => storage::storage_class(map),
        ("storage.k8s.io", "CSIDriver") => storage::driver(map),
        ("admissionregistration.k8s.io", "MutatingWebhookConfiguration") => policy::webhooks(map, true),
        ("admissionregistration.k8s.io", "ValidatingWebhookConfiguration") => policy::webhooks(map, false),
        ("admissionregistration.k8s.io", "ValidatingAdmissionPolicy" | "MutatingAdmissionPolicy") => {
            policy::admission_policy(map);
        }
        (
            "admissionregistration.k8s.io",
            "ValidatingAdmissionPolicyBinding" | "MutatingAdmissionPolicyBinding",
        ) => policy::admission_binding(map),
        ("apiextensions.k8s.io", "CustomResourceDefinition") => policy::custom_resource_definition(map),
        ("apiregistration.k8s.io", "APIService") => policy::api_service(map),
        ("flowcontrol.apiserver.k8s.io", "FlowSchema") => policy::flow_schema(map),
        ("flowcontrol.apiserver.k8s.io", "PriorityLevelConfiguration") => policy::priority_level(map),
        ("resource.k8s.io", "ResourceClaim") => {
            present(map, "spec").into_iter().for_each(policy::device_claim);
        }
        ("resource.k8s.io", "ResourceClaimTemplate") => {
            let claim = present(map, "spec").and_then(|spec| present(spec, "spec"));
            claim.into_iter().for_each(policy::device_claim);
        }
        _ => {}
    }
}

/// Defaults of the body of a `TokenRequest`.
pub fn token_request(object: &mut Value) {
    if let Some(spec) = object.as_object_mut().and_then(|map| child(map, "spec")) {
        put(spec, "expirationSeconds", 3600);
    }
}

/// Sets a field that is not there.
fn put(map: &mut Object, name: &str, value: impl Into<Value>) {
    if !map.contains_key(name) {
        map.insert(name.to_owned(), value.into());
    }
}

/// The object in a field, made where the field is not there.
fn child<'a>(map: &'a mut Object, name: &str) -> Option<&'a mut Object> {
    if !map.contains_key(name) {
        map.insert(name.to_owned(), Value::Object(Map::new()));
    }
    map.get_mut(name)?.as_object_mut()
}

/// The object in a field, where it is there.
fn present<'a>(map: &'a mut Object, name: &str) -> Option<&'a mut Object> {
    map.get_mut(name)?.as_object_mut()
}

/// The objects of a list in a field.
fn each(map: &mut Object, name: &str, mut visit: impl FnMut(&mut Object)) {
    if let Some(Value::Array(items)) = map.get_mut(name) {
        items.iter_mut().filter_map(Value::as_object_mut).for_each(&mut visit);
    }
}

fn text<'a>(map: &'a Object, name: &str) -> &'a str {
    map.get(name).and_then(Value::as_str).unwrap_or_default()
}

fn template(spec: &mut Object) {
    if let Some(spec) = present(spec, "template").and_then(|template| child(template, "spec")) {
        pod::pod_spec(spec);
    }
}

fn deployment(map: &mut Object) {
    let Some(spec) = child(map, "spec") else { return };
    put(spec, "replicas", 1);
    put(spec, "revisionHistoryLimit", 10);
    put(spec, "progressDeadlineSeconds", 600);
    if let Some(strategy) = child(spec, "strategy") {
        put(strategy, "type", "RollingUpdate");
        if text(strategy, "type") == "RollingUpdate"
            && let Some(rolling) = child(strategy, "rollingUpdate")
        {
            put(rolling, "maxUnavailable", "25%");
            put(rolling, "maxSurge", "25%");
        }
    }
    template(spec);
}

fn replica_set(map: &mut Object) {
    let Some(spec) = child(map, "spec") else { return };
    put(spec, "replicas", 1);
    template(spec);
}

fn daemon_set(map: &mut Object) {
    let Some(spec) = child(map, "spec") else { return };
    put(spec, "revisionHistoryLimit", 10);
    if let Some(strategy) = child(spec, "updateStrategy") {
        put(strategy, "type", "RollingUpdate");
        if text(strategy, "type") == "RollingUpdate"
            && let Some(rolling) = child(strategy, "rollingUpdate")
        {
            put(rolling, "maxUnavailable", 1);
            put(rolling, "maxSurge", 0);
        }
    }
    template(spec);
}

fn service(map: &mut Object) {
    let Some(spec) = child(map, "spec") else { return };
    put(spec, "type", "ClusterIP");
    put(spec, "sessionAffinity", "None");
    if text(spec, "sessionAffinity") == "ClientIP"
        && let Some(client_ip) =
            child(spec, "sessionAffinityConfig").and_then(|config| child(config, "clientIP"))
    {
        put(client_ip, "timeoutSeconds", 10_800);
    } else if text(spec, "sessionAffinity") == "None" {
        spec.remove("sessionAffinityConfig");
    }
    each(spec, "ports", |port| {
        put(port, "protocol", "TCP");
        let unset = match port.get("targetPort") {
            None => true,
            Some(Value::Number(number)) => number.as_i64() == Some(0),
            Some(Value::String(text)) => text.is_empty(),
            Some(_) => false,
        };
        if unset && let Some(number) = port.get("port").cloned() {
            port.insert("targetPort".to_owned(), number);
        }
    });
    let kind = text(spec, "type").to_owned();
    if matches!(kind.as_str(), "NodePort" | "LoadBalancer") {
        put(spec, "externalTrafficPolicy", "Cluster");
    }
    if matches!(kind.as_str(), "NodePort" | "LoadBalancer" | "ClusterIP") {
        put(spec, "internalTrafficPolicy", "Cluster");
    }
    if kind == "LoadBalancer" {
        put(spec, "allocateLoadBalancerNodePorts", true);
    }
}

fn secret(map: &mut Object) {
    use base64::Engine as _;
    put(map, "type", "Opaque");
    let Some(Value::Object(texts)) = map.remove("stringData") else { return };
    if let Some(data) = child(map, "data") {
        for (key, value) in texts {
            let bytes = value.as_str().unwrap_or_default();
            data.insert(key, base64::engine::general_purpose::STANDARD.encode(bytes).into());
        }
    }
}

fn namespace(map: &mut Object) {
    let Some(metadata) = child(map, "metadata") else { return };
    let name = text(metadata, "name").to_owned();
    if !name.is_empty()
        && let Some(labels) = child(metadata, "labels")
    {
        put(labels, "kubernetes.io/metadata.name", name);
    }
}

fn node(map: &mut Object) {
    if let Some(status) = present(map, "status")
        && let Some(capacity) = status.get("capacity").cloned()
    {
        put(status, "allocatable", capacity);
    }
}

fn endpoints(map: &mut Object) {
    each(map, "subsets", |subset| each(subset, "ports", |port| put(port, "protocol", "TCP")));
}

fn endpoint_slice(map: &mut Object) {
    each(map, "ports", |port| {
        put(port, "name", "");
        put(port, "protocol", "TCP");
    });
}

fn binding(map: &mut Object) {
    const GROUP: &str = "rbac.authorization.k8s.io";
    if let Some(role) = present(map, "roleRef") {
        put(role, "apiGroup", GROUP);
    }
    each(map, "subjects", |subject| {
        if matches!(text(subject, "kind"), "User" | "Group") {
            put(subject, "apiGroup", GROUP);
        }
    });
}

/// An empty object.
fn empty() -> Value {
    json!({})
}

#[cfg(test)]
mod tests;
