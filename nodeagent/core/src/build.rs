//! What the runtime is given for a pod: its sandbox and its containers.

use std::collections::BTreeMap;
use std::path::PathBuf;

use k8s_openapi::api::core::v1::{Container, Pod};

use crate::runtime::{ContainerConfig, Image, Mount, SandboxConfig, Security};
use crate::{cgroup, env, netfiles, pod};

/// The sandbox of a pod.
pub fn sandbox(pod: &Pod, attempt: u32, node_name: &str, cluster_domain: &str) -> SandboxConfig {
    let spec = pod::spec(pod);
    let sysctls = spec.security_context.iter().flat_map(|it| it.sysctls.iter().flatten());
    let host_network = pod::host_network(pod);
    SandboxConfig {
        pod_uid: pod::uid(pod).to_owned(),
        pod_name: pod::name(pod).to_owned(),
        pod_namespace: pod::namespace(pod).to_owned(),
        attempt,
        hostname: if host_network {
            String::new()
        } else {
            netfiles::kernel_hostname(pod, node_name, cluster_domain)
        },
        host_network,
        host_pid: spec.host_pid.unwrap_or(false),
        host_ipc: spec.host_ipc.unwrap_or(false),
        share_process_namespace: spec.share_process_namespace.unwrap_or(false),
        sysctls: sysctls.map(|it| (it.name.clone(), it.value.clone())).collect(),
        qos: cgroup::qos_class(pod),
        resources: cgroup::whole_pod(pod, None),
        labels: labels(pod),
    }
}

fn labels(pod: &Pod) -> BTreeMap<String, String> {
    [
        (pod::LABEL_POD_NAME, pod::name(pod)),
        (pod::LABEL_POD_NAMESPACE, pod::namespace(pod)),
        (pod::LABEL_POD_UID, pod::uid(pod)),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .into()
}

/// What was worked out for a container before it can be described to the runtime.
#[derive(Clone, Debug)]
pub struct ContainerParts {
    /// Counts its instances.
    pub attempt: u32,
    /// Its image.
    pub image: Image,
    /// Its environment.
    pub env: Vec<(String, String)>,
    /// Its mounts.
    pub mounts: Vec<Mount>,
    /// Where its log goes.
    pub log_path: PathBuf,
    /// What it may do.
    pub security: Security,
    /// Memory of the node in bytes.
    pub node_memory: i64,
}

/// One container of a pod.
pub fn container(pod: &Pod, spec: &Container, parts: ContainerParts) -> ContainerConfig {
    let lookup: BTreeMap<&str, &str> =
        parts.env.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    let expand = |words: &Option<Vec<String>>| -> Vec<String> {
        let words = words.iter().flatten();
        words.map(|word| env::expand(word, |name| lookup.get(name).map(|it| (*it).to_owned()))).collect()
    };
    let (command, args) = (expand(&spec.command), expand(&spec.args));
    let mut labels = labels(pod);
    labels.insert(pod::LABEL_CONTAINER_NAME.to_owned(), spec.name.clone());
    labels.insert(pod::LABEL_IMAGE.to_owned(), spec.image.clone().unwrap_or_default());
    ContainerConfig {
        name: spec.name.clone(),
        attempt: parts.attempt,
        image_id: parts.image.id,
        command,
        args,
        working_dir: spec.working_dir.clone().filter(|dir| !dir.is_empty()),
        env: parts.env,
        mounts: parts.mounts,
        log_path: parts.log_path,
        stdin: spec.stdin.unwrap_or(false),
        stdin_once: spec.stdin_once.unwrap_or(false),
        tty: spec.tty.unwrap_or(false),
        processes_of: pod::target_of(pod, &spec.name).map(str::to_owned),
        resources: cgroup::container(pod, spec, parts.node_memory, None),
        security: parts.security,
        labels,
    }
}
