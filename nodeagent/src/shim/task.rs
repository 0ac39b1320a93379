//! What the agent leaves in a container's directory for its shim, and what the shim leaves there for the agent.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Name of the file with a [`Task`].
pub const TASK_FILE: &str = "task.json";
/// Name of the file with a [`Started`].
pub const STARTED_FILE: &str = "started.json";
/// Name of the file with an [`Exited`].
pub const EXITED_FILE: &str = "exited.json";
/// Name of the shim's socket.
pub const SOCKET_FILE: &str = "shim.sock";

/// How to start a container.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Task {
    /// Layers of the root file system, topmost first, relative to `layers_dir`.
    pub layers: Vec<String>,
    /// Where the layers are.
    pub layers_dir: PathBuf,
    /// The first process.
    pub process: Process,
    /// Directories of the container's cgroup, one a hierarchy.
    pub cgroups: Vec<PathBuf>,
    /// Path of the cgroup inside each hierarchy.
    pub cgroup_path: String,
    /// `oom_score_adj` of the first process.
    pub oom_score_adj: Option<i32>,
    /// Where the log goes.
    pub log_path: PathBuf,
    /// Keep standard input open.
    pub stdin: bool,
    /// Close standard input after the first attach ends.
    pub stdin_once: bool,
    /// A mount of the container must be seen by the node.
    pub shared_mounts: bool,
    /// The container has a PID namespace of its own, so that its processes die with the first one.
    pub own_pid_namespace: bool,
    /// Identifies this run of the machine.
    pub boot_id: String,
}

/// How a process inside a container is to run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Program and arguments.
    pub args: Vec<String>,
    /// `NAME=value`.
    pub env: Vec<String>,
    /// Working directory.
    pub cwd: String,
    /// User of the image's configuration, as written there; names are looked up inside.
    pub image_user: String,
    /// User id; from `image_user` when absent.
    pub uid: Option<u32>,
    /// Group id; from `image_user` when absent.
    pub gid: Option<u32>,
    /// Groups beside the primary one.
    pub groups: Vec<u32>,
    /// Capabilities as a bit mask: bounding set, and for uid 0 also the others.
    pub capabilities: u64,
    /// Sets `no_new_privs`.
    pub no_new_privileges: bool,
    /// Compiled system call filters, applied in order.
    pub seccomp: Vec<PathBuf>,
    /// Runs on a terminal of its own.
    pub tty: bool,
}

/// A process to be run beside the first one.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Exec {
    /// Program and arguments.
    pub args: Vec<String>,
    /// Standard input is connected.
    pub stdin: bool,
    /// It runs on a terminal.
    pub tty: bool,
    /// It is killed when the connection closes.
    pub kill_on_close: bool,
}

/// Written when the first process runs.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Started {
    /// First process, as the node numbers it.
    pub pid: i32,
    /// Its start in clock ticks since boot: pids are used again.
    pub pid_start: u64,
    /// The shim.
    pub shim: i32,
    /// The shim's start.
    pub shim_start: u64,
    /// Nanoseconds since 1970.
    pub at: i64,
    /// Run of the machine.
    pub boot_id: String,
}

/// Written when the first process has ended or could not be started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exited {
    /// Exit status, or 128 + signal.
    pub code: i32,
    /// Nanoseconds since 1970.
    pub at: i64,
    /// Killed by the kernel for lack of memory.
    pub oom_killed: bool,
    /// Why it could not start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_error: Option<String>,
    /// The exit status is not known: the shim was lost.
    #[serde(default)]
    pub lost: bool,
}
