//! One container of the pod: its instances, what is being done about it, and why it waits.

use std::borrow::Cow;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, ContainerStatus as ApiStatus, Pod};

use super::resize::Size;
use super::step::Step;
use crate::backoff::CrashBackoff;
use crate::pod::{self, RestartPolicy};
use crate::probe::{Kind, Prober};
use crate::runtime::{ContainerId, ContainerState, ContainerStatus, Image, SandboxId};

/// Which part a container plays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// Runs to its end before the next is started.
    Init,
    /// An init container that stays.
    Sidecar,
    /// One of `spec.containers`.
    App,
    /// Looks into the running pod; nothing waits for it, and it is not started again.
    Ephemeral,
}

/// One instance of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Instance {
    pub(super) status: ContainerStatus,
    /// Since when the machine knows it: a listing that began earlier may lack it.
    pub(super) since: Timestamp,
}

/// What is being done about a container right now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Work {
    #[default]
    None,
    Creating,
    Starting,
    PostStart,
}

/// How far the stop of an instance has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Stop {
    #[default]
    No,
    /// The preStop hook runs.
    Hook,
    /// The hook is done or there is none; the signal may be sent.
    Ready,
    /// The runtime stops it, and kills it at this moment.
    Signalled(Timestamp),
    /// Tried again at this moment.
    Again(Timestamp),
}

/// How the image of a container is doing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Pull {
    #[default]
    None,
    Busy,
    Ready(Box<Image>),
    Failed {
        reason: &'static str,
        message: String,
        /// When the reason turns into a back-off.
        shown_until: Timestamp,
        retry_at: Timestamp,
    },
}

/// One container of the pod's spec.
#[derive(Debug)]
pub(super) struct Unit {
    pub(super) name: Box<str>,
    pub(super) role: Role,
    /// Its place in the list of its role.
    pub(super) index: usize,
    /// Its part of the spec, where the spec has it in another form.
    own: Option<Box<Container>>,
    pub(super) current: Option<Instance>,
    pub(super) previous: Option<Instance>,
    pub(super) next_attempt: u32,
    pub(super) work: Work,
    pub(super) stop: Stop,
    /// Why this instance is being stopped although the pod goes on; it starts again.
    pub(super) restarting: bool,
    pub(super) restart_deadline: Option<Timestamp>,
    pub(super) pull: Pull,
    /// What was shown of the pull before the one that is on.
    pub(super) pull_before: Option<(&'static str, String)>,
    pub(super) pull_failures: u32,
    pub(super) create: Step,
    /// Why the last attempt to create or start it failed.
    pub(super) trouble: Option<(&'static str, String)>,
    pub(super) crash: CrashBackoff,
    /// Users have been told of the back-off before the next start.
    pub(super) backoff_told: bool,
    pub(super) probers: Vec<Prober>,
    pub(super) size: Size,
    /// It has come up: postStart and startup probe are through.
    pub(super) started: bool,
    pub(super) ready: bool,
}

/// The units of a pod, with what its status tells of earlier instances.
pub(super) fn units(pod: &Pod) -> Vec<Unit> {
    let init = pod::init_containers(pod).iter().enumerate().map(|(index, container)| {
        let role = if pod::is_sidecar(container) { Role::Sidecar } else { Role::Init };
        Unit::new(container, role, index)
    });
    let apps =
        pod::spec(pod).containers.iter().enumerate().map(|(index, it)| Unit::new(it, Role::App, index));
    init.chain(apps).chain(ephemeral(pod, 0)).collect()
}

/// The units of ephemeral containers from a place in their list on: they are added, and never taken away.
pub(super) fn ephemeral(pod: &Pod, from: usize) -> impl Iterator<Item = Unit> {
    pod::ephemeral_containers(pod).iter().enumerate().skip(from).map(|(index, it)| {
        let own = Box::new(pod::as_container(it));
        Unit { own: Some(own.clone()), ..Unit::new(&own, Role::Ephemeral, index) }
    })
}

// === impl Unit ===

impl Unit {
    fn new(container: &Container, role: Role, index: usize) -> Self {
        Self {
            name: container.name.as_str().into(),
            role,
            index,
            own: None,
            current: None,
            previous: None,
            next_attempt: 0,
            work: Work::None,
            stop: Stop::No,
            restarting: false,
            restart_deadline: None,
            pull: Pull::None,
            pull_before: None,
            pull_failures: 0,
            create: Step::default(),
            trouble: None,
            crash: CrashBackoff::default(),
            backoff_told: false,
            probers: Vec::new(),
            size: Size::default(),
            started: false,
            ready: false,
        }
    }

    /// Its part of the pod's spec.
    pub(super) fn spec<'a>(&'a self, pod: &'a Pod) -> Option<&'a Container> {
        match self.role {
            Role::Ephemeral => self.own.as_deref(),
            Role::App => pod::spec(pod).containers.get(self.index),
            Role::Init | Role::Sidecar => pod::init_containers(pod).get(self.index),
        }
    }

    /// It comes before the pod's own containers.
    pub(super) fn is_init(&self) -> bool {
        matches!(self.role, Role::Init | Role::Sidecar)
    }

    /// Where it is in the pod, as events say it.
    pub(super) fn field_path(&self) -> String {
        match self.role {
            Role::App => format!("spec.containers{{{}}}", self.name),
            Role::Init | Role::Sidecar => format!("spec.initContainers{{{}}}", self.name),
            Role::Ephemeral => format!("spec.ephemeralContainers{{{}}}", self.name),
        }
    }

    /// The id of the current instance.
    pub(super) fn id(&self) -> Option<&ContainerId> {
        self.current.as_ref().map(|it| &it.status.id)
    }

    /// Its first process runs, as far as is known.
    pub(super) fn is_running(&self) -> bool {
        matches!(self.state(), Some(ContainerState::Running { .. }))
    }

    /// There may be a process.
    pub(super) fn is_live(&self) -> bool {
        matches!(
            self.state(),
            Some(ContainerState::Running { .. } | ContainerState::Created | ContainerState::Unknown)
        )
    }

    /// The state of the current instance.
    pub(super) fn state(&self) -> Option<&ContainerState> {
        self.current.as_ref().map(|it| &it.status.state)
    }

    /// Exit status and end of the current instance, once it has ended.
    pub(super) fn exited(&self) -> Option<(i32, Timestamp)> {
        match self.state()? {
            ContainerState::Exited { exit_code, finished_at, .. } => Some((*exit_code, *finished_at)),
            _ => None,
        }
    }

    /// It ended well in this sandbox.
    pub(super) fn completed_in(&self, sandbox: &SandboxId) -> bool {
        self.current.as_ref().is_some_and(|it| it.status.sandbox == *sandbox)
            && self.exited().is_some_and(|(code, _)| code == 0)
    }

    /// Whether an end with this exit status is followed by another start.
    pub(super) fn restarts(&self, pod: &Pod, exit_code: i32) -> bool {
        let policy = match self.role {
            Role::Sidecar => RestartPolicy::Always,
            Role::Ephemeral => RestartPolicy::Never,
            Role::App => self
                .spec(pod)
                .map_or(RestartPolicy::Always, |container| pod::container_restart_policy(pod, container)),
            Role::Init => match pod::restart_policy(pod) {
                RestartPolicy::Never => RestartPolicy::Never,
                RestartPolicy::Always | RestartPolicy::OnFailure => RestartPolicy::OnFailure,
            },
        };
        match policy {
            RestartPolicy::Always => true,
            RestartPolicy::OnFailure => exit_code != 0,
            RestartPolicy::Never => false,
        }
    }

    /// Takes an instance as the current one; what was current becomes the previous one. Gives what falls off.
    pub(super) fn push(&mut self, instance: Instance) -> Option<Instance> {
        self.next_attempt = self.next_attempt.max(instance.status.attempt.saturating_add(1));
        let fallen = match self.current.replace(instance) {
            Some(before) => self.previous.replace(before),
            None => None,
        };
        self.work = Work::None;
        self.stop = Stop::No;
        self.restarting = false;
        self.backoff_told = false;
        self.probers.clear();
        self.started = false;
        self.ready = false;
        fallen.filter(|it| !it.status.id.0.is_empty())
    }

    /// The current instance runs since `started`: its probes begin.
    pub(super) fn begin_probes(&mut self, pod: &Pod, started: Timestamp) {
        let Some(container) = self.spec(pod) else { return };
        let probers: Vec<Prober> = [
            (Kind::Startup, &container.startup_probe),
            (Kind::Liveness, &container.liveness_probe),
            (Kind::Readiness, &container.readiness_probe),
        ]
        .into_iter()
        .filter(|_| !matches!(self.role, Role::Init | Role::Ephemeral))
        .filter_map(|(kind, probe)| Some(Prober::new(kind, probe.as_ref()?, started)))
        .collect();
        self.probers = probers;
        self.refresh_readiness();
    }

    /// Works out `started` and `ready` from state and probes.
    pub(super) fn refresh_readiness(&mut self) {
        let verdict = |kind: Kind| {
            self.probers.iter().find(|prober| prober.kind() == kind).map(|prober| prober.verdict())
        };
        let up = self.is_running() && self.work == Work::None;
        let startup = verdict(Kind::Startup).is_none_or(|verdict| verdict == Some(true));
        let readiness = verdict(Kind::Readiness).is_none_or(|verdict| verdict == Some(true));
        self.started = up && startup;
        self.ready = self.started && readiness;
    }

    /// The current instance has ended: nothing is being done about it any more.
    pub(super) fn settle(&mut self) {
        self.probers.clear();
        self.stop = Stop::No;
        self.restarting = false;
        self.work = Work::None;
        self.started = false;
        self.ready = false;
    }

    /// What the API tells of an instance that the runtime has lost.
    pub(super) fn recall(&mut self, status: &ApiStatus, now: Timestamp) {
        let state = status.state.as_ref();
        let ended = state.and_then(|it| it.terminated.as_ref());
        let ran = state.and_then(|it| it.running.as_ref());
        let before = status.last_state.as_ref().and_then(|it| it.terminated.as_ref());
        let Some(id) = status.container_id.as_deref().filter(|id| !id.is_empty()) else { return };
        let exited = match (ended.or(if ran.is_none() { before } else { None }), ran) {
            (Some(ended), _) => ContainerState::Exited {
                started_at: ended.started_at.as_ref().map(|time| time.0),
                finished_at: ended.finished_at.as_ref().map_or(now, |time| time.0),
                exit_code: ended.exit_code,
                oom_killed: ended.reason.as_deref() == Some("OOMKilled"),
                reason: ended.reason.clone().unwrap_or_default(),
                message: ended.message.clone().unwrap_or_default(),
            },
            (None, Some(ran)) => ContainerState::Exited {
                started_at: ran.started_at.as_ref().map(|time| time.0),
                finished_at: now,
                exit_code: 137,
                oom_killed: false,
                reason: "ContainerStatusUnknown".into(),
                message: "The container could not be located when the pod was terminated".into(),
            },
            (None, None) => return,
        };
        let id = id.split_once("://").map_or(id, |(_, id)| id);
        self.push(Instance {
            status: ContainerStatus {
                id: ContainerId(id.to_owned()),
                sandbox: SandboxId(String::new()),
                name: status.name.clone(),
                attempt: u32::try_from(status.restart_count).unwrap_or(0),
                image: status.image.clone(),
                image_id: status.image_id.clone(),
                state: exited,
                log_path: std::path::PathBuf::new(),
                labels: std::collections::BTreeMap::new(),
            },
            since: now,
        });
    }
}

/// `Completed` or `Error`, when the runtime gave no reason.
pub(super) fn exit_reason(reason: &str, exit_code: i32) -> Cow<'_, str> {
    match (reason, exit_code) {
        ("", 0) => Cow::Borrowed("Completed"),
        ("", _) => Cow::Borrowed("Error"),
        (reason, _) => Cow::Borrowed(reason),
    }
}

// === impl Work ===

impl Work {
    /// Something has been asked of the runtime and not been answered.
    pub(super) fn is_pending(self) -> bool {
        matches!(self, Self::Creating | Self::Starting)
    }
}
