//! Runs a further process inside a running container.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use super::credentials::Launch;
use super::fork::{self, Fork};
use super::start::{Ends, Streams, load_filters, wait_for};
use super::sys::{self, check};
use super::task::{Exec, Process, Task};

/// Every kind of namespace that a container can have of its own.
const NAMESPACES: libc::c_int = libc::CLONE_NEWNS
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWNET
    | libc::CLONE_NEWCGROUP;

/// Starts the process; returns its pid and our ends of its streams.
pub fn exec(task: &Task, init: i32, exec: Exec) -> Result<(i32, Streams), String> {
    let mut process = Process { args: exec.args, tty: exec.tty, ..task.process.clone() };
    if process.tty && !process.env.iter().any(|pair| pair.starts_with("TERM=")) {
        process.env.push("TERM=xterm".to_owned());
    }
    let launch = Launch { filters: load_filters(&process)?, process, terminal: None, first: false };
    let (streams, ends) = Streams::open(exec.stdin, exec.tty).map_err(|error| format!("exec: {error}"))?;
    let (pid_read, pid_write) = sys::pipe().map_err(|error| format!("exec: {error}"))?;
    let (error_read, error_write) = sys::pipe().map_err(|error| format!("exec: {error}"))?;
    // SAFETY: a shim has one thread.
    let helper = match unsafe { fork::fork(false) }.map_err(|error| format!("exec: {error}"))? {
        Fork::Child => fork::exit(enter(task, init, launch, ends, pid_write, error_write)),
        Fork::Parent(helper) => helper,
    };
    drop((ends, pid_write, error_write));
    let pid =
        sys::read_all(pid_read).ok().and_then(|bytes| String::from_utf8(bytes).ok()?.parse::<i32>().ok());
    wait_for(helper);
    let failure = sys::read_all(error_read).unwrap_or_default();
    match pid {
        Some(pid) if failure.is_empty() => Ok((pid, streams.with_terminal()?)),
        pid => {
            if let Some(pid) = pid {
                wait_for(pid);
            }
            let text = String::from_utf8_lossy(&failure).into_owned();
            Err(if text.is_empty() { "cannot enter the container: it has ended".to_owned() } else { text })
        }
    }
}

/// Joins the container and forks the process there, as a child of the shim.
fn enter(task: &Task, init: i32, mut launch: Launch, ends: Ends, pid_write: OwnedFd, error: OwnedFd) -> i32 {
    for dir in &task.cgroups {
        // A hierarchy that cannot be joined does not count this process.
        let _ = sys::join_cgroup(dir);
    }
    if let Err(cause) = join_namespaces(init) {
        let _ = sys::write_some(&error, format!("cannot enter the container: {cause}").as_bytes());
        return 1;
    }
    // SAFETY: still one thread.
    match unsafe { fork::fork(true) } {
        Ok(Fork::Child) => {
            drop(pid_write);
            launch.terminal = ends.terminal.as_ref().map(AsRawFd::as_raw_fd);
            let failure = match ends.install() {
                Ok(()) => launch.run(),
                Err(cause) => cause.to_string(),
            };
            let _ = sys::write_some(&error, failure.as_bytes());
            127
        }
        Ok(Fork::Parent(pid)) => {
            let _ = sys::write_some(&pid_write, pid.to_string().as_bytes());
            0
        }
        Err(cause) => {
            let _ = sys::write_some(&error, format!("cannot fork: {cause}").as_bytes());
            1
        }
    }
}

fn join_namespaces(init: i32) -> std::io::Result<()> {
    // SAFETY: pidfd_open takes integers and returns a new descriptor.
    let pidfd = check(unsafe { libc::syscall(libc::SYS_pidfd_open, init, 0) } as libc::c_int)?;
    // SAFETY: the kernel has just made this descriptor for us.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    // SAFETY: setns on a valid pidfd; this process has one thread.
    check(unsafe { libc::setns(pidfd.as_raw_fd(), NAMESPACES) })?;
    Ok(())
}
