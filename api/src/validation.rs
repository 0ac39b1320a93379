//! Checks what a schema cannot say: names, ranges, what belongs together, what must not change.
//!
//! Complaints are worded as Kubernetes words them, because people and programs look for these words. Objects come here
//! pruned, of the right types and with their defaults.

mod batch;
mod certificate;
mod configuration;
mod containers;
mod extension;
mod labels;
mod metadata;
mod networking;
mod node;
mod pod;
mod pod_parts;
mod probes;
mod quota;
mod rbac;
mod rules;
mod scheduling;
mod service;
mod slices;
mod storage;
mod structural;
mod unchanged;
mod volumes;
mod workload;

use std::fmt;

use serde_json::Value;

use crate::catalogue::Resource;
use crate::field::FieldError;

/// Checks a new object.
pub fn create(resource: &Resource, object: &Value) -> Vec<FieldError> {
    let mut errors = Errors::default();
    metadata::check(resource, object, &mut errors);
    match &resource.custom {
        Some(custom) => errors.0.extend(custom.check(object, None)),
        None => check_kind(resource, object, &mut errors),
    }
    if resource.is("apiextensions.k8s.io", "customresourcedefinitions") {
        extension::check_approval(object, None, &mut errors);
    }
    if resource.is("", "pods") {
        pod_parts::check_create(object, &mut errors);
    }
    errors.0
}

/// Checks a pod that was changed through a path of one of its parts.
pub fn pod_part_update(resource: &Resource, part: &str, new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = Errors::default();
    metadata::check(resource, new, &mut errors);
    metadata::check_update(new, old, &mut errors);
    check_kind(resource, new, &mut errors);
    match part {
        "resize" => pod_parts::check_resize(new, old, &mut errors),
        _ => pod_parts::check_ephemeral_update(new, old, &mut errors),
    }
    errors.0
}

/// Checks a changed object: the new one itself, and what must not have changed.
pub fn update(resource: &Resource, new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = Errors::default();
    metadata::check(resource, new, &mut errors);
    metadata::check_update(new, old, &mut errors);
    if let Some(custom) = &resource.custom {
        errors.0.extend(custom.check(new, Some(old)));
        return errors.0;
    }
    check_kind(resource, new, &mut errors);
    unchanged::check(resource, new, old, &mut errors);
    errors.0
}

/// Checks a changed status. Of a built-in kind only metadata is checked: who writes a status knows what it saw.
pub fn status_update(resource: &Resource, new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = Errors::default();
    metadata::check(resource, new, &mut errors);
    metadata::check_update(new, old, &mut errors);
    if let Some(custom) = &resource.custom {
        errors.0.extend(custom.check(new, Some(old)));
    }
    errors.0
}

fn check_kind(resource: &Resource, object: &Value, errors: &mut Errors) {
    match (resource.group.as_ref(), resource.kind.as_ref()) {
        ("", "Pod") => pod::check_spec(&object["spec"], &Path::root("spec"), errors),
        ("", "Node") => node::check(object, errors),
        ("", "Service") => service::check(object, errors),
        ("", "Endpoints") => slices::check_endpoints(object, errors),
        ("discovery.k8s.io", "EndpointSlice") => slices::check(object, errors),
        ("", "ConfigMap") => configuration::check_config_map(object, errors),
        ("", "Secret") => configuration::check_secret(object, errors),
        ("coordination.k8s.io", "Lease") => configuration::check_lease(object, errors),
        ("scheduling.k8s.io", "PriorityClass") => configuration::check_priority_class(object, errors),
        ("", "Event") => configuration::check_event(object, errors),
        ("apps", "Deployment") => workload::check_deployment(object, errors),
        ("apps", "ReplicaSet") => workload::check_replica_set(object, errors),
        ("apps", "DaemonSet") => workload::check_daemon_set(object, errors),
        ("rbac.authorization.k8s.io", "Role" | "ClusterRole") => rbac::check_role(resource, object, errors),
        ("rbac.authorization.k8s.io", "RoleBinding" | "ClusterRoleBinding") => {
            rbac::check_binding(resource, object, errors);
        }
        _ => check_kept(resource, object, errors),
    }
}

/// Checks the kinds that are kept for others to act on.
fn check_kept(resource: &Resource, object: &Value, errors: &mut Errors) {
    match (resource.group.as_ref(), resource.kind.as_ref()) {
        ("", "LimitRange") => quota::check_limit_range(object, errors),
        ("", "ResourceQuota") => quota::check_resource_quota(object, errors),
        ("", "PersistentVolume") => storage::check_volume(object, errors),
        ("", "PersistentVolumeClaim") => storage::check_claim(object, errors),
        ("", "PodTemplate") => batch::check_pod_template(object, errors),
        ("", "ReplicationController") => batch::check_replication_controller(object, errors),
        ("apps", "StatefulSet") => batch::check_stateful_set(object, errors),
        ("autoscaling", "HorizontalPodAutoscaler") => batch::check_autoscaler(object, errors),
        ("batch", "Job") => batch::check_job(object, errors),
        ("batch", "CronJob") => batch::check_cron_job(object, errors),
        ("policy", "PodDisruptionBudget") => batch::check_disruption_budget(object, errors),
        ("networking.k8s.io", "Ingress") => networking::check_ingress(object, errors),
        ("networking.k8s.io", "IngressClass") => networking::check_ingress_class(object, errors),
        ("networking.k8s.io", "IPAddress") => networking::check_ip_address(object, errors),
        ("networking.k8s.io", "NetworkPolicy") => networking::check_network_policy(object, errors),
        ("networking.k8s.io", "ServiceCIDR") => networking::check_service_cidr(object, errors),
        ("node.k8s.io", "RuntimeClass") => networking::check_runtime_class(object, errors),
        ("storage.k8s.io", "CSIDriver") => storage::check_driver(object, errors),
        ("storage.k8s.io", "CSINode") => storage::check_storage_node(object, errors),
        ("storage.k8s.io", "CSIStorageCapacity") => storage::check_capacity(object, errors),
        ("storage.k8s.io", "StorageClass") => storage::check_storage_class(object, errors),
        ("storage.k8s.io", "VolumeAttachment") => storage::check_attachment(object, errors),
        ("storage.k8s.io", "VolumeAttributesClass") => storage::check_attributes_class(object, errors),
        (
            "admissionregistration.k8s.io",
            "MutatingWebhookConfiguration" | "ValidatingWebhookConfiguration",
        ) => extension::check_webhooks(object, errors),
        ("admissionregistration.k8s.io", "ValidatingAdmissionPolicy") => {
            extension::check_validating_policy(object, errors);
        }
        ("admissionregistration.k8s.io", "MutatingAdmissionPolicy") => {
            extension::check_mutating_policy(object, errors);
        }
        ("admissionregistration.k8s.io", kind) => {
            extension::check_policy_binding(object, kind.starts_with("Validating"), errors);
        }
        ("apiextensions.k8s.io", "CustomResourceDefinition") => extension::check_definition(object, errors),
        ("apiregistration.k8s.io", "APIService") => extension::check_api_service(object, errors),
        ("certificates.k8s.io", "CertificateSigningRequest") => {
            certificate::check_signing_request(object, errors);
        }
        ("certificates.k8s.io", "ClusterTrustBundle") => certificate::check_trust_bundle(object, errors),
        ("certificates.k8s.io", "PodCertificateRequest") => {
            certificate::check_pod_certificate_request(object, errors);
        }
        ("flowcontrol.apiserver.k8s.io", "FlowSchema") => certificate::check_flow_schema(object, errors),
        ("flowcontrol.apiserver.k8s.io", "PriorityLevelConfiguration") => {
            certificate::check_priority_level(object, errors);
        }
        ("resource.k8s.io", "DeviceClass") => certificate::check_device_class(object, errors),
        ("resource.k8s.io", "DeviceTaintRule") => certificate::check_device_taint(object, errors),
        ("resource.k8s.io", "ResourceClaim") => {
            certificate::check_device_claim(&object["spec"], &Path::root("spec"), errors);
        }
        ("resource.k8s.io", "ResourceClaimTemplate") => {
            certificate::check_device_claim(&object["spec"]["spec"], &Path::root("spec.spec"), errors);
        }
        ("resource.k8s.io", "ResourceSlice") => certificate::check_device_slice(object, errors),
        _ => {}
    }
}

/// A place in an object. Rendered only when there is something to complain about.
#[derive(Clone, Copy)]
enum Path<'a> {
    Root(&'a str),
    Field(&'a Path<'a>, &'a str),
    Index(&'a Path<'a>, usize),
    /// An entry of a map.
    Entry(&'a Path<'a>, &'a str),
}

impl<'a> Path<'a> {
    fn root(name: &'a str) -> Path<'a> {
        Path::Root(name)
    }

    fn field(&'a self, name: &'a str) -> Path<'a> {
        Path::Field(self, name)
    }

    fn index(&'a self, index: usize) -> Path<'a> {
        Path::Index(self, index)
    }

    fn entry(&'a self, key: &'a str) -> Path<'a> {
        Path::Entry(self, key)
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Path::Root(name) => f.write_str(name),
            Path::Field(parent, name) => write!(f, "{parent}.{name}"),
            Path::Index(parent, index) => write!(f, "{parent}[{index}]"),
            Path::Entry(parent, key) => write!(f, "{parent}[{key}]"),
        }
    }
}

/// Complaints so far.
#[derive(Default)]
struct Errors(Vec<FieldError>);

impl Errors {
    fn add(&mut self, error: FieldError) {
        self.0.push(error);
    }

    fn required(&mut self, path: &Path<'_>, detail: &str) {
        self.add(FieldError::required(path.to_string(), detail));
    }

    fn invalid(&mut self, path: &Path<'_>, value: impl Into<Value>, detail: impl Into<String>) {
        self.add(FieldError::invalid(path.to_string(), value, detail));
    }

    fn forbidden(&mut self, path: &Path<'_>, detail: impl Into<String>) {
        self.add(FieldError::forbidden(path.to_string(), detail));
    }

    fn duplicate(&mut self, path: &Path<'_>, value: impl Into<Value>) {
        self.add(FieldError::duplicate(path.to_string(), value));
    }

    /// A complaint for each reason why a text is no good name.
    fn reasons(&mut self, path: &Path<'_>, value: &str, reasons: Vec<String>) {
        for reason in reasons {
            self.invalid(path, value, reason);
        }
    }

    /// The text is one of `accepted`. An empty one is missing.
    fn one_of(&mut self, path: &Path<'_>, value: &Value, accepted: &[&str]) {
        match value.as_str() {
            None | Some("") => self.required(path, ""),
            Some(text) if accepted.contains(&text) => {}
            Some(text) => self.add(FieldError::not_supported(path.to_string(), text, accepted)),
        }
    }

    /// The text, when there is one, is one of `accepted`.
    fn optional_one_of(&mut self, path: &Path<'_>, value: &Value, accepted: &[&str]) {
        if value.as_str().is_some_and(|text| !text.is_empty()) {
            self.one_of(path, value, accepted);
        }
    }

    /// The number, when there is one, is not negative.
    fn not_negative(&mut self, path: &Path<'_>, value: &Value) {
        if value.as_i64().is_some_and(|number| number < 0) {
            self.invalid(path, value.clone(), "must be greater than or equal to 0");
        }
    }

    /// The number, when there is one, is a port.
    fn port(&mut self, path: &Path<'_>, value: &Value) {
        if value.as_i64().is_some_and(|number| !(1..=65535).contains(&number)) {
            self.invalid(path, value.clone(), "must be between 1 and 65535, inclusive");
        }
    }

    /// A port by number or name.
    fn port_or_name(&mut self, path: &Path<'_>, value: &Value) {
        match value {
            Value::String(name) => self.reasons(path, name, crate::name::port_name(name)),
            _ => self.port(path, value),
        }
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn entries(value: &Value) -> impl Iterator<Item = (&str, &Value)> {
    value.as_object().into_iter().flatten().map(|(key, value)| (key.as_str(), value))
}

/// There is a value that is not empty.
fn given(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(map) => !map.is_empty(),
        _ => true,
    }
}

#[cfg(test)]
mod tests;
