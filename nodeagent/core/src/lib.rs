//! The pod lifecycle on one node, as a machine; the Runtime trait.

pub mod runtime;
