//! Plans what workloads need: one planner a controller.

#[cfg(test)]
mod model;

pub mod daemon_set;
pub mod definition;
pub mod deployment;
pub mod dispatch;
pub mod endpoints;
pub mod execution;
pub mod feed;
pub mod garbage;
pub mod hash;
pub mod merge;
pub mod namespace;
pub mod namespaced_defaults;
pub mod node_ipam;
pub mod node_lifecycle;
pub mod object;
pub mod ownership;
pub mod plan;
pub mod pod;
pub mod pod_gc;
pub mod replica_set;
pub mod resource_quota;
pub mod scaled;
pub mod selector;
pub mod taint_eviction;
pub mod tolerate;
pub mod world;
pub mod write;
