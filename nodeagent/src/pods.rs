//! All pods of the node: from the watch to their machines, and what the runtime says to whom it concerns.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use client::Scope;
use client::core::cache::Change;
use futures::StreamExt;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{self as core, Pod};
use nodeagent_core::lifecycle::{Event, Observed, PodMachine, ResizeFailure};
use nodeagent_core::runtime::{ContainerState, ContainerStatus, RuntimeError, SandboxStatus};
use nodeagent_core::{admission, logs, node, pod};
use tokio::sync::Semaphore;

use crate::driver::PodHandle;
use crate::hands::{Node, NodeHands, nothing};
use crate::volumes;

/// A termination message is cut to this.
const MESSAGE_BYTES_MAX: u64 = 4096;
/// How often the runtime is looked at although it said nothing.
const LOOK_AGAIN: Duration = Duration::from_secs(60);

/// Logs that may be followed at the same time: each takes a thread.
pub(crate) const FOLLOWERS_MAX: usize = 128;

/// The pods of one node.
pub(crate) struct Pods {
    pub(crate) node: Arc<Node>,
    /// Places of those who follow a log.
    pub(crate) followers: Arc<Semaphore>,
    handles: Mutex<BTreeMap<String, PodHandle>>,
    me: std::sync::Weak<Pods>,
}

// === impl Pods ===

impl Pods {
    pub(crate) fn new(node: Arc<Node>) -> Arc<Self> {
        Arc::new_cyclic(|me| Self {
            node,
            followers: Arc::new(Semaphore::new(FOLLOWERS_MAX)),
            handles: Mutex::default(),
            me: me.clone(),
        })
    }

    pub(crate) fn handles(&self) -> MutexGuard<'_, BTreeMap<String, PodHandle>> {
        self.handles.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The pod of that name, and of that uid unless it is empty.
    pub(crate) fn find(&self, namespace: &str, name: &str, uid: &str) -> Option<PodHandle> {
        let handles = self.handles();
        let fits = |handle: &&PodHandle| {
            let pod = handle.pod();
            pod::namespace(&pod) == namespace && pod::name(&pod) == name
        };
        match handles.get(uid) {
            Some(handle) => Some(handle.clone()),
            None if uid.is_empty() => handles.values().find(fits).cloned(),
            None => None,
        }
    }

    pub(crate) async fn run(self: Arc<Self>) {
        let selector = format!("spec.nodeName={}", self.node.config.node_name);
        let mut changes = self.node.informers.get::<Pod>(Scope::fields(selector)).subscribe();
        let mut hints = self.node.runtime.events();
        let mut known = self.sandbox_uids().await;
        let mut synced = false;
        let mut look = tokio::time::interval(LOOK_AGAIN);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                change = changes.next() => {
                    let Some(change) = change else { return };
                    let mut fresh = BTreeSet::new();
                    let before = synced;
                    self.apply(change, &known, &mut fresh, &mut synced);
                    while let Some(change) = changes.try_next() {
                        self.apply(change, &known, &mut fresh, &mut synced);
                    }
                    if synced && !before {
                        // Only now is it known which pods the API does not have.
                        known = self.observe(None, synced).await;
                    } else if !fresh.is_empty() {
                        self.observe(Some(fresh), synced).await;
                    }
                }
                hint = hints.next() => {
                    let Some(hint) = hint else { return };
                    let mut dirty = BTreeSet::from([hint.pod_uid]);
                    while let Some(Some(hint)) = futures::FutureExt::now_or_never(hints.next()) {
                        dirty.insert(hint.pod_uid);
                    }
                    self.observe(Some(dirty), synced).await;
                }
                _ = look.tick() => known = self.observe(None, synced).await,
            }
        }
    }

    async fn sandbox_uids(&self) -> BTreeSet<String> {
        let sandboxes = self.node.runtime.list_sandboxes().await.unwrap_or_default();
        sandboxes.into_iter().map(|it| it.pod_uid).collect()
    }

    fn apply(
        &self,
        change: Change<Pod>,
        known: &BTreeSet<String>,
        fresh: &mut BTreeSet<String>,
        synced: &mut bool,
    ) {
        match change {
            Change::Synced => {
                *synced = true;
                fresh.extend(known.iter().cloned());
            }
            Change::Relisted { .. } => {}
            Change::Deleted { last } => {
                if let Some(handle) = self.handles().get(pod::uid(&last)) {
                    handle.tell(Event::Forgotten);
                }
            }
            Change::Applied { new, old } => {
                if let Some(old) = old.filter(|old| pod::uid(old) != pod::uid(&new))
                    && let Some(handle) = self.handles().get(pod::uid(&old))
                {
                    handle.tell(Event::Forgotten);
                }
                let uid = pod::uid(&new).to_owned();
                if let Some(handle) = self.handles().get(&uid) {
                    return handle.tell(Event::Desired(new));
                }
                self.add(new, &uid);
                if known.contains(&uid) {
                    fresh.insert(uid);
                } else if let Some(handle) = self.handles().get(&uid) {
                    handle.tell(nothing(Timestamp::now()));
                }
            }
        }
    }

    fn add(&self, new: Arc<Pod>, uid: &str) {
        let rejection = self.admit(&new).err();
        let machine = PodMachine::new(new, self.node.facts.clone(), Timestamp::now());
        let hands = Arc::new(NodeHands { node: self.node.clone(), pods: self.me.clone() });
        let (me, gone) = (self.me.clone(), uid.to_owned());
        let handle = PodHandle::start(machine, hands, move || {
            if let Some(pods) = me.upgrade() {
                pods.handles().remove(&gone);
            }
        });
        if let Some(rejection) = rejection {
            handle.tell(Event::Rejected { reason: rejection.reason, message: rejection.message });
        }
        self.handles().insert(uid.to_owned(), handle);
    }

    fn admit(&self, new: &Pod) -> Result<(), admission::Rejection> {
        let begun = pod::status(new).start_time.is_some() || new.metadata.deletion_timestamp.is_some();
        if begun || pod::is_terminal(new) {
            return Ok(());
        }
        let name = &self.node.config.node_name;
        let informer = self.node.informers.get::<core::Node>(Scope::fields(format!("metadata.name={name}")));
        let Some(own) = informer.find(&client::core::object::ObjectKey::cluster(name.as_str())) else {
            return Ok(());
        };
        let others: Vec<_> = self.handles().values().map(PodHandle::pod).collect();
        let others = others.iter().map(|it| &**it).filter(|it| !pod::is_terminal(it));
        admission::admit(new, &own, &node::allocatable(&self.node.machine), others)
    }

    /// Whether the node has room for a pod that runs here, as it asks for now.
    pub(crate) fn fits(&self, of: &Pod) -> Result<(), ResizeFailure> {
        let others: Vec<_> = self.handles().values().map(PodHandle::pod).collect();
        let others = others.iter().map(|it| &**it);
        let others = others.filter(|it| !pod::is_terminal(it) && pod::uid(it) != pod::uid(of));
        admission::fits(of, &node::allocatable(&self.node.machine), others)
    }

    /// Looks at the runtime and tells the pods concerned; `None`: all. Answers with the uids that have sandboxes.
    async fn observe(&self, only: Option<BTreeSet<String>>, synced: bool) -> BTreeSet<String> {
        let began = Timestamp::now();
        let (sandboxes, containers) = match self.list().await {
            Ok(lists) => lists,
            Err(error) => {
                tracing::warn!(%error, "the runtime was not heard");
                return BTreeSet::new();
            }
        };
        let mut by_pod: BTreeMap<String, (Vec<SandboxStatus>, Vec<ContainerStatus>)> = BTreeMap::new();
        let owner: BTreeMap<_, _> = sandboxes.iter().map(|it| (it.id.clone(), it.pod_uid.clone())).collect();
        for sandbox in sandboxes {
            by_pod.entry(sandbox.pod_uid.clone()).or_default().0.push(sandbox);
        }
        for container in containers {
            if let Some(uid) = owner.get(&container.sandbox) {
                by_pod.entry(uid.clone()).or_default().1.push(container);
            }
        }
        let uids: BTreeSet<String> = by_pod.keys().cloned().collect();
        let handles = self.handles().clone();
        for (uid, handle) in &handles {
            if only.as_ref().is_some_and(|only| !only.contains(uid)) {
                continue;
            }
            let (sandboxes, mut containers) = by_pod.remove(uid).unwrap_or_default();
            if let Some(current) = sandboxes.iter().filter(|it| it.ready).max_by_key(|it| it.attempt) {
                let mut ips = self.node.pod_ips.lock().unwrap_or_else(PoisonError::into_inner);
                ips.insert(uid.clone(), current.ips.clone());
            }
            for status in &mut containers {
                self.last_words(&handle.pod(), status);
            }
            handle.tell(Event::Observed(Observed { began, sandboxes, containers }));
        }
        if synced && only.is_none() {
            for (uid, (sandboxes, _)) in by_pod.into_iter().filter(|(uid, _)| !handles.contains_key(uid)) {
                self.remove_orphan(&uid, sandboxes);
            }
        }
        uids
    }

    /// Tells one pod what the runtime has of it.
    pub(crate) async fn observe_one(&self, uid: &str) {
        self.observe(Some(BTreeSet::from([uid.to_owned()])), false).await;
    }

    async fn list(&self) -> Result<(Vec<SandboxStatus>, Vec<ContainerStatus>), RuntimeError> {
        // Containers first: one that is there has its sandbox in the list made after.
        let containers = self.node.runtime.list_containers().await?;
        Ok((self.node.runtime.list_sandboxes().await?, containers))
    }

    /// What a container wrote for the world to read when it ended.
    fn last_words(&self, of: &Pod, status: &mut ContainerStatus) {
        let ContainerState::Exited { message, exit_code, .. } = &mut status.state else { return };
        let Some(spec) = pod::any_container(of, &status.name).filter(|_| message.is_empty()) else { return };
        let path = self.node.message_path(of, &status.name, status.attempt);
        // The container may have written there without bound.
        let mut words = Vec::new();
        let read =
            std::fs::File::open(path).and_then(|file| file.take(MESSAGE_BYTES_MAX).read_to_end(&mut words));
        if read.is_ok() {
            *message = String::from_utf8_lossy(&words).into_owned();
        }
        let falls_back = spec.termination_message_policy.as_deref() == Some("FallbackToLogsOnError");
        if message.is_empty() && falls_back && *exit_code != 0 {
            let log = self.node.log_path(of, &status.name, status.attempt);
            *message = crate::podlogs::end_of(&log, 64 * 1024)
                .map(|end| logs::termination_fallback(&end))
                .unwrap_or_default();
        }
    }

    /// A pod that the API does not have: it is stopped and removed.
    fn remove_orphan(&self, uid: &str, sandboxes: Vec<SandboxStatus>) {
        tracing::info!(uid, "removing a pod that the API does not have");
        let (node, dir) = (self.node.clone(), volumes::pod_dir(&self.node, uid));
        tokio::spawn(async move {
            for sandbox in sandboxes {
                let stopped = node.runtime.stop_sandbox(&sandbox.id).await;
                if let Err(error) = stopped.and(node.runtime.remove_sandbox(&sandbox.id).await) {
                    tracing::warn!(sandbox = sandbox.id.0, %error, "a sandbox without a pod was not removed");
                }
            }
            if let Err(error) = tokio::task::spawn_blocking(move || volumes::tear_down(&dir)).await {
                tracing::warn!(%error, "the volumes of a pod without an object were not removed");
            }
        });
    }
}
