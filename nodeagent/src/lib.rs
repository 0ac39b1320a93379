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

/// The environment variable, and its value, that tells the allocator of this executable to keep little memory: one arena, small
/// caches of threads, free pages go back at once (jemalloc(3)). For processes that allocate little at a time.
pub const SMALL_HEAP: (&str, &str) =
    ("_RJEM_MALLOC_CONF", "narenas:1,lg_tcache_max:11,dirty_decay_ms:0,muzzy_decay_ms:0");

pub use self::agent::{Config, Error, TunnelConfig, run};
