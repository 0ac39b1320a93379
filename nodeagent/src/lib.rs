//! Runs pods on one node.

pub mod images;
pub mod shim;
