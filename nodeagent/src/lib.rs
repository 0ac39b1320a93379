//! Runs pods on one node.

pub mod embedded;
pub mod images;
pub mod netns;
pub mod network;
pub mod shim;

pub mod agent;
mod api;
mod drain;
mod driver;
mod hands;
pub mod hollow;
mod housekeeping;
mod node;
mod objects;
mod podlogs;
mod pods;
mod prober;
mod sockets;
mod tokens;
mod tunnel;
mod volumes;

pub use self::agent::{Config, Error, TunnelConfig, run};
