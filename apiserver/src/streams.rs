//! Carries exec, attach, logs, forwarded ports and proxied requests between a client's connection and a node's tunnel.

use std::sync::Arc;

use apiserver_core::ConnectPlan;
use apiserver_core::connect::Stream;
use http::{HeaderValue, Response, StatusCode, header, request::Parts};
use hyper::upgrade::Upgraded;
use proto::tunnel::{Attach, Exec, open};

use crate::body::Body;
use crate::metrics::LongRunning;
use crate::respond::failure;
use crate::shell::Shell;
use crate::tunnel::OpenError;

mod channel;
mod logs;
mod port_forward;
mod proxy;
mod remote;
pub(crate) mod spdy;
mod websocket;

/// Opens what the plan asks for and answers with its beginning; the streams go on by themselves. `body` is what a proxied
/// request sends.
pub(crate) async fn carry(
    shell: &Arc<Shell>,
    plan: ConnectPlan,
    parts: Parts,
    body: Body,
    guard: LongRunning,
) -> Response<Body> {
    let ConnectPlan { node, namespace, name, uid, stream } = plan;
    match stream {
        Stream::Logs(logs) => {
            logs::carry(shell, &node, logs::request(namespace, name, uid, logs), guard).await
        }
        Stream::Exec { container, command, streams } => {
            let request = open::Request::Exec(Exec {
                namespace,
                pod: name,
                uid,
                container,
                command,
                stdin: streams.stdin,
                stdout: streams.stdout,
                stderr: streams.stderr,
                tty: streams.tty,
            });
            remote::carry(shell, &node, request, streams, parts, guard).await
        }
        Stream::Attach { container, streams } => {
            let request = open::Request::Attach(Attach {
                namespace,
                pod: name,
                uid,
                container,
                stdin: streams.stdin,
                stdout: streams.stdout,
                stderr: streams.stderr,
                tty: streams.tty,
            });
            remote::carry(shell, &node, request, streams, parts, guard).await
        }
        Stream::PortForward { ports } => {
            let pod = port_forward::Pod { node, namespace, name, uid };
            port_forward::carry(shell, pod, &ports, parts, guard)
        }
        Stream::Proxy(request) => proxy::carry(shell, &node, request, parts, body, guard).await,
    }
}

/// Waits for the client's connection to change hands, then carries it until it or the server ends.
fn upgrade<F>(
    shell: &Shell,
    parts: Parts,
    guard: LongRunning,
    run: impl FnOnce(Upgraded) -> F + Send + 'static,
) where
    F: Future<Output = ()> + Send,
{
    let upgrade = hyper::upgrade::on(http::Request::from_parts(parts, ()));
    let stop = shell.stop.clone();
    shell.tasks.spawn(async move {
        let _guard = guard;
        let carried = async {
            match upgrade.await {
                Ok(upgraded) => run(upgraded).await,
                Err(error) => tracing::debug!(%error, "a client left before its stream began"),
            }
        };
        tokio::select! {
            () = carried => {}
            () = stop.cancelled() => {}
        }
    });
}

/// The answer when a session could not be opened.
fn open_failure(error: &OpenError) -> Response<Body> {
    let status = StatusCode::from_u16(error.code()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let reason = match status {
        StatusCode::BAD_REQUEST => "BadRequest",
        StatusCode::NOT_FOUND => "NotFound",
        StatusCode::GATEWAY_TIMEOUT => "Timeout",
        StatusCode::CONFLICT => "Conflict",
        _ => "InternalError",
    };
    failure(status, reason, &error.to_string())
}

fn switching(protocol: &'static str) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static(protocol));
    response
}
