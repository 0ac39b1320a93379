//! Runs pods on one node.

pub mod shim;
