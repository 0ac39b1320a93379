//! Service IPs and DNS on one node.
