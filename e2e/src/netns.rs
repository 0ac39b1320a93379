//! Network namespaces: one for the whole test, and calls made inside those of the nodes.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use nix::sched::{CloneFlags, setns, unshare};

const CONNECT: Duration = Duration::from_secs(5);

/// Moves this process into a network namespace of its own, with nothing but a loopback device.
///
/// # Errors
/// Without the right to.
pub fn isolate() -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNET).context("making a network namespace")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let (connection, handle, _) = rtnetlink::new_connection()?;
        tokio::spawn(connection);
        let up = rtnetlink::LinkUnspec::new_with_index(1).up().build();
        handle.link().set(up).execute().await.context("starting the loopback device")
    })
}

/// Calls `inside` in the network namespace at `path`.
///
/// # Errors
/// When the namespace cannot be entered, and those of `inside`.
pub fn within<T: Send + 'static>(
    path: &Path,
    inside: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let namespace = File::open(path).with_context(|| format!("opening {}", path.display()))?;
    let thread = std::thread::spawn(move || {
        setns(&namespace, CloneFlags::CLONE_NEWNET).context("entering a network namespace")?;
        inside()
    });
    thread.join().map_err(|_| anyhow!("a thread in another namespace failed"))?
}

/// Lets nothing go to an address from the network namespace of this thread, or lets it again.
///
/// # Errors
/// When the kernel refuses.
pub fn blackhole(address: Ipv4Addr, shut: bool) -> Result<()> {
    use rtnetlink::RouteMessageBuilder;
    use rtnetlink::packet_route::route::RouteType;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let (connection, handle, _) = rtnetlink::new_connection()?;
        tokio::spawn(connection);
        let route = RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(address, 32)
            .kind(RouteType::BlackHole)
            .build();
        match shut {
            true => handle.route().add(route).execute().await,
            false => handle.route().del(route).execute().await,
        }
        .context("changing a route")
    })
}

/// What a web server answers to `GET path`: status line, headers and body.
///
/// # Errors
/// When it does not answer.
pub fn get(address: Ipv4Addr, port: u16, path: &str) -> Result<String> {
    let mut stream = TcpStream::connect_timeout(&SocketAddr::from((address, port)), CONNECT)
        .with_context(|| format!("connecting to {address}:{port}"))?;
    stream.set_read_timeout(Some(CONNECT))?;
    stream.write_all(
        format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n").as_bytes(),
    )?;
    let mut answer = Vec::new();
    let mut chunk = [0; 4096];
    while !is_complete(&answer) {
        let length = stream.read(&mut chunk).context("reading the answer")?;
        if length == 0 {
            break;
        }
        answer.extend_from_slice(chunk.get(..length).unwrap_or_default());
    }
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// Whether an answer that tells its length is all there: not every server closes what it is asked to close.
fn is_complete(answer: &[u8]) -> bool {
    let text = String::from_utf8_lossy(answer).to_ascii_lowercase();
    let Some((head, _)) = text.split_once("\r\n\r\n") else { return false };
    let length =
        head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse::<usize>().ok());
    length.is_some_and(|length| answer.len() >= head.len() + 4 + length)
}
