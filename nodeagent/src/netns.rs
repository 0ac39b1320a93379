//! Network namespaces: joined only by threads of their own, pinned by bind mounts.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};

/// Runs `work` in a network namespace (`None`: the present one), on a thread of its own that ends afterwards.
///
/// A pooled thread must never change its namespace: the next task on it would run in the wrong one.
pub fn run_in<T: Send>(netns: Option<&Path>, work: impl FnOnce() -> T + Send) -> io::Result<T> {
    let Some(path) = netns else { return Ok(work()) };
    let file = File::open(path)?;
    on_own_thread(move || {
        setns(file.as_fd(), CloneFlags::CLONE_NEWNET)?;
        Ok(work())
    })
}

/// Runs `work` on a thread of its own.
pub fn on_own_thread<T: Send>(work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("netns".to_owned()).spawn_scoped(scope, work)?;
        thread.join().unwrap_or_else(|_| Err(io::Error::other("a thread in another namespace failed")))
    })
}

/// Makes new namespaces on a thread of its own, pins each at its path, and runs `work` inside.
pub fn create<T: Send>(
    pins: &[(CloneFlags, &Path)],
    work: impl FnOnce() -> io::Result<T> + Send,
) -> io::Result<T> {
    let flags = pins.iter().fold(CloneFlags::empty(), |flags, (flag, _)| flags | *flag);
    on_own_thread(move || {
        unshare(flags)?;
        for (flag, path) in pins {
            File::create(path)?;
            let source = format!("/proc/thread-self/ns/{}", name(*flag));
            bind(Path::new(&source), path)?;
        }
        work()
    })
}

fn name(flag: CloneFlags) -> &'static str {
    match flag {
        CloneFlags::CLONE_NEWNET => "net",
        CloneFlags::CLONE_NEWIPC => "ipc",
        CloneFlags::CLONE_NEWUTS => "uts",
        CloneFlags::CLONE_NEWPID => "pid",
        _ => "mnt",
    }
}

/// Shows a file at another path.
pub fn bind(source: &Path, target: &Path) -> io::Result<()> {
    Ok(mount(Some(source), target, None::<&str>, MsFlags::MS_BIND, None::<&str>)?)
}

/// Takes a mount away; one that is not there is no error.
pub fn unmount(target: &Path) -> io::Result<()> {
    loop {
        match umount2(target, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
            // There may be several on top of each other.
            Ok(()) => continue,
            Err(nix::Error::EINVAL | nix::Error::ENOENT) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Takes a pin away.
pub fn unpin(path: &Path) -> io::Result<()> {
    unmount(path)?;
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Takes every mount away whose path is `dir` or below it, deepest first.
pub fn unmount_below(dir: &Path) -> io::Result<()> {
    let table = std::fs::read_to_string("/proc/self/mountinfo")?;
    let mut targets: Vec<std::path::PathBuf> = table
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(|target| std::path::PathBuf::from(unescape(target)))
        .filter(|target| target.starts_with(dir))
        .collect();
    targets.reverse();
    let mut outcome = Ok(());
    for target in targets {
        if let Err(error) = unmount(&target) {
            outcome = Err(error);
        }
    }
    outcome
}

/// Undoes the octal escapes of the kernel's tables.
fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        match rest.get(at + 1..at + 4).and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                out.push(char::from(byte));
                rest = &rest[at + 4..];
            }
            None => {
                out.push('\\');
                rest = &rest[at + 1..];
            }
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_escapes_are_undone() {
        assert_eq!(unescape(r"/a\040b\134c"), r"/a b\c");
        assert_eq!(unescape("/plain"), "/plain");
        assert_eq!(unescape(r"/odd\9"), r"/odd\9");
    }
}
