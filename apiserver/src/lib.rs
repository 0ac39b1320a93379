//! Carries HTTP: TLS, authentication, watches, streams, the node tunnel.
//!
//! What a request means is decided in `apiserver-core`; nothing here looks into an object to decide.

mod body;
mod cluster;
mod compress;
mod connection;
mod health;
mod hub;
mod limits;
mod measure;
mod metrics;
mod openapi;
mod peers;
pub mod pki;
mod respond;
mod server;
mod servers;
mod service;
mod shell;
mod streams;
mod tls;
pub mod tunnel;
mod watch;

pub use apiserver_core::config::Ipv4Cidr;
pub use apiserver_core::{Config, User};
pub use apiserver_core::{authn::bootstrap, cluster as join, fence};
pub use body::{Body, BodyError};
pub use peers::PeerConnector;
pub use server::{Options, Server, StartError};
pub use service::{Identity, InProcess};
pub use streams::spdy::wire as spdy;
pub use tls::TlsError;
