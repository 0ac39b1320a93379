//! kill -9 of the leader, again and again: how long until another member acknowledges a write.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::servers::{Kind, Servers};
use super::wire::PutRequest;
use crate::report::Row;

const PORTS: u16 = 27400;
/// How long a write may take at all.
const WITHIN: Duration = Duration::from_secs(30);

/// Kills the leader `kills` times.
pub async fn run(kills: usize) -> Result<Vec<Row>> {
    let mut servers = Servers::start(Kind::Store, PORTS, false).await?;
    let mut times = Vec::new();
    for kill in 0..kills {
        let mut told = servers.members[kill % 3].leader.clone();
        let leader = tokio::time::timeout(WITHIN, told.wait_for(|leader| *leader > 0)).await??.to_owned();
        let (leader, survivor) = (leader as usize - 1, leader as usize % 3);
        let mut client = servers.client(survivor)?;
        let put = |number: usize| PutRequest { key: "k".into(), value: number.to_string().into() };
        // The connection stands before the clock runs.
        client.put(put(kill)).await.context("a write before the kill")?;
        servers.kill(leader).await?;
        let begun = Instant::now();
        tokio::time::timeout(WITHIN, client.put(put(kill))).await.context("no new leader")??;
        times.push(begun.elapsed().as_secs_f64() * 1000.0);
        servers.restart(leader).await?;
        // All agree on the new leader again.
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    times.sort_by(f64::total_cmp);
    let median = times.get(times.len() / 2).copied().unwrap_or_default();
    let slowest = times.last().copied().unwrap_or_default();
    Ok(vec![
        Row::plain("leaders killed", times.len() as f64, ""),
        Row::at_most("kill -9 of the leader → next acknowledged write, median", median, 500.0, "ms"),
        Row::at_most("kill -9 of the leader → next acknowledged write, slowest", slowest, 1500.0, "ms"),
    ])
}
