//! The demo workload: a small web server that says which pod and release answered, and drains when told to stop.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// How long a connection may stay silent before it is closed.
const IDLE: Duration = Duration::from_secs(30);
/// Longest request line or header line that is read.
const LINE_BYTES_MAX: usize = 8192;

/// Serves `GET /` with the name of the pod and the release.
#[derive(Args, Clone, Debug)]
pub struct Workload {
    /// Port to listen on.
    #[arg(long, env = "PORT", default_value_t = 8080)]
    port: u16,
    /// Release to answer with.
    #[arg(long, env = "RELEASE", default_value = "v1")]
    release: String,
    /// Answer `/readyz` with 503, as a bad release would.
    #[arg(long, env = "NEVER_READY")]
    never_ready: bool,
}

/// Serves until SIGTERM or SIGINT, then answers what has arrived and ends.
pub async fn run(workload: Workload) -> Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let address = SocketAddr::from((Ipv4Addr::UNSPECIFIED, workload.port));
    let listener = TcpListener::bind(address).await.with_context(|| format!("listening on {address}"))?;
    let pod = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned();
    println!("{pod} {} listens on {address}", workload.release);
    let answer =
        Arc::new(Answer { text: format!("{pod} {}\n", workload.release), ready: !workload.never_ready });
    let (stop, stopping) = watch::channel(false);
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                connections.spawn(serve(accepted?.0, answer.clone(), stopping.clone()));
            }
            Some(_) = connections.join_next() => {}
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
        }
    }
    stop.send_replace(true);
    // What has already connected is served too: closing the listener first would reset it.
    while let Ok(Ok((stream, _))) = tokio::time::timeout(Duration::from_millis(10), listener.accept()).await {
        connections.spawn(serve(stream, answer.clone(), stopping.clone()));
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
    println!("{pod} drained");
    Ok(())
}

struct Answer {
    text: String,
    ready: bool,
}

/// Serves one connection until it closes, falls silent, or the server stops.
async fn serve(stream: TcpStream, answer: Arc<Answer>, mut stopping: watch::Receiver<bool>) {
    let mut stream = BufReader::new(stream);
    let mut first = true;
    loop {
        // A new connection has a request on its way, which is worth a wait even when stopping.
        let patience = if *stopping.borrow() { Duration::from_millis(500) } else { IDLE };
        let request = tokio::select! {
            request = tokio::time::timeout(patience, read_request(&mut stream)) => request,
            _ = stopping.changed(), if !first => return,
        };
        let Ok(Ok(Some(request))) = request else { return };
        let last = request.last || *stopping.borrow();
        let (status, text) = match request.path.as_str() {
            "/readyz" if !answer.ready => ("503 Service Unavailable", "not ready\n"),
            _ => ("200 OK", answer.text.as_str()),
        };
        let connection = if last { "close" } else { "keep-alive" };
        let response = format!(
            "HTTP/1.1 {status}\r\ncontent-type: text/plain\r\ncontent-length: {}\r\nconnection: {connection}\r\n\r\n{text}",
            text.len()
        );
        if stream.get_mut().write_all(response.as_bytes()).await.is_err() || last {
            stream.get_mut().shutdown().await.ok();
            return;
        }
        first = false;
    }
}

/// What is known of a request.
struct Request {
    path: String,
    /// The client wants the connection closed behind the answer.
    last: bool,
}

/// The next request; `None` when the peer has closed or talks nonsense.
async fn read_request(stream: &mut BufReader<TcpStream>) -> std::io::Result<Option<Request>> {
    let mut request: Option<Request> = None;
    loop {
        let mut line = Vec::new();
        let read = tokio::io::AsyncReadExt::take(&mut *stream, LINE_BYTES_MAX as u64)
            .read_until(b'\n', &mut line)
            .await?;
        if read == 0 || line.last() != Some(&b'\n') {
            return Ok(None);
        }
        let line = String::from_utf8_lossy(&line);
        let line = line.trim_end();
        match request.take() {
            None => {
                let path = line.split(' ').nth(1).unwrap_or("/").to_owned();
                request = Some(Request { path, last: line.ends_with("HTTP/1.0") });
            }
            Some(complete) if line.is_empty() => return Ok(Some(complete)),
            Some(mut partial) => {
                partial.last |= line.eq_ignore_ascii_case("connection: close");
                request = Some(partial);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn ask(address: SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        tokio::io::AsyncReadExt::read_to_string(&mut stream, &mut answer).await.unwrap();
        answer
    }

    async fn started(ready: bool, stopping: bool) -> (SocketAddr, watch::Sender<bool>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, receiver) = watch::channel(stopping);
        tokio::spawn(async move {
            let answer = Arc::new(Answer { text: "web v1\n".to_owned(), ready });
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, answer.clone(), receiver.clone()));
            }
        });
        (address, stop)
    }

    #[tokio::test]
    async fn a_stopping_server_answers_and_closes() {
        let (address, _stop) = started(true, true).await;
        let answer = ask(address, "GET / HTTP/1.1\r\nhost: web\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.contains("connection: close"), "{answer}");
        assert!(answer.ends_with("web v1\n"), "{answer}");
    }

    #[tokio::test]
    async fn a_client_that_wants_to_leave_is_let_go() {
        let (address, _stop) = started(true, false).await;
        let answer = ask(address, "GET / HTTP/1.1\r\nConnection: close\r\n\r\n").await;
        assert!(answer.contains("connection: close") && answer.ends_with("web v1\n"), "{answer}");
    }

    #[tokio::test]
    async fn a_bad_release_is_never_ready() {
        let (address, _stop) = started(false, true).await;
        assert!(ask(address, "GET /readyz HTTP/1.1\r\n\r\n").await.starts_with("HTTP/1.1 503"));
        assert!(ask(address, "GET / HTTP/1.1\r\n\r\n").await.starts_with("HTTP/1.1 200"));
    }
}
