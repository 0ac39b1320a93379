//! The end of a pod: when it comes, the stop of its containers, the taking down of what is left.

use std::time::Duration;

use jiff::Timestamp;

use super::container::{Role, Stop};
use super::{Action, Hook, PodMachine, State, Verdict};
use crate::clock;
use crate::pod::{self, RestartPolicy};
use crate::runtime::{ContainerId, ContainerState};

/// The least time between stop signal and kill for a pod that the API does not know any more.
const ORPHAN_GRACE: Duration = Duration::from_secs(2);

impl PodMachine {
    /// Decides whether the pod has come to the next part of its life.
    pub(super) fn judge(&mut self, now: Timestamp) {
        let rejected = self.verdict.as_ref().is_some_and(|verdict| verdict.rejected);
        if self.state == State::Adopting && rejected {
            self.state = State::Ended;
        }
        if self.state == State::Active {
            self.check_deadline(now);
            let deleted = self.is_deleted();
            if deleted || self.verdict.is_some() || self.has_completed() {
                self.begin_stop(deleted, now);
            }
        }
        if self.state == State::Stopping && self.pod.metadata.deletion_grace_period_seconds != self.stop_grace
        {
            self.stop_grace = self.pod.metadata.deletion_grace_period_seconds;
            let stated = self.stop_grace.map(|grace| clock::after(now, pod::seconds(grace)));
            self.stop_deadline = clock::earliest(self.stop_deadline, stated);
        }
        if self.state == State::Ended && self.is_deleted() {
            self.state = State::Clearing;
        }
    }

    /// The API wants the pod gone, or has it no more.
    pub(super) fn is_deleted(&self) -> bool {
        self.forgotten || self.pod.metadata.deletion_timestamp.is_some()
    }

    fn check_deadline(&mut self, now: Timestamp) {
        let Some(limit) = pod::spec(&self.pod).active_deadline_seconds else { return };
        let at = clock::after(self.started_at, pod::seconds(limit));
        if at > now {
            return self.wake_at(at);
        }
        let message = "Pod was active on the node longer than the specified deadline".to_owned();
        self.note(false, "DeadlineExceeded", message.clone(), String::new());
        self.verdict = Some(Verdict { reason: "DeadlineExceeded".into(), message, rejected: false });
    }

    /// Its containers have ended and none is started again.
    fn has_completed(&self) -> bool {
        if self.units.iter().any(|unit| unit.work.is_pending()) {
            return false;
        }
        let pod = &self.pod;
        let over = |unit: &super::Unit| unit.exited().is_some_and(|(code, _)| !unit.restarts(pod, code));
        let apps = || self.units.iter().filter(|unit| unit.role == Role::App);
        if apps().next().is_some() && apps().all(over) {
            return true;
        }
        let init_failed = self.units.iter().any(|unit| {
            unit.role == Role::Init && over(unit) && unit.exited().is_some_and(|(code, _)| code != 0)
        });
        let lost = !self.sandboxes.is_empty() && self.sandboxes.iter().all(|sandbox| !sandbox.status.ready);
        init_failed
            || lost
                && pod::restart_policy(pod) == RestartPolicy::Never
                && apps().any(|unit| unit.current.is_some())
    }

    fn begin_stop(&mut self, deleted: bool, now: Timestamp) {
        self.state = State::Stopping;
        self.stop_grace = self.pod.metadata.deletion_grace_period_seconds;
        let grace = if self.forgotten {
            ORPHAN_GRACE
        } else {
            self.stop_grace.filter(|_| deleted).map_or_else(|| pod::grace(&self.pod), pod::seconds)
        };
        self.stop_deadline = Some(clock::after(now, grace));
        let serving = self.units.iter().any(|unit| unit.ready && unit.is_running());
        let drain = self.facts.drain.min(grace);
        if deleted && !self.forgotten && serving && !drain.is_zero() {
            self.drain_until = Some(clock::after(now, drain));
            self.actions.push_back(Action::AwaitDrain);
        }
    }

    /// Stops containers: all but sidecars at once, then sidecars, the last one first.
    pub(super) fn stop_all(&mut self, now: Timestamp) {
        let deadline = self.stop_deadline.unwrap_or(now);
        let waits = self.drain_until;
        let mut live = self.run_sandbox.is_busy() || self.volumes.is_busy();
        for index in 0..self.units.len() {
            let unit = &self.units[index];
            live |= unit.work.is_pending();
            if unit.role != Role::Sidecar && unit.is_live() {
                live = true;
                if !unit.work.is_pending() {
                    self.drive_stop(index, deadline, waits, now);
                }
            }
        }
        for index in (0..self.units.len()).rev() {
            let unit = &self.units[index];
            if unit.role == Role::Sidecar && unit.is_live() {
                // Past the deadline nobody waits for anybody.
                if (!live || deadline <= now) && !unit.work.is_pending() {
                    self.drive_stop(index, deadline, waits, now);
                } else {
                    self.wake_at(deadline);
                }
                live = true;
            }
        }
        if !live {
            self.state = if self.is_deleted() { State::Clearing } else { State::Ended };
        }
    }

    /// One instance: preStop hook, then the stop signal, then the kill at `deadline`.
    pub(super) fn drive_stop(
        &mut self,
        index: usize,
        deadline: Timestamp,
        waits: Option<Timestamp>,
        now: Timestamp,
    ) {
        let pod = self.pod.clone();
        let unit = &mut self.units[index];
        let Some(id) = unit.id().cloned() else { return };
        if unit.stop == Stop::No {
            let has_hook = unit
                .spec(&pod)
                .and_then(|spec| spec.lifecycle.as_ref())
                .is_some_and(|lifecycle| lifecycle.pre_stop.is_some());
            let runs_hook = has_hook && unit.is_running() && deadline > now;
            unit.stop = if runs_hook { Stop::Hook } else { Stop::Ready };
            let (container, path, told) = (unit.name.to_string(), unit.field_path(), unit.restarting);
            if !told {
                self.note(false, "Killing", format!("Stopping container {container}"), path);
            }
            if runs_hook {
                let timeout = clock::between(now, deadline);
                self.actions.push_back(Action::RunHook {
                    container,
                    id: id.clone(),
                    hook: Hook::PreStop,
                    timeout,
                });
            }
        }
        let unit = &mut self.units[index];
        match unit.stop {
            Stop::Hook if deadline > now => return self.wake_at(deadline),
            Stop::Again(at) if at > now => return self.wake_at(at),
            Stop::Signalled(stated) if clock::between(deadline, stated) < Duration::from_secs(1) => return,
            _ => {}
        }
        if let Some(until) = waits.filter(|until| *until > now && *until <= deadline) {
            return self.wake_at(until);
        }
        unit.stop = Stop::Signalled(deadline);
        let grace = clock::between(now, deadline);
        self.actions.push_back(Action::StopContainer { id, grace });
    }

    pub(super) fn stopped(&mut self, id: &ContainerId, outcome: Result<(), String>, now: Timestamp) {
        let Some(index) = self.instance(id) else { return };
        let unit = &mut self.units[index];
        match outcome {
            Ok(()) => {
                if let Some(instance) = &mut unit.current
                    && !matches!(instance.status.state, ContainerState::Exited { .. })
                {
                    let started_at = match instance.status.state {
                        ContainerState::Running { started_at } => Some(started_at),
                        _ => None,
                    };
                    instance.status.state = ContainerState::Exited {
                        started_at,
                        finished_at: now,
                        exit_code: 137,
                        oom_killed: false,
                        reason: "Error".into(),
                        message: String::new(),
                    };
                }
                unit.settle();
            }
            Err(message) => {
                if unit.is_live() {
                    unit.stop = Stop::Again(clock::after(now, Duration::from_secs(1)));
                }
                let path = unit.field_path();
                self.note(true, "FailedKillPod", format!("error killing pod: {message}"), path);
            }
        }
    }

    pub(super) fn stop_sandboxes(&mut self, now: Timestamp) {
        for sandbox in self.sandboxes.iter_mut().chain(&mut self.retired) {
            if sandbox.stopped.take(&mut self.wake, now) {
                self.actions.push_back(Action::StopSandbox(sandbox.status.id.clone()));
            }
        }
    }

    /// Nothing runs: the network goes; with the pod also the sandboxes and volumes.
    pub(super) fn clear(&mut self, now: Timestamp) {
        self.stop_sandboxes(now);
        if self.state != State::Clearing {
            return;
        }
        let mut all_stopped = true;
        for sandbox in self.sandboxes.iter_mut().chain(&mut self.retired) {
            if !sandbox.stopped.is_done() {
                all_stopped = false;
            } else if sandbox.removed.take(&mut self.wake, now) {
                self.actions.push_back(Action::RemoveSandbox(sandbox.status.id.clone()));
            }
        }
        if all_stopped && self.unmount.take(&mut self.wake, now) {
            self.actions.push_back(Action::UnmountVolumes);
        }
    }

    /// The last step: the pod leaves the API, the machine is done.
    pub(super) fn let_go(&mut self, now: Timestamp) {
        if !self.unmount.is_done() {
            return;
        }
        if !self.forgotten && self.reported && self.delete.take(&mut self.wake, now) {
            self.actions.push_back(Action::DeletePod { uid: pod::uid(&self.pod).to_owned() });
        }
        let removed = self.sandboxes.iter().chain(&self.retired).all(|sandbox| sandbox.removed.is_done());
        if removed && (self.forgotten || self.delete.is_done()) {
            self.state = State::Gone;
        }
    }
}
