//! Our .proto files, generated code, wire conversion.

/// The tunnel between agents and servers (`proto/orlop/tunnel/v1/tunnel.proto`).
#[allow(missing_docs, clippy::all, clippy::pedantic)]
pub mod tunnel {
    tonic::include_proto!("orlop.tunnel.v1");
}
