//! A closed loop of clients: each sends its next request when the last was answered.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use bytes::Bytes;
use http::Method;
use serde::Serialize;

use crate::process::cpu_seconds;
use crate::target::Target;

/// What one run of the loop showed.
#[derive(Clone, Debug, Serialize)]
pub struct Measured {
    /// Requests answered with success.
    pub requests: u64,
    /// Requests a second.
    pub per_second: f64,
    /// Median latency in milliseconds.
    pub p50_ms: f64,
    /// 99th percentile of latency in milliseconds.
    pub p99_ms: f64,
    /// CPU seconds of the server.
    pub server_cpu_s: f64,
}

/// One request of the loop, by its number.
pub type Request = Arc<dyn Fn(u64) -> (Method, String, Bytes) + Send + Sync>;

/// Sends `count` requests over `clients` connections that were opened before the clock starts.
pub async fn run(target: &Target, clients: usize, count: u64, request: Request) -> Result<Measured> {
    let mut connections = Vec::with_capacity(clients);
    for _ in 0..clients {
        connections.push(target.connect().await?);
    }
    let next = Arc::new(AtomicU64::new(0));
    let cpu_before = cpu_seconds(target.pid);
    let started = Instant::now();
    let tasks: Vec<_> = connections
        .into_iter()
        .map(|mut connection| {
            let (next, request) = (next.clone(), request.clone());
            tokio::spawn(async move {
                let mut latencies = Vec::new();
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= count {
                        return Ok::<_, anyhow::Error>(latencies);
                    }
                    let (method, path, body) = request(number);
                    let sent = Instant::now();
                    connection.expect(&method, &path, body).await?;
                    latencies.push(sent.elapsed());
                }
            })
        })
        .collect();
    let mut latencies = Vec::new();
    for task in tasks {
        latencies.extend(task.await??);
    }
    let elapsed = started.elapsed();
    if latencies.is_empty() {
        bail!("no request was sent");
    }
    latencies.sort_unstable();
    Ok(Measured {
        requests: latencies.len() as u64,
        per_second: latencies.len() as f64 / elapsed.as_secs_f64(),
        p50_ms: quantile_ms(&latencies, 0.5),
        p99_ms: quantile_ms(&latencies, 0.99),
        server_cpu_s: cpu_seconds(target.pid) - cpu_before,
    })
}

/// The value below which `share` of the sorted samples lie, in milliseconds.
pub fn quantile_ms(sorted: &[Duration], share: f64) -> f64 {
    let last = sorted.len().saturating_sub(1);
    let index = ((last as f64) * share).round() as usize;
    sorted.get(index.min(last)).map_or(0.0, |sample| sample.as_secs_f64() * 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_of_known_samples() {
        let samples: Vec<Duration> = (0..=100).map(Duration::from_millis).collect();
        assert_eq!((quantile_ms(&samples, 0.5), quantile_ms(&samples, 0.99)), (50.0, 99.0));
        assert_eq!(quantile_ms(&[], 0.5), 0.0);
    }
}
