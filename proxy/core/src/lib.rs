//! Plans service rules and answers names, from Services and EndpointSlices.
//!
//! [`services`] turns one Service with its EndpointSlices into frontends and their backends. [`table`] holds what the
//! kernel was told and yields the changes that bring it to a new state. [`names`] answers cluster DNS questions.

pub mod names;
pub mod services;
pub mod table;
