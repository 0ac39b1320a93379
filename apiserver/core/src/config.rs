//! What the API server is told once: addresses, ranges, keys, names.

use std::net::{IpAddr, Ipv4Addr};

use crate::authn::jwt::SigningKey;

/// An IPv4 range in CIDR form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipv4Cidr {
    /// The network address.
    pub network: Ipv4Addr,
    /// The length of the prefix, 0 to 32.
    pub prefix: u8,
}

/// The settings of one cluster's API server. The same for every member.
#[derive(Clone, Debug)]
pub struct Config {
    /// The range of service IPs.
    pub service_cidr: Ipv4Cidr,
    /// First and last node port.
    pub node_ports: (u16, u16),
    /// The DNS domain of the cluster.
    pub cluster_domain: String,
    /// The `iss` claim of service account tokens, and the first audience that the API server answers to.
    pub issuer: String,
    /// Audiences that the API server accepts in tokens; must not be empty.
    pub audiences: Vec<String>,
    /// Signs and verifies service account tokens. The first signs; all verify.
    pub signing_keys: Vec<SigningKey>,
    /// The addresses and port that clients inside the cluster reach the API server at (endpoints of
    /// `default/kubernetes`).
    pub advertise: Vec<(IpAddr, u16)>,
    /// The Kubernetes version served, for example `1.37.0`.
    pub kubernetes_version: String,
    /// This program's version, for example `0.1.0`.
    pub program_version: String,
    /// How long events are kept.
    pub event_ttl: jiff::SignedDuration,
    /// The largest request body that is read.
    pub max_body: usize,
}

// === impl Ipv4Cidr ===

impl Ipv4Cidr {
    /// How many addresses the range has.
    pub fn size(&self) -> u64 {
        1u64 << (32 - u32::from(self.prefix.min(32)))
    }

    /// The address at `index` of the range.
    pub fn nth(&self, index: u64) -> Ipv4Addr {
        let base = u32::from(self.network);
        Ipv4Addr::from(base.wrapping_add(index as u32))
    }

    /// Whether `address` is in the range.
    pub fn contains(&self, address: Ipv4Addr) -> bool {
        let offset = u32::from(address).wrapping_sub(u32::from(self.network));
        u64::from(offset) < self.size()
    }

    /// Reads `a.b.c.d/n`.
    pub fn parse(text: &str) -> Option<Ipv4Cidr> {
        let (network, prefix) = text.split_once('/')?;
        let prefix: u8 = prefix.parse().ok()?;
        let network: Ipv4Addr = network.parse().ok()?;
        let mask =
            if prefix == 0 { 0 } else { u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(u32::MAX) };
        (prefix <= 32 && u32::from(network) & !mask == 0).then_some(Ipv4Cidr { network, prefix })
    }
}

impl std::fmt::Display for Ipv4Cidr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.network, self.prefix)
    }
}

// === impl Config ===

impl Config {
    /// The defaults of a cluster on this machine, with the keys that sign and verify tokens.
    pub fn new(signing_keys: Vec<SigningKey>) -> Config {
        let issuer = "https://kubernetes.default.svc.cluster.local".to_owned();
        Config {
            service_cidr: Ipv4Cidr { network: Ipv4Addr::new(10, 96, 0, 0), prefix: 16 },
            node_ports: (30000, 32767),
            cluster_domain: "cluster.local".into(),
            audiences: vec![issuer.clone()],
            issuer,
            signing_keys,
            advertise: Vec::new(),
            kubernetes_version: "1.37.0".into(),
            program_version: env!("CARGO_PKG_VERSION").into(),
            event_ttl: jiff::SignedDuration::from_hours(1),
            max_body: 3 * 1024 * 1024,
        }
    }
}
