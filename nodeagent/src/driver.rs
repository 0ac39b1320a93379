//! Carries one pod's machine: events in, actions out to the hands, timers. Knows nothing of what they mean.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use nodeagent_core::PodMachine;
use nodeagent_core::clock;
use nodeagent_core::lifecycle::{Action, Event, State};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// Carries actions out. Answers go into the reply channel, whenever they are there.
pub(crate) trait Hands: Send + Sync + 'static {
    /// Begins an action; must not block.
    fn perform(&self, pod: &Arc<Pod>, action: Action, reply: &UnboundedSender<Event>);
}

/// One pod on the node, for those who look at it.
#[derive(Clone, Debug)]
pub(crate) struct PodHandle {
    machine: Arc<Mutex<PodMachine>>,
    inbox: UnboundedSender<Event>,
}

// === impl PodHandle ===

impl PodHandle {
    /// Starts to drive a pod. `gone` is called when nothing is left of it.
    pub(crate) fn start(
        machine: PodMachine,
        hands: Arc<dyn Hands>,
        gone: impl FnOnce() + Send + 'static,
    ) -> Self {
        let machine = Arc::new(Mutex::new(machine));
        let (inbox, events) = unbounded_channel();
        let handle = Self { machine: machine.clone(), inbox: inbox.clone() };
        tokio::spawn(async move {
            drive(machine, events, inbox, hands).await;
            gone();
        });
        handle
    }

    /// Tells the machine something.
    pub(crate) fn tell(&self, event: Event) {
        // A pod that is gone needs to hear nothing.
        let _ = self.inbox.send(event);
    }

    /// A look at the machine.
    pub(crate) fn machine(&self) -> MutexGuard<'_, PodMachine> {
        self.machine.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The pod as last heard of.
    pub(crate) fn pod(&self) -> Arc<Pod> {
        self.machine().pod().clone()
    }
}

async fn drive(
    machine: Arc<Mutex<PodMachine>>,
    mut events: UnboundedReceiver<Event>,
    reply: UnboundedSender<Event>,
    hands: Arc<dyn Hands>,
) {
    let lock = || machine.lock().unwrap_or_else(PoisonError::into_inner);
    let mut wake: Option<Timestamp> = None;
    loop {
        let event = match wake {
            None => events.recv().await,
            Some(at) => {
                let pause = clock::between(Timestamp::now(), at);
                match tokio::time::timeout(pause, events.recv()).await {
                    Ok(event) => event,
                    Err(_) => Some(Event::Tick),
                }
            }
        };
        let Some(event) = event else { return };
        let (pod, actions, state) = {
            let mut machine = lock();
            machine.handle(event, Timestamp::now());
            while let Ok(event) = events.try_recv() {
                machine.handle(event, Timestamp::now());
            }
            wake = machine.poll_timeout();
            let actions: Vec<_> = std::iter::from_fn(|| machine.poll_action()).collect();
            (machine.pod().clone(), actions, machine.state())
        };
        for action in actions {
            hands.perform(&pod, action, &reply);
        }
        if state == State::Gone {
            return;
        }
    }
}
