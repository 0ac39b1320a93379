//! Another size of a running container: processor and memory change under it, and it starts anew where its policy says so.
//!
//! What the node cannot give is told by the condition `PodResizePending`: `Deferred` is tried again, `Infeasible` is not before
//! the spec changes. While a size is being given, `PodResizeInProgress` says so.
//! <https://kubernetes.io/docs/tasks/configure-pod-container/resize-container-resources/>

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, PodCondition, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::container::Role;
use super::step::Step;
use super::{Action, PodMachine, ResizeFailure};
use crate::runtime::ContainerId;
use crate::{clock, pod};

type Amounts = BTreeMap<String, Quantity>;

/// What can change under a running container.
const COMPUTE: [&str; 2] = ["cpu", "memory"];
const PENDING: &str = "PodResizePending";
const IN_PROGRESS: &str = "PodResizeInProgress";

/// The size of one container: what it has, and what it is to get.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Size {
    /// What its current instance was given; `None` when nobody knows.
    pub(super) held: Option<ResourceRequirements>,
    /// What was asked for last.
    asked: Option<ResourceRequirements>,
    refused: Option<ResizeFailure>,
    step: Step,
}

// === impl Size ===

impl Size {
    /// An instance was made by this spec.
    pub(super) fn given(spec: Option<&Container>) -> Size {
        let held = spec.map(|spec| spec.resources.clone().unwrap_or_default());
        Size { held, ..Size::default() }
    }
}

impl PodMachine {
    /// Asks for the size that the spec wants, if the running container has another.
    pub(super) fn resize(&mut self, index: usize, now: Timestamp) {
        let pod = self.pod.clone();
        let unit = &mut self.units[index];
        if matches!(unit.role, Role::Init | Role::Ephemeral) {
            return;
        }
        let wanted = unit.spec(&pod).and_then(|spec| spec.resources.clone()).unwrap_or_default();
        let size = &mut unit.size;
        let held = size.held.get_or_insert_with(|| wanted.clone());
        if COMPUTE.iter().all(|name| amounts(held, name) == amounts(&wanted, name)) {
            let held = Some(wanted);
            *size = Size { held, ..Size::default() };
            return;
        }
        if size.step.is_busy() {
            return;
        }
        if size.asked.as_ref() != Some(&wanted) {
            (size.asked, size.refused) = (Some(wanted), None);
            size.step.reset();
        }
        if matches!(size.refused, Some(ResizeFailure::Infeasible(_))) {
            return;
        }
        let Some(id) = unit.current.as_ref().map(|it| it.status.id.clone()) else { return };
        if unit.size.step.take(&mut self.wake, now) {
            self.actions.push_back(Action::Resize { container: unit.name.to_string(), id });
        }
    }

    pub(super) fn resized(&mut self, id: &ContainerId, outcome: Result<(), ResizeFailure>, now: Timestamp) {
        let Some(index) = self.instance(id) else { return };
        let (pod, unit) = (self.pod.clone(), &mut self.units[index]);
        let path = unit.field_path();
        let failure = match outcome {
            Ok(()) => {
                let before = unit.size.held.take().unwrap_or_default();
                let after = unit.size.asked.take().unwrap_or_default();
                let anew = unit.spec(&pod).is_some_and(|spec| restarts(spec, &before, &after));
                unit.size = Size { held: Some(after), ..Size::default() };
                let name = unit.name.clone();
                self.note(false, "ResizeCompleted", format!("Container {name} resized"), path);
                if anew && !self.units[index].restarting {
                    let message = format!("Container {name} resize requires restart");
                    self.restart(index, pod::grace(&pod), message, now);
                }
                return;
            }
            Err(failure) => failure,
        };
        let told = unit.size.refused.as_ref() == Some(&failure);
        match &failure {
            ResizeFailure::Infeasible(_) => unit.size.step.reset(),
            ResizeFailure::Deferred(_) | ResizeFailure::Failed(_) => unit.size.step.answer(false, now),
        }
        let (reason, message) = failure.words();
        let (reason, message) = (format!("Resize{reason}"), message.to_owned());
        unit.size.refused = Some(failure);
        if !told {
            self.note(true, reason, message, path);
        }
    }

    /// The conditions that tell of sizes; those that do not hold any more are taken away.
    pub(super) fn resize_conditions(&self, conditions: &mut Vec<PodCondition>, now: Timestamp) {
        let asking = || self.units.iter().filter(|unit| unit.size.asked.is_some());
        let refused = || asking().filter_map(|unit| unit.size.refused.as_ref());
        let pending = refused().find(|failure| !matches!(failure, ResizeFailure::Failed(_)));
        let failed = refused().find(|failure| matches!(failure, ResizeFailure::Failed(_)));
        let is_on = asking().any(|unit| !unit.size.refused.as_ref().is_some_and(ResizeFailure::is_pending));
        for (kind, holds, why) in
            [(PENDING, pending.is_some(), pending), (IN_PROGRESS, is_on && !self.is_over(), failed)]
        {
            let before = conditions.iter().position(|it| it.type_ == kind).map(|at| conditions.remove(at));
            if !holds {
                continue;
            }
            let since = before.and_then(|before| before.last_transition_time);
            let words = why.map(ResizeFailure::words);
            conditions.push(PodCondition {
                last_transition_time: since.or_else(|| Some(clock::time(now))),
                message: words.map(|(_, message)| message.to_owned()),
                observed_generation: self.pod.metadata.generation,
                reason: words.map(|(reason, _)| reason.to_owned()),
                status: "True".into(),
                type_: kind.into(),
                ..PodCondition::default()
            });
        }
    }
}

/// Request and limit of one resource.
fn amounts<'r>(of: &'r ResourceRequirements, name: &str) -> [Option<&'r str>; 2] {
    let find = |list: &'r Option<Amounts>| list.as_ref()?.get(name).map(|quantity| quantity.0.as_str());
    [find(&of.requests), find(&of.limits)]
}

/// Whether the container's policy wants it to start anew for what has changed.
fn restarts(spec: &Container, before: &ResourceRequirements, after: &ResourceRequirements) -> bool {
    let policies = spec.resize_policy.iter().flatten();
    let mut anew = policies.filter(|policy| policy.restart_policy == "RestartContainer");
    anew.any(|policy| amounts(before, &policy.resource_name) != amounts(after, &policy.resource_name))
}

// === impl ResizeFailure ===

impl ResizeFailure {
    /// Whether nothing was changed: the node cannot give it.
    fn is_pending(&self) -> bool {
        !matches!(self, ResizeFailure::Failed(_))
    }

    /// The reason in one word, and in many.
    fn words(&self) -> (&'static str, &str) {
        match self {
            ResizeFailure::Infeasible(message) => ("Infeasible", message),
            ResizeFailure::Deferred(message) => ("Deferred", message),
            ResizeFailure::Failed(message) => ("Error", message),
        }
    }
}
