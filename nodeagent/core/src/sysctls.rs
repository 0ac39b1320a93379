//! Which kernel parameters a pod may set: those that belong to its own namespaces and cannot harm its neighbours.
//!
//! <https://kubernetes.io/docs/tasks/administer-cluster/sysctl-cluster/>

use std::path::{Path, PathBuf};

const SAFE: &[&str] = &["kernel.shm_rmid_forced"];

/// Of the pod's own network: not allowed with the node's.
const SAFE_IN_OWN_NETWORK: &[&str] = &[
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ping_group_range",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.tcp_wmem",
];

/// Where the kernel shows a parameter; `None` when a pod may not set it. Names may have slashes instead of dots.
pub fn path(name: &str, host_network: bool) -> Option<PathBuf> {
    let dotted = name.replace('/', ".");
    let known = |list: &[&'static str]| list.iter().copied().find(|safe| *safe == dotted);
    let safe = known(SAFE).or_else(|| known(SAFE_IN_OWN_NETWORK).filter(|_| !host_network))?;
    Some(Path::new("/proc/sys").join(safe.replace('.', "/")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_the_pods_own() {
        let shown = |name: &str, host| path(name, host).map(|path| path.display().to_string());
        let port_start = "/proc/sys/net/ipv4/ip_unprivileged_port_start";
        assert_eq!(shown("net.ipv4.ip_unprivileged_port_start", false).as_deref(), Some(port_start));
        assert_eq!(shown("net/ipv4/ip_unprivileged_port_start", false).as_deref(), Some(port_start));
        assert_eq!(shown("net.ipv4.ip_unprivileged_port_start", true), None);
        for hostile in
            ["/etc/passwd", "kernel.core_pattern", "net.ipv4../../../../etc/passwd", "vm.swappiness", ""]
        {
            assert_eq!(shown(hostile, false), None, "{hostile}");
        }
    }
}
