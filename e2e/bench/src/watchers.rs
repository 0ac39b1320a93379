//! Fan-out: what many watchers of the same objects receive while others create them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http::Method;
use http_body_util::BodyExt;
use serde::Serialize;
use tokio::sync::Notify;

use crate::load::{self, Request};
use crate::process::cpu_seconds;
use crate::target::Target;

/// What a fan-out showed.
#[derive(Clone, Debug, Serialize)]
pub struct FanOut {
    /// Lines received by all watchers together.
    pub deliveries: u64,
    /// Lines a second, from the first create to the last delivery.
    pub per_second: f64,
    /// CPU seconds of the server.
    pub server_cpu_s: f64,
}

/// Opens `watchers` streams of `path`, sends `count` creates from `creators` clients, and waits for every delivery.
pub async fn run(
    target: &Target,
    watchers: usize,
    creators: usize,
    count: u64,
    path: &str,
    create: Request,
) -> Result<FanOut> {
    let received = Arc::new(AtomicU64::new(0));
    let wanted = count * watchers as u64;
    let complete = Arc::new(Notify::new());
    let mut tasks = Vec::with_capacity(watchers);
    for _ in 0..watchers {
        let mut connection = target.connect().await?;
        let response = connection.open(&Method::GET, path, Bytes::new()).await?;
        if !response.status().is_success() {
            bail!("GET {path}: {}", response.status());
        }
        let (received, complete) = (received.clone(), complete.clone());
        tasks.push(tokio::spawn(async move {
            let mut body = response.into_body();
            while let Some(Ok(frame)) = body.frame().await {
                let lines =
                    frame.data_ref().map_or(0, |data| data.iter().filter(|byte| **byte == b'\n').count());
                if received.fetch_add(lines as u64, Ordering::Relaxed) + lines as u64 >= wanted {
                    complete.notify_one();
                }
            }
            drop(connection);
        }));
    }
    let cpu_before = cpu_seconds(target.pid);
    let started = Instant::now();
    load::run(target, creators, count, create).await?;
    let waited = tokio::time::timeout(Duration::from_secs(60), complete.notified()).await;
    let elapsed = started.elapsed();
    tasks.iter().for_each(tokio::task::JoinHandle::abort);
    let deliveries = received.load(Ordering::Relaxed);
    waited.with_context(|| format!("watchers received {deliveries} of {wanted} lines"))?;
    Ok(FanOut {
        deliveries,
        per_second: deliveries as f64 / elapsed.as_secs_f64(),
        server_cpu_s: cpu_seconds(target.pid) - cpu_before,
    })
}
