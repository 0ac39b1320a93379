//! Opens sockets inside a node's network namespace: a socket stays in the namespace in which it was opened.

use std::fs::File;
use std::io;
use std::path::Path;

use nix::sched::{CloneFlags, setns};

/// Runs `open` on a thread of its own inside the namespace at `path`, or here when there is none.
pub fn within<T: Send + 'static>(
    path: Option<&Path>,
    open: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let Some(path) = path else { return open() };
    let namespace = File::open(path)?;
    let thread = std::thread::Builder::new().name("netns".to_owned()).spawn(move || {
        setns(&namespace, CloneFlags::CLONE_NEWNET)?;
        open()
    })?;
    thread.join().unwrap_or_else(|_| Err(io::Error::other("the thread inside the network namespace failed")))
}
