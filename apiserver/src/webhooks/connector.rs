//! Connections to webhooks: TLS over TCP, or over the tunnel of the node that the webhook runs on.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use apiserver_core::ask::{Endpoint, Route};
use arc_swap::ArcSwap;
use http::Uri;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use proto::tunnel::{Dial, open};
use rand::seq::SliceRandom as _;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::tunnel::Registry;

/// Opens connections for one webhook.
#[derive(Clone)]
pub(super) struct Connector {
    tunnels: Arc<Registry>,
    route: Arc<ArcSwap<Route>>,
    tls: Arc<ClientConfig>,
}

/// Whatever carries the bytes.
trait Carrier: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Carrier for T {}

/// An open connection.
pub(super) struct Stream(TlsStream<Box<dyn Carrier>>);

// === impl Connector ===

impl Connector {
    pub(super) fn new(
        tunnels: Arc<Registry>,
        route: Arc<ArcSwap<Route>>,
        tls: Arc<ClientConfig>,
    ) -> Connector {
        Connector { tunnels, route, tls }
    }

    async fn connect(self, uri: Uri) -> io::Result<TokioIo<Stream>> {
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let port = uri.port_u16().unwrap_or(443);
        let route = self.route.load_full();
        let carrier: Box<dyn Carrier> = match &*route {
            Route::Host => Box::new(TcpStream::connect((host.as_str(), port)).await?),
            Route::Endpoints(endpoints) => self.to_one_of(endpoints).await?,
        };
        let name = ServerName::try_from(host).map_err(io::Error::other)?;
        let stream = TlsConnector::from(self.tls).connect(name, carrier).await?;
        Ok(TokioIo::new(Stream(stream)))
    }

    /// Connects to an endpoint, to another one if the first cannot be reached.
    async fn to_one_of(&self, endpoints: &[Endpoint]) -> io::Result<Box<dyn Carrier>> {
        let mut order: Vec<&Endpoint> = endpoints.iter().collect();
        order.shuffle(&mut rand::rng());
        let mut last = io::Error::from(io::ErrorKind::NotConnected);
        for endpoint in order {
            match self.to(endpoint).await {
                Ok(carrier) => return Ok(carrier),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    async fn to(&self, endpoint: &Endpoint) -> io::Result<Box<dyn Carrier>> {
        let Endpoint { node, ip, port } = endpoint;
        let Some(node) = node else { return Ok(Box::new(TcpStream::connect((*ip, *port)).await?)) };
        let dial = open::Request::Dial(Dial { address: ip.to_string(), port: (*port).into() });
        let session = self.tunnels.open(node, dial).await;
        let session = session.map_err(|error| io::Error::other(format!("dial tcp {ip}:{port}: {error}")))?;
        Ok(Box::new(session.into_pipe()))
    }
}

impl tower::Service<Uri> for Connector {
    type Response = TokioIo<Stream>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<TokioIo<Stream>>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        Box::pin(self.clone().connect(uri))
    }
}

// === impl Stream ===

impl Connection for Stream {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}
