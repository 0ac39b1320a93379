//! Readings of a pod that several parts of the node need.

use std::borrow::Cow;
use std::sync::LazyLock;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, EphemeralContainer, Pod, PodSpec, PodStatus};

static NO_SPEC: LazyLock<PodSpec> = LazyLock::new(PodSpec::default);
static NO_STATUS: LazyLock<PodStatus> = LazyLock::new(PodStatus::default);

/// The label of a sandbox or container that holds the pod's name.
pub const LABEL_POD_NAME: &str = "io.kubernetes.pod.name";
/// The label of a sandbox or container that holds the pod's namespace.
pub const LABEL_POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
/// The label of a sandbox or container that holds the pod's uid.
pub const LABEL_POD_UID: &str = "io.kubernetes.pod.uid";
/// The label of a container that holds its name.
pub const LABEL_CONTAINER_NAME: &str = "io.kubernetes.container.name";
/// The label of a container that holds the image as its pod names it.
pub const LABEL_IMAGE: &str = "orlop.dev/image";

/// When a pod restarts its containers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RestartPolicy {
    /// Whatever their exit status.
    Always,
    /// When they fail.
    OnFailure,
    /// Not at all.
    Never,
}

/// The pod's spec; an empty one when it has none.
pub fn spec(pod: &Pod) -> &PodSpec {
    pod.spec.as_ref().unwrap_or(&NO_SPEC)
}

/// The pod's status; an empty one when it has none.
pub fn status(pod: &Pod) -> &PodStatus {
    pod.status.as_ref().unwrap_or(&NO_STATUS)
}

/// `metadata.uid`.
pub fn uid(pod: &Pod) -> &str {
    pod.metadata.uid.as_deref().unwrap_or_default()
}

/// `metadata.name`.
pub fn name(pod: &Pod) -> &str {
    pod.metadata.name.as_deref().unwrap_or_default()
}

/// `metadata.namespace`.
pub fn namespace(pod: &Pod) -> &str {
    pod.metadata.namespace.as_deref().unwrap_or("default")
}

/// `name_namespace(uid)`, as messages of the node write a pod.
pub fn full_name(pod: &Pod) -> String {
    format!("{}_{}({})", name(pod), namespace(pod), uid(pod))
}

/// The pod's init containers, sidecars among them.
pub fn init_containers(pod: &Pod) -> &[Container] {
    spec(pod).init_containers.as_deref().unwrap_or_default()
}

/// Init containers, then containers.
pub fn all_containers(pod: &Pod) -> impl Iterator<Item = &Container> {
    init_containers(pod).iter().chain(&spec(pod).containers)
}

/// The pod's ephemeral containers: added to look into a running pod.
pub fn ephemeral_containers(pod: &Pod) -> &[EphemeralContainer] {
    spec(pod).ephemeral_containers.as_deref().unwrap_or_default()
}

/// An ephemeral container as the container that it is, but for what it looks into.
pub fn as_container(ephemeral: &EphemeralContainer) -> Container {
    // Both are the same fields of the same types: what one is written as the other reads.
    let read = serde_json::to_value(ephemeral).and_then(serde_json::from_value);
    read.unwrap_or_else(|_| Container { name: ephemeral.name.clone(), ..Container::default() })
}

/// The container of that name, whatever part it plays.
pub fn any_container<'a>(pod: &'a Pod, name: &str) -> Option<Cow<'a, Container>> {
    let ephemeral = || ephemeral_containers(pod).iter().find(|container| container.name == name);
    container(pod, name).map(Cow::Borrowed).or_else(|| ephemeral().map(as_container).map(Cow::Owned))
}

/// The container whose processes the ephemeral container of that name sees.
pub fn target_of<'a>(pod: &'a Pod, name: &str) -> Option<&'a str> {
    let ephemeral = ephemeral_containers(pod).iter().find(|container| container.name == name)?;
    ephemeral.target_container_name.as_deref().filter(|target| !target.is_empty())
}

/// The init container or container of that name.
pub fn container<'a>(pod: &'a Pod, name: &str) -> Option<&'a Container> {
    all_containers(pod).find(|container| container.name == name)
}

/// An init container that keeps running beside the others.
pub fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

/// `spec.restartPolicy`.
pub fn restart_policy(pod: &Pod) -> RestartPolicy {
    parse_policy(spec(pod).restart_policy.as_deref()).unwrap_or(RestartPolicy::Always)
}

/// The policy that counts for one container: its own, else the pod's.
pub fn container_restart_policy(pod: &Pod, container: &Container) -> RestartPolicy {
    parse_policy(container.restart_policy.as_deref()).unwrap_or_else(|| restart_policy(pod))
}

fn parse_policy(text: Option<&str>) -> Option<RestartPolicy> {
    match text? {
        "Always" => Some(RestartPolicy::Always),
        "OnFailure" => Some(RestartPolicy::OnFailure),
        "Never" => Some(RestartPolicy::Never),
        _ => None,
    }
}

/// `spec.terminationGracePeriodSeconds`.
pub fn grace(pod: &Pod) -> Duration {
    seconds(spec(pod).termination_grace_period_seconds.unwrap_or(30))
}

/// Whether the pod will never run again.
pub fn is_terminal(pod: &Pod) -> bool {
    matches!(status(pod).phase.as_deref(), Some("Succeeded" | "Failed"))
}

/// Whether the pod lives in the node's network.
pub fn host_network(pod: &Pod) -> bool {
    spec(pod).host_network.unwrap_or(false)
}

/// `metadata.resourceVersion` as Orlop counts it.
pub fn revision(pod: &Pod) -> Option<u64> {
    pod.metadata.resource_version.as_deref()?.parse().ok()
}

/// Seconds of an API field; negative ones are none.
pub fn seconds(value: i64) -> Duration {
    Duration::from_secs(u64::try_from(value).unwrap_or(0))
}
