//! A large state: what it takes in memory, how long a restart takes, and how a member that was away gets it back while
//! the others go on serving.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use bytes::Bytes;

use super::servers::{Kind, Servers, has_etcd};
use super::wire::{PutRequest, RequestOp, TxnRequest, request_op};
use crate::process::{peak_rss_kib, pss_kib};
use crate::report::Row;

const PORTS: [(Kind, u16); 2] = [(Kind::Store, 27500), (Kind::Etcd, 27600)];
const VALUE_BYTES: usize = 1024;
/// etcd takes no more than 128 in one transaction.
const OBJECTS_PER_TXN: u64 = 100;
const WRITERS: usize = 16;
/// What is written while a member is away: more than the others keep for it.
const MISSED_BYTES: u64 = 64 << 20;
const WITHIN: Duration = Duration::from_secs(120);

/// Measures with so many objects of 1 KiB, `only` the store or etcd beside it.
pub async fn run(objects: u64, with_etcd: bool) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (kind, ports) in PORTS {
        if kind == Kind::Store || with_etcd && has_etcd() {
            rows.extend(measure(kind, ports, objects).await?);
        }
    }
    Ok(rows)
}

async fn measure(kind: Kind, ports: u16, objects: u64) -> Result<Vec<Row>> {
    let name = match kind {
        Kind::Store => "store",
        Kind::Etcd => "etcd",
    };
    let what = |text: &str| format!("{name}, {objects} objects of 1 KiB: {text}");
    let held = |text: &str, value, most: f64, unit: &str| match kind {
        Kind::Store => Row::at_most(what(text), value, most, unit),
        Kind::Etcd => Row::plain(what(text), value, unit),
    };
    let mut servers = Servers::start(kind, ports, false).await?;
    let begun = Instant::now();
    write(&servers, 0..objects).await?;
    let mut rows = vec![Row::plain(what("written in"), begun.elapsed().as_secs_f64(), "s")];
    let stored_kib = (objects * VALUE_BYTES as u64) as f64 / 1024.0;
    let per_kib = |kib: u64| kib as f64 / stored_kib;
    let memory = (0..3).map(|place| pss_kib(servers.pid(place))).max().unwrap_or(0);
    rows.push(held("memory per KiB stored, largest member", per_kib(memory), 1.6, "KiB"));

    servers.kill(2).await?;
    let begun = Instant::now();
    servers.restart(2).await?;
    rows.push(held("restart of a member → confirmed read", begun.elapsed().as_secs_f64(), 10.0, "s"));
    rows.push(Row::plain(what("memory per KiB stored, after it"), per_kib(pss_kib(servers.pid(2))), "KiB"));

    servers.kill(2).await?;
    write(&servers, 0..MISSED_BYTES / VALUE_BYTES as u64).await?;
    let quiet = serve_while(&servers, async { tokio::time::sleep(Duration::from_secs(5)).await }).await?;
    let begun = Instant::now();
    servers.spawn_again(2)?;
    let caught_up = async { tokio::time::timeout(WITHIN, servers.ready(2)).await };
    let busy = serve_while(&servers, caught_up).await?;
    rows.push(Row::plain(
        what("a member that was away → confirmed read"),
        begun.elapsed().as_secs_f64(),
        "s",
    ));
    rows.push(Row::plain(
        what("its memory at most, per KiB stored"),
        per_kib(peak_rss_kib(servers.pid(2))),
        "KiB",
    ));
    rows.push(Row::plain(what("p99 of writes before it comes back"), quiet, "ms"));
    rows.push(Row::plain(what("p99 of writes while it catches up"), busy, "ms"));
    Ok(rows)
}

fn key(number: u64) -> Bytes {
    Bytes::from(format!("/size/{number:07}"))
}

/// Values that differ, so that none is stored once for many.
fn value(number: u64) -> Bytes {
    let mut value = number.to_string().into_bytes();
    value.resize(VALUE_BYTES, b'x');
    value.into()
}

/// Writes these objects to the first two members, many in each transaction.
async fn write(servers: &Servers, numbers: std::ops::Range<u64>) -> Result<()> {
    let next = Arc::new(AtomicU64::new(numbers.start));
    let mut tasks = Vec::new();
    for place in [0, 1, 0, 1] {
        let (mut client, next, end) = (servers.client(place)?, next.clone(), numbers.end);
        tasks.push(tokio::spawn(async move {
            loop {
                let from = next.fetch_add(OBJECTS_PER_TXN, Ordering::Relaxed);
                if from >= end {
                    return Ok::<_, tonic::Status>(());
                }
                let put = |number| PutRequest { key: key(number), value: value(number) };
                let success = (from..end.min(from + OBJECTS_PER_TXN))
                    .map(|number| RequestOp { request: Some(request_op::Request::RequestPut(put(number))) });
                client.txn(TxnRequest { success: success.collect(), ..TxnRequest::default() }).await?;
            }
        }));
    }
    for task in tasks {
        task.await?.context("a transaction failed")?;
    }
    Ok(())
}

/// Writes to the first two members until `done`, and returns the p99 in milliseconds.
async fn serve_while(servers: &Servers, done: impl Future<Output = impl Sized>) -> Result<f64> {
    let stop = Arc::new(AtomicBool::new(false));
    let mut tasks = Vec::new();
    for writer in 0..WRITERS {
        let (mut client, stop) = (servers.client(writer % 2)?, stop.clone());
        tasks.push(tokio::spawn(async move {
            let mut times = Vec::new();
            let mut number = writer as u64;
            while !stop.load(Ordering::Relaxed) {
                number += WRITERS as u64;
                let put = PutRequest { key: key(number % 10_000), value: value(number) };
                let begun = Instant::now();
                client.put(put).await?;
                times.push(begun.elapsed());
            }
            Ok::<_, tonic::Status>(times)
        }));
    }
    done.await;
    stop.store(true, Ordering::Relaxed);
    let mut times = Vec::new();
    for task in tasks {
        times.extend(task.await?.context("a write failed")?);
    }
    times.sort_unstable();
    Ok(times.get(times.len() * 99 / 100).map_or(0.0, |time| time.as_secs_f64() * 1000.0))
}
