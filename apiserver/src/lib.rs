//! Carries HTTP: TLS, authentication, watches, streams, the node tunnel.
//!
//! What a request means is decided in `apiserver-core`; nothing here looks into an object to decide.

pub mod pki;
mod tls;
pub mod tunnel;

pub use tls::TlsError;
