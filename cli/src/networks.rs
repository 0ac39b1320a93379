//! The address ranges of a cluster, and its names.

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

/// Ranges and names that every part of a cluster agrees on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Networks {
    /// Addresses of pods; every node gets a /24 of it.
    pub pods: String,
    /// Addresses of services.
    pub services: String,
    /// Address of the cluster's DNS, one of the services'.
    pub dns: Ipv4Addr,
    /// Domain of the cluster's names.
    pub domain: String,
}

impl Default for Networks {
    fn default() -> Networks {
        Networks {
            pods: "10.244.0.0/16".to_owned(),
            services: "10.96.0.0/16".to_owned(),
            dns: Ipv4Addr::new(10, 96, 0, 10),
            domain: "cluster.local".to_owned(),
        }
    }
}
