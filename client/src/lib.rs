//! The way to the API server: requests, shared caches of objects, events, leader election.
//!
//! Every component talks through a [`Client`]; what it reads often it reads from [`Informers`]. The logic of both is in `client-core`.

mod connect;
mod dynamic;
mod servers;
mod transport;
mod typed;

pub mod clock;
pub mod election;
pub mod events;
pub mod informer;
pub mod params;
pub mod watch;

pub use client_core as core;
pub use client_core::error::Error;
pub use kube;

pub use self::connect::ConnectError;
pub use self::informer::{Changes, Informer, Informers, Scope};
pub use self::transport::{Client, ResponseBody};
