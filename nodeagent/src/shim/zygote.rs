//! Forks shims on demand. Lives as long as the agent needs it, and comes back when it is needed again.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::ExitCode;

use super::fork::{self, Fork};
use super::{server, sys};

/// An idle zygote gives its memory back after this long.
const IDLE_MS: i32 = 15_000;

/// Longest path of a container's directory.
const MAX_REQUEST: usize = 4096;

/// First byte of a request for a shim; a container's directory and the listening socket of its shim follow.
pub const SHIM: u8 = b'S';
/// First byte of a request for the first process of a PID namespace; the path to pin the namespace at follows.
pub const PAUSE: u8 = b'P';

/// Serves requests on descriptor 0 (a SOCK_SEQPACKET pair). Each is answered with a pid as decimal text, or with `!` and
/// a reason. The arguments are cgroup directories to move to.
pub fn run(cgroups: impl Iterator<Item = OsString>) -> ExitCode {
    prepare(cgroups);
    // SAFETY: descriptor 0 is the socket that the agent gave us, and nothing else in this process uses it.
    let agent = unsafe { OwnedFd::from_raw_fd(0) };
    let mut buffer = [0u8; MAX_REQUEST];
    loop {
        let mut poll = libc::pollfd { fd: agent.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one valid pollfd.
        match unsafe { libc::poll(&mut poll, 1, IDLE_MS) } {
            0 => return ExitCode::SUCCESS,
            n if n < 0 => continue,
            _ => {}
        }
        let (length, listener) = match sys::receive_fd(agent.as_fd(), &mut buffer) {
            Ok((0, _)) | Err(_) => return ExitCode::SUCCESS,
            Ok(received) => received,
        };
        let Some((&kind, path)) = buffer[..length].split_first() else { continue };
        let path = Path::new(OsStr::from_bytes(path));
        // SAFETY: this process has never made a thread.
        match unsafe { fork::fork(false) } {
            Ok(Fork::Child) => fork::exit(child(agent, kind, path, listener)),
            Ok(Fork::Parent(pid)) if kind == SHIM => answer(&agent, pid.to_string().as_bytes()),
            // The child answers with the pid of the process that it has made.
            Ok(Fork::Parent(_)) => {}
            Err(error) => answer(&agent, format!("!{error}").as_bytes()),
        }
    }
}

fn child(agent: OwnedFd, kind: u8, path: &Path, listener: Option<OwnedFd>) -> i32 {
    match (kind, listener) {
        (SHIM, Some(listener)) => {
            drop(agent);
            // Takes descriptor 0, which must not become anything else: processes get their own there.
            let _null = std::fs::File::open("/dev/null");
            i32::from(server::run(path, UnixListener::from(listener)).is_err())
        }
        (PAUSE, _) => match pause(path) {
            Ok(pid) => {
                answer(&agent, pid.to_string().as_bytes());
                0
            }
            Err(error) => {
                answer(&agent, format!("!{error}").as_bytes());
                1
            }
        },
        _ => {
            answer(&agent, b"!unknown request");
            1
        }
    }
}

/// Makes a PID namespace with a first process that only reaps, and pins it.
fn pause(pin: &Path) -> std::io::Result<i32> {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWPID)?;
    // SAFETY: still one thread.
    match unsafe { fork::fork(false) }? {
        Fork::Child => {
            // SAFETY: closes what the process does not need, names it, and sleeps for ever; children are reaped by the
            // kernel because SIGCHLD is ignored.
            unsafe {
                libc::close(0);
                libc::setsid();
                libc::prctl(libc::PR_SET_NAME, c"orlop-pause".as_ptr());
                loop {
                    libc::pause();
                }
            }
        }
        Fork::Parent(pid) => {
            std::fs::File::create(pin)?;
            let pinned = crate::netns::bind(Path::new(&format!("/proc/{pid}/ns/pid")), pin);
            if pinned.is_err() {
                // SAFETY: kill takes integers; the process is our child.
                unsafe { libc::kill(pid, libc::SIGKILL) };
            }
            pinned.map(|()| pid)
        }
    }
}

fn answer(agent: &OwnedFd, text: &[u8]) {
    // An agent that is gone needs no answer.
    let _ = sys::write_some(agent, text);
}

fn prepare(cgroups: impl Iterator<Item = OsString>) {
    let _ = nix::unistd::setsid();
    for dir in cgroups {
        // Without this cgroup the shim merely counts as part of the agent.
        let _ = sys::join_cgroup(Path::new(&dir));
    }
    // SAFETY: plain prctl and signal calls; ignored SIGCHLD lets the kernel reap shims.
    unsafe {
        libc::prctl(libc::PR_SET_NAME, c"orlop-shim".as_ptr());
        libc::signal(libc::SIGCHLD, libc::SIG_IGN);
        libc::signal(libc::SIGINT, libc::SIG_IGN);
        libc::signal(libc::SIGHUP, libc::SIG_IGN);
        libc::signal(libc::SIGTERM, libc::SIG_DFL);
    }
    let _ = std::env::set_current_dir("/");
}
