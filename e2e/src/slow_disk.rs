//! A disk that is slow for one process: the kernel holds its syncs back for as long as a test says.
//!
//! The process starts under a seccomp filter that asks before each `fdatasync`, `fsync` and synchronous `pwritev2`
//! (`seccomp_unotify(2)`). A thread of the test answers when the delay is over, and the kernel carries the call out as if
//! nobody had been asked. Everything else that the process does is as fast as ever.

use std::fs;
use std::io;
use std::mem::offset_of;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// What the kernel calls the end at which it is answered.
const LISTENER: &str = "anon_inode:seccomp notify";

/// Where a filter sees the number of the call, and the lower half of its sixth argument.
const NUMBER: u32 = offset_of!(libc::seccomp_data, nr) as u32;
const SIXTH: u32 = (offset_of!(libc::seccomp_data, args) + 5 * size_of::<u64>()) as u32;

/// Asks before calls that wait for the disk, and allows the rest. All calls are of this machine's own kind: nothing here
/// runs programs of another.
static FILTER: [libc::sock_filter; 8] = [
    instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, NUMBER, 0, 0),
    instruction(IF_EQUAL, libc::SYS_fdatasync as u32, 4, 0),
    instruction(IF_EQUAL, libc::SYS_fsync as u32, 3, 0),
    instruction(IF_EQUAL, libc::SYS_pwritev2 as u32, 0, 3),
    instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, SIXTH, 0, 0),
    instruction(
        libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K,
        (libc::RWF_DSYNC | libc::RWF_SYNC) as u32,
        0,
        1,
    ),
    instruction(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_USER_NOTIF, 0, 0),
    instruction(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW, 0, 0),
];
const IF_EQUAL: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;

/// `jt` and `jf` instructions are left out where the comparison holds, and where it does not.
const fn instruction(code: u32, k: u32, jt: u8, jf: u8) -> libc::sock_filter {
    libc::sock_filter { code: code as u16, jt, jf, k }
}

/// The disk of one process.
pub struct SlowDisk {
    shared: Arc<Shared>,
}

struct Shared {
    listener: OwnedFd,
    delay_ms: AtomicU64,
    delayed: AtomicU64,
}

// === impl SlowDisk ===

impl SlowDisk {
    /// Has the process that `command` starts ask before each sync. It waits until [`SlowDisk::of`] answers.
    pub fn prepare(command: &mut Command) {
        // SAFETY: between fork and exec the function makes two system calls and allocates nothing.
        unsafe { command.pre_exec(ask_before_syncs) };
    }

    /// Answers the process, which was prepared and has just been started: without a delay, until one is set.
    ///
    /// # Errors
    /// When the process does not ask.
    pub fn of(pid: u32) -> Result<SlowDisk> {
        let listener =
            listener(pid).with_context(|| format!("process {pid} does not ask before it syncs"))?;
        let shared = Arc::new(Shared { listener, delay_ms: AtomicU64::new(0), delayed: AtomicU64::new(0) });
        let answering = shared.clone();
        std::thread::Builder::new().name("slow-disk".into()).spawn(move || answering.answer())?;
        Ok(SlowDisk { shared })
    }

    /// From now on each sync takes so long besides its own time.
    pub fn set_delay(&self, delay: Duration) {
        self.shared.delay_ms.store(u64::try_from(delay.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// How many syncs were delayed so far.
    pub fn delayed(&self) -> u64 {
        self.shared.delayed.load(Ordering::Relaxed)
    }
}

/// Runs in the child, after the fork.
fn ask_before_syncs() -> io::Result<()> {
    let program = libc::sock_fprog { len: FILTER.len() as u16, filter: FILTER.as_ptr().cast_mut() };
    let (what, how) = (libc::SECCOMP_SET_MODE_FILTER, libc::SECCOMP_FILTER_FLAG_NEW_LISTENER);
    // SAFETY: the kernel reads the program, which lives longer than the call.
    let listener = unsafe { libc::syscall(libc::SYS_seccomp, what, how, &raw const program) };
    let listener = i32::try_from(listener).ok().filter(|it| *it >= 0).ok_or_else(io::Error::last_os_error)?;
    // It outlives the exec, so that there is always somebody to ask until the test has its own copy.
    // SAFETY: changes a flag of a descriptor that was just made.
    match unsafe { libc::fcntl(listener, libc::F_SETFD, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Takes a copy of the end at which a process is answered.
fn listener(pid: u32) -> Result<OwnedFd> {
    let mut number = None;
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))? {
        let entry = entry?;
        if fs::read_link(entry.path()).is_ok_and(|target| target.as_os_str() == LISTENER) {
            number = Some(entry.file_name().to_string_lossy().parse::<i32>()?);
        }
    }
    let number = number.context("it has no such descriptor")?;
    // SAFETY: plain numbers go in, and a descriptor that nobody else owns comes out.
    let process = unsafe { own(libc::syscall(libc::SYS_pidfd_open, pid, 0))? };
    // SAFETY: as above.
    Ok(unsafe { own(libc::syscall(libc::SYS_pidfd_getfd, process.as_raw_fd(), number, 0))? })
}

/// # Safety
/// `returned` is what a system call returned that makes a descriptor.
unsafe fn own(returned: libc::c_long) -> io::Result<OwnedFd> {
    match i32::try_from(returned) {
        // SAFETY: the caller says that it is new.
        Ok(number) if number >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(number) }),
        _ => Err(io::Error::last_os_error()),
    }
}

// === impl Shared ===

impl Shared {
    /// Answers until the process has ended.
    fn answer(self: Arc<Self>) {
        while let Ok(Some(id)) = self.next() {
            let delay = Duration::from_millis(self.delay_ms.load(Ordering::Relaxed));
            if delay.is_zero() {
                self.carry_on(id);
                continue;
            }
            self.delayed.fetch_add(1, Ordering::Relaxed);
            let shared = self.clone();
            // The next one may come from another thread of the process.
            std::thread::spawn(move || {
                std::thread::sleep(delay);
                shared.carry_on(id);
            });
        }
    }

    /// The next question; `None`: there will be none.
    fn next(&self) -> Result<Option<u64>> {
        loop {
            let mut waits = [PollFd::new(self.listener.as_fd(), PollFlags::POLLIN)];
            poll(&mut waits, PollTimeout::NONE)?;
            let seen = waits[0].revents().unwrap_or(PollFlags::POLLERR);
            if !seen.contains(PollFlags::POLLIN) {
                ensure!(seen.contains(PollFlags::POLLHUP), "{seen:?}");
                return Ok(None);
            }
            // SAFETY: the structure is numbers only, and the kernel wants it all zero.
            let mut asked: libc::seccomp_notif = unsafe { std::mem::zeroed() };
            // SAFETY: the kernel writes one such structure.
            let got = unsafe {
                libc::ioctl(self.listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_RECV, &raw mut asked)
            };
            match (got, io::Error::last_os_error()) {
                (0, _) => return Ok(Some(asked.id)),
                // Who asked was killed meanwhile, or this thread was interrupted.
                (_, error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EINTR)) => {}
                (_, error) => return Err(error.into()),
            }
        }
    }

    /// Has the kernel carry a call out.
    fn carry_on(&self, id: u64) {
        let flags = libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32;
        let answer = libc::seccomp_notif_resp { id, val: 0, error: 0, flags };
        // SAFETY: the kernel reads one such structure. It refuses when who asked was killed meanwhile.
        unsafe { libc::ioctl(self.listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SEND, &raw const answer) };
    }
}

#[cfg(test)]
mod tests {
    use std::process::Stdio;
    use std::time::Instant;

    use super::*;

    #[test]
    fn a_process_waits_for_its_syncs_and_for_nothing_else() {
        if !nix::unistd::geteuid().is_root() {
            println!("needs root");
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "read go; sync file; echo well"]).current_dir(folder.path());
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        fs::write(folder.path().join("file"), "text").unwrap();
        SlowDisk::prepare(&mut command);
        let mut child = command.spawn().unwrap();
        let disk = SlowDisk::of(child.id()).unwrap();
        disk.set_delay(Duration::from_millis(300));
        let began = Instant::now();
        drop(child.stdin.take());
        let output = child.wait_with_output().unwrap();
        assert!(began.elapsed() >= Duration::from_millis(300), "{:?}", began.elapsed());
        assert_eq!((String::from_utf8_lossy(&output.stdout).trim(), disk.delayed()), ("well", 1));
    }
}
