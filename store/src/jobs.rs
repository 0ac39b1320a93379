//! The store's background work, each on a thread of its own: checkpoints, and removing what they cover.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread::JoinHandle;

use rustix::process::setpriority_process;
use store_core::host::Job;
use tokio::sync::mpsc::UnboundedSender;

use crate::handle::Request;

/// Nobody waits for a job: on a busy machine it goes last.
const NICE: i32 = 5;

/// Starts a job, which tells the store how it ended; `None`: it could not be started, and the store is told.
pub(crate) fn start(job: Box<Job>, requests: UnboundedSender<Request>) -> Option<JoinHandle<()>> {
    let (lost, lost_too) = (job.when_lost(), job.when_lost());
    let told = requests.clone();
    let run = move || {
        // Never refused: a thread may always give way.
        let _ = setpriority_process(None, NICE);
        let event = match catch_unwind(AssertUnwindSafe(|| job.run())) {
            Ok(done) => {
                if let Some(error) = done.error {
                    tracing::warn!(%error, "a background job of the store failed; it is tried again later");
                }
                done.event
            }
            Err(_) => lost,
        };
        if let Some(event) = event {
            // The store may have closed meanwhile.
            let _ = requests.send(Request::Tell(event));
        }
    };
    match std::thread::Builder::new().name("store-job".into()).spawn(run) {
        Ok(handle) => Some(handle),
        Err(error) => {
            tracing::warn!(%error, "a background job of the store could not start; it is tried again later");
            if let Some(event) = lost_too {
                // Fails only when the thread has gone, and this is the thread.
                let _ = told.send(Request::Tell(event));
            }
            None
        }
    }
}
