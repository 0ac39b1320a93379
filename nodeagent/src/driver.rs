//! Carries one pod's machine: events in, actions out to the hands, timers. Knows nothing of what they mean.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use nodeagent_core::PodMachine;
use nodeagent_core::clock;
use nodeagent_core::drive::Drive;
use nodeagent_core::lifecycle::{Action, Event, State};
use tokio::sync::Notify;

/// Carries actions out. Answers go into the inbox, whenever they are there.
pub(crate) trait Hands: Send + Sync + 'static {
    /// Begins an action; must not block.
    fn perform(&self, pod: &Arc<Pod>, action: Action, reply: &Inbox);
}

/// What waits to be told to one machine. Clones share it; while nothing waits it holds no memory.
#[derive(Clone, Debug, Default)]
pub(crate) struct Inbox(Arc<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    events: Mutex<Vec<Event>>,
    come: Notify,
}

/// One pod on the node, for those who look at it.
#[derive(Clone, Debug)]
pub(crate) struct PodHandle {
    machine: Arc<Mutex<PodMachine>>,
    inbox: Inbox,
}

/// A pod in the hands that carry its actions out.
struct Driven<'a> {
    handle: &'a PodHandle,
    hands: &'a dyn Hands,
}

// === impl Inbox ===

impl Inbox {
    /// Adds an event. A machine that is gone reads nothing any more.
    pub(crate) fn tell(&self, event: Event) {
        self.events().push(event);
        self.0.come.notify_one();
    }

    /// All that waits, in order; empty when nothing does.
    fn take(&self) -> Vec<Event> {
        std::mem::take(&mut *self.events())
    }

    /// Waits until something waits.
    async fn next(&self) -> Vec<Event> {
        loop {
            let events = self.take();
            if !events.is_empty() {
                return events;
            }
            self.0.come.notified().await;
        }
    }

    fn events(&self) -> MutexGuard<'_, Vec<Event>> {
        self.0.events.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl PodHandle ===

impl PodHandle {
    /// Starts to drive a pod. `gone` is called when nothing is left of it.
    pub(crate) fn start(
        machine: PodMachine,
        hands: Arc<dyn Hands>,
        gone: impl FnOnce() + Send + 'static,
    ) -> Self {
        let handle = Self { machine: Arc::new(Mutex::new(machine)), inbox: Inbox::default() };
        let driven = handle.clone();
        tokio::spawn(async move {
            driven.drive(&*hands).await;
            gone();
        });
        handle
    }

    /// Tells the machine something.
    pub(crate) fn tell(&self, event: Event) {
        self.inbox.tell(event);
    }

    /// A look at the machine.
    pub(crate) fn machine(&self) -> MutexGuard<'_, PodMachine> {
        self.machine.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The pod as last heard of.
    pub(crate) fn pod(&self) -> Arc<Pod> {
        self.machine().pod().clone()
    }

    async fn drive(&self, hands: &dyn Hands) {
        let mut wake: Option<Timestamp> = None;
        loop {
            let events = match wake {
                None => self.inbox.next().await,
                Some(at) => {
                    let pause = clock::between(Timestamp::now(), at);
                    let next = tokio::time::timeout(pause, self.inbox.next()).await;
                    next.unwrap_or_else(|_| vec![Event::Tick])
                }
            };
            let (state, at) = Driven { handle: self, hands }.advance(events);
            if state == State::Gone {
                return;
            }
            wake = at;
        }
    }
}

// === impl Driven ===

impl Drive for Driven<'_> {
    fn machine<T>(&self, with: impl FnOnce(&mut PodMachine) -> T) -> T {
        with(&mut self.handle.machine())
    }

    fn waiting(&self) -> Vec<Event> {
        self.handle.inbox.take()
    }

    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    fn perform(&self, pod: &Arc<Pod>, action: Action) {
        self.hands.perform(pod, action, &self.handle.inbox);
    }
}
