//! The API server as its clients see it: real TLS, a real store, a real agent's end of the tunnel.

mod access;
mod agent;
mod kubectl;
mod limits;
mod streams;
mod support;
mod watches;
