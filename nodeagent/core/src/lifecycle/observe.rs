//! What the runtime has, laid over what the machine knows. A listing is old news by the time it arrives: it may add
//! and it may advance, and it takes away only what was known before it began.

use jiff::Timestamp;

use super::container::{Instance, Role};
use super::{Observed, PodMachine, State};
use crate::pod;
use crate::runtime::{ContainerState, ContainerStatus, SandboxStatus};

impl PodMachine {
    pub(super) fn observed(&mut self, observed: Observed, now: Timestamp) {
        self.observe_sandboxes(observed.sandboxes, observed.began, now);
        self.observe_containers(observed.containers, observed.began, now);
        if self.state == State::Adopting {
            self.adopt(now);
        }
    }

    fn observe_sandboxes(&mut self, seen: Vec<SandboxStatus>, began: Timestamp, now: Timestamp) {
        for known in &mut self.sandboxes {
            match seen.iter().find(|it| it.id == known.status.id) {
                Some(it) if known.since <= began => known.status.ready = it.ready,
                None if known.since < began => known.status.ready = false,
                _ => {}
            }
        }
        if self.state == State::Adopting {
            for status in seen {
                self.add_sandbox(status, now);
            }
        }
    }

    fn observe_containers(&mut self, mut seen: Vec<ContainerStatus>, began: Timestamp, now: Timestamp) {
        let adopting = self.state == State::Adopting;
        seen.sort_by_key(|status| status.attempt);
        let pod = self.pod.clone();
        for unit in &mut self.units {
            if let Some(known) = &mut unit.current {
                match seen.iter().find(|it| it.id == known.status.id) {
                    Some(it) if rank(&it.state) > rank(&known.status.state) => {
                        advance(&mut known.status, it);
                        if rank(&it.state) == 2 {
                            unit.settle();
                        }
                    }
                    None if known.since < began && rank(&known.status.state) < 2 => {
                        known.status.state = lost(&known.status.state, now);
                        unit.settle();
                    }
                    _ => {}
                }
            }
            if !adopting {
                continue;
            }
            let name = unit.name.clone();
            for status in seen.iter().filter(|it| *it.name == *name) {
                unit.push(Instance { status: status.clone(), since: now });
            }
            if let Some(ContainerState::Running { started_at }) = unit.state().cloned() {
                unit.begin_probes(&pod, started_at);
            }
        }
    }

    /// The first look: what an earlier agent left is taken over.
    fn adopt(&mut self, now: Timestamp) {
        let pod = self.pod.clone();
        let status = pod::status(&pod);
        let lists: [(&[Role], _); 3] = [
            (&[Role::Init, Role::Sidecar], &status.init_container_statuses),
            (&[Role::App], &status.container_statuses),
            (&[Role::Ephemeral], &status.ephemeral_container_statuses),
        ];
        for (roles, list) in lists {
            for api in list.iter().flatten() {
                let Some(unit) =
                    self.units.iter_mut().find(|unit| *unit.name == *api.name && roles.contains(&unit.role))
                else {
                    continue;
                };
                if unit.current.is_none() {
                    unit.recall(api, now);
                }
                unit.size.held.clone_from(&api.resources);
                let count = u32::try_from(api.restart_count).unwrap_or(0);
                unit.next_attempt = unit.next_attempt.max(count);
                if api.started == Some(true) {
                    unit.probers.iter_mut().for_each(|prober| prober.resume(api.ready, now));
                }
                unit.refresh_readiness();
            }
        }
        self.state = if pod::is_terminal(&pod) { State::Ended } else { State::Active };
    }

    /// The instances of a sandbox that is gone have ended, whatever the runtime still says.
    pub(super) fn end_instances_without_sandbox(&mut self, now: Timestamp) {
        let alive = self.sandboxes.last().filter(|it| it.status.ready).map(|it| it.status.id.clone());
        for unit in &mut self.units {
            let Some(known) = &mut unit.current else { continue };
            if Some(&known.status.sandbox) != alive.as_ref() && rank(&known.status.state) < 2 {
                known.status.state = lost(&known.status.state, now);
                unit.settle();
            }
        }
    }
}

fn rank(state: &ContainerState) -> u8 {
    match state {
        ContainerState::Unknown | ContainerState::Created => 0,
        ContainerState::Running { .. } => 1,
        ContainerState::Exited { .. } => 2,
    }
}

fn advance(known: &mut ContainerStatus, seen: &ContainerStatus) {
    known.state = seen.state.clone();
    if !seen.image_id.is_empty() {
        known.image_id.clone_from(&seen.image_id);
    }
    if !seen.log_path.as_os_str().is_empty() {
        known.log_path.clone_from(&seen.log_path);
    }
}

fn lost(state: &ContainerState, now: Timestamp) -> ContainerState {
    let started_at = match state {
        ContainerState::Running { started_at } => Some(*started_at),
        _ => None,
    };
    ContainerState::Exited {
        started_at,
        finished_at: now,
        exit_code: 137,
        oom_killed: false,
        reason: "ContainerStatusUnknown".into(),
        message: "The container could not be located when the pod was terminated".into(),
    }
}
