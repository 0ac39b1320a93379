//! The pod lifecycle on one node, as a machine; what containers are given; the Runtime trait.

pub mod admission;
pub mod backoff;
pub mod build;
pub mod cgroup;
pub mod clock;
pub mod disk;
pub mod drive;
pub mod env;
pub mod fields;
pub mod image_gc;
pub mod lifecycle;
pub mod logs;
pub mod netfiles;
pub mod node;
pub mod pod;
pub mod probe;
pub mod projection;
pub mod runtime;
pub mod security;
pub mod sysctls;
pub mod usage;

pub use lifecycle::PodMachine;
