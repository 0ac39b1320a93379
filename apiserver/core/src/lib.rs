//! Plans API requests: a snapshot, a request and a user in; a transaction or a response out.
//!
//! [`prepare`] leaves nothing to decide: the shell authenticates, picks the snapshot that
//! [`Request::consistency`] asks for, calls [`prepare`], and carries out what comes back. When a compare of
//! the transaction fails it calls [`prepare`] again on a newer snapshot.

pub mod authn;
pub mod authz;
pub mod config;
pub mod connect;
pub mod failure;
pub mod genesis;
pub mod ids;
pub mod keys;
mod object;
pub mod output;
pub mod paging;
mod prepare;
pub mod request;
pub mod response;
pub mod scan;
pub mod selection;
pub mod user;
pub mod watch;
pub mod world;

pub use config::Config;
pub use connect::ConnectPlan;
pub use ids::Ids;
pub use prepare::prepare;
pub use request::{Consistency, Request, RequestInfo};
pub use response::{Body, Commit, Prepared, Rendered, Reply, Response};
pub use user::User;
pub use watch::WatchPlan;
pub use world::{Derived, World};
