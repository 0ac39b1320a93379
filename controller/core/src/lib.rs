//! Plans what workloads need: one planner a controller.

pub mod daemon_set;
pub mod deployment;
pub mod endpoints;
pub mod hash;
pub mod merge;
pub mod namespaced_defaults;
pub mod node_ipam;
pub mod object;
pub mod ownership;
pub mod plan;
pub mod pod;
pub mod replica_set;
pub mod scaled;
pub mod selector;
pub mod tolerate;
pub mod write;
