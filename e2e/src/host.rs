//! What is on this machine, to see what a cluster has left behind.

use std::collections::BTreeSet;
use std::fmt;
use std::os::fd::AsRawFd;
use std::path::Path;

use anyhow::{Context, Result, bail};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, socket,
};

/// Everything that a cluster could leave behind, as lines that name it.
///
/// Links, routes, tables and forwarding are those of this process's network namespace, which is the test's own. The rest
/// is shared with whatever else runs here, and seen only where it bears a mark of the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot(BTreeSet<String>);

impl Snapshot {
    /// Looks around; `marks` are texts that only the cluster's own things bear: its data directory, its name.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub fn take(marks: &[&str]) -> Result<Snapshot> {
        let mut seen = BTreeSet::new();
        network(&mut seen)?;
        let marked = |text: &str| marks.iter().any(|mark| !mark.is_empty() && text.contains(mark));
        for line in std::fs::read_to_string("/proc/self/mounts")?.lines().filter(|line| marked(line)) {
            seen.insert(format!("mount {line}"));
        }
        for process in std::fs::read_dir("/proc")?.flatten() {
            processes(&process.path(), &marked, &mut seen);
        }
        for cluster in std::fs::read_dir("/run/orlop").into_iter().flatten().flatten() {
            let path = cluster.path();
            if marked(&path.to_string_lossy()) {
                seen.insert(format!("folder {}", path.display()));
            }
        }
        cgroups(Path::new("/sys/fs/cgroup"), 3, &marked, &mut seen);
        Ok(Snapshot(seen))
    }

    /// What is here and was not there.
    pub fn since(&self, before: &Snapshot) -> Snapshot {
        Snapshot(self.0.difference(&before.0).cloned().collect())
    }

    /// An error that names everything, unless there is nothing.
    ///
    /// # Errors
    /// When there is something.
    pub fn must_be_empty(&self) -> Result<()> {
        if self.0.is_empty() { Ok(()) } else { bail!("left behind:\n{self}") }
    }
}

impl fmt::Display for Snapshot {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|line| writeln!(out, "  {line}"))
    }
}

fn network(seen: &mut BTreeSet<String>) -> Result<()> {
    let devices = std::fs::read_to_string("/proc/thread-self/net/dev")?;
    seen.extend(
        devices
            .lines()
            .filter_map(|line| line.split_once(':'))
            .map(|(name, _)| format!("link {}", name.trim())),
    );
    let routes = std::fs::read_to_string("/proc/thread-self/net/route")?;
    seen.extend(routes.lines().skip(1).map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        // Without the counters of references and uses.
        let named = [0, 1, 2, 6, 7].map(|at| fields.get(at).copied().unwrap_or_default());
        format!("route {}", named.join(" "))
    }));
    seen.extend(tables()?.into_iter().map(|table| format!("nf_tables table {table}")));
    let forwarding = std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward")?;
    seen.insert(format!("ip_forward {}", forwarding.trim()));
    Ok(())
}

fn processes(path: &Path, marked: &impl Fn(&str) -> bool, seen: &mut BTreeSet<String>) {
    let pid = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    if !pid.bytes().all(|byte| byte.is_ascii_digit()) || pid == std::process::id().to_string() {
        return;
    }
    // A process that ends meanwhile is not left behind.
    let command = std::fs::read(path.join("cmdline")).unwrap_or_default();
    let command = String::from_utf8_lossy(&command).replace('\0', " ");
    let groups = std::fs::read_to_string(path.join("cgroup")).unwrap_or_default();
    let mounts = std::fs::read_to_string(path.join("mountinfo")).unwrap_or_default();
    let own_mounts =
        std::fs::read_link(path.join("ns/mnt")).ok() != std::fs::read_link("/proc/self/ns/mnt").ok();
    if marked(&command) || marked(&groups) || (own_mounts && marked(&mounts)) {
        seen.insert(format!("process {pid} {command}"));
    }
}

/// Controllers are two levels up at most; what is below a marked group needs no naming.
fn cgroups(folder: &Path, depth: usize, marked: &impl Fn(&str) -> bool, seen: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        let path = entry.path();
        if marked(&path.to_string_lossy()) {
            seen.insert(format!("cgroup {}", path.display()));
        } else if depth > 0 {
            cgroups(&path, depth - 1, marked, seen);
        }
    }
}

const NFT_MSG_GETTABLE: u16 = 10 << 8 | 1;
const NLM_F_REQUEST_DUMP: u16 = 0x301;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NFTA_TABLE_NAME: u16 = 1;
const MESSAGE_HEADER: usize = 16;
const FAMILY_HEADER: usize = 4;

/// Names of the nf_tables tables of this network namespace.
fn tables() -> Result<Vec<String>> {
    let socket =
        socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkNetFilter)
            .context("opening a netlink socket")?;
    let mut request = Vec::new();
    request.extend_from_slice(&20u32.to_ne_bytes());
    request.extend_from_slice(&NFT_MSG_GETTABLE.to_ne_bytes());
    request.extend_from_slice(&NLM_F_REQUEST_DUMP.to_ne_bytes());
    request.extend_from_slice(&[0; 12]);
    sendto(socket.as_raw_fd(), &request, &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
    let mut names = Vec::new();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let length = recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty()).context("listing tables")?;
        let mut rest = buffer.get(..length).unwrap_or_default();
        while let Some((kind, message, next)) = first_message(rest) {
            match kind {
                NLMSG_DONE => return Ok(names),
                NLMSG_ERROR => bail!("the kernel does not list its tables"),
                _ => names.extend(table_name(message)),
            }
            rest = next;
        }
    }
}

/// The first netlink message: its type, what follows its headers, and the messages after it.
fn first_message(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let length = usize::try_from(u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?)).ok()?;
    let kind = u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?);
    let body = bytes.get(MESSAGE_HEADER..length)?;
    Some((
        kind,
        body.get(FAMILY_HEADER..).unwrap_or_default(),
        bytes.get(length.next_multiple_of(4)..).unwrap_or_default(),
    ))
}

fn table_name(mut attributes: &[u8]) -> Option<String> {
    while let Some(header) = attributes.get(..4) {
        let length = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        if u16::from_ne_bytes([header[2], header[3]]) == NFTA_TABLE_NAME {
            let name = attributes.get(4..length)?;
            return Some(String::from_utf8_lossy(name).trim_end_matches('\0').to_owned());
        }
        attributes = attributes.get(length.next_multiple_of(4).max(4)..)?;
    }
    None
}
