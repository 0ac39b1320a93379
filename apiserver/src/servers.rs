//! Keeps the endpoints of `default/kubernetes`: the servers that can be reached, as the leading one sees it.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use apiserver_core::genesis;

use crate::server::{StartError, write_planned};
use crate::shell::Shell;

/// How often the leader looks.
const LOOK: Duration = Duration::from_secs(2);
/// A server that was not reached so many times in a row is taken out.
const MISSES: u32 = 3;

/// Publishes the servers once. A server that does not lead leaves it to the one that does.
pub(crate) async fn publish(shell: &Shell) -> Result<(), StartError> {
    let members = shell.store.members().await;
    if members.len() > 1 {
        return Ok(());
    }
    write(shell, &shell.config.load().advertise).await
}

/// Follows the servers until this one stops.
pub(crate) async fn follow(shell: Arc<Shell>) {
    let leadership = shell.store.leadership();
    let mut missed: BTreeMap<u64, u32> = BTreeMap::new();
    loop {
        tokio::select! {
            () = shell.stop.cancelled() => return,
            () = tokio::time::sleep(LOOK) => {}
        }
        let leads = leadership.borrow().leads();
        let members = shell.store.members().await;
        if !leads || members.len() < 2 {
            missed.clear();
            continue;
        }
        for member in &members {
            let count = missed.entry(member.id).or_default();
            *count = if member.applied.is_some() { 0 } else { *count + 1 };
        }
        missed.retain(|id, _| members.iter().any(|member| member.id == *id));
        let reached =
            members.iter().filter(|member| missed.get(&member.id).is_none_or(|count| *count < MISSES));
        // Names instead of addresses cannot be endpoints.
        let addresses: Vec<(IpAddr, u16)> = reached
            .filter_map(|member| member.address.parse::<SocketAddr>().ok())
            .map(|address| (address.ip(), address.port()))
            .collect();
        if let Err(error) = write(&shell, &addresses).await {
            tracing::debug!(%error, "the endpoints of the servers were not written; they are written later");
        }
    }
}

async fn write(shell: &Shell, addresses: &[(IpAddr, u16)]) -> Result<(), StartError> {
    write_planned(shell, |snapshot, now, ids| genesis::endpoints(snapshot, addresses, now, ids)).await
}
