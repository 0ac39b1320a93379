//! fork in a single-threaded process.

use std::io;

/// Which side of a fork this is.
pub enum Fork {
    /// The new process.
    Child,
    /// The old process; the pid of the new one.
    Parent(i32),
}

/// Copies this process. With `sibling` the new process is a child of this process's parent.
///
/// # Safety
/// This process must have one thread only: locks held by others would stay locked for ever in the child.
pub unsafe fn fork(sibling: bool) -> io::Result<Fork> {
    let pid = if sibling {
        // SAFETY: without a new stack and without shared memory, clone is fork.
        unsafe { libc::syscall(libc::SYS_clone, libc::CLONE_PARENT | libc::SIGCHLD, 0, 0, 0, 0) as i32 }
    } else {
        // SAFETY: the caller promises that there is one thread.
        unsafe { libc::fork() }
    };
    match pid {
        0 => Ok(Fork::Child),
        pid if pid > 0 => Ok(Fork::Parent(pid)),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Ends this process without running anybody's exit handlers.
pub fn exit(status: i32) -> ! {
    // SAFETY: _exit takes an integer and does not return.
    unsafe { libc::_exit(status) }
}
