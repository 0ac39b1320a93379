//! Passes requests on to pods, services' endpoints and nodes, through the tunnel of the node. Each request has a connection
//! of its own, which nothing else uses before or after it.

use std::pin::Pin;
use std::task::{Context, Poll};

use api::status::Status;
use apiserver_core::connect::{Backend, Proxied};
use apiserver_core::failure::Refused;
use apiserver_core::proxy::headers;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Uri, Version, header, request::Parts};
use hyper::body::{Body as HttpBody, Frame, Incoming};
use hyper::client::conn::http1;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use proto::tunnel::{Dial, Node, open};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::body::{Body, BodyError};
use crate::metrics::LongRunning;
use crate::respond::IntoHttp as _;
use crate::shell::Shell;

mod tls;

/// Passes the request on and answers with what the backend answers.
pub(super) async fn carry(
    shell: &Shell,
    node: &str,
    proxied: Proxied,
    mut parts: Parts,
    body: Body,
    guard: LongRunning,
) -> Response<Body> {
    let client = match parts.extensions.remove::<OnUpgrade>() {
        Some(client) if parts.version == Version::HTTP_11 => Some(client),
        _ => None,
    };
    // What cannot change hands, as a stream of HTTP/2, asks for no upgrade.
    if client.is_none() {
        parts.headers.remove(header::UPGRADE);
    }
    let passed = tokio::select! {
        passed = pass(shell, node, &proxied, &parts, body) => passed,
        () = shell.stop.cancelled() => Err("the server is stopping".into()),
    };
    let (mut answer, connection) = match passed {
        Ok(passed) => passed,
        Err(error) => {
            let message = format!("error trying to reach service: {error}");
            return Refused::from(Status::unavailable(message)).into_http();
        }
    };
    let host = host(&parts);
    let headers = headers::of_answer(answer.headers(), &proxied, &host);
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        let status = answer.status();
        let end = shell.stop.clone().cancelled_owned();
        let body =
            Passed { body: answer.into_body(), end: Box::pin(end), _connection: connection, _guard: guard };
        let mut response = Response::new(Body::stream(body));
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        return response;
    }
    let asked = headers::upgrade(&parts.headers);
    let agreed = headers::upgrade(answer.headers());
    let (Some(client), Some(protocol)) = (client, agreed.filter(|agreed| same(asked, agreed)).cloned())
    else {
        let message = "error trying to reach service: it changed to a protocol that was not asked for";
        return Refused::from(Status::unavailable(message)).into_http();
    };
    let backend = hyper::upgrade::on(&mut answer);
    join(shell, client, backend, connection, guard);
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    *response.headers_mut() = headers;
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    response.headers_mut().insert(header::UPGRADE, protocol);
    response
}

fn same(asked: Option<&HeaderValue>, agreed: &HeaderValue) -> bool {
    asked.is_some_and(|asked| asked.as_bytes().eq_ignore_ascii_case(agreed.as_bytes()))
}

/// The host that the client has asked.
fn host(parts: &Parts) -> String {
    let header = parts.headers.get(header::HOST).and_then(|host| host.to_str().ok());
    header.or(parts.uri.authority().map(|authority| authority.as_str())).unwrap_or_default().to_owned()
}

/// Sends the request through a connection of its own, which ends with the guard.
async fn pass(
    shell: &Shell,
    node: &str,
    proxied: &Proxied,
    parts: &Parts,
    body: Body,
) -> Result<(Response<Incoming>, DropGuard), BodyError> {
    let mut request = Request::new(body);
    *request.method_mut() = parts.method.clone();
    *request.uri_mut() = proxied.target.parse::<Uri>()?;
    *request.headers_mut() = request_headers(parts, proxied);
    match &proxied.backend {
        Backend::Agent => {
            let session = shell.tunnels.open(node, open::Request::Node(Node {})).await?;
            send(shell, session.into_pipe(), request).await
        }
        Backend::Address { tls, ip, port } => {
            let dial = open::Request::Dial(Dial { address: ip.to_string(), port: (*port).into() });
            let dialed = shell.tunnels.open(node, dial).await;
            let session = dialed.map_err(|error| format!("dial tcp {ip}:{port}: {error}"))?;
            match tls {
                true => send(shell, tls::connect(session.into_pipe(), *ip).await?, request).await,
                false => send(shell, session.into_pipe(), request).await,
            }
        }
    }
}

fn request_headers(parts: &Parts, proxied: &Proxied) -> HeaderMap {
    let mut headers = headers::of_request(&parts.headers, proxied);
    // HTTP/2 names the host in the request line.
    if !headers.contains_key(header::HOST)
        && let Ok(host) = HeaderValue::from_str(&host(parts))
    {
        headers.insert(header::HOST, host);
    }
    headers
}

async fn send(
    shell: &Shell,
    io: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    request: Request<Body>,
) -> Result<(Response<Incoming>, DropGuard), BodyError> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(io)).await?;
    let over = CancellationToken::new();
    let guard = over.clone().drop_guard();
    shell.tasks.spawn(async move {
        tokio::select! {
            ended = connection.with_upgrades() => if let Err(error) = ended {
                tracing::debug!(%error, "a connection to a backend ended early");
            },
            () = over.cancelled() => {}
        }
    });
    Ok((sender.send_request(request).await?, guard))
}

/// Joins two connections that have changed hands, until one of them or the server ends.
fn join(shell: &Shell, client: OnUpgrade, backend: OnUpgrade, connection: DropGuard, guard: LongRunning) {
    let stop = shell.stop.clone();
    shell.tasks.spawn(async move {
        let _held = (connection, guard);
        let carried = async {
            match tokio::try_join!(client, backend) {
                Ok((client, backend)) => {
                    let (mut client, mut backend) = (TokioIo::new(client), TokioIo::new(backend));
                    if let Err(error) = tokio::io::copy_bidirectional(&mut client, &mut backend).await {
                        tracing::debug!(%error, "an upgraded connection ended early");
                    }
                }
                Err(error) => tracing::debug!(%error, "an upgraded connection did not begin"),
            }
        };
        tokio::select! {
            () = carried => {}
            () = stop.cancelled() => {}
        }
    });
}

/// The body of a backend's answer; the connection to it ends with the value, and both with the server.
struct Passed {
    body: Incoming,
    end: Pin<Box<dyn Future<Output = ()> + Send>>,
    _connection: DropGuard,
    _guard: LongRunning,
}

impl HttpBody for Passed {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match Pin::new(&mut self.body).poll_frame(context) {
            Poll::Pending => {
                let ended = self.end.as_mut().poll(context);
                ended.map(|()| Some(Err("the server is stopping".into())))
            }
            Poll::Ready(frame) => Poll::Ready(frame.map(|frame| frame.map_err(BodyError::from))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> hyper::body::SizeHint {
        self.body.size_hint()
    }
}
