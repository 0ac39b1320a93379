//! A deterministic simulator: a whole cluster of production cores in one thread, on a virtual clock, under faults.
//!
//! One seed decides everything: [`run::run`] of the same options does the same again, to the last line of its trace.

pub mod agent;
pub mod cache;
pub mod caller;
pub mod checkers;
pub mod clock;
pub mod cluster;
pub mod controllers;
pub mod execute;
pub mod faults;
pub mod kernel;
pub mod manager;
pub mod network;
pub mod run;
pub mod runtime;
pub mod scheduler;
pub mod serve;
pub mod server;
pub mod streams;
pub mod workload;
