//! The address ranges of a cluster, and its names.

use std::net::Ipv4Addr;

use anyhow::{Context, Result, bail};
use nodeagent::network::Ipv4Cidr;
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

/// Which address of the services' the DNS has.
const DNS_OFFSET: u32 = 10;

/// Most nodes whose shares fit into the usual range of pods.
const USUAL_NODES_MAX: usize = 250;

impl Networks {
    /// Takes another range for services; the DNS moves with it.
    ///
    /// # Errors
    /// When the text is no range, or one with less than 256 addresses.
    pub fn set_services(&mut self, range: &str) -> Result<()> {
        let cidr = parse(range)?;
        let dns = cidr.nth(DNS_OFFSET).filter(|_| cidr.prefix() <= 24);
        self.dns = dns.with_context(|| format!("{range} is too small: a /24 at least"))?;
        range.clone_into(&mut self.services);
        Ok(())
    }

    /// Refuses ranges that cannot work together.
    ///
    /// # Errors
    /// Says which, and why.
    pub fn check(&self) -> Result<()> {
        let (pods, services) = (parse(&self.pods)?, parse(&self.services)?);
        if pods.prefix() > 24 {
            bail!("{pods} is too small for pods: each node gets a /24 of it");
        }
        if pods.overlaps(&services) {
            bail!("the networks of pods ({pods}) and services ({services}) overlap");
        }
        Ok(())
    }

    /// The usual ranges, with more room for pods where there are many nodes.
    pub fn for_nodes(count: usize) -> Networks {
        let usual = Networks::default();
        if count <= USUAL_NODES_MAX { usual } else { Networks { pods: "10.128.0.0/9".to_owned(), ..usual } }
    }
}

fn parse(range: &str) -> Result<Ipv4Cidr> {
    range.parse().map_err(|_| anyhow::anyhow!("{range:?} is not a network like 10.96.0.0/16"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_must_fit_together() {
        let check = |pods: &str, services: &str, expected: Result<&str, &str>| {
            let mut networks = Networks { pods: pods.to_owned(), ..Networks::default() };
            let outcome = networks.set_services(services).and_then(|()| networks.check());
            match (outcome, expected) {
                (Ok(()), Ok(dns)) => assert_eq!(networks.dns.to_string(), dns),
                (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{error}"),
                (outcome, _) => panic!("{pods} {services}: {outcome:?}"),
            }
        };
        check("10.244.0.0/16", "10.112.0.0/20", Ok("10.112.0.10"));
        check("10.244.0.0/16", "10.244.7.0/24", Err("overlap"));
        check("10.244.0.0/16", "10.112.0.0/28", Err("too small"));
        check("10.244.0.0/25", "10.112.0.0/20", Err("too small for pods"));
        check("10.244.0.0/16", "ten", Err("not a network"));
    }
}
