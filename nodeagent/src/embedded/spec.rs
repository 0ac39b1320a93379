//! From a container's configuration and its image to the runtime specification and the shim's task.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use nodeagent_core::runtime::{ContainerConfig, Propagation, RuntimeError};
use serde_json::{Value, json};

use super::state::SandboxRecord;
use crate::images::RunConfig;
use crate::shim::task::Process;

/// Capabilities by number, as the kernel counts them.
const CAPABILITIES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// What a container has unless it asks for more or less. MKNOD is left out: cgroup v2 would need a program to keep a
/// container from the devices whose nodes it makes.
const DEFAULT_CAPABILITIES: [&str; 13] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
];

/// Kernel files that containers must not read.
const MASKED: [&str; 11] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];

/// Kernel files that containers must not change.
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// The number of a capability.
pub fn capability(name: &str) -> Option<usize> {
    let name = name.strip_prefix("CAP_").unwrap_or(name);
    CAPABILITIES.iter().position(|known| *known == name)
}

/// The capabilities of a container as a bit mask.
pub fn capabilities(config: &ContainerConfig) -> Result<u64, RuntimeError> {
    let all = (1u64 << CAPABILITIES.len()) - 1;
    if config.security.privileged {
        return Ok(all);
    }
    let mask = |names: &[String]| {
        names.iter().try_fold(0u64, |mask, name| match name.to_ascii_uppercase().as_str() {
            "ALL" => Ok(all),
            name => capability(name)
                .map(|bit| mask | 1 << bit)
                .ok_or_else(|| RuntimeError::InvalidConfig(format!("unknown capability {name:?}"))),
        })
    };
    let drop = mask(&config.security.capabilities_drop)?;
    let add = mask(&config.security.capabilities_add)?;
    let default =
        DEFAULT_CAPABILITIES.iter().filter_map(|name| capability(name)).fold(0, |m, bit| m | 1u64 << bit);
    let explicit_drop =
        config.security.capabilities_drop.iter().any(|name| !name.eq_ignore_ascii_case("ALL"));
    // What is added explicitly survives `drop: [ALL]`, and what is dropped by name does not survive `add: [ALL]`.
    let kept = (default & !drop) | add;
    let named = config.security.capabilities_drop.iter().filter(|name| !name.eq_ignore_ascii_case("ALL"));
    let named: Vec<String> = named.cloned().collect();
    Ok(if explicit_drop && add == all { kept & !mask(&named)? } else { kept })
}

/// How the container's processes run.
pub fn process(config: &ContainerConfig, image: &RunConfig, hostname: &str) -> Result<Process, RuntimeError> {
    let mut args = if config.command.is_empty() { image.entrypoint.clone() } else { config.command.clone() };
    if !config.args.is_empty() {
        args.extend(config.args.iter().cloned());
    } else if config.command.is_empty() {
        args.extend(image.cmd.iter().cloned());
    }
    if args.is_empty() {
        return Err(RuntimeError::InvalidConfig("no command specified".to_owned()));
    }
    let mut env: BTreeMap<String, (usize, String)> = BTreeMap::new();
    let mut set = |name: &str, value: &str| {
        let position = env.len();
        env.entry(name.to_owned()).or_insert((position, String::new())).1 = value.to_owned();
    };
    set("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    if !hostname.is_empty() {
        set("HOSTNAME", hostname);
    }
    if config.tty {
        set("TERM", "xterm");
    }
    for pair in &image.env {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        set(name, value);
    }
    for (name, value) in &config.env {
        set(name, value);
    }
    let mut ordered: Vec<(usize, String)> =
        env.into_iter().map(|(name, (position, value))| (position, format!("{name}={value}"))).collect();
    ordered.sort();
    let id = |what: &str, id: Option<i64>| match id.map(u32::try_from) {
        None => Ok(None),
        Some(Ok(id)) => Ok(Some(id)),
        Some(Err(_)) => Err(RuntimeError::InvalidConfig(format!("{what} is out of range"))),
    };
    let uid = id("runAsUser", config.security.run_as_user)?;
    check_non_root(config, image, uid)?;
    let groups = config.security.supplemental_groups.iter().map(|group| u32::try_from(*group));
    Ok(Process {
        args,
        env: ordered.into_iter().map(|(_, pair)| pair).collect(),
        cwd: config
            .working_dir
            .clone()
            .filter(|dir| !dir.is_empty())
            .unwrap_or_else(|| image.working_dir.clone()),
        image_user: if uid.is_some() { String::new() } else { image.user.clone() },
        uid,
        gid: id("runAsGroup", config.security.run_as_group)?,
        groups: groups
            .collect::<Result<_, _>>()
            .map_err(|_| RuntimeError::InvalidConfig("a supplemental group is out of range".to_owned()))?,
        capabilities: capabilities(config)?,
        no_new_privileges: config.security.no_new_privileges,
        seccomp: Vec::new(),
        tty: config.tty,
    })
}

fn check_non_root(config: &ContainerConfig, image: &RunConfig, uid: Option<u32>) -> Result<(), RuntimeError> {
    if !config.security.run_as_non_root {
        return Ok(());
    }
    let refuse =
        |why: String| Err(RuntimeError::InvalidConfig(format!("container has runAsNonRoot and {why}")));
    let name = image.user.split(':').next().unwrap_or_default();
    match (uid, name) {
        (Some(0), _) => refuse("container will run as root".to_owned()),
        (Some(_), _) => Ok(()),
        (None, "" | "0") => refuse("image will run as root".to_owned()),
        (None, name) if name.parse::<u32>().is_ok() => Ok(()),
        (None, name) => {
            refuse(format!("image has non-numeric user ({name}), cannot verify user is non-root"))
        }
    }
}

/// The runtime specification of a container.
pub fn runtime_spec(
    config: &ContainerConfig,
    sandbox: &SandboxRecord,
    sandbox_dir: &Path,
    cgroup_path: &str,
    looks_into: Option<i32>,
) -> Value {
    let privileged = config.security.privileged;
    let mut linux = json!({
        "namespaces": namespaces(sandbox, sandbox_dir, looks_into),
        "cgroupsPath": cgroup_path,
        "maskedPaths": if privileged { Vec::new() } else { MASKED.to_vec() },
        "readonlyPaths": if privileged { Vec::new() } else { READ_ONLY.to_vec() },
    });
    if config.mounts.iter().any(|mount| mount.propagation == Propagation::Bidirectional) {
        linux["rootfsPropagation"] = json!("shared");
    }
    if privileged {
        linux["devices"] = json!(host_devices());
    }
    json!({
        "ociVersion": "1.0.2",
        "root": {"path": "rootfs", "readonly": config.security.read_only_root},
        // Credentials are set by the shim's own last step.
        "process": {
            "user": {"uid": 0, "gid": 0}, "args": ["-"], "env": [], "cwd": "/", "terminal": false,
        },
        "mounts": mounts(config, sandbox, sandbox_dir),
        "linux": linux,
    })
}

fn namespaces(sandbox: &SandboxRecord, sandbox_dir: &Path, looks_into: Option<i32>) -> Vec<Value> {
    let mut list = vec![json!({"type": "mount"}), json!({"type": "cgroup"})];
    let mut join = |kind: &str, path: PathBuf| list.push(json!({"type": kind, "path": path}));
    match (&sandbox.netns, sandbox.host_network) {
        (Some(path), _) => join("network", path.clone()),
        (None, true) => {}
        (None, false) => join("network", sandbox_dir.join("ns/net")),
    }
    if !sandbox.host_ipc {
        join("ipc", sandbox_dir.join("ns/ipc"));
    }
    if sandbox.own_uts() {
        join("uts", sandbox_dir.join("ns/uts"));
    }
    if let Some(pid) = looks_into.filter(|_| !sandbox.host_pid) {
        join("pid", PathBuf::from(format!("/proc/{pid}/ns/pid")));
    } else if sandbox.share_pid && !sandbox.host_pid {
        join("pid", sandbox_dir.join("ns/pid"));
    } else if !sandbox.host_pid {
        list.push(json!({"type": "pid"}));
    }
    list
}

fn mounts(config: &ContainerConfig, sandbox: &SandboxRecord, sandbox_dir: &Path) -> Vec<Value> {
    let privileged = config.security.privileged;
    let entry = |to: &str, kind: &str, from: &str, options: &[&str]| json!({"destination": to, "type": kind, "source": from, "options": options});
    let shown = if privileged { "rw" } else { "ro" };
    let mut list = vec![
        entry("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
        entry("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        entry(
            "/dev/pts",
            "devpts",
            "devpts",
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        ),
        entry("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
        entry("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", shown]),
        entry("/sys/fs/cgroup", "cgroup", "cgroup", &["nosuid", "noexec", "nodev", "relatime", shown]),
    ];
    let shm = if sandbox.host_ipc { PathBuf::from("/dev/shm") } else { sandbox_dir.join("shm") };
    list.push(json!({
        "destination": "/dev/shm", "type": "bind", "source": shm, "options": ["rbind", "nosuid", "noexec", "nodev"],
    }));
    let mut volumes: Vec<_> = config.mounts.iter().collect();
    // A volume inside another one comes after it.
    volumes.sort_by_key(|mount| mount.container_path.components().count());
    for volume in volumes {
        list.retain(|earlier| earlier["destination"] != json!(volume.container_path));
        let propagation = match volume.propagation {
            Propagation::None => "rprivate",
            Propagation::HostToContainer => "rslave",
            Propagation::Bidirectional => "rshared",
        };
        let mode = if volume.read_only { "ro" } else { "rw" };
        list.push(json!({
            "destination": volume.container_path,
            "type": "bind",
            "source": volume.host_path,
            "options": ["rbind", propagation, mode],
        }));
    }
    list
}

/// The machine's devices, for privileged containers.
fn host_devices() -> Vec<Value> {
    let mut devices = Vec::new();
    let mut pending = vec![PathBuf::from("/dev")];
    while let Some(dir) = pending.pop() {
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            let (path, Ok(meta)) = (entry.path(), entry.metadata()) else { continue };
            let kind = meta.file_type();
            if kind.is_dir() {
                if !["/dev/pts", "/dev/shm", "/dev/mqueue", "/dev/fd"]
                    .iter()
                    .any(|skip| path == Path::new(skip))
                {
                    pending.push(path);
                }
                continue;
            }
            if !(kind.is_char_device() || kind.is_block_device()) || path == Path::new("/dev/console") {
                continue;
            }
            devices.push(json!({
                "path": path,
                "type": if kind.is_char_device() { "c" } else { "b" },
                "major": libc::major(meta.rdev()),
                "minor": libc::minor(meta.rdev()),
                "fileMode": meta.mode() & 0o777,
                "uid": meta.uid(),
                "gid": meta.gid(),
            }));
        }
    }
    devices
}

#[cfg(test)]
mod tests;
