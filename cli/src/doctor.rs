//! Checks whether this host can run Orlop: tries what a node needs in a network namespace that vanishes with the check.

use std::fmt;
use std::path::Path;

use nix::sched::{CloneFlags, unshare};

/// One thing that a node needs from its host.
#[derive(Debug)]
pub struct Check {
    /// What is needed.
    pub name: &'static str,
    /// What was found, or what is wrong and how to mend it.
    pub result: Result<String, Problem>,
}

/// What a host lacks.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}: {fix}")]
pub struct Problem {
    /// What is wrong.
    pub what: String,
    /// What to do about it.
    pub fix: String,
}

impl Problem {
    fn new(what: impl fmt::Display, fix: impl fmt::Display) -> Problem {
        Problem { what: what.to_string(), fix: fix.to_string() }
    }
}

/// Runs every check; none changes the host.
pub fn run() -> Vec<Check> {
    vec![
        Check { name: "root", result: root() },
        Check { name: "kernel", result: kernel() },
        Check { name: "namespaces", result: namespaces() },
        Check { name: "overlayfs", result: overlay() },
        Check { name: "cgroups", result: cgroups() },
        Check { name: "pod network", result: in_fresh_namespace(links) },
        Check { name: "service rules (nf_tables)", result: in_fresh_namespace(nf_tables) },
    ]
}

/// The first problem, if there is one.
pub fn first_problem() -> Result<(), Problem> {
    run().into_iter().find_map(|check| check.result.err()).map_or(Ok(()), Err)
}

fn root() -> Result<String, Problem> {
    if nix::unistd::geteuid().is_root() {
        Ok("effective user is root".to_owned())
    } else {
        Err(Problem::new(
            "containers and networks need root",
            "run with sudo, or use --runtime hollow for a cluster without containers",
        ))
    }
}

fn kernel() -> Result<String, Problem> {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let release = release.trim();
    let mut numbers = release.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if version >= (5, 6) {
        Ok(format!("Linux {release}"))
    } else {
        Err(Problem::new(
            format!("Linux {release} is too old"),
            "use a kernel of 5.6 or newer (openat2, pidfd)",
        ))
    }
}

fn namespaces() -> Result<String, Problem> {
    let missing: Vec<&str> = ["net", "mnt", "pid", "ipc", "uts"]
        .into_iter()
        .filter(|kind| !Path::new("/proc/self/ns").join(kind).exists())
        .collect();
    if missing.is_empty() {
        Ok("net, mnt, pid, ipc, uts".to_owned())
    } else {
        Err(Problem::new(
            format!("the kernel has no {} namespaces", missing.join(", ")),
            "enable CONFIG_NAMESPACES",
        ))
    }
}

fn overlay() -> Result<String, Problem> {
    let known = std::fs::read_to_string("/proc/filesystems").unwrap_or_default();
    let loadable = std::fs::read_to_string("/proc/sys/kernel/osrelease").is_ok_and(|release| {
        Path::new("/lib/modules").join(release.trim()).join("kernel/fs/overlayfs").exists()
    });
    if known.lines().any(|line| line.ends_with("\toverlay")) || loadable {
        Ok("available".to_owned())
    } else {
        Err(Problem::new("the kernel has no overlayfs", "run `modprobe overlay`"))
    }
}

fn cgroups() -> Result<String, Problem> {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let unified = mounts
        .lines()
        .any(|line| line.split(' ').nth(1) == Some("/sys/fs/cgroup") && line.contains(" cgroup2 "));
    if unified {
        let controllers = std::fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").unwrap_or_default();
        return require_controllers("v2", |name| controllers.split_whitespace().any(|one| one == name));
    }
    let v1: Vec<&str> = mounts.lines().filter(|line| line.split(' ').nth(2) == Some("cgroup")).collect();
    if v1.is_empty() {
        return Err(Problem::new("no cgroup hierarchy is mounted", "mount cgroup2 on /sys/fs/cgroup"));
    }
    require_controllers("v1", |name| {
        v1.iter().any(|line| {
            line.split(' ').nth(3).is_some_and(|options| options.split(',').any(|one| one == name))
        })
    })
}

fn require_controllers(version: &str, has: impl Fn(&str) -> bool) -> Result<String, Problem> {
    let missing: Vec<&str> = ["cpu", "memory", "pids"].into_iter().filter(|name| !has(name)).collect();
    if missing.is_empty() {
        Ok(format!("{version} with cpu, memory, pids"))
    } else {
        let what = format!("cgroup {version} lacks the controllers {}", missing.join(", "));
        Err(Problem::new(what, "enable them in the kernel or in the parent cgroup"))
    }
}

/// Runs a check on a thread of its own in a network namespace of its own; both end with it.
fn in_fresh_namespace(check: fn() -> Result<String, Problem>) -> Result<String, Problem> {
    let thread = std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).map_err(|error| {
            Problem::new(format!("no network namespace can be made ({error})"), "run as root")
        })?;
        check()
    });
    thread.join().unwrap_or_else(|_| Err(Problem::new("the check itself failed", "report this as a bug")))
}

fn links() -> Result<String, Problem> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Problem::new(format!("no event loop ({error})"), "raise the limit of open files"))?;
    runtime.block_on(async {
        let (connection, handle, _) = rtnetlink::new_connection()
            .map_err(|error| Problem::new(format!("no route netlink ({error})"), "run as root"))?;
        tokio::spawn(connection);
        for (kind, message) in [
            ("bridge", rtnetlink::LinkBridge::new("probe0").build()),
            ("veth", rtnetlink::LinkVeth::new("probe1", "probe2").build()),
        ] {
            handle.link().add(message).execute().await.map_err(|error| {
                Problem::new(
                    format!("no {kind} device can be made ({error})"),
                    format!("run `modprobe {kind}`"),
                )
            })?;
        }
        Ok("bridge and veth work".to_owned())
    })
}

fn nf_tables() -> Result<String, Problem> {
    use nix::sys::socket::{
        AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, socket,
    };
    use std::os::fd::AsRawFd;

    let missing = |error: nix::Error| {
        Problem::new(
            format!("nf_tables does not answer ({error})"),
            "run `modprobe nf_tables nft_nat nft_masq`",
        )
    };
    let flags = SockFlag::SOCK_CLOEXEC;
    let socket = socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkNetFilter)
        .map_err(missing)?;
    // nlmsghdr { length 20, type NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETGEN, flags REQUEST, sequence 1, port 0 }, nfgenmsg {}.
    const GET_GENERATION: u16 = 10 << 8 | 16;
    let mut request = Vec::with_capacity(20);
    request.extend_from_slice(&20u32.to_ne_bytes());
    request.extend_from_slice(&GET_GENERATION.to_ne_bytes());
    request.extend_from_slice(&1u16.to_ne_bytes());
    request.extend_from_slice(&1u32.to_ne_bytes());
    request.extend_from_slice(&[0; 8]);
    sendto(socket.as_raw_fd(), &request, &NetlinkAddr::new(0, 0), MsgFlags::empty()).map_err(missing)?;
    let mut answer = [0u8; 4096];
    let length = recv(socket.as_raw_fd(), &mut answer, MsgFlags::empty()).map_err(missing)?;
    const NLMSG_ERROR: u16 = 2;
    let kind = answer.get(4..6).map(|bytes| u16::from_ne_bytes([bytes[0], bytes[1]]));
    let code = answer.get(16..20).map(|bytes| i32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]));
    match (length >= 20, kind, code) {
        (true, Some(NLMSG_ERROR), Some(code)) if code != 0 => Err(missing(nix::Error::from_raw(-code))),
        (true, ..) => Ok("spoken over netlink".to_owned()),
        _ => Err(missing(nix::Error::EPROTO)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_controller_is_named() {
        let problem = require_controllers("v1", |name| name != "pids").unwrap_err();
        assert_eq!(problem.what, "cgroup v1 lacks the controllers pids");
        assert!(require_controllers("v2", |_| true).is_ok());
    }

    #[test]
    fn a_check_leaves_the_own_network_namespace_alone() {
        let own = std::fs::read_link("/proc/thread-self/ns/net").unwrap();
        in_fresh_namespace(links).ok();
        assert_eq!(std::fs::read_link("/proc/thread-self/ns/net").unwrap(), own);
    }
}
