//! Attacks on the API server, one module a class: each is tried on real sockets, and must come to nothing.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "helpers of tests")]

#[allow(dead_code, reason = "shared with the other tests, which use all of it")]
#[path = "../api/agent.rs"]
mod agent;
#[allow(dead_code, reason = "shared with the other tests, which use all of it")]
#[path = "../api/support.rs"]
mod support;

mod authorization;
mod bombs;
mod exhaustion;
mod floods;
mod paths;
mod smuggling;
mod tokens;
mod upgrades;
mod watching;
mod wire;
