//! What a pod's processes read about names: `/etc/hosts`, `/etc/resolv.conf`, the host name.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::Pod;

use crate::pod;

/// Names and name servers of the node and the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DnsSettings {
    /// Addresses of the cluster's DNS.
    pub cluster_dns: Vec<IpAddr>,
    /// For example `cluster.local`.
    pub cluster_domain: String,
    /// The node's own `/etc/resolv.conf`.
    pub node_resolv_conf: String,
}

const MAX_NAMESERVERS: usize = 3;
const MAX_SEARCH: usize = 32;

/// The pod's host name.
pub fn hostname(pod: &Pod, node_name: &str) -> String {
    if pod::host_network(pod) {
        return node_name.to_owned();
    }
    let spec = pod::spec(pod);
    let name = spec.hostname_override.as_deref().or(spec.hostname.as_deref()).filter(|name| !name.is_empty());
    let name = name.unwrap_or_else(|| pod::name(pod));
    let short: String = name.chars().take(63).collect();
    short.trim_end_matches(['-', '.']).to_owned()
}

/// The pod's name with its subdomain, when it has one.
pub fn fqdn(pod: &Pod, node_name: &str, cluster_domain: &str) -> Option<String> {
    let subdomain = pod::spec(pod).subdomain.as_deref().filter(|it| !it.is_empty())?;
    Some(format!("{}.{subdomain}.{}.svc.{cluster_domain}", hostname(pod, node_name), pod::namespace(pod)))
}

/// What `hostname` prints inside the pod.
pub fn kernel_hostname(pod: &Pod, node_name: &str, cluster_domain: &str) -> String {
    match fqdn(pod, node_name, cluster_domain) {
        Some(name) if pod::spec(pod).set_hostname_as_fqdn == Some(true) => name,
        _ => hostname(pod, node_name),
    }
}

/// The pod's `/etc/hosts`. A pod in the node's network gets the node's file with its own aliases.
pub fn hosts(pod: &Pod, ips: &[IpAddr], node_name: &str, cluster_domain: &str, node_hosts: &str) -> String {
    let mut text = String::new();
    if pod::host_network(pod) {
        text.push_str("# Kubernetes-managed hosts file (host network).\n");
        text.push_str(node_hosts);
    } else {
        text.push_str("# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n");
        text.push_str("fe00::0\tip6-localnet\nfe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n");
        let host = hostname(pod, node_name);
        for ip in ips {
            match fqdn(pod, node_name, cluster_domain) {
                Some(name) => text.push_str(&format!("{ip}\t{name}\t{host}\n")),
                None => text.push_str(&format!("{ip}\t{host}\n")),
            }
        }
    }
    let aliases = pod::spec(pod).host_aliases.as_deref().unwrap_or_default();
    if !aliases.is_empty() {
        text.push_str("\n# Entries added by HostAliases.\n");
        for alias in aliases {
            text.push_str(&format!(
                "{}\t{}\n",
                alias.ip,
                alias.hostnames.as_deref().unwrap_or_default().join("\t")
            ));
        }
    }
    text
}

#[derive(Default)]
struct Resolver {
    nameservers: Vec<String>,
    search: Vec<String>,
    options: Vec<String>,
}

/// The pod's `/etc/resolv.conf`, by `dnsPolicy` and `dnsConfig`.
pub fn resolv_conf(pod: &Pod, settings: &DnsSettings) -> String {
    let spec = pod::spec(pod);
    let policy = spec.dns_policy.as_deref().unwrap_or("ClusterFirst");
    let cluster = match policy {
        "ClusterFirst" => !pod::host_network(pod),
        "ClusterFirstWithHostNet" => true,
        _ => false,
    };
    let node = parse(&settings.node_resolv_conf);
    let mut resolver = if policy == "None" {
        Resolver::default()
    } else if cluster && !settings.cluster_dns.is_empty() {
        let domain = &settings.cluster_domain;
        let mut search =
            vec![format!("{}.svc.{domain}", pod::namespace(pod)), format!("svc.{domain}"), domain.clone()];
        search.extend(node.search);
        Resolver {
            nameservers: settings.cluster_dns.iter().map(ToString::to_string).collect(),
            search,
            options: vec!["ndots:5".into()],
        }
    } else {
        node
    };
    if let Some(config) = &spec.dns_config {
        append(&mut resolver.nameservers, config.nameservers.iter().flatten());
        append(&mut resolver.search, config.searches.iter().flatten());
        for option in config.options.iter().flatten() {
            let name = option.name.clone().unwrap_or_default();
            resolver.options.retain(|it| it.split(':').next() != Some(name.as_str()));
            resolver
                .options
                .push(option.value.as_ref().map_or(name.clone(), |value| format!("{name}:{value}")));
        }
    }
    resolver.nameservers.truncate(MAX_NAMESERVERS);
    resolver.search.truncate(MAX_SEARCH);
    let mut text = String::new();
    if !resolver.search.is_empty() {
        text.push_str(&format!("search {}\n", resolver.search.join(" ")));
    }
    for server in &resolver.nameservers {
        text.push_str(&format!("nameserver {server}\n"));
    }
    if !resolver.options.is_empty() {
        text.push_str(&format!("options {}\n", resolver.options.join(" ")));
    }
    text
}

fn append<'a>(list: &mut Vec<String>, more: impl Iterator<Item = &'a String>) {
    for item in more {
        if !list.contains(item) {
            list.push(item.clone());
        }
    }
}

fn parse(text: &str) -> Resolver {
    let mut resolver = Resolver::default();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        match words.next() {
            Some("nameserver") => resolver.nameservers.extend(words.next().map(str::to_owned)),
            Some("search" | "domain") => resolver.search = words.map(str::to_owned).collect(),
            Some("options") => resolver.options = words.map(str::to_owned).collect(),
            _ => {}
        }
    }
    resolver
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies() {
        let settings = DnsSettings {
            cluster_dns: vec!["10.96.0.10".parse().expect("an address")],
            cluster_domain: "cluster.local".into(),
            node_resolv_conf: "search lan\nnameserver 192.0.2.1\noptions edns0\n".into(),
        };
        let check = |spec: serde_json::Value, expected: &str| {
            let pod: Pod = serde_json::from_value(serde_json::json!({
                "metadata": {"name": "p", "namespace": "ns"}, "spec": spec,
            }))
            .expect("a pod");
            assert_eq!(resolv_conf(&pod, &settings), expected);
        };
        check(
            serde_json::json!({"containers": []}),
            "search ns.svc.cluster.local svc.cluster.local cluster.local lan\nnameserver 10.96.0.10\noptions ndots:5\n",
        );
        let node = "search lan\nnameserver 192.0.2.1\noptions edns0\n";
        check(serde_json::json!({"containers": [], "dnsPolicy": "Default"}), node);
        check(serde_json::json!({"containers": [], "hostNetwork": true}), node);
        check(
            serde_json::json!({"containers": [], "dnsPolicy": "None",
                "dnsConfig": {"nameservers": ["1.1.1.1"], "options": [{"name": "ndots", "value": "2"}]}}),
            "nameserver 1.1.1.1\noptions ndots:2\n",
        );
    }
}
