//! The server's end of the agents' tunnels: which nodes listen, and sessions opened through them.

use std::{
    collections::HashMap,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures::Stream;
use proto::tunnel::{Frame, Hello, Open, frame, open, tunnel_server};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

mod pipe;

/// How long an agent may take to answer an Open with a session.
const DIAL_TIMEOUT: Duration = Duration::from_secs(10);
/// How long an agent may take to get a session's other end ready (a connection, a process).
const READY_TIMEOUT: Duration = Duration::from_secs(30);
/// Frames that wait in one session towards the agent.
const SESSION_BUFFER: usize = 16;
/// Opens that wait for one agent.
const OPEN_BUFFER: usize = 64;
/// The most bytes in one frame.
const PIECE: usize = 32 * 1024;
/// The metadata key that names a session.
const SESSION_KEY: &str = "orlop-session";

/// The name of the node whose client certificate carried a request. Set by the connection, never by a header.
#[derive(Clone, Debug)]
pub(crate) struct NodeName(pub(crate) Arc<str>);

/// The nodes that listen, and the sessions that wait for their agent.
pub struct Registry {
    state: Mutex<State>,
    next: AtomicU64,
    stop: CancellationToken,
}

#[derive(Default)]
struct State {
    /// By node; the newest listener is last.
    listeners: HashMap<Arc<str>, Vec<Listener>>,
    pending: HashMap<u64, Pending>,
}

struct Listener {
    id: u64,
    opens: mpsc::Sender<Result<Open, Status>>,
}

struct Pending {
    node: Arc<str>,
    reply: oneshot::Sender<Session>,
}

/// An open session with an agent.
#[derive(Debug)]
pub struct Session {
    incoming: Streaming<Frame>,
    outgoing: mpsc::Sender<Result<Frame, Status>>,
}

/// The half of a session that sends to the agent. Dropping it ends that direction.
#[derive(Clone, Debug)]
pub struct Sender(mpsc::Sender<Result<Frame, Status>>);

/// The half of a session that hears from the agent.
#[derive(Debug)]
pub struct Receiver(Streaming<Frame>);

/// The session's other end is gone.
#[derive(Debug, thiserror::Error)]
#[error("the agent ended the session")]
pub struct Ended;

/// Why a session was not opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// No agent of that node listens.
    #[error("error dialing backend: no tunnel to node {node:?}")]
    NoTunnel {
        /// The node.
        node: String,
    },
    /// The agent did not answer in time.
    #[error("error dialing backend: node {node:?} did not answer in {} s", after.as_secs())]
    Timeout {
        /// The node.
        node: String,
        /// How long it had.
        after: Duration,
    },
    /// The agent went away while the session was being opened.
    #[error("error dialing backend: the tunnel to node {node:?} was closed")]
    Closed {
        /// The node.
        node: String,
    },
    /// The agent refused.
    #[error("{message}")]
    Refused {
        /// The HTTP status that a client should see.
        code: u16,
        /// Why.
        message: String,
    },
}

/// The gRPC service on the TLS port.
#[derive(Clone)]
pub(crate) struct Service(pub(crate) Arc<Registry>);

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

// === impl Registry ===

impl Registry {
    pub(crate) fn new(stop: CancellationToken) -> Registry {
        Registry { state: Mutex::default(), next: AtomicU64::new(1), stop }
    }

    /// Whether an agent of that node listens.
    pub fn is_connected(&self, node: &str) -> bool {
        self.state().listeners.contains_key(node)
    }

    /// Opens a session with the agent of `node` and waits until its other end is ready.
    pub async fn open(&self, node: &str, request: open::Request) -> Result<Session, OpenError> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (reply, answer) = oneshot::channel();
        let opens = {
            let mut state = self.state();
            let Some((name, listeners)) = state.listeners.get_key_value(node) else {
                return Err(OpenError::NoTunnel { node: node.into() });
            };
            let Some(newest) = listeners.last() else {
                return Err(OpenError::NoTunnel { node: node.into() });
            };
            let (name, opens) = (name.clone(), newest.opens.clone());
            state.pending.insert(id, Pending { node: name, reply });
            opens
        };
        let _forget = ForgetPending { registry: self, id };

        let dial = async {
            let closed = || OpenError::Closed { node: node.into() };
            opens.send(Ok(Open { session: id, request: Some(request) })).await.map_err(|_| closed())?;
            answer.await.map_err(|_| closed())
        };
        let mut session = tokio::time::timeout(DIAL_TIMEOUT, dial)
            .await
            .map_err(|_| OpenError::Timeout { node: node.into(), after: DIAL_TIMEOUT })??;
        tokio::time::timeout(READY_TIMEOUT, session.ready(node))
            .await
            .map_err(|_| OpenError::Timeout { node: node.into(), after: READY_TIMEOUT })??;
        Ok(session)
    }

    fn listen(self: &Arc<Self>, node: Arc<str>) -> (ForgetListener, mpsc::Receiver<Result<Open, Status>>) {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (opens, receiver) = mpsc::channel(OPEN_BUFFER);
        self.state().listeners.entry(node.clone()).or_default().push(Listener { id, opens });
        tracing::info!(node = &*node, "an agent listens");
        (ForgetListener { registry: self.clone(), node, id }, receiver)
    }

    fn claim(&self, id: u64, node: &str) -> Option<Pending> {
        let mut state = self.state();
        if &*state.pending.get(&id)?.node != node {
            return None;
        }
        state.pending.remove(&id)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct ForgetPending<'a> {
    registry: &'a Registry,
    id: u64,
}

impl Drop for ForgetPending<'_> {
    fn drop(&mut self) {
        self.registry.state().pending.remove(&self.id);
    }
}

struct ForgetListener {
    registry: Arc<Registry>,
    node: Arc<str>,
    id: u64,
}

impl Drop for ForgetListener {
    fn drop(&mut self) {
        let mut state = self.registry.state();
        if let Some(listeners) = state.listeners.get_mut(&self.node) {
            listeners.retain(|listener| listener.id != self.id);
            if listeners.is_empty() {
                state.listeners.remove(&self.node);
            }
        }
        drop(state);
        tracing::info!(node = &*self.node, "an agent stopped listening");
    }
}

// === impl Session ===

impl Session {
    /// Splits the session into its two directions.
    pub fn split(self) -> (Sender, Receiver) {
        (Sender(self.outgoing), Receiver(self.incoming))
    }

    async fn ready(&mut self, node: &str) -> Result<(), OpenError> {
        match self.incoming.message().await {
            Ok(Some(Frame { frame: Some(frame::Frame::Ready(_)) })) => Ok(()),
            Ok(Some(Frame { frame: Some(frame::Frame::Failure(failure)) })) => Err(OpenError::Refused {
                code: u16::try_from(failure.code).unwrap_or(500),
                message: failure.message,
            }),
            Ok(Some(_)) => Err(OpenError::Refused {
                code: 502,
                message: format!("error dialing backend: node {node:?} sent output before it was ready"),
            }),
            Ok(None) | Err(_) => Err(OpenError::Closed { node: node.into() }),
        }
    }
}

// === impl Sender ===

impl Sender {
    /// Sends one frame; waits while the agent does not keep up.
    pub async fn send(&self, frame: frame::Frame) -> Result<(), Ended> {
        self.0.send(Ok(Frame { frame: Some(frame) })).await.map_err(|_| Ended)
    }

    /// Sends bytes of any length, in frames of a good size.
    pub async fn send_all(
        &self,
        mut bytes: Bytes,
        frame: impl Fn(Vec<u8>) -> frame::Frame,
    ) -> Result<(), Ended> {
        while !bytes.is_empty() {
            let piece = bytes.split_to(bytes.len().min(PIECE));
            self.send(frame(piece.into())).await?;
        }
        Ok(())
    }
}

// === impl Receiver ===

impl Receiver {
    /// The next frame; `None` when the agent ended the session properly.
    pub async fn next(&mut self) -> Result<Option<frame::Frame>, Ended> {
        loop {
            match self.0.message().await {
                Ok(Some(Frame { frame: Some(frame) })) => return Ok(Some(frame)),
                Ok(Some(Frame { frame: None })) => {}
                Ok(None) => return Ok(None),
                Err(_) => return Err(Ended),
            }
        }
    }
}

// === impl OpenError ===

impl OpenError {
    /// The HTTP status that a client should see.
    pub fn code(&self) -> u16 {
        match self {
            OpenError::NoTunnel { .. } | OpenError::Closed { .. } => 502,
            OpenError::Timeout { .. } => 504,
            OpenError::Refused { code, .. } if (400..600).contains(code) => *code,
            OpenError::Refused { .. } => 500,
        }
    }
}

// === impl Service ===

#[tonic::async_trait]
impl tunnel_server::Tunnel for Service {
    type ListenStream = Answers<Open>;
    type SessionStream = Answers<Frame>;

    async fn listen(
        &self,
        request: Request<Streaming<Hello>>,
    ) -> Result<Response<Self::ListenStream>, Status> {
        let node = caller(&request)?;
        let mut hellos = request.into_inner();
        let hello = hellos.message().await?.ok_or_else(|| Status::invalid_argument("no hello"))?;
        if hello.node != *node {
            return Err(Status::permission_denied(format!(
                "the certificate of node {node:?} cannot listen for node {:?}",
                hello.node
            )));
        }
        let stop = self.0.stop.clone();
        let (registration, mut opens) = self.0.listen(node);
        let (answers, stream) = mpsc::channel(OPEN_BUFFER);
        tokio::spawn(async move {
            let _registration = registration;
            loop {
                tokio::select! {
                    () = stop.cancelled() => return,
                    hello = hellos.message() => if !matches!(hello, Ok(Some(_))) { return },
                    open = opens.recv() => match open {
                        Some(open) => if answers.send(open).await.is_err() { return },
                        None => return,
                    },
                }
            }
        });
        Ok(Response::new(Box::pin(receiver_stream(stream))))
    }

    async fn session(
        &self,
        request: Request<Streaming<Frame>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let node = caller(&request)?;
        let id = request
            .metadata()
            .get(SESSION_KEY)
            .and_then(|value| value.to_str().ok()?.parse::<u64>().ok())
            .ok_or_else(|| Status::invalid_argument("metadata orlop-session does not name a session"))?;
        let pending = self
            .0
            .claim(id, &node)
            .ok_or_else(|| Status::not_found(format!("no session {id} waits for node {node:?}")))?;
        let (outgoing, stream) = mpsc::channel(SESSION_BUFFER);
        let session = Session { incoming: request.into_inner(), outgoing };
        pending.reply.send(session).map_err(|_| Status::cancelled("the session is no longer wanted"))?;
        Ok(Response::new(Box::pin(receiver_stream(stream))))
    }
}

fn caller<T>(request: &Request<T>) -> Result<Arc<str>, Status> {
    match request.extensions().get::<NodeName>() {
        Some(NodeName(node)) => Ok(node.clone()),
        None => Err(Status::permission_denied("only a node's client certificate opens the tunnel")),
    }
}

fn receiver_stream<T>(receiver: mpsc::Receiver<T>) -> impl Stream<Item = T> {
    futures::stream::unfold(receiver, |mut receiver| async move {
        let item = receiver.recv().await?;
        Some((item, receiver))
    })
}
