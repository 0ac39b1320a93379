//! Publishes which revision of the services this node has put into effect, as an annotation of the node's Lease.
//!
//! A pod that is being deleted gets its stop signal when all nodes have passed the revision that removed it.

use std::time::Duration;

use client::Client;
use client::params::Patch;
use client_core::plan::PatchKind;
use k8s_openapi::api::coordination::v1::Lease;
use serde_json::json;
use tokio::sync::watch;
use tracing::debug;

/// Annotation of the node's Lease: the highest resource version of Services and EndpointSlices that is in effect.
pub const ANNOTATION: &str = "orlop.dev/proxy-observed";
const NAMESPACE: &str = "kube-node-lease";
const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// Starts the publisher. It ends when the sender is dropped.
pub fn publish(client: Client, node_name: String) -> watch::Sender<u64> {
    let (sender, mut receiver) = watch::channel(0u64);
    tokio::spawn(async move {
        while receiver.changed().await.is_ok() {
            loop {
                let observed = *receiver.borrow_and_update();
                let body = json!({"metadata": {"annotations": {ANNOTATION: observed.to_string()}}});
                let patch = Patch::new(PatchKind::Merge, body);
                match client.patch::<Lease>(Some(NAMESPACE), &node_name, &patch).await {
                    Ok(_) => break,
                    // Right after a start the Lease is not there yet.
                    Err(error) => debug!(%error, "the observed revision was not published"),
                }
                tokio::select! {
                    () = tokio::time::sleep(RETRY_PAUSE) => {}
                    changed = receiver.changed() => if changed.is_err() { return },
                }
            }
        }
    });
    sender
}
