//! Plans service rules and answers names, from Services and EndpointSlices.
//!
//! [`services`] turns one Service with its EndpointSlices into frontends and their backends, [`host_ports`] the host ports
//! of one pod. [`table`] holds what the
//! kernel was told and yields the changes that bring it to a new state. [`names`] answers cluster DNS questions.

pub mod host_ports;
pub mod names;
pub mod services;
pub mod table;
