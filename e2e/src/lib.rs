//! End-to-end tests on real processes and namespaces: clusters of the very binary that users run, driven by the very
//! kubectl that they use.
//!
//! Everything happens in a network namespace of the test's own, which has no way out; see [`harness::isolate`].

pub mod binary;
pub mod cluster;
pub mod harness;
pub mod history;
pub mod host;
pub mod hosts;
pub mod https;
pub mod image;
pub mod kubectl;
pub mod manifests;
pub mod netns;
pub mod slow_disk;
pub mod transcript;
pub mod wait;
pub mod watching;
