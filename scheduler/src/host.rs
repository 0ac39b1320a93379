//! Hosts the scheduler's core: takes changes in, asks for decisions, and keeps a bounded number of bindings under way.

use std::sync::Arc;

use client::core::cache::Change;
use client::core::clock::Moment;
use client::core::events::{EventNote, EventType};
use client::core::object::{Object, ObjectKey};
use client::core::plan::PatchKind;
use client::events::Recorder;
use client::params::Patch;
use client::{Changes, Client, Informer, clock};
use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use rand::SeedableRng;
use rand::rngs::StdRng;
use scheduler_core::binding::{Binding, Next};
use scheduler_core::{Causes, Cluster, Decision, NodeChange, PodInfo, Queue, Report};
use serde_json::json;
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use crate::{Config, Error};

/// After so many decisions changes are taken in again.
const BATCH: usize = 64;

/// How many conditions are written at once.
const CONDITIONS: usize = 16;

/// Where changes come from.
pub(crate) struct Sources {
    pub(crate) pods: Informer<Pod>,
    pub(crate) pod_changes: Changes<Pod>,
    pub(crate) node_changes: Changes<Node>,
    pub(crate) namespace_changes: Changes<Namespace>,
}

/// The core and what is under way.
pub(crate) struct Host {
    name: String,
    client: Client,
    recorder: Recorder,
    cluster: Cluster,
    queue: Queue,
    rng: StdRng,
    limit: usize,
    in_flight: usize,
    bound: mpsc::UnboundedSender<Bound>,
    outcomes: mpsc::UnboundedReceiver<Bound>,
    conditions: Arc<Semaphore>,
}

/// How a binding went.
struct Bound {
    pod: Arc<PodInfo>,
    node: Arc<str>,
    result: Result<(), client::Error>,
}

// === impl Host ===

impl Host {
    pub(crate) fn new(config: &Config, client: Client, recorder: Recorder) -> Self {
        let (bound, outcomes) = mpsc::unbounded_channel();
        Self {
            name: config.name.clone(),
            client,
            recorder,
            cluster: Cluster::new(),
            queue: Queue::new(),
            rng: config.seed.map_or_else(StdRng::from_os_rng, StdRng::seed_from_u64),
            limit: config.in_flight.max(1),
            in_flight: 0,
            bound,
            outcomes,
            conditions: Arc::new(Semaphore::new(CONDITIONS)),
        }
    }

    /// Runs until shutdown.
    pub(crate) async fn run(
        &mut self,
        mut sources: Sources,
        shutdown: &CancellationToken,
    ) -> Result<(), Error> {
        while !shutdown.is_cancelled() {
            self.take_all(&mut sources);
            self.decide(&sources.pods);
            if self.can_decide() {
                tokio::task::yield_now().await;
                continue;
            }
            // With all bindings under way, time alone changes nothing.
            let timeout = self.queue.poll_timeout().filter(|_| self.in_flight < self.limit);
            tokio::select! {
                change = sources.node_changes.next() => self.node(change.ok_or(Error::CacheEnded("nodes"))?),
                change = sources.namespace_changes.next() => {
                    self.namespace(change.ok_or(Error::CacheEnded("namespaces"))?);
                }
                change = sources.pod_changes.next() => self.pod(change.ok_or(Error::CacheEnded("pods"))?),
                Some(outcome) = self.outcomes.recv() => self.settle(outcome),
                () = clock::sleep_until(timeout) => {}
                () = shutdown.cancelled() => {}
            }
        }
        Ok(())
    }

    /// Waits for the bindings under way.
    pub(crate) async fn drain(&mut self) {
        while self.in_flight > 0 {
            let Some(outcome) = self.outcomes.recv().await else { return };
            self.settle(outcome);
        }
    }

    fn can_decide(&self) -> bool {
        self.queue.has_ready() && self.in_flight < self.limit
    }

    fn take_all(&mut self, sources: &mut Sources) {
        while let Some(change) = sources.node_changes.try_next() {
            self.node(change);
        }
        while let Some(change) = sources.namespace_changes.try_next() {
            self.namespace(change);
        }
        while let Some(change) = sources.pod_changes.try_next() {
            self.pod(change);
        }
        while let Ok(outcome) = self.outcomes.try_recv() {
            self.settle(outcome);
        }
    }

    fn node(&mut self, change: Change<Node>) {
        let NodeChange { node, helps } = match change {
            Change::Applied { new, .. } => self.cluster.set_node(&new),
            Change::Deleted { last } => self.cluster.remove_node(last.name()),
            Change::Synced | Change::Relisted { .. } => return,
        };
        let cluster = &self.cluster;
        self.queue.wake_all(helps, clock::moment(), |pod, failed| cluster.may_admit(&node, pod, failed));
    }

    fn namespace(&mut self, change: Change<Namespace>) {
        let helps = match change {
            Change::Applied { new, .. } => {
                self.cluster.set_namespace(new.name(), new.metadata.labels.clone().unwrap_or_default())
            }
            Change::Deleted { last } => {
                self.cluster.remove_namespace(last.name());
                Causes::none()
            }
            Change::Synced | Change::Relisted { .. } => Causes::none(),
        };
        self.queue.wake_all(helps, clock::moment(), |_, _| true);
    }

    fn pod(&mut self, change: Change<Pod>) {
        let now = clock::moment();
        let (helps, node) = match change {
            Change::Synced | Change::Relisted { .. } => return,
            Change::Deleted { last } => {
                let key = last.key();
                self.queue.remove(&key);
                let node = self.cluster.node_of(&key).cloned();
                (self.cluster.remove_pod(&key), node)
            }
            Change::Applied { new, .. } => {
                let info = self.cluster.read_pod(&new);
                let waits = info.node.is_none() && !info.terminating && !info.finished;
                if waits && info.scheduler == self.name {
                    self.queue.set(Arc::clone(&info), now);
                } else {
                    self.queue.remove(&info.key);
                }
                let node = self.cluster.node_of(&info.key).cloned();
                (self.cluster.set_pod(info), node)
            }
        };
        self.wake_for_pod(helps, node.as_deref(), now);
    }

    fn wake_for_pod(&mut self, helps: Causes, node: Option<&str>, now: Moment) {
        let cluster = &self.cluster;
        self.queue
            .wake_all(helps, now, |pod, failed| node.is_none_or(|node| cluster.may_admit(node, pod, failed)));
    }

    /// Decides on pods that are ready, up to a batch.
    fn decide(&mut self, pods: &Informer<Pod>) {
        for _ in 0..BATCH {
            if self.in_flight >= self.limit {
                return;
            }
            let Some(pod) = self.queue.pop(clock::moment()) else { return };
            match self.cluster.schedule(&pod, &mut self.rng) {
                (Decision::Bind { node }, _) => self.bind(pod, node),
                (Decision::Unschedulable, report) => {
                    self.queue.unschedulable(&pod.key, &pod.uid, report.causes(), clock::moment());
                    self.explain(&pod, &report, pods);
                }
            }
        }
    }

    fn bind(&mut self, pod: Arc<PodInfo>, node: Arc<str>) {
        self.cluster.assume(&pod, &node);
        self.in_flight += 1;
        let client = self.client.clone();
        let bound = self.bound.clone();
        tokio::spawn(async move {
            let result = bind(&client, &pod, &node, &bound).await;
            // The scheduler may have ended meanwhile.
            let _ = bound.send(Bound { pod, node, result });
        });
    }

    fn settle(&mut self, outcome: Bound) {
        self.in_flight = self.in_flight.saturating_sub(1);
        let Bound { pod, node, result } = outcome;
        match result {
            Ok(()) => {
                self.queue.bound(&pod.key, &pod.uid);
                let message = format!("Successfully assigned {} to {node}", pod.key);
                self.note(&pod, EventType::Normal, "Scheduled", "Binding", message);
            }
            Err(error) => {
                tracing::info!(pod = %pod.key, %node, %error, "binding failed");
                let now = clock::moment();
                let helps = self.cluster.forget(&pod.key, &pod.uid);
                self.wake_for_pod(helps, Some(&node), now);
                self.queue.failed(&pod.key, &pod.uid, now);
                if !error.is_not_found() && !error.is_conflict() {
                    self.note(&pod, EventType::Warning, "FailedScheduling", "Scheduling", error.to_string());
                }
            }
        }
    }

    /// Tells why a pod fits nowhere: by an event and by its condition.
    fn explain(&self, pod: &Arc<PodInfo>, report: &Report, pods: &Informer<Pod>) {
        let message = report.message();
        self.note(pod, EventType::Warning, "FailedScheduling", "Scheduling", message.clone());
        let Some(patch) = pods.find(&pod.key).and_then(|current| condition(&current, &message)) else {
            return;
        };
        let (client, key, permits) = (self.client.clone(), pod.key.clone(), Arc::clone(&self.conditions));
        tokio::spawn(async move {
            let Ok(_permit) = permits.acquire().await else { return };
            let written = client.patch::<Pod>(key.namespace_opt(), &key.name, &patch).await;
            if let Err(error) = written
                && !error.is_not_found()
            {
                tracing::info!(pod = %key, %error, "condition not written");
            }
        });
    }

    fn note(&self, pod: &PodInfo, kind: EventType, reason: &str, action: &str, message: String) {
        self.recorder.note(EventNote {
            regarding: reference(&pod.key, &pod.uid),
            kind,
            reason: reason.to_owned(),
            action: action.to_owned(),
            message,
        });
    }
}

/// Binds a pod, again as long as nobody knows whether it is bound, and the scheduler has not ended.
async fn bind(
    client: &Client,
    pod: &PodInfo,
    node: &str,
    scheduler: &mpsc::UnboundedSender<Bound>,
) -> Result<(), client::Error> {
    let mut binding = Binding::new(&pod.uid, node);
    loop {
        let Err(error) = client.bind(&pod.key, &pod.uid, node).await else { return Ok(()) };
        let mut next = binding.failed(&error);
        if next == Next::Read {
            let found = client.get::<Pod>(pod.key.namespace_opt(), &pod.key.name).await;
            next = binding.read(found.as_ref());
        }
        match next {
            Next::Bound => return Ok(()),
            Next::Read | Next::Fail => return Err(error),
            Next::Again(pause) => tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = scheduler.closed() => return Err(error),
            },
        }
    }
}

fn reference(key: &ObjectKey, uid: &str) -> k8s_openapi::api::core::v1::ObjectReference {
    k8s_openapi::api::core::v1::ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Pod".to_owned()),
        namespace: Some(key.namespace.to_string()),
        name: Some(key.name.to_string()),
        uid: Some(uid.to_owned()),
        ..k8s_openapi::api::core::v1::ObjectReference::default()
    }
}

/// The patch that makes the pod's condition say this; `None` when it does already.
pub(crate) fn condition(pod: &Pod, message: &str) -> Option<Patch> {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    let known = conditions.into_iter().flatten().find(|condition| condition.type_ == "PodScheduled");
    let refused = known.filter(|known| known.status == "False");
    let says = |known: &k8s_openapi::api::core::v1::PodCondition| {
        known.reason.as_deref() == Some("Unschedulable") && known.message.as_deref() == Some(message)
    };
    if refused.is_some_and(says) {
        return None;
    }
    let since = refused.and_then(|known| known.last_transition_time.clone());
    let condition = json!({
        "type": "PodScheduled",
        "status": "False",
        "reason": "Unschedulable",
        "message": message,
        "lastProbeTime": null,
        "lastTransitionTime": since.unwrap_or_else(|| Time(clock::now().wall)),
    });
    let body = json!({
        "metadata": {"uid": pod.uid()},
        "status": {"conditions": [condition]},
    });
    Some(Patch::new(PatchKind::Strategic, body).of("status"))
}
