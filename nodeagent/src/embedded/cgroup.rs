//! The part of the cgroup tree that belongs to one node, in version 1 (several hierarchies) and version 2.
//!
//! A controller that is missing, or a limit that the kernel refuses, leaves that limit unset: containers run without it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nodeagent_core::runtime::Resources;

/// How this machine arranges its cgroups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cgroups {
    version: Version,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Version {
    /// Controllers and mount point of each hierarchy.
    One(Vec<(Vec<String>, PathBuf)>),
    /// Mount point.
    Two(PathBuf),
}

/// Processor time and memory of a cgroup.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Processor time since the start.
    pub cpu: Duration,
    /// Memory that cannot be reclaimed easily.
    pub working_set: u64,
}

/// Devices that every container may use, as cgroup v1 rules; making nodes is allowed, using other ones is not.
const DEVICE_RULES: [&str; 11] = [
    "c *:* m",
    "b *:* m",
    "c 1:3 rwm",
    "c 1:5 rwm",
    "c 1:7 rwm",
    "c 1:8 rwm",
    "c 1:9 rwm",
    "c 5:0 rwm",
    "c 5:1 rwm",
    "c 5:2 rwm",
    "c 136:* rwm",
];

// === impl Cgroups ===

impl Cgroups {
    /// Looks at the mounts of this machine.
    pub fn detect() -> io::Result<Cgroups> {
        Ok(Self::parse(&fs::read_to_string("/proc/self/mountinfo")?))
    }

    fn parse(mountinfo: &str) -> Cgroups {
        let mut hierarchies = Vec::new();
        let mut unified = PathBuf::from("/sys/fs/cgroup");
        for line in mountinfo.lines() {
            let Some((before, after)) = line.split_once(" - ") else { continue };
            let (Some(target), mut fields) = (before.split(' ').nth(4), after.split(' ')) else { continue };
            match fields.next() {
                Some("cgroup") => {
                    let options = fields.nth(1).unwrap_or_default();
                    let known = ["cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "pids"];
                    let others = ["hugetlb", "net_cls", "net_prio", "perf_event", "rdma"];
                    let controllers: Vec<String> = options
                        .split(',')
                        .filter(|option| known.contains(option) || others.contains(option))
                        .map(str::to_owned)
                        .collect();
                    let target = PathBuf::from(target);
                    if !controllers.is_empty() && !hierarchies.iter().any(|(_, known)| *known == target) {
                        hierarchies.push((controllers, target));
                    }
                }
                Some("cgroup2") => unified = PathBuf::from(target),
                _ => {}
            }
        }
        let version = if hierarchies.is_empty() { Version::Two(unified) } else { Version::One(hierarchies) };
        Cgroups { version }
    }

    /// The directories of a cgroup, one a hierarchy.
    pub fn dirs(&self, path: &str) -> Vec<PathBuf> {
        let below = |mount: &PathBuf| mount.join(path.trim_start_matches('/'));
        match &self.version {
            Version::One(hierarchies) => hierarchies.iter().map(|(_, mount)| below(mount)).collect(),
            Version::Two(mount) => vec![below(mount)],
        }
    }

    fn dir_of(&self, controller: &str, path: &str) -> Option<PathBuf> {
        let mount = match &self.version {
            Version::One(hierarchies) => {
                &hierarchies
                    .iter()
                    .find(|(controllers, _)| controllers.iter().any(|name| name == controller))?
                    .1
            }
            Version::Two(mount) => mount,
        };
        Some(mount.join(path.trim_start_matches('/')))
    }

    /// Makes a cgroup with its parents and sets its limits.
    pub fn create(&self, path: &str, resources: &Resources) -> io::Result<()> {
        match &self.version {
            Version::One(hierarchies) => {
                for (controllers, mount) in hierarchies {
                    let cpuset = controllers.iter().any(|name| name == "cpuset");
                    create_v1(mount, path, cpuset)?;
                }
            }
            Version::Two(mount) => create_v2(mount, path)?,
        }
        if let Err(error) = self.limit(path, resources) {
            tracing::debug!(path, %error, "a container runs without a limit");
        }
        Ok(())
    }

    /// Sets the limits of a cgroup. The processor and the memory limit must hold; the rest, and what no controller is there for,
    /// may stay unset.
    ///
    /// # Errors
    /// When the kernel refuses one of these two, for example memory below what is used.
    pub fn limit(&self, path: &str, resources: &Resources) -> io::Result<()> {
        let one = matches!(self.version, Version::One(_));
        let mut refused = Ok(());
        let mut set = |controller: &str, file: &str, value: String| {
            let Some(dir) = self.dir_of(controller, path) else { return };
            if let Err(error) = fs::write(dir.join(file), &value) {
                tracing::debug!(path, file, value, %error, "cgroup limit not set");
                if ["cpu.cfs_quota_us", "cpu.max", "memory.limit_in_bytes", "memory.max"].contains(&file)
                    && error.kind() != io::ErrorKind::NotFound
                {
                    refused = Err(error);
                }
            }
        };
        let unlimited = |value: i64| if value < 0 { "max".to_owned() } else { value.to_string() };
        if let Some(shares) = resources.cpu_shares {
            let shares = shares.clamp(2, 262_144);
            if one {
                set("cpu", "cpu.shares", shares.to_string());
            } else {
                set("cpu", "cpu.weight", weight(shares).to_string());
            }
        }
        if let Some(quota) = resources.cpu_quota_us {
            let period = resources.cpu_period_us.unwrap_or(100_000);
            if one {
                set("cpu", "cpu.cfs_period_us", period.to_string());
                set("cpu", "cpu.cfs_quota_us", quota.to_string());
            } else {
                set("cpu", "cpu.max", format!("{} {period}", unlimited(quota)));
            }
        }
        if let Some(bytes) = resources.memory_limit_bytes {
            if one {
                // Memory alone may never be above memory and swap: first this way round, for more; then that, for less.
                set("memory", "memory.memsw.limit_in_bytes", bytes.to_string());
                set("memory", "memory.limit_in_bytes", bytes.to_string());
                set("memory", "memory.memsw.limit_in_bytes", bytes.to_string());
            } else {
                set("memory", "memory.max", unlimited(bytes));
                set("memory", "memory.swap.max", "0".to_owned());
                set("memory", "memory.oom.group", "1".to_owned());
            }
        }
        if let Some(limit) = resources.pids_limit {
            set("pids", "pids.max", if limit <= 0 { "max".to_owned() } else { limit.to_string() });
        }
        refused
    }

    /// Leaves a container only the devices that every container may use.
    pub fn restrict_devices(&self, path: &str) {
        if !matches!(self.version, Version::One(_)) {
            return;
        }
        let Some(dir) = self.dir_of("devices", path) else { return };
        let deny = fs::write(dir.join("devices.deny"), "a");
        let allow = DEVICE_RULES.iter().try_for_each(|rule| fs::write(dir.join("devices.allow"), rule));
        if let Err(error) = deny.and(allow) {
            tracing::warn!(path, %error, "cannot restrict the devices of a container");
        }
    }

    /// Kills every process in a cgroup.
    pub fn kill(&self, path: &str) {
        for dir in self.dirs(path) {
            if fs::write(dir.join("cgroup.kill"), "1").is_ok() {
                continue;
            }
            for pid in fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default().lines() {
                if let Ok(pid) = pid.parse() {
                    let _ =
                        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::SIGKILL);
                }
            }
        }
    }

    /// Kills what is in a cgroup and below and removes all of it. Blocks until the processes are gone, at most a second.
    pub fn remove(&self, path: &str) -> io::Result<()> {
        let mut outcome = Ok(());
        for dir in self.dirs(path) {
            if let Err(error) = remove_tree(&dir) {
                outcome = Err(error);
            }
        }
        outcome
    }

    /// Resource use of a cgroup, as far as its controllers are there.
    pub fn usage(&self, path: &str) -> Usage {
        let read = |controller: &str, file: &str| {
            self.dir_of(controller, path)
                .and_then(|dir| fs::read_to_string(dir.join(file)).ok())
                .unwrap_or_default()
        };
        let number = |text: &str| text.trim().parse::<u64>().unwrap_or(0);
        let field = |text: &str, name: &str| {
            text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')).map_or(0, number)
        };
        match self.version {
            Version::One(_) => {
                let stat = read("memory", "memory.stat");
                let used = number(&read("memory", "memory.usage_in_bytes"));
                Usage {
                    cpu: Duration::from_nanos(number(&read("cpuacct", "cpuacct.usage"))),
                    working_set: used.saturating_sub(field(&stat, "total_inactive_file")),
                }
            }
            Version::Two(_) => {
                let stat = read("memory", "memory.stat");
                let current = read("memory", "memory.current");
                // The root has no such file.
                let used = match current.is_empty() {
                    true => field(&stat, "anon") + field(&stat, "file"),
                    false => number(&current),
                };
                Usage {
                    cpu: Duration::from_micros(field(&read("cpu", "cpu.stat"), "usage_usec")),
                    working_set: used.saturating_sub(field(&stat, "inactive_file")),
                }
            }
        }
    }
}

/// Version 2's weight (1..=10000) for version 1's shares (2..=262144), as Kubernetes converts them.
fn weight(shares: u64) -> u64 {
    1 + (shares.saturating_sub(2) * 9_999) / 262_142
}

fn create_v1(mount: &Path, path: &str, cpuset: bool) -> io::Result<()> {
    let mut dir = mount.to_owned();
    for part in path.split('/').filter(|part| !part.is_empty()) {
        let parent = dir.clone();
        dir.push(part);
        match fs::create_dir(&dir) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
            Err(error) => return Err(error),
        }
        if cpuset {
            // A new cpuset is empty and takes no process.
            for file in ["cpuset.cpus", "cpuset.mems"] {
                let inherited = fs::read_to_string(parent.join(file)).unwrap_or_default();
                let _ = fs::write(dir.join(file), inherited.trim());
            }
        }
    }
    Ok(())
}

fn create_v2(mount: &Path, path: &str) -> io::Result<()> {
    let mut dir = mount.to_owned();
    for part in path.split('/').filter(|part| !part.is_empty()) {
        for controller in ["+cpu", "+memory", "+pids", "+cpuset", "+io"] {
            // One at a time: one that is missing must not take the others with it.
            let _ = fs::write(dir.join("cgroup.subtree_control"), controller);
        }
        dir.push(part);
        match fs::create_dir(&dir) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

fn remove_tree(dir: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_tree(&entry.path())?;
        }
    }
    for _ in 0..200 {
        match fs::remove_dir(dir) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {}
            Err(error) => return Err(error),
        }
        for pid in fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default().lines() {
            if let Ok(pid) = pid.parse() {
                let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::SIGKILL);
            }
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    fs::remove_dir(dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hybrid_machines_use_version_one() {
        let table = "30 29 0:26 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
                     31 29 0:27 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n\
                     32 29 0:28 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        let cgroups = Cgroups::parse(table);
        assert_eq!(cgroups.dirs("/orlop/a"), [PathBuf::from("/sys/fs/cgroup/cpu,cpuacct/orlop/a")]);
        assert_eq!(cgroups.dir_of("memory", "/a"), None);
    }

    #[test]
    fn unified_machines_have_one_directory() {
        let cgroups = Cgroups::parse("32 29 0:28 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n");
        assert_eq!(cgroups.dirs("/orlop/a"), [PathBuf::from("/sys/fs/cgroup/orlop/a")]);
    }

    #[test]
    fn shares_become_weights() {
        for (shares, expected) in [(2, 1), (1024, 39), (262_144, 10_000)] {
            assert_eq!(weight(shares), expected);
        }
    }
}
