//! The log of a container, read and followed for a client.

use std::sync::Arc;

use jiff::Timestamp;
use nodeagent_core::lifecycle::State;
use nodeagent_core::logs::Filter;
use nodeagent_core::runtime::{ContainerState, ContainerStatus};
use proto::tunnel::{Frame, Logs, frame};
use tokio::sync::mpsc;

use super::{Frames, Refusal, default_container, not_found, send};
use crate::driver::PodHandle;
use crate::podlogs;
use crate::pods::{FOLLOWERS_MAX, Pods};

/// Sends a log, until it ends or the client has gone.
pub(super) async fn read(
    pods: &Arc<Pods>,
    request: Logs,
    incoming: mpsc::Receiver<Frame>,
    frames: &Frames,
) -> Result<(), Refusal> {
    let handle =
        pods.find(&request.namespace, &request.pod, &request.uid).ok_or_else(|| not_found(&request.pod))?;
    let of = handle.pod();
    let container = default_container(&of, &request.container);
    let status = logged(&handle, &container, &request)?;
    let path = pods.node.log_path(&of, &container, status.attempt);
    let (filter, follow) = (filter(&request), request.follow);
    let place = match follow {
        true => Some(pods.followers.clone().try_acquire_owned().map_err(|_| {
            Refusal(429, format!("{FOLLOWERS_MAX} logs of this node are followed already; try again later"))
        })?),
        false => None,
    };
    send(frames, frame::Frame::Ready(true)).await;
    let (sender, chunks) = mpsc::channel::<Vec<u8>>(4);
    let ended = move || {
        let machine = handle.machine();
        let current = machine
            .instances(&container)
            .and_then(|(current, _)| current.map(|it| (it.id.clone(), it.state.clone())));
        let runs = current
            .is_some_and(|(id, state)| id == status.id && !matches!(state, ContainerState::Exited { .. }));
        !runs || machine.state() == State::Gone
    };
    let reader = tokio::task::spawn_blocking(move || {
        let _place = place;
        podlogs::read(&path, filter, follow, ended, &sender)
    });
    if !pass_on(chunks, incoming, frames).await {
        return Ok(());
    }
    match reader.await {
        Ok(Err(error)) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Refusal(500, error.to_string()))
        }
        _ => Ok(()),
    }
}

/// The instance of a container whose log is asked for.
fn logged(handle: &PodHandle, container: &str, request: &Logs) -> Result<ContainerStatus, Refusal> {
    let pod = &request.pod;
    let machine = handle.machine();
    let (current, previous) = machine
        .instances(container)
        .ok_or_else(|| Refusal(400, format!("container {container} is not valid for pod {pod}")))?;
    let chosen = if request.previous { previous } else { current };
    chosen.cloned().ok_or_else(|| {
        Refusal(
            400,
            if request.previous {
                format!("previous terminated container \"{container}\" in pod \"{pod}\" not found")
            } else {
                format!("container \"{container}\" in pod \"{pod}\" is waiting to start: ContainerCreating")
            },
        )
    })
}

/// Which part of a log is asked for.
fn filter(request: &Logs) -> Filter {
    let since = request.since_time.parse::<Timestamp>().ok().or_else(|| {
        request.since_seconds.map(|seconds| {
            let ago = jiff::SignedDuration::from_secs(seconds);
            Timestamp::now().checked_sub(ago).unwrap_or(Timestamp::MIN)
        })
    });
    let unsigned = |value: Option<i64>| value.and_then(|value| u64::try_from(value).ok());
    Filter {
        since,
        tail_lines: unsigned(request.tail_lines),
        limit_bytes: unsigned(request.limit_bytes),
        timestamps: request.timestamps,
    }
}

/// Sends what is read of a log; `false` when the client has gone.
///
/// A quiet container says nothing that could fail to be sent: the client's end must be heard too. The reader ends by itself
/// when nobody listens.
async fn pass_on(
    mut chunks: mpsc::Receiver<Vec<u8>>,
    mut incoming: mpsc::Receiver<Frame>,
    frames: &Frames,
) -> bool {
    let gone = async {
        tokio::select! {
            () = frames.closed() => {}
            () = async { while incoming.recv().await.is_some() {} } => {}
        }
    };
    tokio::pin!(gone);
    loop {
        tokio::select! {
            chunk = chunks.recv() => match chunk {
                Some(chunk) => {
                    if !send(frames, frame::Frame::Data(chunk)).await {
                        return false;
                    }
                }
                None => return true,
            },
            () = &mut gone => return false,
        }
    }
}
