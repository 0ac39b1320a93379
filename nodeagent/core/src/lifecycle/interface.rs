//! What a pod's machine is told, and what it asks for.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use serde_json::Value;

use crate::probe::{Kind, Outcome};
use crate::runtime::{ContainerId, ContainerStatus, Image, SandboxId, SandboxStatus};

/// What a pod's machine knows of its node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeFacts {
    /// `status.hostIPs`, the most important first.
    pub host_ips: Vec<IpAddr>,
    /// How long a stop signal may wait until no proxy sends requests any more.
    pub drain: Duration,
}

/// Where a pod is in its life on the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// The runtime has not been looked at: nothing is done that an earlier agent may have done already.
    Adopting,
    /// The pod is to run.
    Active,
    /// Its containers are being stopped.
    Stopping,
    /// Nothing runs; sandbox and volumes are being taken down.
    Clearing,
    /// It has ended and stays for its status and logs until it is deleted.
    Ended,
    /// Nothing is left of it; the machine can be dropped.
    Gone,
}

/// What a machine is told.
#[derive(Clone, Debug)]
pub enum Event {
    /// The pod as the API has it now.
    Desired(Arc<Pod>),
    /// The API does not have the pod any more.
    Forgotten,
    /// What the runtime has of this pod.
    Observed(Observed),
    /// Answer to [`Action::MountVolumes`].
    Mounted(Result<(), String>),
    /// Answer to [`Action::UnmountVolumes`].
    Unmounted(Result<(), String>),
    /// The image was not on the node and is being fetched. May come before [`Event::Image`].
    Pulling {
        /// Name of the container.
        container: String,
    },
    /// Answer to [`Action::PullImage`].
    Image {
        /// Name of the container.
        container: String,
        /// The image, and how long it took if it had to be fetched.
        outcome: Result<(Image, Option<Duration>), ImageFailure>,
    },
    /// Answer to [`Action::RunSandbox`].
    SandboxRan(Result<SandboxStatus, String>),
    /// Answer to [`Action::StopSandbox`].
    SandboxStopped(SandboxId, Result<(), String>),
    /// Answer to [`Action::RemoveSandbox`].
    SandboxRemoved(SandboxId, Result<(), String>),
    /// Answer to [`Action::CreateContainer`].
    Created {
        /// Name of the container.
        container: String,
        /// Its id.
        outcome: Result<ContainerId, CreateFailure>,
    },
    /// Answer to [`Action::StartContainer`].
    Started {
        /// Name of the container.
        container: String,
        /// Whether its first process runs.
        outcome: Result<(), String>,
    },
    /// Answer to [`Action::RunHook`].
    HookDone {
        /// The instance whose hook it was.
        id: ContainerId,
        /// Which hook.
        hook: Hook,
        /// Whether it did what it should.
        outcome: Result<(), String>,
    },
    /// Answer to [`Action::StopContainer`].
    Stopped {
        /// The instance.
        id: ContainerId,
        /// Whether it is stopped.
        outcome: Result<(), String>,
    },
    /// Answer to [`Action::Probe`].
    Probed {
        /// The instance.
        id: ContainerId,
        /// Which probe.
        kind: Kind,
        /// What it found.
        outcome: Outcome,
    },
    /// Answer to [`Action::Resize`].
    Resized {
        /// The instance.
        id: ContainerId,
        /// Whether it has that size now.
        outcome: Result<(), ResizeFailure>,
    },
    /// Answer to [`Action::AwaitDrain`]: no proxy sends requests to the pod any more.
    Drained,
    /// Answer to [`Action::PatchStatus`]: the object's revision after it.
    Patched(Result<u64, PatchFailure>),
    /// Answer to [`Action::DeletePod`].
    Deleted(Result<(), String>),
    /// The node cannot take the pod.
    Rejected {
        /// For example `OutOfcpu`.
        reason: String,
        /// For people.
        message: String,
    },
    /// Time has passed.
    Tick,
}

/// What the runtime has of one pod.
#[derive(Clone, Debug)]
pub struct Observed {
    /// When the runtime was asked: what began later may be missing.
    pub began: Timestamp,
    /// The pod's sandboxes.
    pub sandboxes: Vec<SandboxStatus>,
    /// The containers in them.
    pub containers: Vec<ContainerStatus>,
}

/// Why an image is not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImageFailure {
    /// The name cannot be parsed.
    InvalidName(String),
    /// `imagePullPolicy: Never` and the node does not have it.
    NeverPull,
    /// It could not be fetched.
    Pull(String),
}

/// Why a container was not created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CreateFailure {
    /// What the pod says cannot be met yet, for example a missing ConfigMap.
    Config(String),
    /// The runtime could not do it.
    Runtime(String),
}

/// Why a status patch did not get through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PatchFailure {
    /// The pod, or the pod of this uid, does not exist any more.
    Gone,
    /// To be tried again.
    Transient,
}

/// Why a container does not have the size that its spec asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ResizeFailure {
    /// The node never has as much.
    Infeasible(String),
    /// The node has not as much now.
    Deferred(String),
    /// The runtime could not do it.
    Failed(String),
}

/// A lifecycle hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// Right after the start.
    PostStart,
    /// Before the stop signal.
    PreStop,
}

/// What a machine asks for. Each is answered by the event named in its documentation of [`Event`].
#[derive(Clone, Debug, PartialEq)]
#[allow(clippy::large_enum_variant)] // Actions are few and short-lived.
pub enum Action {
    /// Make the pod's directories and volumes ready.
    MountVolumes,
    /// Take the pod's volumes down and remove its directories.
    UnmountVolumes,
    /// Get the image for a container, by its pull policy.
    PullImage {
        /// Name of the container.
        container: String,
    },
    /// Make a sandbox.
    RunSandbox {
        /// Counts the pod's sandboxes.
        attempt: u32,
    },
    /// Stop everything in a sandbox and take its network down.
    StopSandbox(SandboxId),
    /// Remove a sandbox with its containers.
    RemoveSandbox(SandboxId),
    /// Make a container. Only asked for when volumes, sandbox and image are there.
    CreateContainer {
        /// Its name.
        container: String,
        /// Counts its instances.
        attempt: u32,
        /// The sandbox to make it in.
        sandbox: SandboxStatus,
        /// The image to make it from.
        image: Image,
    },
    /// Start a created container.
    StartContainer {
        /// Its name.
        container: String,
        /// The instance.
        id: ContainerId,
    },
    /// Run a hook of a running container.
    RunHook {
        /// Name of the container.
        container: String,
        /// The instance.
        id: ContainerId,
        /// Which hook.
        hook: Hook,
        /// How long it may take.
        timeout: Duration,
    },
    /// Stop a container.
    StopContainer {
        /// The instance.
        id: ContainerId,
        /// From the stop signal to the kill.
        grace: Duration,
    },
    /// Remove a dead instance and its log. Not answered.
    RemoveContainer {
        /// The instance.
        id: ContainerId,
    },
    /// Run a probe once.
    Probe {
        /// Name of the container.
        container: String,
        /// The instance.
        id: ContainerId,
        /// Which probe.
        kind: Kind,
        /// How long it may take.
        timeout: Duration,
    },
    /// Give a running container the processor time and memory that the spec says, if the node has them.
    Resize {
        /// Name of the container.
        container: String,
        /// The instance.
        id: ContainerId,
    },
    /// Tell when no proxy sends requests to the pod any more.
    AwaitDrain,
    /// Send this strategic merge patch to the pod's status. It names the uid that the pod must have.
    PatchStatus(Value),
    /// Delete the pod from the API with grace period 0, if it still has this uid.
    DeletePod {
        /// `metadata.uid`.
        uid: String,
    },
    /// Tell users. Not answered.
    Emit(Note),
}

/// What users are told of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// Something is wrong.
    pub warning: bool,
    /// One word.
    pub reason: Cow<'static, str>,
    /// For people.
    pub message: String,
    /// For example `spec.containers{web}`; empty when it is about the whole pod.
    pub field_path: String,
}
