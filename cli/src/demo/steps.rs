//! The steps, in the order in which they are shown.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use client::params::DeleteOptions;
use k8s_openapi::api::apps::v1::ReplicaSet;
use serde_json::json;

use super::board::Board;
use super::stage::{NAMESPACE, Stage, is_ready, node_of, restarts};

const WEB: &str = include_str!("../../../deploy/examples/web.yaml");
const NODE_WATCH: &str = include_str!("../../../deploy/examples/node-watch.yaml");
/// Requests after which a spread is judged.
const SPREAD_REQUESTS: u64 = 300;
/// A cut-off node is noticed, tainted, and its pods replaced within this time.
const CUT_PATIENCE: Duration = Duration::from_secs(90);

/// All steps. A step that fails is noted; the next ones are still tried.
pub async fn all(stage: &Stage, board: &mut Board) {
    if board.step("pods run on all nodes", spread_over_nodes(stage)).await.is_none() {
        return;
    }
    board.step("a service IP leads to every pod", service(stage)).await;
    board.step("scale 3 → 10 → 3", scale(stage)).await;
    board.step("a rolling update drops no request", rolling_update(stage)).await;
    board.step("a bad release stalls and is rolled back", bad_release(stage)).await;
    board.step("a killed container is restarted", killed_container(stage)).await;
    board.step("a deleted pod is replaced", deleted_pod(stage)).await;
    board.step("a DaemonSet runs on every node", daemon_set(stage)).await;
    board.step("a cut-off node's pods run elsewhere", cut_off(stage)).await;
}

async fn spread_over_nodes(stage: &Stage) -> Result<String> {
    stage.create(WEB).await?;
    stage.until_web_has(3).await?;
    let nodes: BTreeSet<String> = stage.pods_of("web").values().map(|pod| node_of(pod).to_owned()).collect();
    if nodes.len() != 3 {
        bail!("3 pods on {} nodes: {nodes:?}", nodes.len());
    }
    Ok(format!("3 pods Running on {}", nodes.into_iter().collect::<Vec<_>>().join(", ")))
}

async fn service(stage: &Stage) -> Result<String> {
    let load = stage.load().await?;
    stage.until("enough answers", || (load.seen().answered() >= SPREAD_REQUESTS).then_some(())).await?;
    let seen = load.finish().await?;
    let shares: Vec<String> = seen.answers.values().map(ToString::to_string).collect();
    if seen.failed() > 0 || seen.answers.len() != 3 {
        bail!("{}; {} pods answered", seen.words(), seen.answers.len());
    }
    Ok(format!("{}; by pod: {}", seen.words(), shares.join(" + ")))
}

async fn scale(stage: &Stage) -> Result<String> {
    let started = std::time::Instant::now();
    stage.patch_web(json!({"spec": {"replicas": 10}})).await?;
    stage.until_web_has(10).await?;
    let up = started.elapsed();
    stage.patch_web(json!({"spec": {"replicas": 3}})).await?;
    stage.until_web_has(3).await?;
    Ok(format!(
        "10 ready after {:.1} s, 3 again after {:.1} s",
        up.as_secs_f64(),
        started.elapsed().as_secs_f64()
    ))
}

async fn rolling_update(stage: &Stage) -> Result<String> {
    let load = stage.load().await?;
    stage.release(json!({"name": "web", "image": "orlop.dev/demo:v2"})).await?;
    stage.until_web_has(3).await?;
    let only_new = |answers: u64| {
        let seen = load.seen();
        (seen.answered() >= answers + 50).then_some(())
    };
    let before = load.seen().answered();
    stage.until("answers of the new release", || only_new(before)).await?;
    let seen = load.finish().await?;
    let of = |release: &str| {
        seen.answers.iter().filter(|(text, _)| text.ends_with(release)).map(|(_, count)| count).sum::<u64>()
    };
    if seen.failed() > 0 || of("v1") == 0 || of("v2") == 0 {
        bail!("{}; v1 answered {}, v2 {}", seen.words(), of("v1"), of("v2"));
    }
    Ok(format!("{}; v1 answered {}, then v2 {}", seen.words(), of("v1"), of("v2")))
}

async fn bad_release(stage: &Stage) -> Result<String> {
    let load = stage.load().await?;
    let never_ready = json!([{"name": "NEVER_READY", "value": "true"}]);
    stage.release(json!({"name": "web", "env": never_ready})).await?;
    stage
        .until("the stalled rollout", || {
            let web = stage.deployments.store().find(NAMESPACE, "web").cloned()?;
            let conditions = web.status.as_ref()?.conditions.as_ref()?;
            conditions
                .iter()
                .any(|one| one.reason.as_deref() == Some("ProgressDeadlineExceeded"))
                .then_some(())
        })
        .await?;
    let ready = stage.pods_of("web").values().filter(|pod| is_ready(pod)).count();
    if ready < 3 {
        bail!("only {ready} pods serve while the release stalls");
    }
    undo(stage).await?;
    stage.until_web_has(3).await?;
    let seen = load.finish().await?;
    if seen.failed() > 0 {
        bail!("{}", seen.words());
    }
    Ok(format!("3 pods served on, ProgressDeadlineExceeded, undone; {}", seen.words()))
}

/// Puts the template of the revision before the newest back, as `rollout undo` does.
async fn undo(stage: &Stage) -> Result<()> {
    let revision = |set: &ReplicaSet| -> Option<u64> {
        set.metadata.annotations.as_ref()?.get("deployment.kubernetes.io/revision")?.parse().ok()
    };
    let store = stage.replica_sets.store();
    let mut sets: Vec<_> = store.iter().filter_map(|set| Some((revision(set)?, set.clone()))).collect();
    sets.sort_by_key(|(revision, _)| std::cmp::Reverse(*revision));
    let (_, previous) = sets.get(1).context("there is no earlier revision")?;
    let mut template = serde_json::to_value(&previous.spec.template)?;
    if let Some(labels) = template["metadata"]["labels"].as_object_mut() {
        labels.remove("pod-template-hash");
    }
    template["$patch"] = "replace".into();
    stage.patch_web(json!({"spec": {"template": template}})).await
}

async fn killed_container(stage: &Stage) -> Result<String> {
    let pods = stage.pods_of("web");
    let (name, pod) = pods.first_key_value().context("there is no pod")?;
    let before = restarts(pod);
    let uid = pod.metadata.uid.clone().unwrap_or_default();
    let killed = kill_main_process(&uid)?;
    let count = stage
        .until("the restart", || {
            let pods = stage.pods_of("web");
            let pod = pods.get(name)?;
            (restarts(pod) > before && is_ready(pod)).then(|| restarts(pod))
        })
        .await?;
    Ok(format!("process {killed} of {name} got SIGKILL; restart count {count}, ready again"))
}

/// Kills the first process found in the pod's cgroup.
fn kill_main_process(pod_uid: &str) -> Result<u32> {
    for process in std::fs::read_dir("/proc")?.flatten() {
        let Ok(pid) = process.file_name().to_string_lossy().parse::<u32>() else { continue };
        let cgroups = std::fs::read_to_string(process.path().join("cgroup")).unwrap_or_default();
        let command = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
        if cgroups.contains(pod_uid) && String::from_utf8_lossy(&command).contains("workload") {
            nix::sys::signal::kill(
                nix::unistd::Pid::from_raw(pid.try_into()?),
                nix::sys::signal::Signal::SIGKILL,
            )?;
            return Ok(pid);
        }
    }
    bail!("no process of the pod was found")
}

async fn deleted_pod(stage: &Stage) -> Result<String> {
    let before: BTreeSet<String> = stage.pods_of("web").into_keys().collect();
    let victim = before.first().context("there is no pod")?.clone();
    stage.delete_pod(&victim).await?;
    let replacement = stage
        .until("the replacement", || {
            let pods = stage.pods_of("web");
            let new = pods.iter().find(|(name, pod)| !before.contains(*name) && is_ready(pod))?;
            let gone = stage.pods.store().find(NAMESPACE, &victim).is_none();
            (gone && pods.len() == 3).then(|| new.0.clone())
        })
        .await?;
    Ok(format!("{victim} is gone, {replacement} is ready"))
}

async fn daemon_set(stage: &Stage) -> Result<String> {
    stage.create(NODE_WATCH).await?;
    stage
        .until("a pod on every node", || {
            let set = stage.daemon_sets.store().find(NAMESPACE, "node-watch").cloned()?;
            let status = set.status.as_ref()?;
            (status.desired_number_scheduled == 3 && status.number_ready == 3).then_some(())
        })
        .await?;
    let nodes: BTreeSet<String> =
        stage.pods_of("node-watch").values().map(|pod| node_of(pod).to_owned()).collect();
    if nodes.len() != 3 {
        bail!("its pods are on {nodes:?}");
    }
    Ok("one ready pod on each of 3 nodes".to_owned())
}

async fn cut_off(stage: &Stage) -> Result<String> {
    let node = stage.cluster.nodes().names().last().context("there is no node")?.clone();
    let here = || {
        stage
            .pods_of("web")
            .into_iter()
            .filter(|(_, pod)| node_of(pod) == node)
            .map(|(name, _)| name)
            .collect::<Vec<_>>()
    };
    let lost = here();
    if lost.is_empty() {
        bail!("no pod runs on {node}");
    }
    stage.cluster.nodes().cut_off(&node).await?;
    let moved = stage
        .until_within(CUT_PATIENCE, "pods on the other nodes", || {
            let pods = stage.pods_of("web");
            let elsewhere = pods.values().filter(|pod| node_of(pod) != node && is_ready(pod)).count();
            (elsewhere == 3).then_some(())
        })
        .await;
    stage.cluster.nodes().reconnect(&node).await?;
    moved?;
    stage
        .until_within(CUT_PATIENCE, "the node's return", || {
            let ready = stage.nodes.store().iter().filter(|node| crate::up::is_ready(node)).count();
            let gone = lost.iter().all(|name| stage.pods.store().find(NAMESPACE, name).is_none());
            (ready == 3 && gone).then_some(())
        })
        .await?;
    stage
        .client
        .delete::<k8s_openapi::api::apps::v1::DaemonSet>(
            Some(NAMESPACE),
            "node-watch",
            &DeleteOptions::default(),
        )
        .await?;
    Ok(format!("{node} was silent: {} replaced on other nodes; the node came back clean", lost.join(", ")))
}
