//! Connections from inside a network namespace: a thread enters it, opens the socket and gives it back.

use std::fs::File;
use std::io;
use std::net::{SocketAddr, TcpStream as StdStream};
use std::path::Path;
use std::time::Duration;

use tokio::net::TcpStream;

/// Connects to `address` from the namespace at `netns`, or from the agent's own.
pub(crate) async fn connect(
    netns: Option<&Path>,
    address: SocketAddr,
    timeout: Duration,
) -> io::Result<TcpStream> {
    let Some(path) = netns else {
        return tokio::time::timeout(timeout, TcpStream::connect(address))
            .await
            .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?;
    };
    let path = path.to_owned();
    let (sender, receiver) = tokio::sync::oneshot::channel();
    // A thread of its own: it must not carry anything else while it is in the other namespace, and ends there.
    std::thread::Builder::new().name("node-dial".into()).stack_size(128 * 1024).spawn(move || {
        let _ = sender.send(connect_in(&path, address, timeout));
    })?;
    let stream = receiver.await.map_err(|_| io::Error::other("the dialing thread ended"))??;
    TcpStream::from_std(stream)
}

fn connect_in(path: &Path, address: SocketAddr, timeout: Duration) -> io::Result<StdStream> {
    let namespace = File::open(path)?;
    nix::sched::setns(namespace, nix::sched::CloneFlags::CLONE_NEWNET)?;
    let stream = StdStream::connect_timeout(&address, timeout.max(Duration::from_millis(1)))?;
    stream.set_nonblocking(true)?;
    Ok(stream)
}
