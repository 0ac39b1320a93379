//! What every cluster has from the start, reconciled each time a server starts.

use jiff::Timestamp;
use store_core::{Snapshot, Txn};

use crate::config::Config;
use crate::ids::Ids;

/// The transactions that give a cluster what it must have; none when nothing is missing.
pub fn plan(snapshot: &Snapshot, config: &Config, now: Timestamp, ids: &mut Ids<'_>) -> Vec<Txn> {
    let _ = (snapshot, config, now, ids);
    Vec::new()
}
