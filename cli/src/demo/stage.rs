//! What the steps work with: the cluster, its objects as they change, and a few verbs.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use api::catalogue::Catalogue;
use client::params::{DeleteOptions, Patch, WriteParams};
use client::{Client, Informer, Informers, Scope};
use client_core::object::{Object, ResourceType};
use client_core::plan::PatchKind;
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::{Node, Pod, Service};
use serde_json::{Value, json};

use crate::up::Cluster;

use super::load::Load;

/// Where everything happens.
pub const NAMESPACE: &str = "default";
const DEFAULT_PATIENCE: Duration = Duration::from_secs(60);

/// The cluster and its objects.
pub struct Stage {
    /// The cluster.
    pub cluster: Cluster,
    /// With all rights.
    pub client: Client,
    /// Pods of the namespace.
    pub pods: Informer<Pod>,
    /// Deployments of the namespace.
    pub deployments: Informer<Deployment>,
    /// ReplicaSets of the namespace.
    pub replica_sets: Informer<ReplicaSet>,
    /// DaemonSets of the namespace.
    pub daemon_sets: Informer<DaemonSet>,
    /// Nodes.
    pub nodes: Informer<Node>,
    /// The generation of `web` that was last asked for: caches may be behind.
    web_generation: AtomicI64,
    _informers: Informers,
}

impl Stage {
    /// Follows the cluster's objects from now on.
    pub fn new(cluster: Cluster) -> Result<Stage> {
        let client = cluster.administrator()?;
        let informers = Informers::new(client.clone());
        let here = || Scope::namespace(NAMESPACE);
        Ok(Stage {
            cluster,
            client,
            pods: informers.get(here()),
            deployments: informers.get(here()),
            replica_sets: informers.get(here()),
            daemon_sets: informers.get(here()),
            nodes: informers.get(Scope::all()),
            web_generation: AtomicI64::new(0),
            _informers: informers,
        })
    }

    /// Creates all objects of a manifest.
    pub async fn create(&self, manifest: &str) -> Result<()> {
        let documents: Vec<Value> =
            serde_saphyr::from_multiple(manifest).map_err(|error| anyhow!("the manifest: {error}"))?;
        for document in documents.iter().filter(|document| !document.is_null()) {
            let text = |field: &str| document[field].as_str().unwrap_or_default();
            let resource = Catalogue::builtin()
                .by_type(text("apiVersion"), text("kind"))
                .with_context(|| format!("no resource of kind {}", text("kind")))?;
            let resource = ResourceType::new(
                resource.group.to_string(),
                resource.version.to_string(),
                resource.kind.to_string(),
                resource.plural.to_string(),
                resource.namespaced(),
            );
            self.client.create_object(&resource, Some(NAMESPACE), document, &WriteParams::default()).await?;
        }
        Ok(())
    }

    /// Patches the Deployment `web`.
    pub async fn patch_web(&self, body: Value) -> Result<()> {
        let patch = Patch::new(PatchKind::Strategic, body);
        let web: Deployment = self.client.patch(Some(NAMESPACE), "web", &patch).await?;
        self.web_generation.store(web.metadata.generation.unwrap_or(0), Ordering::Relaxed);
        Ok(())
    }

    /// Releases another image or environment of `web`.
    pub async fn release(&self, container: Value) -> Result<()> {
        self.patch_web(json!({"spec": {"template": {"spec": {"containers": [container]}}}})).await
    }

    /// Deletes a pod.
    pub async fn delete_pod(&self, name: &str) -> Result<()> {
        Ok(self.client.delete::<Pod>(Some(NAMESPACE), name, &DeleteOptions::default()).await?)
    }

    /// Pods with a label `app`, by name, that are not being deleted.
    pub fn pods_of(&self, app: &str) -> BTreeMap<String, std::sync::Arc<Pod>> {
        let store = self.pods.store();
        let of = store.iter().filter(|pod| pod.label("app") == Some(app) && !pod.is_terminating());
        of.map(|pod| (pod.name().to_owned(), pod.clone())).collect()
    }

    /// Waits until `done` gives something, looking whenever a pod, workload or node changes.
    pub async fn until<T>(&self, what: &str, done: impl FnMut() -> Option<T>) -> Result<T> {
        self.until_within(DEFAULT_PATIENCE, what, done).await
    }

    /// As [`Stage::until`], with another patience.
    pub async fn until_within<T>(
        &self,
        patience: Duration,
        what: &str,
        mut done: impl FnMut() -> Option<T>,
    ) -> Result<T> {
        let (mut pods, mut deployments, mut daemon_sets, mut nodes) = (
            self.pods.subscribe(),
            self.deployments.subscribe(),
            self.daemon_sets.subscribe(),
            self.nodes.subscribe(),
        );
        let watching = async {
            loop {
                if let Some(found) = done() {
                    return found;
                }
                // What is counted elsewhere, such as requests, is looked at from time to time too.
                tokio::select! {
                    _ = pods.next() => {}
                    _ = deployments.next() => {}
                    _ = daemon_sets.next() => {}
                    _ = nodes.next() => {}
                    () = tokio::time::sleep(Duration::from_millis(200)) => {}
                }
            }
        };
        match tokio::time::timeout(patience, watching).await {
            Ok(found) => Ok(found),
            Err(_) => bail!("{what} was not seen within {} s; {}", patience.as_secs(), self.summary()),
        }
    }

    /// Waits until `web` has `count` ready pods and no others, and its status says so.
    pub async fn until_web_has(&self, count: usize) -> Result<()> {
        self.until(&format!("{count} ready pods"), || {
            let web = self.deployments.store().find(NAMESPACE, "web").cloned()?;
            let status = web.status.as_ref()?;
            let counts =
                [status.replicas, status.updated_replicas, status.ready_replicas, status.available_replicas];
            let wanted = i32::try_from(count).ok()?;
            let asked = self.web_generation.load(Ordering::Relaxed);
            let settled = status.observed_generation >= Some(asked)
                && status.observed_generation == web.metadata.generation
                && counts.iter().all(|has| has.unwrap_or(0) == wanted);
            let pods = self.pods_of("web");
            (settled && pods.len() == count && pods.values().all(|pod| is_ready(pod))).then_some(())
        })
        .await
    }

    /// Starts clients of the service `web` on the first node.
    pub async fn load(&self) -> Result<Load> {
        let service: Service = self.client.get(Some(NAMESPACE), "web").await?;
        let address = service.spec.and_then(|spec| spec.cluster_ip).context("the service has no address")?;
        let address: Ipv4Addr = address.parse()?;
        let node =
            self.cluster.fabric().and_then(|fabric| fabric.nodes.first()).context("there is no node")?;
        Ok(Load::start(node.netns.clone(), SocketAddr::from((address, 80))))
    }

    /// Ends the caches and hands the cluster back.
    pub fn leave(self) -> Cluster {
        self.cluster
    }

    /// Pods in a few words, for errors.
    fn summary(&self) -> String {
        let store = self.pods.store();
        let pods = store.iter().map(|pod| {
            let phase = pod.status.as_ref().and_then(|status| status.phase.clone()).unwrap_or_default();
            let ready = if is_ready(pod) { "ready" } else { "not ready" };
            let going = if pod.is_terminating() { ", being deleted" } else { "" };
            format!("{} {phase}, {ready}{going}", pod.name())
        });
        format!("pods: {}", pods.collect::<Vec<_>>().join("; "))
    }
}

/// Whether a pod is Ready.
pub fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.is_some_and(|all| all.iter().any(|one| one.type_ == "Ready" && one.status == "True"))
}

/// The node that a pod is on.
pub fn node_of(pod: &Pod) -> &str {
    pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).unwrap_or_default()
}

/// How often the first container of a pod was restarted.
pub fn restarts(pod: &Pod) -> i32 {
    let statuses = pod.status.as_ref().and_then(|status| status.container_statuses.as_ref());
    statuses.and_then(|all| all.first()).map_or(0, |container| container.restart_count)
}
