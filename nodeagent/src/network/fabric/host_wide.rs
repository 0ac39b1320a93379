//! What the clusters of one machine change of the host itself: done for the first that needs it, undone after the last.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use super::super::netlink::Netlink;
use super::{CLAIM_METRIC, FORWARDING, FabricError, Ipv4Cidr, io_error};

/// What was changed, and for whom. Kept for one network namespace of the host, and lost with the machine's memory, as
/// the changes are.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    /// The host forwards between networks because of us.
    forwarding: bool,
    /// Service networks that are claimed because of us.
    claimed: BTreeSet<String>,
    /// The clusters, and the service network of each.
    users: BTreeMap<String, String>,
}

/// The record, locked against other processes for as long as this lives.
struct Locked {
    record: Record,
    path: PathBuf,
    _lock: File,
}

/// Has the host forward between networks, and claims the service network on it.
pub(super) async fn acquire(host: &Netlink, cluster: &str, service: Ipv4Cidr) -> Result<(), FabricError> {
    let mut locked = Locked::open()?;
    let record = &mut locked.record;
    record.forwarding |= fs::read_to_string(FORWARDING).is_ok_and(|text| text.trim() == "0");
    let claim = !host.destinations().await?.contains(&service);
    if claim {
        record.claimed.insert(service.to_string());
    }
    record.users.insert(cluster.to_owned(), service.to_string());
    // Written before it is done: a change that is ours is then never forgotten.
    locked.save()?;
    if locked.record.forwarding {
        fs::write(FORWARDING, "1").map_err(io_error(FORWARDING))?;
    }
    if claim {
        host.claim(service, CLAIM_METRIC).await?;
    }
    Ok(())
}

/// Undoes what no other cluster needs.
pub(super) async fn release(host: &Netlink, cluster: &str) -> Result<(), FabricError> {
    let mut locked = Locked::open()?;
    let record = &mut locked.record;
    record.users.remove(cluster);
    let needed: BTreeSet<&String> = record.users.values().collect();
    let unneeded: Vec<String> =
        record.claimed.iter().filter(|cidr| !needed.contains(cidr)).cloned().collect();
    for cidr in unneeded {
        if let Ok(network) = cidr.parse() {
            host.release(network, CLAIM_METRIC).await?;
        }
        record.claimed.remove(&cidr);
    }
    if record.users.is_empty() && std::mem::take(&mut record.forwarding) {
        fs::write(FORWARDING, "0").map_err(io_error(FORWARDING))?;
    }
    locked.save()
}

// === impl Locked ===

impl Locked {
    /// Waits for other processes: each holds the lock for a few system calls.
    fn open() -> Result<Locked, FabricError> {
        let dir = Path::new(super::RUN_DIR);
        let failed = || dir.display().to_string();
        fs::create_dir_all(dir).map_err(io_error(failed()))?;
        let lock = File::open(dir).map_err(io_error(failed()))?;
        flock(&lock, FlockOperation::LockExclusive).map_err(io::Error::from).map_err(io_error(failed()))?;
        let namespace =
            fs::metadata("/proc/thread-self/ns/net").map_err(io_error("own network namespace"))?;
        let path = dir.join(format!("host-{}.json", namespace.ino()));
        let record = match fs::read(&path) {
            // Written by rename: a damaged file is none of ours.
            Ok(bytes) => serde_json::from_slice(&bytes).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Record::default(),
            Err(error) => return Err(io_error(path.display().to_string())(error)),
        };
        Ok(Locked { record, path, _lock: lock })
    }

    /// Writes the record; one that says nothing is removed.
    fn save(&self) -> Result<(), FabricError> {
        let failed = || self.path.display().to_string();
        if self.record.users.is_empty() {
            return match fs::remove_file(&self.path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_error(failed())(error)),
                _ => Ok(()),
            };
        }
        let bytes =
            serde_json::to_vec(&self.record).map_err(|error| io_error(failed())(io::Error::other(error)))?;
        let new = self.path.with_extension("new");
        fs::write(&new, bytes).and_then(|()| fs::rename(&new, &self.path)).map_err(io_error(failed()))
    }
}
