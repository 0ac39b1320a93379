//! Plans API requests: a snapshot, a request and a user in; a transaction or a response out.
//!
//! [`prepare`] leaves nothing to decide: the shell authenticates, picks the snapshot that
//! [`Request::consistency`] asks for, calls [`prepare`], and carries out what comes back. When a compare of
//! the transaction fails it calls [`prepare`] again on a newer snapshot.

mod admission;
mod apply;
mod aside;
pub mod ask;
pub mod authn;
pub mod authz;
mod backends;
mod bind;
mod body;
mod call;
pub mod cluster;
mod components;
pub mod config;
pub mod connect;
pub mod convert;
mod create;
pub mod customs;
mod definition;
mod delete;
mod discovery;
mod edit;
mod evict;
pub mod failure;
pub mod fence;
mod finalize;
pub mod genesis;
pub mod ids;
pub mod keyring;
pub mod keys;
mod kinds;
mod lists;
pub mod metrics;
pub mod negotiate;
mod object;
pub mod output;
mod own;
pub mod paging;
mod patch;
mod policies;
mod prepare;
pub mod proxy;
mod read;
pub mod request;
pub mod response;
mod review;
mod scale;
pub mod scan;
pub mod selection;
pub mod served;
mod service;
mod stream;
pub mod table;
mod token;
mod update;
pub mod user;
pub mod watch;
mod watching;
mod webhooks;
pub mod world;

pub use admission::contended;
pub use ask::{Answers, Ask};
pub use config::Config;
pub use connect::ConnectPlan;
pub use delete::collection::{Deleted, DeletionPart, DeletionPlace};
pub use ids::Ids;
pub use prepare::{Progress, prepare, prepare_from};
pub use request::{Consistency, Request, RequestInfo};
pub use response::{Body, Commit, Prepared, Rendered, Reply, Response};
pub use user::User;
pub use watch::WatchPlan;
pub use world::{Derived, World};
