//! Carries HTTP: TLS, authentication, watches, streams, the node tunnel.
