//! Runs pods on one node.

pub mod embedded;
pub mod images;
pub mod netns;
pub mod network;
pub mod shim;
