//! Creates and starts a container's first process, with libcontainer, in a short-lived child of the shim.
//!
//! libcontainer changes its process (working directory, dumpable flag, mount namespace, heap); doing it in a child keeps
//! the shim as it was. The first process becomes the shim's own child when that helper ends, for the shim is a subreaper.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use libcontainer::container::builder::ContainerBuilder;
use libcontainer::oci_spec::runtime::Spec;
use libcontainer::syscall::syscall::SyscallType;
use libcontainer::workload::{Executor, ExecutorError, ExecutorSetEnvsError, ExecutorValidationError};
use nix::mount::{MsFlags, mount};

use super::credentials::Launch;
use super::fork::{self, Fork};
use super::sys::{self, check};
use super::task::{Process, Task};

/// The shim's ends of a process's streams.
#[derive(Debug, Default)]
pub struct Streams {
    /// Towards the process.
    pub stdin: Option<OwnedFd>,
    /// From the process; a terminal's master carries everything.
    pub stdout: Option<OwnedFd>,
    /// From the process.
    pub stderr: Option<OwnedFd>,
    /// Where the terminal's master arrives.
    terminal: Option<OwnedFd>,
}

/// The process's ends of its streams.
#[derive(Debug, Default)]
pub struct Ends {
    stdin: Option<OwnedFd>,
    stdout: Option<OwnedFd>,
    stderr: Option<OwnedFd>,
    /// Where the terminal's master is sent.
    pub terminal: Option<OwnedFd>,
}

// === impl Streams ===

impl Streams {
    /// Makes both sides: pipes, or a socket over which a terminal's master will come.
    pub fn open(stdin: bool, tty: bool) -> io::Result<(Streams, Ends)> {
        let (mut ours, mut theirs) = (Streams::default(), Ends::default());
        if tty {
            use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
            let (a, b) = socketpair(AddressFamily::Unix, SockType::Stream, None, SockFlag::SOCK_CLOEXEC)?;
            ours.terminal = Some(a);
            theirs.terminal = Some(b);
            return Ok((ours, theirs));
        }
        if stdin {
            let (read, write) = sys::pipe()?;
            (theirs.stdin, ours.stdin) = (Some(read), Some(write));
        }
        let (read, write) = sys::pipe()?;
        (ours.stdout, theirs.stdout) = (Some(read), Some(write));
        let (read, write) = sys::pipe()?;
        (ours.stderr, theirs.stderr) = (Some(read), Some(write));
        for fd in [&ours.stdin, &ours.stdout, &ours.stderr].into_iter().flatten() {
            sys::set_nonblocking(fd)?;
        }
        Ok((ours, theirs))
    }

    /// Takes the terminal's master that the started process has sent.
    pub fn with_terminal(mut self) -> Result<Streams, String> {
        let Some(socket) = self.terminal.take() else { return Ok(self) };
        let mut byte = [0u8; 1];
        let (_, master) = sys::receive_fd(socket.as_fd(), &mut byte).map_err(|error| error.to_string())?;
        let master = master.ok_or_else(|| "the process has opened no terminal".to_owned())?;
        let clone = master.try_clone().and_then(|clone| sys::set_nonblocking(&clone).map(|()| clone));
        self.stdin = Some(clone.map_err(|error| error.to_string())?);
        self.stdout = Some(master);
        Ok(self)
    }
}

impl Ends {
    /// Makes these the standard streams of this process.
    pub fn install(&self) -> io::Result<()> {
        let null = File::options().read(true).write(true).custom_flags(libc::O_CLOEXEC).open("/dev/null");
        for (target, end) in [(0, &self.stdin), (1, &self.stdout), (2, &self.stderr)] {
            let source = match (end, &null) {
                (Some(end), _) => end.as_raw_fd(),
                (None, Ok(null)) => null.as_raw_fd(),
                (None, Err(_)) => continue,
            };
            // SAFETY: dup2 onto a standard stream of a process that is about to exec.
            check(unsafe { libc::dup2(source, target) })?;
        }
        Ok(())
    }
}

/// Reaps one child.
pub fn wait_for(pid: i32) {
    // SAFETY: waitpid on a child of ours without a status pointer.
    while unsafe { libc::waitpid(pid, std::ptr::null_mut(), libc::__WALL) } < 0 {
        if io::Error::last_os_error().raw_os_error() != Some(libc::EINTR) {
            return;
        }
    }
}

/// Reads the compiled filters of a process.
pub fn load_filters(process: &Process) -> Result<Vec<Vec<u8>>, String> {
    let load = |path: &std::path::PathBuf| {
        std::fs::read(path)
            .map_err(|error| format!("cannot read the seccomp filter {}: {error}", path.display()))
    };
    process.seccomp.iter().map(load).collect()
}

/// Creates and starts the container of this directory; returns the first process's pid and its streams.
pub fn start(dir: &Path, task: &Task) -> Result<(i32, Streams), String> {
    let launch = Launch {
        filters: load_filters(&task.process)?,
        process: task.process.clone(),
        terminal: None,
        first: true,
    };
    let io_error = |error: io::Error| format!("cannot prepare the container: {error}");
    let (streams, ends) = Streams::open(task.stdin, task.process.tty).map_err(io_error)?;
    let (result_read, result_write) = sys::pipe().map_err(io_error)?;
    let (error_read, error_write) = sys::pipe().map_err(io_error)?;
    // SAFETY: a shim has one thread.
    let helper = match unsafe { fork::fork(false) }.map_err(io_error)? {
        Fork::Child => {
            drop((result_read, error_read));
            let text = match create(dir, task, launch, ends, error_write) {
                Ok(pid) => pid.to_string(),
                Err(error) => format!("!{error}"),
            };
            let _ = sys::write_some(&result_write, text.as_bytes());
            fork::exit(0);
        }
        Fork::Parent(helper) => helper,
    };
    drop((ends, result_write, error_write));
    let result = String::from_utf8_lossy(&sys::read_all(result_read).map_err(io_error)?).into_owned();
    wait_for(helper);
    let failure = sys::read_all(error_read).map_err(io_error)?;
    let pid = match (result.strip_prefix('!'), result.parse::<i32>()) {
        (None, Ok(pid)) => pid,
        (Some(error), _) => return Err(error.to_owned()),
        (None, Err(_)) => return Err("the process that creates the container was killed".to_owned()),
    };
    if !failure.is_empty() {
        wait_for(pid);
        return Err(String::from_utf8_lossy(&failure).into_owned());
    }
    Ok((pid, streams.with_terminal()?))
}

/// The helper's work: root file system, namespaces, first process.
fn create(dir: &Path, task: &Task, launch: Launch, ends: Ends, error: OwnedFd) -> Result<i32, String> {
    if let Some(adjust) = task.oom_score_adj {
        // A value below the present one needs CAP_SYS_RESOURCE, which not every machine gives to root.
        let _ = std::fs::write("/proc/self/oom_score_adj", adjust.to_string());
    }
    mount_root(dir, task).map_err(|error| format!("cannot mount the root file system: {error}"))?;
    ends.install().map_err(|error| error.to_string())?;
    let first = First {
        launch: Launch { terminal: ends.terminal.as_ref().map(AsRawFd::as_raw_fd), ..launch },
        error: error.as_raw_fd(),
    };
    let id = dir.file_name().and_then(|name| name.to_str()).unwrap_or("container").to_owned();
    let mut container = ContainerBuilder::new(id, SyscallType::Linux)
        .with_executor(first)
        .with_root_path(dir.join("libcontainer"))
        .map_err(|error| chain(&error))?
        .as_init(dir)
        .with_systemd(false)
        .with_detach(true)
        .build()
        .map_err(|error| chain(&error))?;
    container.start().map_err(|error| chain(&error))?;
    container.pid().map(|pid| pid.as_raw()).ok_or_else(|| "the container has no process".to_owned())
}

/// Mounts the layers in a mount namespace of our own: when the container and its shim are gone, so is the mount.
fn mount_root(dir: &Path, task: &Task) -> io::Result<()> {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS)?;
    if !task.shared_mounts {
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_SLAVE, None::<&str>)?;
    }
    // Short relative names and a descriptor keep the options within one page and free of special characters.
    std::env::set_current_dir(&task.layers_dir)?;
    let own_dir = File::options().read(true).custom_flags(libc::O_DIRECTORY | libc::O_CLOEXEC).open(dir)?;
    let own = format!("/proc/self/fd/{}", own_dir.as_raw_fd());
    let options = format!("lowerdir={},upperdir={own}/upper,workdir={own}/work", task.layers.join(":"));
    let root = dir.join("rootfs");
    let attempt =
        |options: &str| mount(Some("overlay"), &root, Some("overlay"), MsFlags::empty(), Some(options));
    // Nothing in a container's own layer outlives a crash of the machine: no need to sync it.
    if attempt(&format!("{options},volatile")).is_err() {
        attempt(&options)?;
    }
    std::env::set_current_dir("/")?;
    Ok(())
}

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        let next_text = next.to_string();
        if !text.contains(&next_text) {
            text = format!("{text}: {next_text}");
        }
        cause = next.source();
    }
    text
}

/// Replaces libcontainer's last step by ours: it knows neither our filters nor our error pipe.
#[derive(Clone)]
struct First {
    launch: Launch,
    error: i32,
}

impl Executor for First {
    fn exec(&self, _: &Spec) -> Result<(), ExecutorError> {
        let failure = self.launch.run();
        // SAFETY: the descriptor stays open until exec; the bytes are valid.
        unsafe { libc::write(self.error, failure.as_ptr().cast(), failure.len()) };
        fork::exit(128)
    }

    fn validate(&self, _: &Spec) -> Result<(), ExecutorValidationError> {
        Ok(())
    }

    fn setup_envs(&self, _: std::collections::HashMap<String, String>) -> Result<(), ExecutorSetEnvsError> {
        Ok(())
    }
}
