//! Pure client machinery: list-watch cache, work queue, backoff, leader election, event correlation, planned writes.
//!
//! Nothing in here does I/O or reads a clock: machines are fed with what happened and asked what to do next.

pub mod backoff;
pub mod cache;
pub mod clock;
pub mod election;
pub mod error;
pub mod events;
pub mod footprint;
pub mod lean;
pub mod object;
pub mod plan;
pub mod queue;
pub mod uid;
pub mod wire;
