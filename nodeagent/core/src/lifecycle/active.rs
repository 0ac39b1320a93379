//! A pod that is to run: volumes, sandbox, images, then containers in order; restarts and probes.

use std::time::Duration;

use jiff::Timestamp;

use super::container::{Instance, Pull, Role, Stop, Work};
use super::resize::Size;
use super::{Action, CreateFailure, Event, Hook, ImageFailure, PodMachine, State};
use crate::probe::{Kind, Outcome};
use crate::runtime::{ContainerId, ContainerState, ContainerStatus, Image, SandboxStatus};
use crate::{backoff, clock, pod};

/// How long the reason of a failed pull is shown before it turns into a back-off.
const SHOW_FAILURE: Duration = Duration::from_secs(2);

impl PodMachine {
    /// Brings a running pod one step closer to what its spec says.
    pub(super) fn run(&mut self, now: Timestamp) {
        self.replace_lost_sandbox(now);
        if self.volumes.take(&mut self.wake, now) {
            self.actions.push_back(Action::MountVolumes);
        }
        let sandbox = self.current_sandbox().map(|sandbox| sandbox.status.clone());
        if sandbox.is_none() && self.sandboxes.is_empty() && self.run_sandbox.take(&mut self.wake, now) {
            self.actions.push_back(Action::RunSandbox { attempt: self.next_sandbox });
        }
        let initialized = self.is_initialized();
        let mut gate = true;
        for index in 0..self.units.len() {
            match self.units[index].role {
                Role::Init if initialized => {}
                Role::Init => {
                    let done = sandbox.as_ref().is_some_and(|it| self.units[index].completed_in(&it.id));
                    if gate && !done {
                        self.advance(index, sandbox.as_ref(), now);
                        gate = false;
                    }
                }
                Role::Sidecar => {
                    if gate || initialized {
                        self.advance(index, sandbox.as_ref(), now);
                        gate &= self.units[index].started;
                    }
                }
                Role::App if gate || initialized => self.advance(index, sandbox.as_ref(), now),
                Role::App => {}
                Role::Ephemeral => self.advance(index, sandbox.as_ref(), now),
            }
        }
    }

    /// Whether all init containers have done their work in the current sandbox.
    pub(super) fn is_initialized(&self) -> bool {
        let Some(sandbox) = self.sandboxes.last().map(|it| &it.status.id) else { return false };
        let app_ran = self.units.iter().any(|unit| {
            unit.role == Role::App && unit.current.as_ref().is_some_and(|it| it.status.sandbox == *sandbox)
        });
        app_ran
            || self.units.iter().all(|unit| match unit.role {
                Role::Init => unit.completed_in(sandbox),
                Role::Sidecar => unit.started,
                Role::App | Role::Ephemeral => true,
            })
    }

    /// A sandbox that died is taken away; its containers have ended.
    fn replace_lost_sandbox(&mut self, now: Timestamp) {
        if self.current_sandbox().is_some() || self.sandboxes.is_empty() {
            return;
        }
        self.end_instances_without_sandbox(now);
        if self.sandboxes.iter().all(|sandbox| sandbox.stopped.is_fresh()) {
            let message = "Pod sandbox changed, it will be killed and re-created.".to_owned();
            self.note(false, "SandboxChanged", message, String::new());
        }
        self.stop_sandboxes(now);
        if self.sandboxes.iter().all(|sandbox| sandbox.stopped.is_done()) {
            // The old sandbox's record stays in the runtime, with the logs of its containers, until the pod goes.
            self.retired.append(&mut self.sandboxes);
        }
    }

    fn advance(&mut self, index: usize, sandbox: Option<&SandboxStatus>, now: Timestamp) {
        let unit = &mut self.units[index];
        if unit.work != Work::None {
            return;
        }
        match unit.state() {
            Some(ContainerState::Running { .. }) => return self.keep(index, now),
            Some(ContainerState::Created) => {
                let Some(id) = unit.id().cloned() else { return };
                unit.work = Work::Starting;
                let container = unit.name.to_string();
                self.actions.push_back(Action::StartContainer { container, id });
                return;
            }
            Some(ContainerState::Unknown) => return,
            Some(ContainerState::Exited { .. }) | None => {}
        }
        let mut finished = None;
        if let Some((code, at)) = unit.exited() {
            let elsewhere = sandbox.is_some_and(|it| {
                unit.role == Role::Init
                    && unit.current.as_ref().is_some_and(|seen| seen.status.sandbox != it.id)
            });
            if !elsewhere {
                if !unit.restarts(&self.pod, code) {
                    return;
                }
                finished = Some(at);
                if let Some(until) = unit.crash.waits_until(at, now) {
                    self.wake = clock::earliest(self.wake, Some(until));
                    self.tell_backoff(index);
                    return;
                }
            }
        }
        let Some(image) = self.image(index, now) else { return };
        let Some(sandbox) = sandbox.filter(|_| self.volumes.is_done()).cloned() else { return };
        let unit = &mut self.units[index];
        if !unit.create.take(&mut self.wake, now) {
            return;
        }
        if let Some(finished) = finished {
            unit.crash.restarted(finished, now);
        }
        unit.work = Work::Creating;
        unit.size = Size::given(unit.spec(&self.pod));
        let (container, attempt) = (unit.name.to_string(), unit.next_attempt);
        self.actions.push_back(Action::CreateContainer { container, attempt, sandbox, image });
    }

    /// A running container: it is stopped if it has to start anew.
    fn keep(&mut self, index: usize, now: Timestamp) {
        let pod = self.pod.clone();
        let unit = &mut self.units[index];
        let (wanted, has) = (
            unit.spec(&pod).and_then(|spec| spec.image.as_deref()),
            unit.current.as_ref().and_then(|it| it.status.labels.get(pod::LABEL_IMAGE)),
        );
        let changed = matches!((wanted, has), (Some(wanted), Some(has)) if wanted != has);
        if changed && !unit.restarting {
            let message = format!("Container {} definition changed, will be restarted", unit.name);
            self.restart(index, pod::grace(&pod), message, now);
        }
        if !self.units[index].restarting {
            self.resize(index, now);
        }
        let unit = &self.units[index];
        if unit.restarting
            && let Some(deadline) = unit.restart_deadline
        {
            self.drive_stop(index, deadline, None, now);
        }
    }

    pub(super) fn restart(&mut self, index: usize, grace: Duration, message: String, now: Timestamp) {
        let unit = &mut self.units[index];
        unit.restarting = true;
        unit.restart_deadline = Some(clock::after(now, grace));
        let path = unit.field_path();
        self.note(false, "Killing", message, path);
    }

    fn tell_backoff(&mut self, index: usize) {
        let unit = &mut self.units[index];
        if !std::mem::replace(&mut unit.backoff_told, true) {
            let (path, name) = (unit.field_path(), unit.name.clone());
            let message =
                format!("Back-off restarting failed container {name} in pod {}", pod::full_name(&self.pod));
            self.note(true, "BackOff", message, path);
        }
    }

    /// The image for the next instance, if it is on the node; else it is asked for.
    fn image(&mut self, index: usize, now: Timestamp) -> Option<Image> {
        let unit = &mut self.units[index];
        let (name, path) = (unit.name.to_string(), unit.field_path());
        let image = unit.spec(&self.pod).and_then(|spec| spec.image.clone()).unwrap_or_default();
        let mut told = None;
        match &mut unit.pull {
            Pull::Ready(image) => return Some((**image).clone()),
            Pull::Busy => return None,
            Pull::None => {}
            Pull::Failed { reason, message, shown_until, retry_at } => {
                let waits = clock::is_ahead(*retry_at, now, backoff::LIMIT);
                if *reason == "ErrImagePull" && !clock::is_ahead(*shown_until, now, SHOW_FAILURE) {
                    *reason = "ImagePullBackOff";
                    *message = format!("Back-off pulling image \"{image}\": ErrImagePull: {message}");
                    told = Some(format!("Back-off pulling image \"{image}\""));
                }
                let next = if *reason == "ErrImagePull" { *shown_until } else { *retry_at };
                if waits {
                    self.wake = clock::earliest(self.wake, Some(next));
                    if let Some(message) = told {
                        self.note(false, "BackOff", message, path.clone());
                        self.note(true, "Failed", "Error: ImagePullBackOff".into(), path);
                    }
                    return None;
                }
            }
        }
        unit.pull_before = match std::mem::replace(&mut unit.pull, Pull::Busy) {
            Pull::Failed { reason, message, .. } => Some((reason, message)),
            _ => None,
        };
        self.actions.push_back(Action::PullImage { container: name });
        None
    }

    pub(super) fn container_event(&mut self, event: Event, now: Timestamp) {
        match event {
            Event::Pulling { container } => {
                if let Some(index) = self.named(&container) {
                    let unit = &self.units[index];
                    let image = unit.spec(&self.pod).and_then(|it| it.image.as_deref()).unwrap_or_default();
                    let (message, path) = (format!("Pulling image \"{image}\""), unit.field_path());
                    self.note(false, "Pulling", message, path);
                }
            }
            Event::Image { container, outcome } => {
                if let Some(index) = self.named(&container) {
                    self.image_answer(index, outcome, now);
                }
            }
            Event::Created { container, outcome } => {
                if let Some(index) = self.named(&container) {
                    self.created(index, outcome, now);
                }
            }
            Event::Started { container, outcome } => {
                if let Some(index) = self.named(&container) {
                    self.started(index, outcome, now);
                }
            }
            Event::HookDone { id, hook, outcome } => self.hook_done(&id, hook, outcome, now),
            Event::Stopped { id, outcome } => self.stopped(&id, outcome, now),
            Event::Probed { id, kind, outcome } => self.probed(&id, kind, &outcome, now),
            _ => {}
        }
    }

    fn named(&self, container: &str) -> Option<usize> {
        self.units.iter().position(|unit| *unit.name == *container)
    }

    pub(super) fn instance(&self, id: &ContainerId) -> Option<usize> {
        self.units.iter().position(|unit| unit.id() == Some(id))
    }

    fn image_answer(
        &mut self,
        index: usize,
        outcome: Result<(Image, Option<Duration>), ImageFailure>,
        now: Timestamp,
    ) {
        let unit = &mut self.units[index];
        let name = unit.spec(&self.pod).and_then(|it| it.image.clone()).unwrap_or_default();
        let path = unit.field_path();
        unit.pull_before = None;
        let failure = match outcome {
            Ok((image, took)) => {
                let message = took.map_or_else(
                    || format!("Container image \"{name}\" already present on machine and can be accessed by the pod"),
                    |took| {
                        let took = backoff::go_duration(took);
                        let size = image.size_bytes;
                        format!(
                            "Successfully pulled image \"{name}\" in {took} ({took} including waiting). Image size: {size} bytes."
                        )
                    },
                );
                unit.pull = Pull::Ready(Box::new(image));
                unit.pull_failures = 0;
                return self.note(false, "Pulled", message, path);
            }
            Err(failure) => failure,
        };
        unit.pull_failures = unit.pull_failures.saturating_add(1);
        let retry_at = clock::after(now, backoff::pull_delay(unit.pull_failures));
        let (reason, event, message) = match failure {
            ImageFailure::InvalidName(detail) => (
                "InvalidImageName",
                "InspectFailed",
                format!("Failed to apply default image tag \"{name}\": {detail}"),
            ),
            ImageFailure::NeverPull => (
                "ErrImageNeverPull",
                "ErrImageNeverPull",
                format!("Container image \"{name}\" is not present with pull policy of Never"),
            ),
            ImageFailure::Pull(detail) => ("ErrImagePull", "Failed", detail),
        };
        unit.pull = Pull::Failed {
            reason,
            message: message.clone(),
            shown_until: clock::after(now, SHOW_FAILURE),
            retry_at,
        };
        let told =
            if event == "Failed" { format!("Failed to pull image \"{name}\": {message}") } else { message };
        self.note(true, event, told, path.clone());
        self.note(true, "Failed", format!("Error: {reason}"), path);
    }

    fn created(&mut self, index: usize, outcome: Result<ContainerId, CreateFailure>, now: Timestamp) {
        let unit = &mut self.units[index];
        unit.work = Work::None;
        unit.create.answer(outcome.is_ok(), now);
        let path = unit.field_path();
        let id = match outcome {
            Ok(id) => id,
            Err(failure) => {
                let (reason, message) = match failure {
                    CreateFailure::Config(message) => ("CreateContainerConfigError", message),
                    CreateFailure::Runtime(message) => ("CreateContainerError", message),
                };
                unit.trouble = Some((reason, message.clone()));
                return self.note(true, "Failed", format!("Error: {message}"), path);
            }
        };
        unit.create.reset();
        unit.trouble = None;
        let image = match std::mem::take(&mut unit.pull) {
            Pull::Ready(image) => Some(*image),
            _ => None,
        };
        let Some(sandbox) = self.sandboxes.last().or(self.retired.last()).map(|it| it.status.id.clone())
        else {
            return;
        };
        let named = unit.spec(&self.pod).and_then(|it| it.image.clone()).unwrap_or_default();
        let status = ContainerStatus {
            id: id.clone(),
            sandbox,
            name: unit.name.to_string(),
            attempt: unit.next_attempt,
            image: named.clone(),
            image_id: image
                .map(|image| image.digests.into_iter().next().unwrap_or(image.id))
                .unwrap_or_default(),
            state: ContainerState::Created,
            log_path: std::path::PathBuf::new(),
            labels: [(pod::LABEL_IMAGE.to_owned(), named)].into(),
        };
        let fallen = unit.push(Instance { status, since: now });
        if let Some(fallen) = fallen {
            self.actions.push_back(Action::RemoveContainer { id: fallen.status.id });
        }
        self.note(false, "Created", "Container created".into(), path);
        if self.state == State::Active {
            let unit = &mut self.units[index];
            unit.work = Work::Starting;
            let container = unit.name.to_string();
            self.actions.push_back(Action::StartContainer { container, id });
        }
    }

    fn started(&mut self, index: usize, outcome: Result<(), String>, now: Timestamp) {
        let pod = self.pod.clone();
        let unit = &mut self.units[index];
        unit.work = Work::None;
        let path = unit.field_path();
        let Some(instance) = &mut unit.current else { return };
        let ended = matches!(instance.status.state, ContainerState::Exited { .. });
        if let Err(message) = outcome {
            if !ended {
                instance.status.state = ContainerState::Exited {
                    started_at: None,
                    finished_at: now,
                    exit_code: 128,
                    oom_killed: false,
                    reason: "StartError".into(),
                    message: message.clone(),
                };
                unit.settle();
            }
            unit.trouble = Some(("RunContainerError", message.clone()));
            return self.note(true, "Failed", format!("Error: {message}"), path);
        }
        unit.trouble = None;
        let mut hook = None;
        if !ended {
            let started_at = match &instance.status.state {
                ContainerState::Running { started_at } => *started_at,
                _ => now,
            };
            instance.status.state = ContainerState::Running { started_at };
            let id = instance.status.id.clone();
            let has_hook = unit
                .spec(&pod)
                .and_then(|spec| spec.lifecycle.as_ref())
                .is_some_and(|lifecycle| lifecycle.post_start.is_some());
            if has_hook {
                unit.work = Work::PostStart;
                hook = Some(Action::RunHook {
                    container: unit.name.to_string(),
                    id,
                    hook: Hook::PostStart,
                    timeout: Duration::from_secs(3600),
                });
            }
            unit.begin_probes(&pod, started_at);
        }
        self.note(false, "Started", "Container started".into(), path);
        self.actions.extend(hook);
    }

    fn hook_done(&mut self, id: &ContainerId, hook: Hook, outcome: Result<(), String>, now: Timestamp) {
        let Some(index) = self.instance(id) else { return };
        let grace = pod::grace(&self.pod);
        let unit = &mut self.units[index];
        match hook {
            Hook::PreStop => {
                if unit.stop == Stop::Hook {
                    unit.stop = Stop::Ready;
                }
                if let Err(message) = outcome {
                    let path = unit.field_path();
                    self.note(true, "FailedPreStopHook", format!("PreStopHook failed: {message}"), path);
                }
            }
            Hook::PostStart => {
                if unit.work == Work::PostStart {
                    unit.work = Work::None;
                }
                unit.refresh_readiness();
                let Err(message) = outcome else { return };
                if !unit.is_running() {
                    return;
                }
                let (path, name) = (unit.field_path(), unit.name.clone());
                self.note(true, "FailedPostStartHook", format!("PostStartHook failed: {message}"), path);
                if !self.units[index].restarting {
                    self.restart(index, grace, format!("FailedPostStartHook: container {name}"), now);
                }
            }
        }
    }

    /// Asks for the probes that are due.
    pub(super) fn probe(&mut self, now: Timestamp) {
        let stopping = self.state == State::Stopping;
        for unit in &mut self.units {
            let Some(id) = unit.current.as_ref().map(|it| it.status.id.clone()) else { continue };
            if unit.probers.is_empty() || !unit.is_running() || unit.restarting || unit.work.is_pending() {
                continue;
            }
            let waiting =
                unit.probers.iter().any(|it| it.kind() == Kind::Startup && it.verdict() != Some(true));
            for prober in &mut unit.probers {
                let kind = prober.kind();
                let wanted = match kind {
                    Kind::Startup => waiting && !stopping,
                    Kind::Liveness => !waiting && !stopping,
                    Kind::Readiness => !waiting,
                };
                if !wanted {
                    continue;
                }
                if prober.begin(now) {
                    let (container, timeout) = (unit.name.to_string(), prober.timeout());
                    self.actions.push_back(Action::Probe { container, id: id.clone(), kind, timeout });
                }
                self.wake = clock::earliest(self.wake, prober.next_at());
            }
        }
    }

    fn probed(&mut self, id: &ContainerId, kind: Kind, outcome: &Outcome, now: Timestamp) {
        let Some(index) = self.instance(id) else { return };
        let pod = self.pod.clone();
        let unit = &mut self.units[index];
        let Some(prober) = unit.probers.iter_mut().find(|prober| prober.kind() == kind) else { return };
        let verdict = prober.report(outcome, now);
        unit.refresh_readiness();
        let (path, name) = (unit.field_path(), unit.name.clone());
        let fatal = verdict == Some(false) && kind != Kind::Readiness && !unit.restarting;
        let own_grace = unit.spec(&pod).and_then(|spec| match kind {
            Kind::Startup => spec.startup_probe.as_ref(),
            _ => spec.liveness_probe.as_ref(),
        });
        let grace = own_grace
            .and_then(|probe| probe.termination_grace_period_seconds)
            .map_or_else(|| pod::grace(&pod), pod::seconds);
        match outcome {
            Outcome::Failure(detail) => {
                self.note(true, "Unhealthy", format!("{} probe failed: {detail}", kind.word()), path);
            }
            Outcome::Unknown(detail) => {
                self.note(true, "ProbeError", format!("{} probe errored: {detail}", kind.word()), path);
            }
            Outcome::Success => {}
        }
        if fatal && self.state == State::Active {
            let word = kind.word().to_lowercase();
            self.restart(
                index,
                grace,
                format!("Container {name} failed {word} probe, will be restarted"),
                now,
            );
        }
    }
}
