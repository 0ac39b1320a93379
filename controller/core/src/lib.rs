//! Plans what workloads need: one planner a controller.

pub mod deployment;
pub mod hash;
pub mod merge;
pub mod object;
pub mod ownership;
pub mod plan;
pub mod pod;
pub mod replica_set;
pub mod scaled;
pub mod selector;
pub mod tolerate;
pub mod daemon_set;
pub mod write;
