//! What nobody asks for but must be done: log rotation, fresh volume contents, images that go before the disk is full.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use nodeagent_core::image_gc::{self, Policy};
use nodeagent_core::lifecycle::State;
use nodeagent_core::pod;
use nodeagent_core::usage::Look;

use crate::hands::Node;
use crate::pods::Pods;
use crate::{node, podlogs, volumes};

const ROUND: Duration = Duration::from_secs(10);
/// How often resource use is measured.
const LOOK: Duration = Duration::from_secs(10);
/// Volumes are looked at every so many rounds.
const VOLUMES: u32 = 6;
/// Images are looked at every so many rounds.
const IMAGES: u32 = 30;

pub(crate) async fn run(pods: Arc<Pods>) {
    let mut round: u32 = 0;
    loop {
        tokio::time::sleep(ROUND).await;
        round = round.wrapping_add(1);
        rotate_logs(&pods).await;
        if round.is_multiple_of(VOLUMES) {
            refresh_volumes(&pods).await;
        }
        if round.is_multiple_of(IMAGES) {
            collect_images(&pods).await;
        }
    }
}

/// Looks at what the node and its containers use, again and again.
pub(crate) async fn measure(node: Arc<Node>) {
    let began = Instant::now();
    let mut looks = tokio::time::interval(LOOK);
    looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        let at = Timestamp::now();
        match tokio::try_join!(node.runtime.node_stats(), node.runtime.stats()) {
            Ok((whole, containers)) => {
                node.meter().look(began.elapsed(), Look { at, node: whole, containers });
            }
            Err(error) => tracing::warn!(%error, "what the node uses was not measured"),
        }
    }
}

async fn rotate_logs(pods: &Pods) {
    let handles: Vec<_> = pods.handles().values().cloned().collect();
    for handle in handles {
        let running: Vec<_> = {
            let machine = handle.machine();
            let of = machine.pod().clone();
            pod::all_containers(&of)
                .filter_map(|container| machine.instances(&container.name)?.0.cloned())
                .map(|status| (status.id.clone(), pods.node.log_path(&of, &status.name, status.attempt)))
                .collect()
        };
        for (id, path) in running {
            let stamp = Timestamp::now().strftime("%Y%m%d-%H%M%S").to_string();
            match podlogs::rotate(&path, &stamp) {
                Ok(false) => {}
                Ok(true) => {
                    if let Err(error) = pods.node.runtime.reopen_log(&id).await {
                        tracing::warn!(id = id.0, %error, "a log was rotated but not reopened");
                    }
                }
                Err(error) => tracing::warn!(?path, %error, "a log was not rotated"),
            }
        }
    }
}

async fn refresh_volumes(pods: &Pods) {
    let handles: Vec<_> = pods.handles().values().cloned().collect();
    for handle in handles {
        let (of, state) = {
            let machine = handle.machine();
            (machine.pod().clone(), machine.state())
        };
        if state == State::Active
            && let Err(error) = volumes::set_up(&pods.node, &of).await
        {
            tracing::debug!(pod = pod::full_name(&of), %error, "volumes were not brought up to date");
        }
    }
}

async fn collect_images(pods: &Pods) {
    let Some(disk) = node::disk(&pods.node.config) else { return };
    let runtime = &pods.node.runtime;
    let (Ok(images), Ok(containers)) = (runtime.list_images().await, runtime.list_containers().await) else {
        return;
    };
    let used: BTreeSet<String> = containers.into_iter().flat_map(|it| [it.image_id, it.image]).collect();
    let in_use = images
        .iter()
        .filter(|image| {
            used.contains(&image.id)
                || image.digests.iter().chain(&image.tags).any(|name| used.contains(name))
        })
        .map(|image| image.id.clone())
        .collect();
    for id in image_gc::plan(Policy::default(), disk, &images, &in_use, Timestamp::now()) {
        match runtime.remove_image(&id).await {
            Ok(()) => tracing::info!(id, "removed an image to make room"),
            Err(error) => tracing::warn!(id, %error, "an image was not removed"),
        }
    }
}
