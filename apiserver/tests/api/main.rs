//! The API server as its clients see it: real TLS, a real store, a real agent's end of the tunnel.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "helpers of tests")]

mod access;
mod agent;
mod cluster;
mod kubectl;
mod limits;
mod oidc;
mod port_forward;
mod proxy;
mod quotas;
mod streams;
mod support;
mod upgrades;
mod upkeep;
mod watches;
mod webhooks;
