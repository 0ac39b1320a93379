//! Connections: accept, TLS handshake, HTTP/1.1 or HTTP/2, the limits of each, and the end.

use std::{convert::Infallible, sync::Arc, time::Duration};

use apiserver_core::User;
use bytes::Bytes;
use futures::FutureExt as _;
use http::{Request, Response, Version, header};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use proto::tunnel::tunnel_server::TunnelServer;
use store::{PEER_PROTOCOL, PeerId};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::server::TlsStream;
use tower::Service as _;

use crate::body::{Body, BodyError};
use crate::shell::{Peer, Shell};
use crate::strangers::{Stranger, Strangers};
use crate::tunnel::{self, NodeName};
use crate::{peers, tls};

/// The largest request head.
const MAX_HEAD: usize = 64 * 1024;
const MAX_HEADERS: usize = 128;
/// Where the service of the store's members is.
const PEER_PATH: &str = "/orlop.peer.v1.Peer/";
/// Streams at once in one HTTP/2 connection.
const MAX_STREAMS: u32 = 1000;
const STREAM_WINDOW: u32 = 1024 * 1024;
const CONNECTION_WINDOW: u32 = 4 * 1024 * 1024;
const PING_EVERY: Duration = Duration::from_secs(20);
const PING_TIMEOUT: Duration = Duration::from_secs(20);
/// Streams that a client reset before they were accepted; more and the connection ends (rapid reset).
const MAX_PENDING_RESETS: usize = 32;
const MAX_ERROR_RESETS: usize = 256;
/// How long requests under way may take when the server stops.
const DRAIN: Duration = Duration::from_secs(5);

/// The bounds of connections and requests.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Connections at once, of all clients. Further ones wait to be accepted.
    pub connections: usize,
    /// Connections at once that have not proved who is at the other end; the oldest gives way to the next.
    pub strangers: usize,
    /// How long a TLS handshake may take.
    pub handshake: Duration,
    /// How long HTTP/1.1 waits for the next request's head, and for the rest of it.
    pub head: Duration,
    /// How long a request may take, its body included; watches and streams may go on.
    pub request: Duration,
}

/// The settings of both protocols.
pub(crate) struct Protocols {
    http1: http1::Builder,
    http2: http2::Builder<TokioExecutor>,
}

/// What a connection is served with.
pub(crate) struct Acceptor {
    pub(crate) shell: Arc<Shell>,
    pub(crate) tls: Arc<tls::Tls>,
    pub(crate) protocols: Protocols,
    pub(crate) strangers: Strangers,
}

// === impl Limits ===

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            connections: 16 * 1024,
            strangers: 4 * 1024,
            handshake: Duration::from_secs(10),
            // As long as Kubernetes' clients keep a connection that they do not use, and some.
            head: Duration::from_secs(120),
            request: Duration::from_secs(60),
        }
    }
}

// === impl Protocols ===

impl Protocols {
    pub(crate) fn new(limits: &Limits) -> Protocols {
        let mut http1 = http1::Builder::new();
        http1
            .timer(TokioTimer::new())
            .header_read_timeout(limits.head)
            .max_headers(MAX_HEADERS)
            .max_header_size(MAX_HEAD);
        let mut http2 = http2::Builder::new(TokioExecutor::new());
        http2
            .timer(TokioTimer::new())
            .max_concurrent_streams(MAX_STREAMS)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_header_list_size(MAX_HEAD as u32)
            .max_pending_accept_reset_streams(MAX_PENDING_RESETS)
            .max_local_error_reset_streams(MAX_ERROR_RESETS)
            .keep_alive_interval(PING_EVERY)
            .keep_alive_timeout(PING_TIMEOUT);
        Protocols { http1, http2 }
    }
}

/// Accepts connections until the server stops.
pub(crate) async fn accept(acceptor: Arc<Acceptor>, listener: TcpListener) {
    let places = Arc::new(Semaphore::new(acceptor.shell.limits.connections));
    let shell = acceptor.shell.clone();
    let mut closing = std::pin::pin!(shell.lingered());
    loop {
        let accepted = tokio::select! {
            () = &mut closing => break,
            accepted = async {
                let place = places.clone().acquire_owned().await;
                (place, listener.accept().await)
            } => accepted,
        };
        match accepted {
            (Ok(place), Ok((stream, _))) => acceptor.clone().spawn(stream, place),
            (Err(_), _) => return,
            (_, Err(error)) => {
                // Out of file descriptors or memory: others must end first.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
    // Those that the kernel has accepted already would be reset.
    while let (Ok(place), Some(Ok((stream, _)))) =
        (places.clone().try_acquire_owned(), listener.accept().now_or_never())
    {
        acceptor.clone().spawn(stream, place);
    }
}

// === impl Acceptor ===

impl Acceptor {
    /// Serves a connection on a task of its own; `place` is free again when it ends.
    fn spawn(self: Arc<Self>, stream: TcpStream, place: OwnedSemaphorePermit) {
        let tasks = self.shell.tasks.clone();
        // Here, and not by the task: who came first is the oldest.
        let stranger = self.strangers.enter();
        tasks.spawn(async move {
            let _place = place;
            self.serve(stream, stranger).await;
        });
    }

    async fn serve(&self, stream: TcpStream, stranger: Stranger) {
        // Answers are written whole; waiting for more would only delay them. It is not needed for correctness.
        let _ = stream.set_nodelay(true);
        let handshake = tokio::time::timeout(self.shell.limits.handshake, self.tls.acceptor().accept(stream));
        let stream = tokio::select! {
            () = self.shell.lingered() => return,
            () = stranger.sent_away() => return,
            handshake = handshake => match handshake {
                Ok(Ok(stream)) => stream,
                Ok(Err(error)) => {
                    self.shell.metrics.handshake_errors.inc();
                    tracing::debug!(%error, "a TLS handshake failed");
                    return;
                }
                Err(_) => {
                    self.shell.metrics.handshake_errors.inc();
                    return;
                }
            },
        };
        self.shell.metrics.connections.inc();
        let sent_away = stranger.sent_away();
        tokio::select! {
            () = self.serve_http(stream, stranger) => {}
            () = sent_away => tracing::debug!("a connection that had proved nothing gave way to others"),
        }
        self.shell.metrics.connections.dec();
    }

    async fn serve_http(&self, stream: TlsStream<TcpStream>, stranger: Stranger) {
        let (_, session) = stream.get_ref();
        let is_http2 = session.alpn_protocol() == Some(b"h2");
        let is_of_store = session.alpn_protocol() == Some(PEER_PROTOCOL);
        let subject = session.peer_certificates().and_then(|chain| tls::certificate_subject(chain.first()?));
        let peer = match subject {
            Some(subject) => {
                stranger.is_known();
                let user = apiserver_core::User::from_certificate(&subject.name, &subject.groups);
                Peer::Known(self.shell.caller(user))
            }
            None => Peer::Unknown(stranger),
        };
        let machine = match &peer {
            Peer::Known(caller) => Machine::of(&caller.user),
            Peer::Unknown(_) => Machine::default(),
        };
        if is_of_store {
            match machine.member {
                Some(member) => self.shell.store.take_stream(member, stream.into()),
                None => tracing::debug!("a stream for the store came from none of its members"),
            }
            return;
        }
        let (shell, peer) = (self.shell.clone(), Arc::new(peer));
        let service = service_fn(move |request: Request<Incoming>| {
            let (shell, peer, machine) = (shell.clone(), peer.clone(), machine.clone());
            async move { Ok::<_, Infallible>(route(&shell, &peer, machine, request).await) }
        });
        let io = TokioIo::new(stream);
        let closing = self.shell.lingered();
        let ended = if is_http2 {
            let mut connection = std::pin::pin!(self.protocols.http2.serve_connection(io, service));
            tokio::select! {
                ended = connection.as_mut() => ended,
                () = closing => {
                    connection.as_mut().graceful_shutdown();
                    tokio::time::timeout(DRAIN, connection).await.unwrap_or(Ok(()))
                }
            }
        } else {
            let connection = self.protocols.http1.serve_connection(io, service).with_upgrades();
            let mut connection = std::pin::pin!(connection);
            tokio::select! {
                ended = connection.as_mut() => ended,
                () = closing => {
                    connection.as_mut().graceful_shutdown();
                    tokio::time::timeout(DRAIN, connection).await.unwrap_or(Ok(()))
                }
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "a connection ended early");
        }
    }
}

/// What a connection's certificate says of the machine at the other end.
#[derive(Clone, Default)]
struct Machine {
    node: Option<NodeName>,
    member: Option<PeerId>,
}

// === impl Machine ===

impl Machine {
    fn of(user: &User) -> Machine {
        Machine { node: user.node().map(|node| NodeName(node.into())), member: peers::member(user) }
    }
}

/// gRPC of servers goes to the store, other gRPC to the tunnel, everything else to the API.
async fn route(
    shell: &Arc<Shell>,
    peer: &Peer,
    machine: Machine,
    mut request: Request<Incoming>,
) -> Response<Body> {
    let is_grpc = request.version() == Version::HTTP_2
        && request
            .headers()
            .get(header::CONTENT_TYPE)
            .is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"));
    if !is_grpc {
        return shell.handle(request, peer).await;
    }
    let answered = if request.uri().path().starts_with(PEER_PATH) {
        if let Some(member) = machine.member {
            request.extensions_mut().insert(member);
        }
        shell.store.peer_service().call(request).await
    } else {
        if let Some(node) = machine.node {
            request.extensions_mut().insert(node);
        }
        TunnelServer::new(tunnel::Service(shell.tunnels.clone())).call(request).await
    };
    match answered {
        Ok(response) => response.map(|body| Body::stream(body.map_err(BodyError::from))),
        Err(never) => match never {},
    }
}

/// A body of the tunnel carries the same bytes as every other.
const _: fn() = || {
    fn same<B: hyper::body::Body<Data = Bytes>>() {}
    same::<Incoming>();
};
