//! Durable writes and linearizable reads of three members, by connections that each wait for their answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use bytes::Bytes;

use super::servers::{Kind, Servers, has_etcd};
use super::wire::{CompactionRequest, PutRequest, RangeRequest};
use crate::report::Row;

const PORTS: [(Kind, u16); 2] = [(Kind::Store, 27200), (Kind::Etcd, 27300)];
const KEYS: u64 = 10_000;
const WARM_UP: Duration = Duration::from_millis(500);

/// One run of a load.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Load {
    write: bool,
    value_bytes: usize,
    connections: usize,
}

/// What came of it.
#[derive(Clone, Copy, Default)]
struct Figures {
    per_second: f64,
    per_cpu_second: f64,
    p50_ms: f64,
    p99_ms: f64,
}

/// Measures both, quiet and while they write snapshots and forget the past. Each load runs `rounds` times on one and the
/// other in turn, so that what else the machine does meets both; the middle of what was measured counts. `only`: the
/// loads whose name holds this.
pub async fn run(seconds: u64, only: &str, rounds: usize) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    if !has_etcd() {
        rows.push(Row::plain("peer not measured: there is no etcd (package etcd-server)", 0.0, ""));
    }
    let mut quiet = Vec::new();
    for (busy, loads) in [(false, loads(&[256, 1024], &[1, 64])), (true, loads(&[1024], &[64]))] {
        let loads: Vec<_> = loads.into_iter().filter(|load| load.name(busy).contains(only)).collect();
        if loads.is_empty() {
            continue;
        }
        let mut both = Vec::new();
        for (kind, ports) in PORTS {
            if kind == Kind::Store || has_etcd() {
                both.push(Servers::start(kind, ports, busy).await?);
            }
        }
        for load in loads {
            let mut figures = vec![Vec::new(); both.len()];
            for _ in 0..rounds.max(1) {
                for (servers, figures) in both.iter().zip(&mut figures) {
                    figures.push(drive(servers, load, busy, Duration::from_secs(seconds)).await?);
                }
            }
            let figures: Vec<_> = figures.iter().map(|figures| Figures::middle(figures)).collect();
            compare(&mut rows, load, busy, figures[0], figures.get(1).copied());
            if busy {
                compare_with_quiet(&mut rows, load, figures[0], &quiet);
            } else {
                quiet.push((load, figures[0]));
            }
        }
    }
    Ok(rows)
}

fn loads(values: &[usize], connections: &[usize]) -> Vec<Load> {
    let mut loads = Vec::new();
    for write in [true, false] {
        for value_bytes in values.iter().copied() {
            for connections in connections.iter().copied() {
                loads.push(Load { write, value_bytes, connections });
            }
        }
    }
    loads
}

fn compare_with_quiet(rows: &mut Vec<Row>, load: Load, figures: Figures, quiet: &[(Load, Figures)]) {
    let same = quiet.iter().find(|(quiet, _)| load.write && *quiet == load);
    if let Some((_, before)) = same {
        let p99 = figures.p99_ms / before.p99_ms.max(1e-9);
        rows.push(Row::at_most(format!("{}: p99, store / store when quiet", load.name(true)), p99, 2.0, "×"));
    }
}

fn compare(rows: &mut Vec<Row>, load: Load, busy: bool, own: Figures, etcd: Option<Figures>) {
    let what = load.name(busy);
    for (who, figures) in [("store", Some(own)), ("etcd", etcd)] {
        let Some(figures) = figures else { continue };
        rows.push(Row::plain(format!("{what}: {who}"), figures.per_second, "/s"));
        rows.push(Row::plain(format!("{what}: {who}, per CPU second"), figures.per_cpu_second, ""));
        rows.push(Row::plain(format!("{what}: {who}, p50"), figures.p50_ms, "ms"));
        rows.push(Row::plain(format!("{what}: {who}, p99"), figures.p99_ms, "ms"));
    }
    if let Some(etcd) = etcd {
        let ratio = own.per_cpu_second / etcd.per_cpu_second.max(1e-9);
        rows.push(Row::at_least(format!("{what}: per CPU second, store / etcd"), ratio, 3.0, "×"));
        let p99 = own.p99_ms / etcd.p99_ms.max(1e-9);
        rows.push(Row::at_most(format!("{what}: p99, store / etcd"), p99, 1.0, "×"));
    }
}

// === impl Load ===

impl Load {
    fn name(self, busy: bool) -> String {
        format!(
            "{} of {} B, {} connections{}",
            if self.write { "durable writes" } else { "linearizable reads" },
            self.value_bytes,
            self.connections,
            if busy { ", during snapshots and compaction" } else { "" }
        )
    }
}

// === impl Figures ===

impl Figures {
    /// The middle of each figure.
    fn middle(of: &[Figures]) -> Figures {
        let middle = |figure: fn(&Figures) -> f64| {
            let mut sorted: Vec<f64> = of.iter().map(figure).collect();
            sorted.sort_unstable_by(f64::total_cmp);
            sorted.get(sorted.len() / 2).copied().unwrap_or_default()
        };
        Figures {
            per_second: middle(|figures| figures.per_second),
            per_cpu_second: middle(|figures| figures.per_cpu_second),
            p50_ms: middle(|figures| figures.p50_ms),
            p99_ms: middle(|figures| figures.p99_ms),
        }
    }
}

/// Runs one load on all members alike.
async fn drive(servers: &Servers, load: Load, busy: bool, time: Duration) -> Result<Figures> {
    let value = Bytes::from(vec![b'x'; load.value_bytes]);
    let stop = Arc::new(AtomicBool::new(false));
    let counting = Arc::new(AtomicBool::new(false));
    let newest = Arc::new(AtomicI64::new(0));
    let mut tasks = Vec::new();
    for connection in 0..load.connections {
        let mut client = servers.client(connection % servers.members.len())?;
        let (value, stop, counting, newest) = (value.clone(), stop.clone(), counting.clone(), newest.clone());
        tasks.push(tokio::spawn(async move {
            let mut times = Vec::new();
            let mut number = connection as u64 * 7919;
            while !stop.load(Ordering::Relaxed) {
                number = number.wrapping_add(1);
                let key = Bytes::from(format!("/bench/{:05}", number % KEYS));
                let begun = Instant::now();
                if load.write {
                    let reply = client.put(PutRequest { key, value: value.clone() }).await?;
                    if let Some(header) = reply.into_inner().header {
                        newest.fetch_max(header.revision, Ordering::Relaxed);
                    }
                } else {
                    client.range(RangeRequest { key, ..RangeRequest::default() }).await?;
                }
                if counting.load(Ordering::Relaxed) {
                    times.push(begun.elapsed());
                }
            }
            Ok::<_, tonic::Status>(times)
        }));
    }
    tokio::time::sleep(WARM_UP).await;
    let (cpu, begun) = (servers.cpu_seconds(), Instant::now());
    counting.store(true, Ordering::Relaxed);
    while begun.elapsed() < time {
        tokio::time::sleep(Duration::from_millis(500).min(time)).await;
        let revision = newest.load(Ordering::Relaxed) - 1000;
        if busy && revision > 0 {
            // Fails where nothing new came: then there is nothing to forget.
            let _ = servers.client(0)?.compact(CompactionRequest { revision, physical: true }).await;
        }
    }
    counting.store(false, Ordering::Relaxed);
    let (cpu, elapsed) = (servers.cpu_seconds() - cpu, begun.elapsed().as_secs_f64());
    stop.store(true, Ordering::Relaxed);
    let mut times = Vec::new();
    for task in tasks {
        times.extend(task.await?.context("a request failed")?);
    }
    times.sort_unstable();
    let at = |share: f64| {
        let place = (times.len() as f64 * share) as usize;
        times.get(place).map_or(0.0, |time| time.as_secs_f64() * 1000.0)
    };
    let count = times.len() as f64;
    Ok(Figures {
        per_second: count / elapsed,
        per_cpu_second: count / cpu.max(0.01),
        p50_ms: at(0.5),
        p99_ms: at(0.99),
    })
}
