//! Keeps what every cluster has: the leading server brings back what was taken away, and keeps what tells of the cluster true.

use std::sync::Arc;
use std::time::{Duration, Instant};

use apiserver_core::genesis::{self, Kept};

use crate::server::{StartError, write_planned};
use crate::shell::Shell;

/// How often it is looked whether something may have changed.
const LOOK: Duration = Duration::from_secs(1);
/// How often everything is looked at, whether or not something seems to have changed.
const LOOK_AT_ALL: Duration = Duration::from_secs(60);

/// Follows the cluster until this server stops.
pub(crate) async fn follow(shell: Arc<Shell>) {
    let mut authority = shell.authority.changes();
    let mut seen = None;
    let mut looked = Instant::now();
    loop {
        tokio::select! {
            () = shell.stop.cancelled() => return,
            Ok(()) = authority.changed() => seen = None,
            () = tokio::time::sleep(LOOK) => {}
        }
        if !shell.store.leadership().borrow().leads() {
            seen = None;
            continue;
        }
        let marks = genesis::marks(&shell.derived.load());
        if seen.as_ref() == Some(&marks) && looked.elapsed() < LOOK_AT_ALL {
            continue;
        }
        match keep(&shell).await {
            Ok(()) => (seen, looked) = (Some(marks), Instant::now()),
            Err(error) => {
                tracing::debug!(%error, "what every cluster has was not written; it is written later");
            }
        }
    }
}

/// Looks at everything once.
pub(crate) async fn keep(shell: &Shell) -> Result<(), StartError> {
    let authority = shell.authority.ca_pem();
    write_planned(shell, |snapshot, now, ids| {
        let (config, derived) = (shell.config.load(), shell.derived.load());
        genesis::keep(snapshot, &Kept { config: &config, derived: &derived, authority: &authority }, now, ids)
    })
    .await
}
