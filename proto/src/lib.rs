//! Our .proto files, generated code, wire conversion.

/// The tunnel between agents and servers (`proto/orlop/tunnel/v1/tunnel.proto`).
#[allow(missing_docs, clippy::all, clippy::pedantic)]
pub mod tunnel {
    tonic::include_proto!("orlop.tunnel.v1");
}

/// How the members of the store reach each other (`proto/orlop/peer/v1/peer.proto`).
#[allow(missing_docs, clippy::all, clippy::pedantic)]
pub mod peer {
    tonic::include_proto!("orlop.peer.v1");
}
