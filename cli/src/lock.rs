//! Locks of directories that one process may use at a time. The kernel gives them back when the process ends.

use std::fs::{File, OpenOptions};
use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::fs::{FlockOperation, flock};

/// How often a lock that another process holds is asked for again.
const PACE: Duration = Duration::from_millis(20);

/// Takes the lock at `path` for as long as the file lives; `None` when another process has it.
pub fn take(path: &Path) -> Result<Option<File>> {
    let opened = OpenOptions::new().create(true).truncate(false).write(true).open(path);
    let file = opened.with_context(|| format!("opening {}", path.display()))?;
    match flock(file.as_fd(), FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(file)),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
        Err(error) => Err(error).with_context(|| format!("locking {}", path.display())),
    }
}

/// Waits until no process has the lock at `path`. Blocks.
pub fn wait(path: &Path, patience: Duration) -> Result<()> {
    let deadline = Instant::now() + patience;
    while take(path)?.is_none() {
        if Instant::now() > deadline {
            bail!("another process holds {}; stop it first", path.display());
        }
        std::thread::sleep(PACE);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_has_one_holder() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let held = take(&path).unwrap();
        assert!(held.is_some());
        assert!(take(&path).unwrap().is_none());
        assert!(wait(&path, Duration::ZERO).is_err());
        drop(held);
        assert!(take(&path).unwrap().is_some());
    }
}
