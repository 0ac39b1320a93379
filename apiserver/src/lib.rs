//! Carries HTTP: TLS, authentication, watches, streams, the node tunnel.
//!
//! What a request means is decided in `apiserver-core`; nothing here looks into an object to decide.

mod body;
mod cluster;
mod compress;
mod connection;
mod conversions;
mod health;
mod hub;
mod issuers;
mod judge;
mod keyring;
mod limits;
mod measure;
mod metrics;
mod openapi;
mod peers;
pub mod pki;
mod request_body;
mod respond;
mod server;
mod servers;
mod service;
mod shell;
mod strangers;
mod streams;
mod tls;
pub mod tunnel;
mod turns;
mod upkeep;
mod watch;
mod webhooks;

pub use apiserver_core::config::Ipv4Cidr;
pub use apiserver_core::{Config, User};
pub use apiserver_core::{authn::bootstrap, authn::oidc, cluster as join, fence, keyring as keys};
pub use body::{Body, BodyError};
pub use connection::Limits;
pub use issuers::IssuerError;
pub use peers::PeerConnector;
pub use server::{Options, Server, StartError};
pub use service::{Identity, InProcess};
pub use streams::spdy::wire as spdy;
pub use tls::TlsError;
