//! Removes everything that a node's runtime has made, from its files alone.

use std::io;
use std::path::{Path, PathBuf};

use super::cgroup::Cgroups;
use super::state::{Layout, read};
use super::{NODE_FILE, NodeFile};
use crate::network::NetworkError;
use crate::shim::{sys_start_time, task};

/// In the state directory: the volumes of pods, some of them mounts.
const POD_VOLUMES: &str = "pods";

/// Why something was left.
#[derive(Debug, thiserror::Error)]
pub enum PurgeError {
    /// The disk or the kernel refused.
    #[error("cannot clean up {path}: {source}")]
    Io {
        /// The state directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The network could not be taken down.
    #[error(transparent)]
    Network(#[from] NetworkError),
}

/// Kills and removes whatever a node's runtime has left: processes, mounts, links, cgroups, sandboxes, containers.
/// Images stay. Works after everything was killed. Blocks; must not be called from within an asynchronous task.
pub fn purge(state_dir: &Path) -> Result<(), PurgeError> {
    let failed = |source| PurgeError::Io { path: state_dir.to_owned(), source };
    let Some(node) = read::<NodeFile>(&state_dir.join(NODE_FILE)) else { return Ok(()) };
    let layout = Layout::new(state_dir);
    kill_shims(&layout).map_err(failed)?;
    remove_cgroups(&Cgroups::detect().map_err(failed)?, &node.cgroup_root).map_err(failed)?;
    crate::netns::unmount_below(&layout.sandboxes()).map_err(failed)?;
    crate::netns::unmount_below(&layout.containers()).map_err(failed)?;
    crate::netns::unmount_below(&state_dir.join(POD_VOLUMES)).map_err(failed)?;
    if node.netns.as_ref().is_none_or(|netns| is_namespace(netns)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
        runtime.block_on(crate::network::remove_leftovers(node.netns.as_deref()))?;
    }
    for dir in [layout.sandboxes(), layout.containers()] {
        match std::fs::remove_dir_all(&dir) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
    }
    std::fs::remove_file(state_dir.join(NODE_FILE)).map_err(failed)
}

/// A pin whose mount is gone is an ordinary file.
fn is_namespace(path: &Path) -> bool {
    const NSFS_MAGIC: i128 = 0x6e73_6673;
    nix::sys::statfs::statfs(path).is_ok_and(|stat| i128::from(stat.filesystem_type().0) == NSFS_MAGIC)
}

fn kill_shims(layout: &Layout) -> io::Result<()> {
    let kill = |pid: i32, start: u64| {
        if sys_start_time(pid) == Some(start) {
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::SIGKILL);
        }
    };
    let (sandboxes, _) = layout.load_sandboxes()?;
    for (pid, start) in sandboxes.iter().filter_map(|sandbox| sandbox.pause) {
        kill(pid, start);
    }
    let (containers, _) = layout.load_containers()?;
    for container in containers {
        let started: Option<task::Started> = read(&layout.container(&container.id).join(task::STARTED_FILE));
        if let Some(started) = started {
            kill(started.pid, started.pid_start);
            kill(started.shim, started.shim_start);
        }
    }
    Ok(())
}

/// Kills what is in the node's cgroup and removes it, with the parents that are then empty.
pub(super) fn remove_cgroups(cgroups: &Cgroups, root: &str) -> io::Result<()> {
    cgroups.remove(root)?;
    let mut parent = Path::new(root).parent();
    while let Some(path) = parent.filter(|path| path.as_os_str().len() > 1) {
        for dir in cgroups.dirs(&path.to_string_lossy()) {
            // Other nodes may still be in it.
            let _ = std::fs::remove_dir(dir);
        }
        parent = path.parent();
    }
    Ok(())
}
