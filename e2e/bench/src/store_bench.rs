//! The store as three members with real logs, beside etcd: one client, one protocol, mutual TLS for both.

mod cork;
pub mod failover;
mod kv;
pub mod measure;
pub mod member;
mod pki;
mod servers;
pub mod size;

/// The key-value service that both serve (`proto/kv.proto`).
#[allow(missing_docs, clippy::all, clippy::pedantic)]
mod wire {
    tonic::include_proto!("etcdserverpb");
}
