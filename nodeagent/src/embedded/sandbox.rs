//! A pod's sandbox: namespaces pinned on disk, shared memory, cgroup, network.

use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;
use nix::mount::{MsFlags, mount};
use nix::sched::CloneFlags;
use nodeagent_core::runtime::{Resources, RuntimeError, SandboxConfig, SandboxId, SandboxStatus};
use nodeagent_core::sysctls;

use super::state::{SandboxRecord, new_id};
use super::{EmbeddedRuntime, blocking, internal};
use crate::netns;
use crate::network::{NetworkError, PodSocket};
use crate::shim::sys_start_time;

impl From<&SandboxRecord> for SandboxStatus {
    fn from(record: &SandboxRecord) -> SandboxStatus {
        SandboxStatus {
            id: SandboxId(record.id.clone()),
            pod_uid: record.pod_uid.clone(),
            pod_name: record.pod_name.clone(),
            pod_namespace: record.pod_namespace.clone(),
            attempt: record.attempt,
            ready: record.ready,
            created_at: record.created_at,
            ips: record.ips.clone(),
            labels: record.labels.clone(),
        }
    }
}

/// What a sandbox needs beside its record to be made.
struct Making {
    resources: Resources,
    sysctls: std::collections::BTreeMap<String, String>,
}

/// The socket in the new network namespace, and the first process of the shared PID namespace.
type Inside = (Option<PodSocket>, Option<(i32, u64)>);

impl EmbeddedRuntime {
    /// Makes a sandbox with its network.
    pub(super) async fn run_sandbox_now(&self, config: SandboxConfig) -> Result<SandboxStatus, RuntimeError> {
        if !config.host_network && self.network.pod_cidr().await.is_none() {
            return Err(NetworkError::NoPodCidr.into());
        }
        let making = Making { resources: config.resources.clone(), sysctls: config.sysctls.clone() };
        let root = &self.config.cgroup_root;
        let mut record = SandboxRecord::new(new_id(), config, root, &self.boot_id, Timestamp::now());
        if record.host_network {
            record.netns = self.config.netns.clone();
        } else {
            let ip = self.network.reserve(&record.id).await?;
            record.ips = vec![IpAddr::V4(ip)];
        }
        match self.make_sandbox(record.clone(), making).await {
            Ok(record) => {
                let status = SandboxStatus::from(&record);
                self.lock().sandboxes.insert(record.id.clone(), record);
                Ok(status)
            }
            Err(error) => {
                self.lock().sandboxes.insert(record.id.clone(), record.clone());
                if let Err(second) = self.remove_sandbox_now(&record.id).await {
                    tracing::warn!(error = %second, "cannot remove a sandbox that could not be made");
                }
                Err(error)
            }
        }
    }

    async fn make_sandbox(
        &self,
        mut record: SandboxRecord,
        making: Making,
    ) -> Result<SandboxRecord, RuntimeError> {
        let Some(this) = self.this.upgrade() else {
            return Err(RuntimeError::Internal("the runtime is closing".to_owned()));
        };
        let runtime = tokio::runtime::Handle::current();
        let prepared = record.clone();
        let (socket, pause) = blocking(move || this.make_namespaces(&prepared, &making, &runtime)).await?;
        record.pause = pause;
        if let Some(socket) = socket {
            if let Some(IpAddr::V4(ip)) = record.ips.first() {
                let pin = self.layout.sandbox(&record.id).join("ns/net");
                self.network.attach(&record.id, &pin, &socket, *ip).await?;
            } else {
                socket.loopback_up().await?;
            }
        }
        record.ready = true;
        self.layout.save_sandbox(&record).map_err(internal("sandbox state"))?;
        Ok(record)
    }

    fn make_namespaces(
        &self,
        record: &SandboxRecord,
        making: &Making,
        runtime: &tokio::runtime::Handle,
    ) -> Result<Inside, RuntimeError> {
        let dir = self.layout.sandbox(&record.id);
        fs::create_dir_all(dir.join("ns")).map_err(internal("sandbox directory"))?;
        // Before anything is made: what a dead agent has left must be found.
        self.layout.save_sandbox(record).map_err(internal("sandbox state"))?;
        self.cgroups.create(&record.cgroup_path, &making.resources).map_err(internal("pod cgroup"))?;
        if !record.host_ipc {
            mount_shm(&dir.join("shm")).map_err(internal("shared memory"))?;
        }
        let pins = [
            (CloneFlags::CLONE_NEWNET, dir.join("ns/net"), !record.host_network),
            (CloneFlags::CLONE_NEWIPC, dir.join("ns/ipc"), !record.host_ipc),
            (CloneFlags::CLONE_NEWUTS, dir.join("ns/uts"), record.own_uts()),
        ];
        let pins: Vec<(CloneFlags, &Path)> =
            pins.iter().filter(|pin| pin.2).map(|pin| (pin.0, pin.1.as_path())).collect();
        let socket = if pins.is_empty() {
            None
        } else {
            netns::create(&pins, || {
                if record.own_uts() {
                    nix::unistd::sethostname(&record.hostname)?;
                }
                for (name, value) in &making.sysctls {
                    let path = sysctls::path(name, record.host_network).ok_or_else(|| {
                        std::io::Error::other(format!("sysctl {name} may not be set by a pod"))
                    })?;
                    fs::write(&path, value).map_err(|error| {
                        std::io::Error::new(error.kind(), format!("sysctl {name}: {error}"))
                    })?;
                }
                (!record.host_network).then(|| PodSocket::open(runtime)).transpose()
            })
            .map_err(internal("pod namespaces"))?
        };
        let pause = if record.share_pid && !record.host_pid {
            let pid = self.zygote.start_pause(&dir.join("ns/pid")).map_err(internal("PID namespace"))?;
            Some((pid, sys_start_time(pid).unwrap_or(0)))
        } else {
            None
        };
        Ok((socket, pause))
    }

    /// Kills what still runs in the sandbox and takes its namespaces and network down.
    pub(super) async fn stop_sandbox_now(&self, id: &str) -> Result<(), RuntimeError> {
        let Some(record) = self.lock().sandboxes.get(id).cloned() else { return Ok(()) };
        let containers = self.containers_of(id);
        let stops = containers.iter().map(|id| self.stop_container_now(id, std::time::Duration::ZERO));
        for outcome in futures::future::join_all(stops).await {
            outcome?;
        }
        if !record.host_network {
            self.network.detach(id).await?;
        }
        let (dir, pause, pod_uid) = (self.layout.sandbox(id), record.pause, record.pod_uid.clone());
        blocking(move || {
            if let Some((pid, start)) = pause
                && sys_start_time(pid) == Some(start)
            {
                let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::SIGKILL);
            }
            for name in ["net", "ipc", "uts", "pid"] {
                netns::unpin(&dir.join("ns").join(name)).map_err(internal("unpin a namespace"))?;
            }
            netns::unmount(&dir.join("shm")).map_err(internal("unmount shared memory"))
        })
        .await?;
        if record.ready {
            let stopped = SandboxRecord { ready: false, ips: Vec::new(), pause: None, ..record };
            self.layout.save_sandbox(&stopped).map_err(internal("sandbox state"))?;
            self.lock().sandboxes.insert(id.to_owned(), stopped);
            self.changed(&pod_uid);
        }
        Ok(())
    }

    /// Removes the sandbox and its containers.
    pub(super) async fn remove_sandbox_now(&self, id: &str) -> Result<(), RuntimeError> {
        self.stop_sandbox_now(id).await?;
        for container in self.containers_of(id) {
            self.remove_container_now(&container).await?;
        }
        let Some(record) = self.lock().sandboxes.get(id).cloned() else { return Ok(()) };
        // A newer sandbox of the same pod lives in the same cgroup.
        let shared = self
            .lock()
            .sandboxes
            .values()
            .any(|other| other.id != record.id && other.cgroup_path == record.cgroup_path && other.ready);
        let (dir, cgroups) = (self.layout.sandbox(id), self.cgroups.clone());
        blocking(move || {
            if !shared {
                cgroups.remove(&record.cgroup_path).map_err(internal("pod cgroup"))?;
            }
            match fs::remove_dir_all(&dir) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    Err(internal("sandbox directory")(error))
                }
                _ => Ok(()),
            }
        })
        .await?;
        self.lock().sandboxes.remove(id);
        Ok(())
    }

    fn containers_of(&self, sandbox: &str) -> Vec<String> {
        let state = self.lock();
        let of_it = state.containers.values().filter(|container| container.record.sandbox == sandbox);
        of_it.map(|container| container.record.id.clone()).collect()
    }

    /// The sandbox, when containers can be made in it.
    pub(super) fn ready_sandbox(&self, id: &str) -> Result<Arc<SandboxRecord>, RuntimeError> {
        match self.lock().sandboxes.get(id) {
            Some(record) if record.ready => Ok(Arc::new(record.clone())),
            Some(_) => Err(RuntimeError::InvalidConfig(format!("sandbox {id} is not ready"))),
            None => Err(RuntimeError::NotFound { what: format!("sandbox {id}") }),
        }
    }
}

fn mount_shm(path: &Path) -> std::io::Result<()> {
    fs::create_dir_all(path)?;
    let flags = MsFlags::MS_NOEXEC | MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    Ok(mount(Some("shm"), path, Some("tmpfs"), flags, Some("mode=1777,size=65536k"))?)
}
