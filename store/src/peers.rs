//! The way to the group's other members, and the service that they call.

use std::time::Duration;

use proto::peer::peer_server::{Peer, PeerServer};
use proto::peer::{DeliverReply, DescribeReply, DescribeRequest, InstallPart, InstallReply, Letters};
use tonic::transport::Endpoint;
use tonic::{Request, Response, Status, Streaming};

/// Answers other members. Made by [`Store::peer_service`](crate::Store::peer_service).
pub struct PeerService {}

/// The beginning of a peer's channel, with the settings that the store counts on: small messages go at once, and a
/// connection that is dead is noticed within two seconds. The connector adds TLS.
pub fn endpoint(address: &str) -> Result<Endpoint, tonic::transport::Error> {
    // The scheme is plain because TLS is laid by the connector.
    let endpoint = Endpoint::from_shared(format!("http://{address}"))?;
    Ok(endpoint
        .tcp_nodelay(true)
        .connect_timeout(Duration::from_secs(1))
        .http2_keep_alive_interval(Duration::from_secs(1))
        .keep_alive_timeout(Duration::from_secs(1))
        .initial_stream_window_size(8 << 20)
        .initial_connection_window_size(16 << 20))
}

// === impl PeerService ===

impl PeerService {
    pub(crate) fn server() -> PeerServer<Self> {
        PeerServer::new(Self {})
    }
}

#[tonic::async_trait]
impl Peer for PeerService {
    async fn deliver(&self, _: Request<Streaming<Letters>>) -> Result<Response<DeliverReply>, Status> {
        Err(Status::unavailable("this member has no peers"))
    }

    async fn install(&self, _: Request<Streaming<InstallPart>>) -> Result<Response<InstallReply>, Status> {
        Err(Status::unavailable("this member has no peers"))
    }

    async fn describe(&self, _: Request<DescribeRequest>) -> Result<Response<DescribeReply>, Status> {
        Err(Status::unavailable("this member has no peers"))
    }
}
