//! The life of one pod on its node: what happened goes in as events, what is to be done comes out as actions.
//!
//! Level-triggered inside: every event changes what is known, then the machine looks at everything it knows and asks for
//! what is missing. What has been asked for is not asked for again until its answer has come.

mod active;
mod container;
mod ending;
mod interface;
mod observe;
mod patch;
mod resize;
mod status;
mod step;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodStatus};

use self::container::Unit;
pub use self::interface::{
    Action, CreateFailure, Event, Hook, ImageFailure, NodeFacts, Note, Observed, PatchFailure, ResizeFailure,
    State,
};
pub use self::patch::{status_patch, strategic_list};
use self::step::Step;
use crate::runtime::{ContainerStatus, SandboxStatus};
use crate::{clock, pod};

/// Why a pod ends that its containers did not end by themselves.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Verdict {
    reason: String,
    message: String,
    rejected: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Sandbox {
    status: SandboxStatus,
    since: Timestamp,
    stopped: Step,
    removed: Step,
}

/// The machine of one pod.
#[derive(Debug)]
pub struct PodMachine {
    pod: Arc<Pod>,
    facts: Arc<NodeFacts>,
    state: State,
    forgotten: bool,
    verdict: Option<Verdict>,
    volumes: Step,
    unmount: Step,
    run_sandbox: Step,
    /// Oldest first; the last is the current one unless it is not ready.
    sandboxes: Vec<Sandbox>,
    /// Sandboxes of before: stopped, kept for their containers' logs.
    retired: Vec<Sandbox>,
    next_sandbox: u32,
    units: Vec<Unit>,
    started_at: Timestamp,
    /// Stop signals wait until this moment, or until the proxies have let go.
    drain_until: Option<Timestamp>,
    /// When the containers of an ending pod get killed.
    stop_deadline: Option<Timestamp>,
    /// The deletion grace period that the deadline was made from.
    stop_grace: Option<i64>,
    /// What was sent and is newer than what the watch has shown.
    acknowledged: Option<(u64, Box<PodStatus>)>,
    sent: Option<Box<PodStatus>>,
    patch: Step,
    delete: Step,
    /// The API has everything that there is to say.
    reported: bool,
    actions: VecDeque<Action>,
    wake: Option<Timestamp>,
}

// === impl PodMachine ===

impl PodMachine {
    /// The machine of a pod that is bound to this node.
    pub fn new(pod: Arc<Pod>, facts: Arc<NodeFacts>, now: Timestamp) -> Self {
        let started_at = pod::status(&pod).start_time.as_ref().map_or(now, |time| time.0);
        let units = container::units(&pod);
        Self {
            pod,
            facts,
            state: State::Adopting,
            forgotten: false,
            verdict: None,
            volumes: Step::default(),
            unmount: Step::default(),
            run_sandbox: Step::default(),
            sandboxes: Vec::new(),
            retired: Vec::new(),
            next_sandbox: 0,
            units,
            started_at,
            drain_until: None,
            stop_deadline: None,
            stop_grace: None,
            acknowledged: None,
            sent: None,
            patch: Step::default(),
            delete: Step::default(),
            reported: false,
            actions: VecDeque::new(),
            wake: None,
        }
    }

    /// Where the pod is in its life.
    pub fn state(&self) -> State {
        self.state
    }

    /// The pod as last heard of.
    pub fn pod(&self) -> &Arc<Pod> {
        &self.pod
    }

    /// The address of the pod's sandbox, or of the node when the pod uses its network.
    pub fn address(&self) -> Option<IpAddr> {
        if pod::host_network(&self.pod) {
            return self.facts.host_ips.first().copied();
        }
        self.current_sandbox().and_then(|sandbox| sandbox.status.ips.first().copied())
    }

    /// The current instance of a container, and the one before it.
    pub fn instances(&self, container: &str) -> Option<(Option<&ContainerStatus>, Option<&ContainerStatus>)> {
        let unit = self.units.iter().find(|unit| *unit.name == *container)?;
        Some((unit.current.as_ref().map(|it| &it.status), unit.previous.as_ref().map(|it| &it.status)))
    }

    /// Takes in what happened, and tells the API what has changed by it.
    pub fn handle(&mut self, event: Event, now: Timestamp) {
        self.take(event, now);
        self.settle(now);
    }

    /// Takes in what happened while more is known to come at once: what it changed is told when
    /// [`settle`](Self::settle) is called, together with what the next events change.
    pub fn take(&mut self, event: Event, now: Timestamp) {
        self.take_in(event, now);
        self.reconcile(now);
    }

    /// Tells the API what has changed. Must follow after the last [`take`](Self::take).
    pub fn settle(&mut self, now: Timestamp) {
        self.report(now);
        if self.state == State::Clearing {
            self.let_go(now);
        }
    }

    /// The next thing to do.
    pub fn poll_action(&mut self) -> Option<Action> {
        let next = self.actions.pop_front();
        if next.is_none() {
            // Most of a pod's life nothing is to be done: the queue need not hold memory for it.
            self.actions = VecDeque::new();
        }
        next
    }

    /// When the machine wants [`Event::Tick`] if nothing happens before.
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        self.wake
    }

    fn reconcile(&mut self, now: Timestamp) {
        self.wake = None;
        self.judge(now);
        match self.state {
            State::Adopting | State::Gone => {}
            State::Active => self.run(now),
            State::Stopping => self.stop_all(now),
            State::Clearing | State::Ended => {}
        }
        if matches!(self.state, State::Clearing | State::Ended) {
            self.clear(now);
        }
        if matches!(self.state, State::Active | State::Stopping) {
            self.probe(now);
        }
    }

    fn take_in(&mut self, event: Event, now: Timestamp) {
        match event {
            Event::Desired(pod) => self.desired(pod),
            Event::Forgotten => self.forgotten = true,
            Event::Rejected { reason, message } => self.reject(reason, message),
            Event::Observed(observed) => self.observed(observed, now),
            Event::Mounted(outcome) => self.mounted(outcome, now),
            Event::Unmounted(outcome) => self.unmount.answer(outcome.is_ok(), now),
            Event::SandboxRan(outcome) => self.sandbox_ran(outcome, now),
            Event::SandboxStopped(id, outcome) => {
                if let Some(sandbox) =
                    self.sandboxes.iter_mut().chain(&mut self.retired).find(|sandbox| sandbox.status.id == id)
                {
                    sandbox.stopped.answer(outcome.is_ok(), now);
                }
            }
            Event::SandboxRemoved(id, outcome) => {
                if let Some(sandbox) =
                    self.sandboxes.iter_mut().chain(&mut self.retired).find(|sandbox| sandbox.status.id == id)
                {
                    sandbox.removed.answer(outcome.is_ok(), now);
                }
            }
            Event::Resized { id, outcome } => self.resized(&id, outcome, now),
            Event::Drained => self.drain_until = self.drain_until.map(|_| now),
            Event::Patched(outcome) => self.patched(outcome, now),
            Event::Deleted(outcome) => self.delete.answer(outcome.is_ok(), now),
            Event::Tick => {}
            other => self.container_event(other, now),
        }
    }

    fn desired(&mut self, pod: Arc<Pod>) {
        if let Some((revision, _)) = self.acknowledged
            && pod::revision(&pod).is_none_or(|seen| seen >= revision)
        {
            self.acknowledged = None;
        }
        let known = self.units.iter().filter(|unit| unit.role == container::Role::Ephemeral).count();
        self.units.extend(container::ephemeral(&pod, known));
        self.pod = pod;
    }

    fn reject(&mut self, reason: String, message: String) {
        self.note(true, reason.clone(), message.clone(), String::new());
        self.verdict = Some(Verdict { reason, message, rejected: true });
    }

    fn mounted(&mut self, outcome: Result<(), String>, now: Timestamp) {
        self.volumes.answer(outcome.is_ok(), now);
        if let Err(message) = outcome {
            self.note(true, "FailedMount", message, String::new());
        }
    }

    fn sandbox_ran(&mut self, outcome: Result<SandboxStatus, String>, now: Timestamp) {
        match outcome {
            Ok(status) => {
                self.run_sandbox = Step::default();
                self.add_sandbox(status, now);
            }
            Err(message) => {
                self.run_sandbox.answer(false, now);
                if self.state != State::Active {
                    return;
                }
                let message = format!("Failed to create pod sandbox: {message}");
                self.note(true, "FailedCreatePodSandBox", message, String::new());
            }
        }
    }

    fn add_sandbox(&mut self, status: SandboxStatus, since: Timestamp) {
        if self.sandboxes.iter().any(|sandbox| sandbox.status.id == status.id) {
            return;
        }
        self.next_sandbox = self.next_sandbox.max(status.attempt.saturating_add(1));
        // Hardly any pod ever has a second one.
        self.sandboxes.reserve_exact(1);
        self.sandboxes.push(Sandbox { status, since, stopped: Step::default(), removed: Step::default() });
        self.sandboxes.sort_by_key(|sandbox| sandbox.status.attempt);
    }

    fn current_sandbox(&self) -> Option<&Sandbox> {
        self.sandboxes.last().filter(|sandbox| sandbox.status.ready && sandbox.stopped.is_fresh())
    }

    fn note(
        &mut self,
        warning: bool,
        reason: impl Into<Cow<'static, str>>,
        message: String,
        field_path: String,
    ) {
        let reason = reason.into();
        self.actions.push_back(Action::Emit(Note { warning, reason, message, field_path }));
    }

    fn wake_at(&mut self, at: Timestamp) {
        self.wake = clock::earliest(self.wake, Some(at));
    }
}
