//! How one pod's machine is driven: it takes in what waits until nothing waits any more, and then tells the API once.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;

use crate::PodMachine;
use crate::lifecycle::{Action, Event, State};

/// Who carries a machine: an agent's task, or a simulator.
pub trait Drive {
    /// Lends the machine. It is not lent out while an action is performed, so that whoever performs it may look at it.
    fn machine<T>(&self, with: impl FnOnce(&mut PodMachine) -> T) -> T;

    /// Takes what waits for the machine, in order.
    fn waiting(&self) -> Vec<Event>;

    /// The wall clock.
    fn now(&self) -> Timestamp;

    /// Begins an action; must not block. Its answer may wait already when this returns.
    fn perform(&self, pod: &Arc<Pod>, action: Action);

    /// Has the machine take these events in, and what comes while their actions are begun. Some actions are answered at
    /// once: the API is told of where that leads to, not of each step.
    ///
    /// Returns where the pod is in its life, and when the machine wants to hear [`Event::Tick`].
    fn advance(&self, events: Vec<Event>) -> (State, Option<Timestamp>) {
        let mut events = events;
        while !events.is_empty() {
            let (pod, actions) = self.machine(|machine| {
                events.into_iter().for_each(|event| machine.take(event, self.now()));
                (machine.pod().clone(), actions(machine))
            });
            actions.into_iter().for_each(|action| self.perform(&pod, action));
            events = self.waiting();
        }
        let (pod, actions, state, wake) = self.machine(|machine| {
            machine.settle(self.now());
            (machine.pod().clone(), actions(machine), machine.state(), machine.poll_timeout())
        });
        actions.into_iter().for_each(|action| self.perform(&pod, action));
        (state, wake)
    }
}

fn actions(machine: &mut PodMachine) -> Vec<Action> {
    std::iter::from_fn(|| machine.poll_action()).collect()
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use k8s_openapi::api::core::v1::{Container, PodSpec};

    use super::*;
    use crate::lifecycle::{NodeFacts, Observed};

    /// Answers that nothing has to be mounted at once, and nothing else.
    struct Carrier {
        machine: RefCell<PodMachine>,
        waiting: RefCell<Vec<Event>>,
        begun: RefCell<Vec<Action>>,
    }

    impl Drive for Carrier {
        fn machine<T>(&self, with: impl FnOnce(&mut PodMachine) -> T) -> T {
            with(&mut self.machine.borrow_mut())
        }

        fn waiting(&self) -> Vec<Event> {
            self.waiting.take()
        }

        fn now(&self) -> Timestamp {
            Timestamp::UNIX_EPOCH
        }

        fn perform(&self, _: &Arc<Pod>, action: Action) {
            assert!(self.machine.try_borrow().is_ok(), "the machine is lent out");
            if matches!(action, Action::MountVolumes) {
                self.waiting.borrow_mut().push(Event::Mounted(Ok(())));
            }
            self.begun.borrow_mut().push(action);
        }
    }

    #[test]
    fn what_is_answered_at_once_leads_on_before_the_api_is_told() {
        let spec = PodSpec {
            containers: vec![Container { name: "app".into(), ..Container::default() }],
            ..PodSpec::default()
        };
        let pod = Pod { spec: Some(spec), ..Pod::default() };
        let facts = Arc::new(NodeFacts { host_ips: Vec::new(), drain: std::time::Duration::ZERO });
        let machine = PodMachine::new(Arc::new(pod), facts, Timestamp::UNIX_EPOCH);
        let carrier = Carrier {
            machine: RefCell::new(machine),
            waiting: RefCell::default(),
            begun: RefCell::default(),
        };
        let nothing =
            Observed { began: Timestamp::UNIX_EPOCH, sandboxes: Vec::new(), containers: Vec::new() };
        let (state, _) = carrier.advance(vec![Event::Observed(nothing)]);
        assert_eq!(state, State::Active);
        let begun = carrier.begun.borrow();
        let place = |wanted: fn(&Action) -> bool| begun.iter().position(wanted);
        let mounted = place(|action| matches!(action, Action::MountVolumes));
        let sandbox = place(|action| matches!(action, Action::RunSandbox { .. }));
        let told = place(|action| matches!(action, Action::PatchStatus(_)));
        assert!(mounted < sandbox && sandbox < told && mounted.is_some(), "{begun:?}");
        let patches = begun.iter().filter(|action| matches!(action, Action::PatchStatus(_)));
        assert_eq!(patches.count(), 1);
    }
}
