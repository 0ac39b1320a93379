//! A whole cluster: how soon it is ready, what it costs idle, how fast pods run and are placed.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http::Method;
use http_body_util::BodyExt;
use serde::Deserialize;
use serde_json::Value;

use crate::load::{self, Request, quantile_ms};
use crate::process::{Cluster, cpu_seconds, family, pss_kib};
use crate::report::Row;
use crate::target::Target;

const PODS: &str = "/api/v1/namespaces/default/pods";
const NODES: &str = "/api/v1/nodes";

/// Start on an existing data directory, then the cost of doing nothing.
pub async fn startup_and_idle(port: u16) -> Result<Vec<Row>> {
    let folder = tempfile::tempdir()?;
    let data = folder.path().join("data");
    let first = Cluster::start(&data, port, &["--nodes", "3"]).await?;
    wait_for_nodes(&first.target, 3, 0).await?;
    first.stop().await?;
    // What nodes said before does not count, and they say it to the second.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let second = unix_seconds();
    let started = Instant::now();
    let cluster = Cluster::start(&data, port, &["--nodes", "3"]).await?;
    wait_for_nodes(&cluster.target, 3, second).await?;
    let nodes_ready = started.elapsed();
    // Start-up work is over when the nodes have been quiet for a while.
    tokio::time::sleep(Duration::from_secs(15)).await;
    let processes = family(cluster.target.pid);
    let cpu = || processes.iter().map(|pid| cpu_seconds(*pid)).sum::<f64>();
    let before = cpu();
    let window = Duration::from_secs(30);
    tokio::time::sleep(window).await;
    let idle = (cpu() - before) / window.as_secs_f64() * 100.0;
    let memory = processes.iter().map(|pid| pss_kib(*pid)).sum::<u64>() as f64 * 1024.0 / 1e6;
    let rows = vec![
        Row::at_most("API ready after exec", cluster.api_ready.as_secs_f64() * 1000.0, 150.0, "ms"),
        Row::plain("`up` says ready after exec", cluster.ready.as_secs_f64() * 1000.0, "ms"),
        Row::at_most("three nodes Ready after exec", nodes_ready.as_secs_f64() * 1000.0, 1000.0, "ms"),
        Row::plain("processes", processes.len() as f64, ""),
        Row::at_most("idle memory of everything (PSS)", memory, 100.0, "MB"),
        Row::at_most("idle CPU, share of a core", idle, 1.0, "%"),
    ];
    cluster.stop().await?;
    Ok(rows)
}

fn unix_seconds() -> i64 {
    jiff::Timestamp::now().as_second()
}

/// Waits until `count` nodes have said in this second since 1970 or later that they are Ready.
async fn wait_for_nodes(target: &Target, count: usize, second: i64) -> Result<()> {
    let mut connection = target.connect().await?;
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let list: Value =
            serde_json::from_slice(&connection.expect(&Method::GET, NODES, Bytes::new()).await?)?;
        let ready = list["items"]
            .as_array()
            .map_or(0, |nodes| nodes.iter().filter(|node| is_ready(node, second)).count());
        if ready >= count {
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!("{ready} of {count} nodes are Ready after 60 s");
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn is_ready(node: &Value, second: i64) -> bool {
    let said = |one: &Value| {
        let time = one["lastHeartbeatTime"].as_str().and_then(|text| text.parse::<jiff::Timestamp>().ok());
        time.is_some_and(|time| time.as_second() >= second)
    };
    let conditions = node["status"]["conditions"].as_array();
    conditions.is_some_and(|all| {
        all.iter().any(|one| one["type"] == "Ready" && one["status"] == "True" && said(one))
    })
}

/// Real containers: one pod created to Running, several times; then 30 at once.
pub async fn pods(port: u16) -> Result<Vec<Row>> {
    let folder = tempfile::tempdir()?;
    let cluster = Cluster::start(&folder.path().join("data"), port, &["--nodes", "3"]).await?;
    let measured = pods_on(&cluster.target).await;
    cluster.stop().await?;
    measured
}

async fn pods_on(target: &Target) -> Result<Vec<Row>> {
    wait_for_nodes(target, 3, 0).await?;
    let mut single = Vec::new();
    for number in 0..20 {
        // The first pods of each node are its warm-up: the image is unpacked there once.
        let took =
            until(target, "phase", is_running, 1, move |_| real_pod(&format!("one-{number}")), 1).await?;
        if number >= 6 {
            single.push(took);
        }
    }
    single.sort_unstable();
    let burst =
        until(target, "phase", is_running, 30, |number| real_pod(&format!("many-{number}")), 30).await?;
    Ok(vec![
        Row::at_most("one pod created → Running, p50", quantile_ms(&single, 0.5), 100.0, "ms"),
        Row::plain("one pod created → Running, slowest of 14", quantile_ms(&single, 1.0), "ms"),
        Row::at_most("30 pods at once, all Running", burst.as_secs_f64() * 1000.0, 2000.0, "ms"),
    ])
}

fn real_pod(name: &str) -> Bytes {
    format!(
        r#"{{"apiVersion":"v1","kind":"Pod","metadata":{{"name":"{name}"}},"spec":{{"terminationGracePeriodSeconds":1,"containers":[{{"name":"main","image":"orlop.dev/demo:v1"}}]}}}}"#
    )
    .into()
}

/// Placement: `count` pods onto `nodes` hollow nodes, created by 64 clients, watched until bound and until Running.
pub async fn schedule(port: u16, nodes: usize, count: u64) -> Result<Vec<Row>> {
    let folder = tempfile::tempdir()?;
    let arguments = ["--runtime", "hollow", "--nodes", &nodes.to_string()];
    let cluster = Cluster::start(&folder.path().join("data"), port, &arguments).await?;
    let measured = schedule_on(&cluster, nodes, count).await;
    cluster.stop().await?;
    measured
}

async fn schedule_on(cluster: &Cluster, nodes: usize, count: u64) -> Result<Vec<Row>> {
    let target = &cluster.target;
    wait_for_nodes(target, nodes, 0).await?;
    let processes = family(target.pid);
    let cpu = || -> Vec<f64> { processes.iter().map(|pid| cpu_seconds(*pid)).collect() };
    let before = cpu();
    let running = tokio::spawn({
        let target = target.clone();
        let mut events = Watch::open(&target).await?;
        async move { events.wait(count, is_running).await }
    });
    let hollow = |number: u64| -> Bytes {
        format!(
            r#"{{"apiVersion":"v1","kind":"Pod","metadata":{{"name":"hollow-{number}"}},"spec":{{"containers":[{{"name":"main","image":"orlop.dev/demo:v1","resources":{{"requests":{{"cpu":"10m","memory":"16Mi"}}}}}}]}}}}"#
        )
        .into()
    };
    let started = Instant::now();
    let bound = until(target, "nodeName", |pod| pod.spec.node_name.is_some(), count, hollow, 64).await?;
    running.await??;
    let all_running = started.elapsed();
    let used: Vec<f64> = cpu().iter().zip(&before).map(|(after, before)| after - before).collect();
    let memory: u64 = processes.iter().map(|pid| pss_kib(*pid)).sum();
    Ok(vec![
        Row::at_least(
            format!("{count} pods on {nodes} nodes, created → bound"),
            count as f64 / bound.as_secs_f64(),
            3000.0,
            "pods/s",
        ),
        Row::plain("… until all report Running", all_running.as_secs_f64(), "s"),
        Row::plain("… CPU of the server", used.first().copied().unwrap_or(0.0), "s"),
        Row::plain("… CPU of the hollow nodes", used.iter().skip(1).sum(), "s"),
        Row::at_most("… memory after that (PSS)", memory as f64 * 1024.0 / 1e6, 250.0, "MB"),
    ])
}

/// Creates pods and returns the time from the first create until `done` held for all of them.
async fn until(
    target: &Target,
    what: &str,
    done: fn(&Pod<'_>) -> bool,
    count: u64,
    pod: impl Fn(u64) -> Bytes + Send + Sync + 'static,
    clients: usize,
) -> Result<Duration> {
    let mut watch = Watch::open(target).await?;
    let request: Request = Arc::new(move |number| (Method::POST, PODS.to_owned(), pod(number)));
    let started = Instant::now();
    let creating = tokio::spawn({
        let target = target.clone();
        async move { load::run(&target, clients, count, request).await }
    });
    watch.wait(count, done).await.with_context(|| format!("waiting for {what}"))?;
    let elapsed = started.elapsed();
    creating.await??;
    Ok(elapsed)
}

/// One line of a watch. The load generator shares the cores with what it measures: it reads no more than it needs.
#[derive(Deserialize)]
struct Event<'a> {
    #[serde(borrow)]
    object: Pod<'a>,
}

#[derive(Deserialize)]
struct Pod<'a> {
    #[serde(borrow)]
    metadata: Metadata<'a>,
    #[serde(borrow, default)]
    spec: Spec<'a>,
    #[serde(borrow, default)]
    status: Status<'a>,
}

#[derive(Deserialize)]
struct Metadata<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
}

#[derive(Default, Deserialize)]
struct Spec<'a> {
    #[serde(rename = "nodeName", borrow, default)]
    node_name: Option<Cow<'a, str>>,
}

#[derive(Default, Deserialize)]
struct Status<'a> {
    #[serde(borrow, default)]
    phase: Option<Cow<'a, str>>,
}

fn is_running(pod: &Pod<'_>) -> bool {
    pod.status.phase.as_deref() == Some("Running")
}

/// A watch of all pods of the namespace, from now on.
struct Watch {
    body: hyper::body::Incoming,
    buffer: Vec<u8>,
    // Holds the connection open.
    _connection: crate::target::Connection,
}

impl Watch {
    async fn open(target: &Target) -> Result<Watch> {
        let mut connection = target.connect().await?;
        let list: Value = serde_json::from_slice(
            &connection.expect(&Method::GET, &format!("{PODS}?limit=1"), Bytes::new()).await?,
        )?;
        let revision = list["metadata"]["resourceVersion"].as_str().unwrap_or_default();
        let path = format!("{PODS}?watch=true&resourceVersion={revision}");
        let response = connection.open(&Method::GET, &path, Bytes::new()).await?;
        Ok(Watch { body: response.into_body(), buffer: Vec::new(), _connection: connection })
    }

    /// Reads until `done` held for `count` different pods.
    async fn wait(&mut self, count: u64, done: fn(&Pod<'_>) -> bool) -> Result<()> {
        let mut seen = BTreeSet::new();
        let deadline = tokio::time::Instant::now() + Duration::from_secs(120);
        while (seen.len() as u64) < count {
            let frame = tokio::time::timeout_at(deadline, self.body.frame()).await;
            let frame = frame.with_context(|| format!("{} of {count} pods after 120 s", seen.len()))?;
            let data = frame.context("the watch ended")??.into_data().unwrap_or_default();
            self.buffer.extend_from_slice(&data);
            let Some(end) = self.buffer.iter().rposition(|byte| *byte == b'\n') else { continue };
            let rest = self.buffer.split_off(end + 1);
            let complete = std::mem::replace(&mut self.buffer, rest);
            for line in complete.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
                let Event { object: pod } = serde_json::from_slice(line)?;
                if done(&pod) && !seen.contains(&*pod.metadata.name) {
                    seen.insert(pod.metadata.name.into_owned());
                }
            }
        }
        Ok(())
    }
}
