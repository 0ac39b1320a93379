//! Carries out probes and hooks: a command inside, a connection or a request to the pod.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, HTTPGetAction, LifecycleHandler, Pod, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use nodeagent_core::pod;
use nodeagent_core::probe::{Kind, Outcome};
use nodeagent_core::runtime::{ContainerId, RuntimeError};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::hands::Node;
use crate::{sockets, tunnel};

/// Runs a probe once.
pub(crate) async fn probe(
    node: &Arc<Node>,
    of: &Pod,
    container: &str,
    id: &ContainerId,
    kind: Kind,
    timeout: Duration,
) -> Outcome {
    let Some(spec) = pod::container(of, container) else {
        return Outcome::Unknown("no such container".into());
    };
    let probe: Option<&Probe> = match kind {
        Kind::Startup => spec.startup_probe.as_ref(),
        Kind::Liveness => spec.liveness_probe.as_ref(),
        Kind::Readiness => spec.readiness_probe.as_ref(),
    };
    let Some(probe) = probe else { return Outcome::Success };
    if let Some(exec) = &probe.exec {
        let command = exec.command.clone().unwrap_or_default();
        return match node.runtime.exec_sync(id, command, timeout).await {
            Ok(output) if output.exit_code == 0 => Outcome::Success,
            Ok(output) => {
                let bytes = if output.stdout.is_empty() { output.stderr } else { output.stdout };
                Outcome::Failure(String::from_utf8_lossy(&bytes).trim_end().to_owned())
            }
            Err(RuntimeError::Timeout(after)) => {
                Outcome::Failure(format!("command timed out after {after:?}"))
            }
            Err(error) => Outcome::Unknown(error.to_string()),
        };
    }
    if probe.grpc.is_some() {
        return Outcome::Unknown("this node does not carry out gRPC probes".to_owned());
    }
    let attempt = async {
        if let Some(http) = &probe.http_get {
            let (status, body) = request(node, of, spec, http, "kube-probe").await?;
            return if (200..400).contains(&status) {
                Ok(())
            } else {
                tracing::debug!(body, "a probe was answered with an error");
                Err(format!("HTTP probe failed with statuscode: {status}"))
            };
        }
        let Some(tcp) = &probe.tcp_socket else { return Err("missing probe handler".to_owned()) };
        let (host, port) = (tcp.host.as_deref(), resolve(&tcp.port, spec)?);
        let address = target(node, of, host, port)?;
        sockets::connect(node.config.netns.as_deref(), address, timeout)
            .await
            .map(drop)
            .map_err(|error| error.to_string())
    };
    match tokio::time::timeout(timeout, attempt).await {
        Ok(Ok(())) => Outcome::Success,
        Ok(Err(detail)) => Outcome::Failure(detail),
        Err(_) => {
            Outcome::Failure("context deadline exceeded (timed out while waiting for an answer)".to_owned())
        }
    }
}

/// Runs a lifecycle hook.
pub(crate) async fn hook(
    node: &Arc<Node>,
    of: &Pod,
    container: &str,
    id: &ContainerId,
    pre_stop: bool,
    timeout: Duration,
) -> Result<(), String> {
    let Some(spec) = pod::container(of, container) else { return Ok(()) };
    let lifecycle = spec.lifecycle.as_ref();
    let handler: Option<&LifecycleHandler> =
        lifecycle.and_then(|it| if pre_stop { it.pre_stop.as_ref() } else { it.post_start.as_ref() });
    let Some(handler) = handler else { return Ok(()) };
    if let Some(exec) = &handler.exec {
        let output = node.runtime.exec_sync(id, exec.command.clone().unwrap_or_default(), timeout).await;
        return match output {
            Ok(output) if output.exit_code == 0 => Ok(()),
            Ok(output) => {
                let words = String::from_utf8_lossy(&output.stderr).trim_end().to_owned();
                Err(format!("command exited with {}: {words}", output.exit_code))
            }
            Err(error) => Err(error.to_string()),
        };
    }
    let work = async {
        if let Some(sleep) = &handler.sleep {
            tokio::time::sleep(pod::seconds(sleep.seconds)).await;
            return Ok(());
        }
        if let Some(http) = &handler.http_get {
            let (status, _) = request(node, of, spec, http, "kube-lifecycle").await?;
            return if (200..400).contains(&status) { Ok(()) } else { Err(format!("HTTP status {status}")) };
        }
        Err("the hook has no handler that this node knows".to_owned())
    };
    tokio::time::timeout(timeout, work).await.unwrap_or_else(|_| Err("the hook took too long".to_owned()))
}

fn resolve(port: &IntOrString, spec: &Container) -> Result<u16, String> {
    let number = match port {
        IntOrString::Int(number) => *number,
        IntOrString::String(name) => {
            let named = spec.ports.iter().flatten().find(|it| it.name.as_deref() == Some(name));
            match named.map(|it| it.container_port).or_else(|| name.parse().ok()) {
                Some(number) => number,
                None => return Err(format!("couldn't find port: {name}")),
            }
        }
    };
    u16::try_from(number).map_err(|_| format!("invalid port number: {number}"))
}

fn target(node: &Node, of: &Pod, host: Option<&str>, port: u16) -> Result<SocketAddr, String> {
    let ip: Option<IpAddr> = match host.filter(|host| !host.is_empty()) {
        Some(host) => Some(host.parse().map_err(|_| format!("host {host:?} is not an address"))?),
        None if pod::host_network(of) => node.config.addresses.first().copied(),
        None => node.pod_ips(of).first().copied(),
    };
    ip.map(|ip| SocketAddr::new(ip, port)).ok_or_else(|| "the pod has no address yet".to_owned())
}

/// Sends a GET; answers with status code and the beginning of the body.
async fn request(
    node: &Node,
    of: &Pod,
    spec: &Container,
    http: &HTTPGetAction,
    agent: &str,
) -> Result<(u16, String), String> {
    let port = resolve(&http.port, spec)?;
    let address = target(node, of, http.host.as_deref(), port)?;
    let path = http.path.as_deref().filter(|path| !path.is_empty()).unwrap_or("/");
    let slash = if path.starts_with('/') { "" } else { "/" };
    let mut head = format!(
        "GET {slash}{path} HTTP/1.1\r\nUser-Agent: {agent}/1.37\r\nAccept: */*\r\nConnection: close\r\n"
    );
    let mut has_host = false;
    for header in http.http_headers.iter().flatten() {
        if header.name.contains(['\r', '\n']) || header.value.contains(['\r', '\n']) {
            return Err("a header of the probe contains a line break".to_owned());
        }
        has_host |= header.name.eq_ignore_ascii_case("host");
        head.push_str(&format!("{}: {}\r\n", header.name, header.value));
    }
    if !has_host {
        head.push_str(&format!("Host: {address}\r\n"));
    }
    head.push_str("\r\n");
    let text = |error: std::io::Error| format!("Get \"http://{address}{slash}{path}\": {error}");
    let stream = sockets::connect(node.config.netns.as_deref(), address, Duration::from_secs(30))
        .await
        .map_err(text)?;
    if http.scheme.as_deref() == Some("HTTPS") {
        let stream = tunnel::tls_without_check(stream, address.ip()).await.map_err(text)?;
        exchange(stream, &head).await.map_err(text)
    } else {
        exchange(stream, &head).await.map_err(text)
    }
}

async fn exchange(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    head: &str,
) -> std::io::Result<(u16, String)> {
    stream.write_all(head.as_bytes()).await?;
    let mut answer = Vec::new();
    let mut chunk = [0; 2048];
    loop {
        let read = stream.read(&mut chunk).await?;
        answer.extend_from_slice(&chunk[..read]);
        let complete = answer.windows(2).any(|pair| pair == b"\r\n");
        if read == 0 || complete || answer.len() > 10 * 1024 {
            break;
        }
    }
    let text = String::from_utf8_lossy(&answer);
    let status = text.split_whitespace().nth(1).and_then(|code| code.parse().ok());
    let status = status.filter(|_| text.starts_with("HTTP/"));
    let status = status.ok_or_else(|| std::io::Error::other("malformed HTTP response"))?;
    Ok((status, text.chars().take(512).collect()))
}
