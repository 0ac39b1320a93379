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

/// Serves requests on descriptor 0 (a SOCK_SEQPACKET pair): a container's directory with the listening socket of its
/// shim. Each is answered with the shim's pid as decimal text. The arguments are cgroup directories to move to.
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
        let Some(listener) = listener else { continue };
        // SAFETY: this process has never made a thread.
        match unsafe { fork::fork(false) } {
            Ok(Fork::Child) => {
                drop(agent);
                let dir = Path::new(OsStr::from_bytes(&buffer[..length]));
                fork::exit(i32::from(server::run(dir, UnixListener::from(listener)).is_err()));
            }
            Ok(Fork::Parent(pid)) => answer(&agent, pid.to_string().as_bytes()),
            Err(error) => answer(&agent, format!("!{error}").as_bytes()),
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
