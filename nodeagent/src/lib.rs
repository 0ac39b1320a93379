//! Runs pods on one node.
