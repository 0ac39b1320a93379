//! The pod's status as users of kubectl know it.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    ContainerState as ApiState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting,
    ContainerStatus as ApiStatus, HostIP, PodCondition, PodIP, PodStatus,
};

use super::container::{Instance, Pull, Role, Unit, exit_reason};
use super::{Action, PatchFailure, PodMachine, State, status_patch};
use crate::pod::{self, RestartPolicy};
use crate::runtime::ContainerState;
use crate::{backoff, cgroup, clock};

impl PodMachine {
    /// Sends what has changed since the API was last told.
    pub(super) fn report(&mut self, now: Timestamp) {
        if self.forgotten || matches!(self.state, State::Adopting | State::Gone) || self.patch.is_busy() {
            return;
        }
        if pod::is_terminal(&self.pod) && self.state == State::Ended && self.acknowledged.is_none() {
            self.reported = true;
            return;
        }
        let status = self.status(now);
        let before = match &self.acknowledged {
            Some((_, acknowledged)) => &**acknowledged,
            None => pod::status(&self.pod),
        };
        let Some(body) = status_patch(pod::uid(&self.pod), before, &status) else {
            self.reported = true;
            return;
        };
        self.reported = false;
        if self.patch.take(&mut self.wake, now) {
            self.sent = Some(Box::new(status));
            self.actions.push_back(Action::PatchStatus(body));
        }
    }

    pub(super) fn patched(&mut self, outcome: Result<u64, PatchFailure>, now: Timestamp) {
        match outcome {
            Ok(revision) => {
                self.patch.answer(true, now);
                self.patch.reset();
                let seen = pod::revision(&self.pod).is_some_and(|seen| seen >= revision);
                self.acknowledged = self.sent.take().filter(|_| !seen).map(|status| (revision, status));
            }
            Err(PatchFailure::Gone) => self.forgotten = true,
            Err(PatchFailure::Transient) => self.patch.answer(false, now),
        }
    }

    /// The status as it is now.
    pub fn status(&self, now: Timestamp) -> PodStatus {
        let old = match &self.acknowledged {
            Some((_, acknowledged)) => &**acknowledged,
            None => pod::status(&self.pod),
        };
        let mut status = PodStatus {
            conditions: old.conditions.clone(),
            host_ip: self.facts.host_ips.first().map(ToString::to_string),
            host_ips: Some(self.facts.host_ips.iter().map(|ip| HostIP { ip: ip.to_string() }).collect()),
            observed_generation: self.pod.metadata.generation,
            qos_class: Some(
                old.qos_class
                    .clone()
                    .unwrap_or_else(|| cgroup::qos_name(cgroup::qos_class(&self.pod)).into()),
            ),
            start_time: Some(clock::time(self.started_at)),
            ..PodStatus::default()
        };
        if let Some(verdict) = &self.verdict {
            status.reason = Some(verdict.reason.clone());
            status.message = Some(verdict.message.clone());
            if verdict.rejected {
                status.phase = Some("Failed".into());
                return status;
            }
        }
        self.addresses(&mut status);
        let render = |roles: &[Role]| -> Vec<ApiStatus> {
            let units = self.units.iter().filter(|it| roles.contains(&it.role));
            units.map(|it| self.container(it, now)).collect()
        };
        let some = |list: Vec<ApiStatus>| (!list.is_empty()).then_some(list);
        status.init_container_statuses = some(render(&[Role::Init, Role::Sidecar]));
        status.container_statuses = Some(render(&[Role::App]));
        status.ephemeral_container_statuses = some(render(&[Role::Ephemeral]));
        let phase = self.phase();
        status.phase = Some(phase.to_owned());
        self.conditions(&mut status, phase, now);
        status
    }

    fn addresses(&self, status: &mut PodStatus) {
        let ips: Vec<_> = if pod::host_network(&self.pod) {
            self.facts.host_ips.clone()
        } else {
            self.sandboxes
                .last()
                .filter(|it| it.status.ready)
                .map_or_else(|| self.told_ips(), |sandbox| sandbox.status.ips.clone())
        };
        if !ips.is_empty() {
            status.pod_ip = ips.first().map(ToString::to_string);
            status.pod_ips = Some(ips.iter().map(|ip| PodIP { ip: ip.to_string() }).collect());
        }
    }

    /// The addresses that an ended pod had stay in its status.
    fn told_ips(&self) -> Vec<std::net::IpAddr> {
        if self.state == State::Active {
            return Vec::new();
        }
        let status =
            self.acknowledged.as_ref().map_or_else(|| pod::status(&self.pod), |(_, status)| &**status);
        status.pod_ips.iter().flatten().filter_map(|it| it.ip.parse().ok()).collect()
    }

    pub(super) fn is_over(&self) -> bool {
        matches!(self.state, State::Ended | State::Clearing | State::Gone)
    }

    /// `status.phase`.
    fn phase(&self) -> &'static str {
        if self.is_over() {
            let failed = self.verdict.is_some()
                || self.units.iter().any(|unit| match unit.role {
                    Role::Sidecar | Role::Ephemeral => false,
                    Role::App => unit.exited().is_none_or(|(code, _)| code != 0),
                    Role::Init => unit.exited().is_some_and(|(code, _)| code != 0),
                });
            return if failed { "Failed" } else { "Succeeded" };
        }
        let ran = |role: Role| self.units.iter().filter(move |unit| unit.role == role);
        let never_started = |unit: &Unit| {
            !matches!(unit.state(), Some(ContainerState::Running { .. } | ContainerState::Exited { .. }))
                && unit.previous.is_none()
        };
        if ran(Role::App).any(never_started) {
            return "Pending";
        }
        let initializing = !self.is_initialized() && ran(Role::App).all(|unit| !unit.is_running());
        if initializing && ran(Role::Init).next().is_some() && self.state == State::Active {
            return "Pending";
        }
        "Running"
    }

    fn conditions(&self, status: &mut PodStatus, phase: &str, now: Timestamp) {
        let generation = self.pod.metadata.generation;
        let ended = matches!(phase, "Succeeded" | "Failed");
        let sandbox = self.current_sandbox().is_some() && !self.is_over();
        let succeeded = phase == "Succeeded";
        // One that failed while it was being initialized says so for ever: people look for the reason there.
        let app_ran = || {
            let mut apps = self.units.iter().filter(|unit| unit.role == Role::App);
            apps.any(|unit| unit.is_running() || unit.exited().is_some() || unit.previous.is_some())
        };
        let no_init = || self.units.iter().all(|unit| !unit.is_init());
        let initialized = succeeded || self.is_initialized() || ended && (no_init() || app_ran());
        let list = status.conditions.get_or_insert_default();
        let mut set = |kind: &str, ok: bool, reason: Option<&str>, message: Option<String>| {
            let value = if ok { "True" } else { "False" };
            let reason = reason.filter(|_| !ok || succeeded).map(str::to_owned);
            let message = message.filter(|_| !ok);
            let position = list.iter().position(|it| it.type_ == kind);
            let since = position.map(|at| &list[at]).filter(|it| it.status == value);
            let condition = PodCondition {
                last_probe_time: None,
                last_transition_time: since
                    .and_then(|it| it.last_transition_time.clone())
                    .or_else(|| Some(clock::time(now))),
                message,
                observed_generation: generation,
                reason,
                status: value.into(),
                type_: kind.into(),
            };
            match position {
                Some(at) => list[at] = condition,
                None => list.push(condition),
            }
        };
        set("PodReadyToStartContainers", sandbox, None, None);
        let waiting = self.unready(|unit| unit.is_init() && !self.init_done(unit));
        let detail = format!("containers with incomplete status: [{waiting}]");
        let reason = if succeeded { "PodCompleted" } else { "ContainersNotInitialized" };
        set("Initialized", initialized, Some(reason), Some(detail));

        let unready = self.unready(|unit| !matches!(unit.role, Role::Init | Role::Ephemeral) && !unit.ready);
        let containers_ready = unready.is_empty() && !ended;
        let reason = match phase {
            "Succeeded" => "PodCompleted",
            "Failed" => "PodFailed",
            _ => "ContainersNotReady",
        };
        let detail = (!ended).then(|| format!("containers with unready status: [{unready}]"));
        let (gates, gate_detail) = self.gates(&self.pod.status);
        let ready = containers_ready && gates;
        if containers_ready && !gates {
            set("Ready", false, Some("ReadinessGatesNotReady"), gate_detail);
        } else {
            set("Ready", ready, Some(reason), detail.clone());
        }
        set("ContainersReady", containers_ready, Some(reason), detail);
        self.resize_conditions(list, now);
        if !list.iter().any(|it| it.type_ == "PodScheduled") {
            list.push(PodCondition {
                last_transition_time: Some(clock::time(now)),
                observed_generation: generation,
                status: "True".into(),
                type_: "PodScheduled".into(),
                ..PodCondition::default()
            });
        }
    }

    fn unready(&self, matches: impl Fn(&Unit) -> bool) -> String {
        let names: Vec<_> = self.units.iter().filter(|unit| matches(unit)).map(|unit| &*unit.name).collect();
        names.join(" ")
    }

    fn init_done(&self, unit: &Unit) -> bool {
        match unit.role {
            Role::Sidecar => unit.started,
            _ => unit.exited().is_some_and(|(code, _)| code == 0),
        }
    }

    fn gates(&self, status: &Option<PodStatus>) -> (bool, Option<String>) {
        let conditions = status.as_ref().and_then(|it| it.conditions.as_deref()).unwrap_or_default();
        let mut missing = Vec::new();
        for gate in pod::spec(&self.pod).readiness_gates.iter().flatten() {
            match conditions.iter().find(|it| it.type_ == gate.condition_type) {
                Some(it) if it.status == "True" => {}
                Some(it) => missing.push(format!(
                    "the status of pod readiness gate \"{}\" is not \"True\", but {}",
                    gate.condition_type, it.status
                )),
                None => missing.push(format!(
                    "corresponding condition of pod readiness gate \"{}\" does not exist.",
                    gate.condition_type
                )),
            }
        }
        (missing.is_empty(), (!missing.is_empty()).then(|| missing.join(", ")))
    }

    fn container(&self, unit: &Unit, now: Timestamp) -> ApiStatus {
        let named = unit.spec(&self.pod).and_then(|it| it.image.clone()).unwrap_or_default();
        let current = unit.current.as_ref();
        let known = current.map(|it| &it.status);
        let (state, last) = self.states(unit, now);
        ApiStatus {
            container_id: current.and_then(reference),
            image: known.map(|it| it.image.clone()).filter(|image| !image.is_empty()).unwrap_or(named),
            image_id: known.map(|it| it.image_id.clone()).unwrap_or_default(),
            allocated_resources: unit.size.held.as_ref().and_then(|held| held.requests.clone()),
            resources: unit.size.held.clone(),
            last_state: Some(last),
            name: unit.name.to_string(),
            ready: match unit.role {
                Role::Init => self.init_done(unit),
                Role::Ephemeral => false,
                Role::App | Role::Sidecar => unit.ready,
            },
            restart_count: known.map_or(0, |it| i32::try_from(it.attempt).unwrap_or(i32::MAX)),
            started: (unit.role != Role::Ephemeral).then_some(unit.started),
            state: Some(state),
            ..ApiStatus::default()
        }
    }

    /// `state` and `lastState`.
    fn states(&self, unit: &Unit, now: Timestamp) -> (ApiState, ApiState) {
        let previous = || unit.previous.as_ref().map(terminated).unwrap_or_default();
        let Some(current) = &unit.current else { return (self.waiting(unit), previous()) };
        match &current.status.state {
            ContainerState::Running { started_at } => {
                let running = ContainerStateRunning { started_at: Some(clock::time(*started_at)) };
                (ApiState { running: Some(running), ..ApiState::default() }, previous())
            }
            ContainerState::Created | ContainerState::Unknown => (self.waiting(unit), previous()),
            ContainerState::Exited { exit_code, finished_at, .. } => {
                let again = self.state == State::Active && unit.restarts(&self.pod, *exit_code);
                let backs_off = again && unit.crash.waits_until(*finished_at, now).is_some();
                if backs_off {
                    let message = format!(
                        "back-off {} restarting failed container={} pod={}",
                        backoff::go_duration(unit.crash.delay()),
                        unit.name,
                        pod::full_name(&self.pod)
                    );
                    (waits("CrashLoopBackOff", message), terminated(current))
                } else if again && (unit.trouble.is_some() || matches!(unit.pull, Pull::Failed { .. })) {
                    (self.waiting(unit), terminated(current))
                } else {
                    (terminated(current), previous())
                }
            }
        }
    }

    fn waiting(&self, unit: &Unit) -> ApiState {
        if let Some((reason, message)) = &unit.trouble {
            return waits(reason, message.clone());
        }
        if let Pull::Failed { reason, message, .. } = &unit.pull {
            return waits(reason, message.clone());
        }
        if let Some((reason, message)) = &unit.pull_before {
            return waits(reason, message.clone());
        }
        let has_init = self.units.iter().any(Unit::is_init);
        waits(if has_init { "PodInitializing" } else { "ContainerCreating" }, String::new())
    }

    /// `spec.restartPolicy`, for those who show the pod.
    pub fn restart_policy(&self) -> RestartPolicy {
        pod::restart_policy(&self.pod)
    }
}

fn reference(instance: &Instance) -> Option<String> {
    let id = &instance.status.id.0;
    (!id.is_empty()).then(|| format!("orlop://{id}"))
}

fn waits(reason: &str, message: String) -> ApiState {
    let message = (!message.is_empty()).then_some(message);
    ApiState {
        waiting: Some(ContainerStateWaiting { message, reason: Some(reason.to_owned()) }),
        ..ApiState::default()
    }
}

fn terminated(instance: &Instance) -> ApiState {
    let ContainerState::Exited { started_at, finished_at, exit_code, oom_killed, reason, message } =
        &instance.status.state
    else {
        return ApiState::default();
    };
    let reason = if *oom_killed { "OOMKilled".into() } else { exit_reason(reason, *exit_code) };
    ApiState {
        terminated: Some(ContainerStateTerminated {
            container_id: reference(instance),
            exit_code: *exit_code,
            finished_at: Some(clock::time(*finished_at)),
            message: (!message.is_empty()).then(|| message.clone()),
            reason: Some(reason.into_owned()),
            signal: None,
            started_at: started_at.map(clock::time),
        }),
        ..ApiState::default()
    }
}
