//! What is kept on disk for each sandbox and container, so that a later agent finds them.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use nodeagent_core::runtime::{QosClass, SandboxConfig};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::shim::{sys_start_time, task};

/// A sandbox on disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxRecord {
    /// Our id.
    pub id: String,
    /// `metadata.uid` of the pod.
    pub pod_uid: String,
    /// `metadata.name` of the pod.
    pub pod_name: String,
    /// `metadata.namespace` of the pod.
    pub pod_namespace: String,
    /// Counts sandboxes of the pod.
    pub attempt: u32,
    /// Name seen inside.
    pub hostname: String,
    /// The pod uses the node's network.
    pub host_network: bool,
    /// The pod sees the node's processes.
    pub host_pid: bool,
    /// The pod uses the node's IPC namespace.
    pub host_ipc: bool,
    /// Containers of the pod share a PID namespace.
    pub share_pid: bool,
    /// As given by the agent.
    pub labels: BTreeMap<String, String>,
    /// The pod's cgroup.
    pub cgroup_path: String,
    /// Network namespace of a node that has one of its own, for pods on the node's network.
    pub netns: Option<PathBuf>,
    /// Addresses in the pod network.
    pub ips: Vec<IpAddr>,
    /// When it was made.
    pub created_at: Timestamp,
    /// Its namespaces exist and its network is set up.
    pub ready: bool,
    /// First process of the shared PID namespace with its start time.
    pub pause: Option<(i32, u64)>,
    /// Run of the machine in which it was made.
    pub boot_id: String,
}

/// A container on disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerRecord {
    /// Our id.
    pub id: String,
    /// Its sandbox.
    pub sandbox: String,
    /// `metadata.uid` of the pod.
    pub pod_uid: String,
    /// `name` in the pod's spec.
    pub name: String,
    /// Counts starts.
    pub attempt: u32,
    /// Image as the pod named it.
    pub image: String,
    /// Content address of the image.
    pub image_id: String,
    /// Where its log is.
    pub log_path: PathBuf,
    /// As given by the agent.
    pub labels: BTreeMap<String, String>,
    /// Its cgroup.
    pub cgroup_path: String,
    /// Signal that asks it to end.
    pub stop_signal: i32,
    /// When it was made.
    pub created_at: Timestamp,
}

/// Where a container is in its life, as its directory tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Not started.
    Created,
    /// Its shim runs.
    Running {
        /// First process.
        pid: i32,
        /// Nanoseconds since 1970.
        started_at: i64,
    },
    /// It has ended.
    Exited {
        /// Nanoseconds since 1970.
        started_at: Option<i64>,
        /// How.
        exited: task::Exited,
    },
}

const SANDBOX_FILE: &str = "sandbox.json";
const CONTAINER_FILE: &str = "container.json";

// === impl SandboxRecord ===

impl SandboxRecord {
    /// A record for a new sandbox.
    pub fn new(
        id: String,
        config: SandboxConfig,
        cgroup_root: &str,
        boot_id: &str,
        now: Timestamp,
    ) -> SandboxRecord {
        let class = match config.qos {
            QosClass::Guaranteed => "",
            QosClass::Burstable => "/burstable",
            QosClass::BestEffort => "/besteffort",
        };
        SandboxRecord {
            cgroup_path: format!("{cgroup_root}/kubepods{class}/pod{}", config.pod_uid),
            id,
            pod_uid: config.pod_uid,
            pod_name: config.pod_name,
            pod_namespace: config.pod_namespace,
            attempt: config.attempt,
            hostname: config.hostname,
            host_network: config.host_network,
            host_pid: config.host_pid,
            host_ipc: config.host_ipc,
            share_pid: config.share_process_namespace,
            labels: config.labels,
            netns: None,
            ips: Vec::new(),
            created_at: now,
            ready: false,
            pause: None,
            boot_id: boot_id.to_owned(),
        }
    }

    /// Whether the pod has a host name of its own.
    pub fn own_uts(&self) -> bool {
        !self.host_network || !self.hostname.is_empty()
    }

    /// Whether its namespaces can still exist.
    pub fn alive(&self, boot_id: &str) -> bool {
        self.ready
            && self.boot_id == boot_id
            && self.pause.is_none_or(|(pid, start)| sys_start_time(pid) == Some(start))
    }
}

/// The run of the machine.
pub fn boot_id() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

/// A new id.
pub fn new_id() -> String {
    hex::encode(rand::random::<[u8; 16]>())
}

/// Writes a record as a whole.
pub fn write<T: Serialize>(path: &Path, record: &T) -> io::Result<()> {
    let bytes = serde_json::to_vec(record).map_err(io::Error::other)?;
    let temporary = path.with_extension("new");
    fs::write(&temporary, bytes)?;
    fs::rename(temporary, path)
}

/// Reads a record; `None` when it is not there or not readable.
pub fn read<T: DeserializeOwned>(path: &Path) -> Option<T> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

/// Paths of a node's state.
#[derive(Clone, Debug)]
pub struct Layout {
    dir: PathBuf,
}

// === impl Layout ===

impl Layout {
    /// State below `dir`.
    pub fn new(dir: &Path) -> Layout {
        Layout { dir: dir.to_owned() }
    }

    /// All sandboxes.
    pub fn sandboxes(&self) -> PathBuf {
        self.dir.join("sandboxes")
    }

    /// All containers.
    pub fn containers(&self) -> PathBuf {
        self.dir.join("containers")
    }

    /// Compiled system call filters.
    pub fn seccomp(&self) -> PathBuf {
        self.dir.join("seccomp")
    }

    /// One sandbox.
    pub fn sandbox(&self, id: &str) -> PathBuf {
        self.sandboxes().join(id)
    }

    /// One container.
    pub fn container(&self, id: &str) -> PathBuf {
        self.containers().join(id)
    }

    /// Keeps a sandbox.
    pub fn save_sandbox(&self, record: &SandboxRecord) -> io::Result<()> {
        write(&self.sandbox(&record.id).join(SANDBOX_FILE), record)
    }

    /// Keeps a container.
    pub fn save_container(&self, record: &ContainerRecord) -> io::Result<()> {
        write(&self.container(&record.id).join(CONTAINER_FILE), record)
    }

    /// All sandboxes that can be read, and the directories of those that cannot.
    pub fn load_sandboxes(&self) -> io::Result<(Vec<SandboxRecord>, Vec<PathBuf>)> {
        load(&self.sandboxes(), SANDBOX_FILE)
    }

    /// All containers that can be read, and the directories of those that cannot.
    pub fn load_containers(&self) -> io::Result<(Vec<ContainerRecord>, Vec<PathBuf>)> {
        load(&self.containers(), CONTAINER_FILE)
    }

    /// Where a container is in its life. `None`: it should run, but its shim is gone.
    pub fn phase(&self, id: &str, boot_id: &str) -> Option<Phase> {
        let dir = self.container(id);
        let started: Option<task::Started> = read(&dir.join(task::STARTED_FILE));
        let started_at = started.as_ref().map(|started| started.at);
        if let Some(exited) = read::<task::Exited>(&dir.join(task::EXITED_FILE)) {
            return Some(Phase::Exited { started_at, exited });
        }
        match started {
            None => Some(Phase::Created),
            Some(started) => {
                let alive =
                    started.boot_id == boot_id && sys_start_time(started.shim) == Some(started.shim_start);
                alive.then_some(Phase::Running { pid: started.pid, started_at: started.at })
            }
        }
    }
}

fn load<T: DeserializeOwned>(dir: &Path, file: &str) -> io::Result<(Vec<T>, Vec<PathBuf>)> {
    fs::create_dir_all(dir)?;
    let (mut records, mut broken) = (Vec::new(), Vec::new());
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        match read(&path.join(file)) {
            Some(record) => records.push(record),
            None => broken.push(path),
        }
    }
    Ok((records, broken))
}
