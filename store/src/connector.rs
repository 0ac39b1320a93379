//! How a connection to a peer is made: TCP that notices a dead peer, TLS of the caller's, and which protocol it carries.

use std::io;
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use rustix::net::sockopt;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, TlsStream};
use tonic::transport::{Channel, Endpoint};

/// What members name, as ALPN protocol, when a connection carries a stream of messages
/// ([`Store::take_stream`](crate::Store::take_stream)). The server that listens for peers offers it beside `h2`.
pub const PEER_PROTOCOL: &[u8] = b"orlop-peer/1";

const GRPC_PROTOCOL: &[u8] = b"h2";
const CONNECT_WITHIN: Duration = Duration::from_secs(1);
/// After how long without an answer a peer's machine counts as gone.
const DEAD_AFTER: Duration = Duration::from_secs(2);
/// Leads nowhere: what a channel to an address gets that is none.
const NOWHERE: &str = "http://0.0.0.0:0";

/// How peers are reached. The caller owns the certificates; the group knows the addresses.
pub trait Connector: Send + Sync + 'static {
    /// TLS that proves this member to its peers and checks them.
    ///
    /// Called anew for each connection, so that renewed certificates are read. Must not wait. The protocols of ALPN are
    /// the store's business.
    fn tls(&self) -> io::Result<PeerTls>;
}

/// A connector that is shared.
pub type SharedConnector = Arc<dyn Connector>;

/// The TLS of a connection to a peer.
#[derive(Clone, Debug)]
pub struct PeerTls {
    /// Certificates and trust.
    pub config: ClientConfig,
    /// A name that every member's certificate is good for.
    pub name: ServerName<'static>,
}

/// A connection for a stream of messages.
pub(crate) async fn dial(connector: SharedConnector, address: String) -> io::Result<TlsStream<TcpStream>> {
    connect(&*connector, &address, PEER_PROTOCOL).await
}

/// A channel for calls; connects when it is first used.
pub(crate) fn channel(connector: &SharedConnector, address: &str) -> Channel {
    // The scheme is plain because TLS is laid below.
    let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap_or_else(|error| {
        tracing::warn!(address, %error, "the address of a member cannot be used");
        Endpoint::from_static(NOWHERE)
    });
    let (connector, address) = (connector.clone(), address.to_owned());
    let endpoint = endpoint
        .http2_keep_alive_interval(Duration::from_secs(1))
        .keep_alive_timeout(Duration::from_secs(1))
        .initial_stream_window_size(8 << 20)
        .initial_connection_window_size(16 << 20);
    endpoint.connect_with_connector_lazy(tower::service_fn(move |_: http::Uri| {
        let (connector, address) = (connector.clone(), address.clone());
        async move { connect(&*connector, &address, GRPC_PROTOCOL).await.map(TokioIo::new) }
    }))
}

async fn connect(
    connector: &dyn Connector,
    address: &str,
    protocol: &[u8],
) -> io::Result<TlsStream<TcpStream>> {
    let PeerTls { mut config, name } = connector.tls()?;
    config.alpn_protocols = vec![protocol.to_vec()];
    let connecting = async {
        let stream = TcpStream::connect(address).await?;
        prepare(&stream)?;
        TlsConnector::from(Arc::new(config)).connect(name, stream).await
    };
    let late = |_| io::Error::new(io::ErrorKind::TimedOut, "no connection within a second");
    tokio::time::timeout(CONNECT_WITHIN, connecting).await.map_err(late)?.map(TlsStream::from)
}

/// Small messages go at once, and a peer whose machine is gone is noticed by either side, whether it writes or waits.
fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = stream.as_fd();
    sockopt::set_socket_keepalive(socket, true)?;
    sockopt::set_tcp_keepidle(socket, DEAD_AFTER / 2)?;
    sockopt::set_tcp_keepintvl(socket, DEAD_AFTER / 2)?;
    sockopt::set_tcp_keepcnt(socket, 2)?;
    Ok(sockopt::set_tcp_user_timeout(socket, DEAD_AFTER.as_millis() as u32)?)
}

/// Moves a connection to the runtime of the calling task: the socket is registered there anew.
pub(crate) fn adopt(stream: &mut TlsStream<TcpStream>) -> io::Result<()> {
    let socket = match stream {
        TlsStream::Client(stream) => stream.get_mut().0,
        TlsStream::Server(stream) => stream.get_mut().0,
    };
    let again = std::net::TcpStream::from(socket.as_fd().try_clone_to_owned()?);
    *socket = TcpStream::from_std(again)?;
    prepare(socket)
}
