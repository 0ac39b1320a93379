//! How long things take; printed, not judged: other work may share the machine.

use std::time::{Duration, Instant};

use nodeagent_core::runtime::*;

use super::world::{Outcome, World, inside, start};

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

/// Sandbox, create, start, exec one after the other; thirty pods at once; memory of a shim.
pub async fn all(world: &mut World) -> Outcome {
    let node = &world.nodes[0];
    let (mut sandboxes, mut starts, mut execs) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..15 {
        let begin = Instant::now();
        let sandbox = node.run_sandbox(world.pod()).await.map_err(|error| error.to_string())?;
        sandboxes.push(begin.elapsed());
        let begin = Instant::now();
        let container = world.container(&["sleep"]);
        let id = node.create_container(&sandbox.id, container).await.map_err(|error| error.to_string())?;
        node.start_container(&id).await.map_err(|error| error.to_string())?;
        starts.push(begin.elapsed());
        let begin = Instant::now();
        inside(node, &id, &["print", "x"]).await?;
        execs.push(begin.elapsed());
        node.remove_sandbox(&sandbox.id).await.map_err(|error| error.to_string())?;
    }
    let begin = Instant::now();
    let many = (0..30).map(|_| start(node, world.pod(), world.container(&["sleep"])));
    let started = futures::future::join_all(many).await.into_iter().collect::<Result<Vec<_>, _>>()?;
    let together = begin.elapsed();
    let memory = shim_memory();
    println!(
        "    sandbox p50 {:?}, create+start p50 {:?}, exec p50 {:?}, {} pods at once {:?}, private memory of a shim {} KiB",
        median(sandboxes),
        median(starts),
        median(execs),
        started.len(),
        together,
        memory
    );
    Ok(())
}

fn shim_memory() -> u64 {
    let mut all = Vec::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        if std::fs::read_to_string(entry.path().join("comm")).is_ok_and(|name| name == "orlop-shim\n") {
            let text = std::fs::read_to_string(entry.path().join("smaps_rollup")).unwrap_or_default();
            let private = text.lines().filter(|line| line.starts_with("Private_"));
            all.push(private.filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok()).sum());
        }
    }
    all.sort_unstable();
    all.get(all.len() / 2).copied().unwrap_or(0)
}
