//! One address for several servers: connections to it are carried to a server that accepts them.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// A server that does not accept within this long is passed over.
const PATIENCE: Duration = Duration::from_secs(1);

/// Listens on the loopback.
pub async fn listen(port: u16) -> Result<TcpListener> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port))
        .await
        .with_context(|| format!("listening on port {port} of 127.0.0.1"))
}

/// Carries connections until told to stop.
pub async fn serve(listener: TcpListener, servers: Vec<SocketAddr>, stopping: CancellationToken) {
    let servers = Arc::new(servers);
    let current = Arc::new(AtomicUsize::new(0));
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = stopping.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        while connections.try_join_next().is_some() {}
        match accepted {
            Ok((stream, _)) => {
                connections.spawn(carry(stream, servers.clone(), current.clone()));
            }
            // Out of file descriptors: others must end first.
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

async fn carry(mut client: TcpStream, servers: Arc<Vec<SocketAddr>>, current: Arc<AtomicUsize>) {
    let Some(mut server) = connect(&servers, &current).await else { return };
    // Requests and answers are written whole; waiting for more would only delay them.
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    // Either end may leave at any time.
    let _: io::Result<_> = tokio::io::copy_bidirectional(&mut client, &mut server).await;
}

/// The first server that accepts, beginning with the one that did last.
async fn connect(servers: &[SocketAddr], current: &AtomicUsize) -> Option<TcpStream> {
    let from = current.load(Ordering::Relaxed);
    for step in 0..servers.len() {
        let at = (from + step) % servers.len();
        if let Ok(Ok(stream)) = tokio::time::timeout(PATIENCE, TcpStream::connect(servers[at])).await {
            current.store(at, Ordering::Relaxed);
            return Some(stream);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn a_server_that_is_gone_is_passed_over() {
        let gone = listen(0).await.unwrap().local_addr().unwrap();
        let there = listen(0).await.unwrap();
        let servers = vec![gone, there.local_addr().unwrap()];
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = there.accept().await {
                let _ = stream.write_all(b"here").await;
            }
        });
        let front = listen(0).await.unwrap();
        let address = front.local_addr().unwrap();
        let stopping = CancellationToken::new();
        let served = tokio::spawn(serve(front, servers, stopping.clone()));
        for _ in 0..2 {
            let mut text = String::new();
            TcpStream::connect(address).await.unwrap().read_to_string(&mut text).await.unwrap();
            assert_eq!(text, "here");
        }
        stopping.cancel();
        served.await.unwrap();
    }
}
