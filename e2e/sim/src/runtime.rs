//! The hollow container runtime of one node. It outlives the node's agent, as shims do.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use nodeagent_core::lifecycle::Observed;
use nodeagent_core::pod;
use nodeagent_core::runtime::{
    ContainerId, ContainerState, ContainerStatus, Image, SandboxId, SandboxStatus,
};

/// The runtime.
pub struct Runtime {
    node: u8,
    next_ip: Cell<u8>,
    sandboxes: RefCell<BTreeMap<SandboxId, SandboxStatus>>,
    containers: RefCell<BTreeMap<ContainerId, (String, ContainerStatus)>>,
}

// === impl Runtime ===

impl Runtime {
    /// A runtime in which nothing runs.
    pub fn new(node: u8) -> Self {
        Self { node, next_ip: Cell::new(1), sandboxes: RefCell::default(), containers: RefCell::default() }
    }

    /// Makes a sandbox, or finds it again.
    pub fn run_sandbox(&self, of: &Pod, attempt: u32, now: Timestamp) -> SandboxStatus {
        let id = SandboxId(format!("{}-{attempt}", pod::uid(of)));
        let number = self.next_ip.get();
        let mut sandboxes = self.sandboxes.borrow_mut();
        let found = sandboxes.entry(id.clone()).or_insert_with(|| {
            self.next_ip.set(number.wrapping_add(1).max(1));
            SandboxStatus {
                id,
                pod_uid: pod::uid(of).to_owned(),
                pod_name: pod::name(of).to_owned(),
                pod_namespace: pod::namespace(of).to_owned(),
                attempt,
                ready: true,
                created_at: now,
                ips: vec![IpAddr::V4(Ipv4Addr::new(10, 200, self.node, number))],
                labels: BTreeMap::new(),
            }
        });
        found.clone()
    }

    /// Stops a sandbox and what is in it.
    pub fn stop_sandbox(&self, id: &SandboxId, now: Timestamp) {
        if let Some(sandbox) = self.sandboxes.borrow_mut().get_mut(id) {
            sandbox.ready = false;
        }
        for (_, status) in
            self.containers.borrow_mut().values_mut().filter(|(_, status)| status.sandbox == *id)
        {
            exit(status, 137, now);
        }
    }

    /// Removes a sandbox with its containers.
    pub fn remove_sandbox(&self, id: &SandboxId) {
        self.sandboxes.borrow_mut().remove(id);
        self.containers.borrow_mut().retain(|_, (_, status)| status.sandbox != *id);
    }

    /// Makes a container.
    pub fn create(
        &self,
        of: &Pod,
        name: &str,
        attempt: u32,
        sandbox: &SandboxId,
        image: &Image,
    ) -> ContainerId {
        let uid = pod::uid(of).to_owned();
        let id = ContainerId(format!("{uid}-{name}-{attempt}"));
        let status = ContainerStatus {
            id: id.clone(),
            sandbox: sandbox.clone(),
            name: name.to_owned(),
            attempt,
            image: image.tags.first().cloned().unwrap_or_default(),
            image_id: image.id.clone(),
            state: ContainerState::Created,
            log_path: PathBuf::new(),
            labels: BTreeMap::new(),
        };
        self.containers.borrow_mut().entry(id.clone()).or_insert((uid, status));
        id
    }

    /// Starts a container. Returns how many of this name run for the pod; one that ran already counts twice.
    pub fn start(&self, id: &ContainerId, now: Timestamp) -> usize {
        let mut containers = self.containers.borrow_mut();
        let Some((uid, status)) = containers.get_mut(id) else { return 0 };
        let again = usize::from(is_running(status));
        if status.state == ContainerState::Created {
            status.state = ContainerState::Running { started_at: now };
        }
        let (uid, name) = (uid.clone(), status.name.clone());
        let same = containers.values().filter(|(of, status)| *of == uid && status.name == name);
        same.filter(|(_, status)| is_running(status)).count() + again
    }

    /// Ends a container.
    pub fn stop(&self, id: &ContainerId, code: i32, now: Timestamp) {
        if let Some((_, status)) = self.containers.borrow_mut().get_mut(id) {
            exit(status, code, now);
        }
    }

    /// Removes a container that has ended.
    pub fn remove(&self, id: &ContainerId) {
        self.containers.borrow_mut().remove(id);
    }

    /// The containers that run, with the uid of each one's pod.
    pub fn running(&self) -> Vec<(String, ContainerId)> {
        let containers = self.containers.borrow();
        let running = containers.iter().filter(|(_, (_, status))| is_running(status));
        running.map(|(id, (uid, _))| (uid.clone(), id.clone())).collect()
    }

    /// The uids of pods that have sandboxes.
    pub fn pods(&self) -> Vec<String> {
        let mut uids: Vec<String> = self.sandboxes.borrow().values().map(|it| it.pod_uid.clone()).collect();
        uids.sort();
        uids.dedup();
        uids
    }

    /// The sandboxes of a pod.
    pub fn sandboxes_of(&self, uid: &str) -> Vec<SandboxId> {
        let sandboxes = self.sandboxes.borrow();
        sandboxes.values().filter(|it| it.pod_uid == uid).map(|it| it.id.clone()).collect()
    }

    /// What there is of a pod.
    pub fn observe(&self, uid: &str, began: Timestamp) -> Observed {
        let sandboxes = self.sandboxes.borrow();
        let containers = self.containers.borrow();
        Observed {
            began,
            sandboxes: sandboxes.values().filter(|it| it.pod_uid == uid).cloned().collect(),
            containers: containers.values().filter(|(of, _)| of == uid).map(|(_, it)| it.clone()).collect(),
        }
    }
}

fn is_running(status: &ContainerStatus) -> bool {
    matches!(status.state, ContainerState::Running { .. })
}

fn exit(status: &mut ContainerStatus, exit_code: i32, now: Timestamp) {
    let started_at = match status.state {
        ContainerState::Running { started_at } => Some(started_at),
        ContainerState::Created => None,
        ContainerState::Exited { .. } | ContainerState::Unknown => return,
    };
    status.state = ContainerState::Exited {
        started_at,
        finished_at: now,
        exit_code,
        oom_killed: false,
        reason: if exit_code == 0 { "Completed" } else { "Error" }.into(),
        message: String::new(),
    };
}
