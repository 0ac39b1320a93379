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

/// Most nodes whose shares fit into the usual range of pods.
const USUAL_NODES_MAX: usize = 250;

impl Networks {
    /// The usual ranges, with more room for pods where there are many nodes.
    pub fn for_nodes(count: usize) -> Networks {
        let usual = Networks::default();
        if count <= USUAL_NODES_MAX { usual } else { Networks { pods: "10.128.0.0/9".to_owned(), ..usual } }
    }
}
