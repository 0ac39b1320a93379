//! Gives every node its own share of the pod network.

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::Node;
use serde_json::json;

use crate::object::{is_terminating, name};
use crate::plan::{EventNote, Plan, Report, Subject, merge_exact};

/// A network to hand out in equal shares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    base: u128,
    /// Bits of an address of this family.
    width: u8,
    shares: u64,
    share_prefix: u8,
}

/// Why a pool cannot be.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PoolError {
    /// The text is not `address/bits`.
    #[error("{0:?} is not a network in the form ADDRESS/BITS")]
    Malformed(String),
    /// A share must be a part of the whole.
    #[error("a node's network of /{share} does not fit into {network}")]
    ShareTooLarge {
        /// The whole.
        network: String,
        /// Prefix length of a share.
        share: u8,
    },
}

/// Which node has which share.
#[derive(Clone, Debug)]
pub struct Shares {
    pool: Pool,
    taken: BTreeMap<u64, String>,
    by_node: BTreeMap<String, u64>,
    /// No share below this one is free.
    lowest_free: u64,
}

// === impl Pool ===

impl Pool {
    /// Parses `network` (`10.244.0.0/16`) to be handed out in shares of prefix length `share_prefix`.
    ///
    /// # Errors
    /// When the text is no network, or a share is larger than the whole.
    pub fn new(network: &str, share_prefix: u8) -> Result<Pool, PoolError> {
        let (base, prefix, width) = parse(network).ok_or_else(|| PoolError::Malformed(network.to_owned()))?;
        if share_prefix < prefix || share_prefix > width {
            return Err(PoolError::ShareTooLarge { network: network.to_owned(), share: share_prefix });
        }
        let shares = 1u64.checked_shl(u32::from(share_prefix - prefix)).unwrap_or(u64::MAX);
        Ok(Pool { base, width, shares, share_prefix })
    }

    fn show(&self, index: u64) -> String {
        let address = self.base + (u128::from(index) << (self.width - self.share_prefix));
        let ip = if self.width == 32 {
            IpAddr::from(u32::try_from(address).unwrap_or(0).to_be_bytes())
        } else {
            IpAddr::from(address.to_be_bytes())
        };
        format!("{ip}/{}", self.share_prefix)
    }

    fn index_of(&self, share: &str) -> Option<u64> {
        let (base, prefix, width) = parse(share)?;
        if width != self.width || prefix != self.share_prefix {
            return None;
        }
        let index = u64::try_from(base.checked_sub(self.base)? >> (width - prefix)).ok()?;
        (index < self.shares).then_some(index)
    }
}

fn parse(network: &str) -> Option<(u128, u8, u8)> {
    let (address, prefix) = network.split_once('/')?;
    let prefix: u8 = prefix.parse().ok()?;
    let (bits, width) = match address.parse::<IpAddr>().ok()? {
        IpAddr::V4(address) => (u128::from(u32::from(address)), 32),
        IpAddr::V6(address) => (u128::from(address), 128),
    };
    if prefix > width {
        return None;
    }
    let host_bits = u32::from(width - prefix);
    let base = bits.checked_shr(host_bits).unwrap_or(0).checked_shl(host_bits).unwrap_or(0);
    Some((base, prefix, width))
}

// === impl Shares ===

impl Shares {
    /// No share is taken yet.
    pub fn new(pool: Pool) -> Self {
        Shares { pool, taken: BTreeMap::new(), by_node: BTreeMap::new(), lowest_free: 0 }
    }

    /// A node was seen: what it has is taken.
    pub fn observe(&mut self, node: &Node) {
        let share = node.spec.as_ref().and_then(|spec| spec.pod_cidr.as_deref());
        let Some(index) = share.and_then(|share| self.pool.index_of(share)) else { return };
        let node = name(node);
        match self.by_node.get(node).copied() {
            Some(held) if held == index => return,
            Some(held) => self.free(held),
            None => {}
        }
        self.taken.insert(index, node.to_owned());
        self.by_node.insert(node.to_owned(), index);
    }

    /// A node is gone: its share is free.
    pub fn forget(&mut self, node: &str) {
        if let Some(index) = self.by_node.remove(node) {
            self.free(index);
        }
    }

    fn free(&mut self, index: u64) {
        self.taken.remove(&index);
        self.lowest_free = self.lowest_free.min(index);
    }

    /// The share of a node, reserved until the node is seen with it or gone.
    fn reserve(&mut self, node: &str) -> Option<String> {
        let index = match self.by_node.get(node) {
            Some(index) => *index,
            None => {
                let index =
                    (self.lowest_free..self.pool.shares).find(|index| !self.taken.contains_key(index))?;
                self.taken.insert(index, node.to_owned());
                self.by_node.insert(node.to_owned(), index);
                self.lowest_free = index + 1;
                index
            }
        };
        Some(self.pool.show(index))
    }
}

/// Plans the pod network of a node that has none.
pub fn plan(node: &Node, shares: &mut Shares) -> (Plan, Report) {
    let mut plan = Plan::default();
    let mut report = Report::default();
    let has =
        node.spec.as_ref().and_then(|spec| spec.pod_cidr.as_deref()).is_some_and(|share| !share.is_empty());
    if has || is_terminating(node) {
        return (plan, report);
    }
    let subject = Subject::of(node);
    match shares.reserve(name(node)) {
        Some(share) => {
            let body = json!({"spec": {"podCIDR": share, "podCIDRs": [share]}});
            let message = format!("Node {} status is now: CIDRAssignmentFailed", name(node));
            let failed = EventNote::normal(&subject, "CIDRAssignmentFailed", message);
            plan.one(merge_exact::<Node>(&node.metadata, None, body).otherwise(failed));
        }
        None => {
            let message = format!("Node {} status is now: CIDRNotAvailable", name(node));
            report.events.push(EventNote::normal(&subject, "CIDRNotAvailable", message));
            report.why.push("the pod network has no share left".into());
        }
    }
    (plan, report)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(node_name: &str, share: Option<&str>) -> Node {
        let mut node = Node::default();
        node.metadata.name = Some(node_name.into());
        node.spec.get_or_insert_default().pod_cidr = share.map(str::to_owned);
        node
    }

    #[test]
    fn hands_out_the_lowest_free_share_and_takes_it_back() {
        let mut shares = Shares::new(Pool::new("10.244.0.0/16", 24).unwrap());
        shares.observe(&node("a", Some("10.244.0.0/24")));
        assert_eq!(shares.reserve("b").as_deref(), Some("10.244.1.0/24"));
        assert_eq!(shares.reserve("b").as_deref(), Some("10.244.1.0/24"));
        assert_eq!(shares.reserve("c").as_deref(), Some("10.244.2.0/24"));
        shares.forget("a");
        assert_eq!(shares.reserve("d").as_deref(), Some("10.244.0.0/24"));
        assert!(plan(&node("e", Some("10.244.9.0/24")), &mut shares).0.is_empty());
        assert!(!plan(&node("e", None), &mut shares).0.is_empty());
    }

    #[test]
    fn runs_out() {
        let mut shares = Shares::new(Pool::new("10.0.0.0/24", 25).unwrap());
        assert!(shares.reserve("a").is_some() && shares.reserve("b").is_some());
        let (plan, report) = plan(&node("c", None), &mut shares);
        assert!(plan.is_empty());
        assert_eq!(report.events[0].reason, "CIDRNotAvailable");
    }

    #[test]
    fn refuses_what_is_no_pool() {
        assert!(Pool::new("10.0.0.0", 24).is_err());
        assert!(Pool::new("10.0.0.0/24", 16).is_err());
        assert!(Pool::new("fd00::/48", 64).is_ok());
    }
}
