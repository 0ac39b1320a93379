//! A path inside a volume, resolved so that no symlink in the volume leads out of it, and held by a bind mount.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Component, Path};

use nix::mount::{MsFlags, mount};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, mkdirat, openat, openat2};

/// Opens `path` below `root`; what is missing is made as directories.
pub(crate) fn open(root: &Path, path: &str) -> io::Result<OwnedFd> {
    let base = openat(CWD, root, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    let mut here = base.try_clone()?;
    let mut walked = std::path::PathBuf::new();
    for part in Path::new(path).components() {
        let name = match part {
            Component::Normal(name) => name,
            Component::CurDir => continue,
            _ => return Err(io::Error::new(io::ErrorKind::InvalidInput, "subPath leaves its volume")),
        };
        walked.push(name);
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        here = match openat2(&base, &walked, flags, Mode::empty(), resolve) {
            Ok(next) => next,
            Err(rustix::io::Errno::NOENT) => {
                mkdirat(&here, name, Mode::from_bits_truncate(0o750))?;
                openat2(&base, &walked, flags, Mode::empty(), resolve)?
            }
            Err(error) => return Err(error.into()),
        };
    }
    Ok(here)
}

/// Binds what `open` found to `target`, which then names it for good.
pub(crate) fn bind(found: &OwnedFd, target: &Path) -> io::Result<()> {
    let source = format!("/proc/self/fd/{}", found.as_raw_fd());
    if Path::new(&source).is_dir() {
        std::fs::create_dir_all(target)?;
    } else {
        if let Some(parent) = target.parent() {
            std::fs::create_dir_all(parent)?;
        }
        std::fs::OpenOptions::new().create(true).append(true).open(target)?;
    }
    mount(Some(source.as_str()), target, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn symlinks_do_not_lead_out() {
        let dir = tempfile::tempdir().expect("a directory");
        let root = dir.path().join("volume");
        std::fs::create_dir_all(root.join("in")).expect("made");
        std::fs::create_dir_all(dir.path().join("out")).expect("made");
        std::fs::write(dir.path().join("out/secret"), "x").expect("written");
        std::os::unix::fs::symlink("../out", root.join("link")).expect("linked");
        std::os::unix::fs::symlink(dir.path().join("out"), root.join("absolute")).expect("linked");
        assert!(open(&root, "in/new/deep").is_ok());
        assert!(root.join("in/new/deep").is_dir());
        for path in ["link/secret", "absolute/secret"] {
            if let Ok(found) = open(&root, path) {
                let shown =
                    std::fs::read_link(format!("/proc/self/fd/{}", found.as_raw_fd())).expect("a path");
                assert!(shown.starts_with(&root), "{path} leads to {shown:?}");
            }
        }
        assert!(open(&root, "../out").is_err());
    }

    #[test]
    fn what_is_swapped_meanwhile_does_not_lead_out() {
        use rustix::fs::{RenameFlags, renameat_with};
        use std::os::unix::fs::MetadataExt as _;
        use std::sync::atomic::{AtomicBool, Ordering};
        const ROUNDS: usize = 2000;
        let dir = tempfile::tempdir().expect("a directory");
        let (root, out) = (dir.path().join("volume"), dir.path().join("out"));
        std::fs::create_dir_all(root.join("inner/secret")).expect("made");
        std::fs::create_dir_all(out.join("secret")).expect("made");
        std::os::unix::fs::symlink(&out, root.join("link")).expect("linked");
        let secret = std::fs::metadata(out.join("secret")).expect("there").ino();
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                // What a container does to its own volume while another one is started with a subPath of it.
                let (inner, link) = (root.join("inner"), root.join("link"));
                while !over.load(Ordering::Relaxed) {
                    renameat_with(CWD, &inner, CWD, &link, RenameFlags::EXCHANGE).expect("exchanged");
                }
            });
            let leads_out = |_| {
                let found = open(&root, "inner/secret").ok();
                found.is_some_and(|found| rustix::fs::fstat(&found).is_ok_and(|found| found.st_ino == secret))
            };
            let led_out = (0..ROUNDS).any(leads_out);
            over.store(true, Ordering::Relaxed);
            assert!(!led_out, "the way led out of the volume");
        });
    }
}
