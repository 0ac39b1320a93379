//! Forwarded ports: connections to ports of a pod, over SPDY, over SPDY inside a WebSocket, or over the channels of a
//! WebSocket. What fails is told on the connection's error stream; the other connections go on.

use std::sync::Arc;

use apiserver_core::failure::{self, Refused};
use bytes::Bytes;
use http::{HeaderMap, Response, request::Parts};
use hyper::upgrade::Upgraded;
use proto::tunnel::{PortForward, frame, open};
use tokio::io::BufReader;
use tokio::sync::mpsc;
use tokio_util::io::StreamReader;

use super::channel::Coding;
use super::{spdy as spdy_connection, websocket};
use crate::body::Body;
use crate::metrics::LongRunning;
use crate::respond::IntoHttp as _;
use crate::shell::Shell;
use crate::tunnel::{Registry, Session};

mod channels;
mod spdy;

/// SPDY as it is, or inside a WebSocket's messages.
const PROTOCOL: &str = "portforward.k8s.io";
const TUNNEL_PROTOCOL: &str = "SPDY/3.1+portforward.k8s.io";
/// Pieces of one connection that wait to be sent to the agent. A connection whose pod does not read holds up the others
/// of its client when so many wait.
const WAITING: usize = 8;

/// The pod that connections lead to.
pub(super) struct Pod {
    pub(super) node: String,
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) uid: String,
}

/// How a client wants its connections carried.
enum Carrier {
    Spdy(spdy_connection::Accepted),
    Tunnel(websocket::Accepted),
    Channels(websocket::Accepted),
}

/// Where connections are made.
#[derive(Clone)]
struct Dialer {
    tunnels: Arc<Registry>,
    pod: Arc<Pod>,
}

/// What a client sends into one connection. The end of the channel without an [`Input::End`] is a reset.
enum Input {
    Bytes(Bytes),
    End,
}

/// What one connection says to its client.
trait Output {
    /// Bytes of the connection; false when the client is gone.
    fn bytes(&self, bytes: &[u8]) -> impl Future<Output = bool> + Send;
    /// The pod says nothing more, and nothing has failed. True when the client may still have something to say.
    fn end(&self) -> impl Future<Output = bool> + Send;
    /// The connection has failed, for this reason.
    fn fail(&self, message: &str) -> impl Future<Output = ()> + Send;
}

/// Answers, then carries connections until the client is gone.
pub(super) fn carry(
    shell: &Shell,
    pod: Pod,
    ports: &[u16],
    parts: Parts,
    guard: LongRunning,
) -> Response<Body> {
    let carrier = match Carrier::accept(&parts.headers, ports) {
        Ok(carrier) => carrier,
        Err(refusal) => return refusal.into_http(),
    };
    let answer = carrier.response();
    let dialer = Dialer { tunnels: shell.tunnels.clone(), pod: Arc::new(pod) };
    let ports = ports.to_vec();
    super::upgrade(shell, parts, guard, move |upgraded| carrier.run(upgraded, dialer, ports));
    answer
}

// === impl Carrier ===

impl Carrier {
    fn accept(headers: &HeaderMap, ports: &[u16]) -> Result<Carrier, Refused> {
        if spdy_connection::is_asked(headers) {
            return spdy_connection::accept(headers, PROTOCOL).map(Carrier::Spdy);
        }
        let protocols = [&[TUNNEL_PROTOCOL], &channels::PROTOCOLS[..], &[PROTOCOL]].concat();
        let accepted = websocket::accept(headers, &protocols)?;
        if accepted.protocol == TUNNEL_PROTOCOL {
            return Ok(Carrier::Tunnel(accepted));
        }
        match ports.len() {
            0 => Err(failure::bad_request("query parameter \"port\" is required")),
            1..=channels::MAX_PORTS => Ok(Carrier::Channels(accepted)),
            _ => Err(failure::bad_request("too many ports")),
        }
    }

    fn response(&self) -> Response<Body> {
        match self {
            Carrier::Spdy(accepted) => accepted.response(),
            Carrier::Tunnel(accepted) | Carrier::Channels(accepted) => accepted.response(),
        }
    }

    async fn run(self, upgraded: Upgraded, dialer: Dialer, ports: Vec<u16>) {
        match self {
            Carrier::Spdy(_) => {
                let (read, write) = spdy_connection::halves(upgraded);
                spdy::run(read, write, dialer).await;
            }
            Carrier::Tunnel(_) => {
                let (write, read) = websocket::bytes(websocket::socket(upgraded).await);
                spdy::run(BufReader::new(StreamReader::new(read)), write, dialer).await;
            }
            Carrier::Channels(accepted) => {
                let coding = Coding::of(accepted.protocol);
                channels::run(websocket::socket(upgraded).await, coding, dialer, ports).await;
            }
        }
    }
}

// === impl Dialer ===

impl Dialer {
    async fn dial(&self, port: u16) -> Result<Session, String> {
        let Pod { node, namespace, name, uid } = &*self.pod;
        let request = open::Request::PortForward(PortForward {
            namespace: namespace.clone(),
            pod: name.clone(),
            uid: uid.clone(),
            port: port.into(),
        });
        self.tunnels.open(node, request).await.map_err(|error| self.failure(port, &error))
    }

    /// A failure in the words of a kubelet.
    fn failure(&self, port: u16, why: &dyn std::fmt::Display) -> String {
        let Pod { name, uid, .. } = &*self.pod;
        format!("error forwarding port {port} to pod {name}, uid {uid}: {why}")
    }

    /// Connects to a port and carries the connection until both directions have ended, the client has reset it, or it
    /// has failed.
    async fn forward(&self, port: u16, mut input: mpsc::Receiver<Input>, output: &(impl Output + Sync)) {
        let session = match self.dial(port).await {
            Ok(session) => session,
            Err(message) => return output.fail(&message).await,
        };
        let (sender, mut receiver) = session.split();
        // Ends with the client's direction; false when the client has reset the connection.
        let up = async {
            while let Some(piece) = input.recv().await {
                let sent = match piece {
                    Input::Bytes(bytes) => sender.send_all(bytes, frame::Frame::Data).await,
                    Input::End => {
                        // When the agent is gone, the other direction tells.
                        let _ = sender.send(frame::Frame::End(true)).await;
                        return true;
                    }
                };
                if sent.is_err() {
                    return true;
                }
            }
            false
        };
        // Ends with the pod's direction; false when nothing more can come of the connection.
        let down = async {
            let why = loop {
                match receiver.next().await {
                    Ok(Some(frame::Frame::Data(bytes))) => {
                        if !output.bytes(&bytes).await {
                            return false;
                        }
                    }
                    Ok(Some(frame::Frame::End(_))) => return output.end().await,
                    Ok(Some(frame::Frame::Failure(failure))) => break failure.message,
                    Ok(Some(_)) => {}
                    Ok(None) => break "the node ended the connection".to_owned(),
                    Err(error) => break error.to_string(),
                }
            };
            output.fail(&self.failure(port, &why)).await;
            false
        };
        tokio::pin!(up, down);
        tokio::select! {
            goes_on = &mut down => if goes_on { up.await; },
            goes_on = &mut up => if goes_on { down.await; },
        }
    }
}
