//! Clients of a service on one of the nodes: each request is a connection of its own, and every failure is counted.

use std::collections::BTreeMap;
use std::fs::File;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use nix::sched::{CloneFlags, setns};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Clients that ask at the same time.
const CLIENTS: usize = 4;
/// Between two requests of one client.
const PACE: Duration = Duration::from_millis(5);
const PATIENCE: Duration = Duration::from_secs(5);

/// What the clients saw.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Answers by their text.
    pub answers: BTreeMap<String, u64>,
    /// Failures by their words.
    pub failures: BTreeMap<String, u64>,
}

impl Seen {
    /// Requests that were answered.
    pub fn answered(&self) -> u64 {
        self.answers.values().sum()
    }

    /// Requests that were refused, reset, cut or too slow.
    pub fn failed(&self) -> u64 {
        self.failures.values().sum()
    }

    /// `120 requests, 0 failed`.
    pub fn words(&self) -> String {
        let failures: Vec<String> =
            self.failures.iter().map(|(words, count)| format!("{count} × {words}")).collect();
        let why = if failures.is_empty() { String::new() } else { format!(" ({})", failures.join(", ")) };
        format!("{} requests, {} failed{why}", self.answered() + self.failed(), self.failed())
    }
}

/// Clients at work.
pub struct Load {
    stop: Arc<AtomicBool>,
    seen: Arc<Mutex<Seen>>,
    thread: JoinHandle<Result<()>>,
}

impl Load {
    /// Starts clients of `target` in the network namespace at `netns`.
    pub fn start(netns: PathBuf, target: SocketAddr) -> Load {
        let stop = Arc::new(AtomicBool::new(false));
        let seen = Arc::new(Mutex::new(Seen::default()));
        let thread = std::thread::spawn({
            let (stop, seen) = (stop.clone(), seen.clone());
            move || {
                let namespace = File::open(&netns).with_context(|| format!("opening {}", netns.display()))?;
                setns(&namespace, CloneFlags::CLONE_NEWNET).context("entering the node's network")?;
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
                let clients = (0..CLIENTS).map(|_| client(target, stop.clone(), seen.clone()));
                runtime.block_on(futures::future::join_all(clients));
                Ok(())
            }
        });
        Load { stop, seen, thread }
    }

    /// What was seen so far.
    pub fn seen(&self) -> Seen {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Ends the clients and returns what they saw.
    pub async fn finish(self) -> Result<Seen> {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread;
        let ended = tokio::task::spawn_blocking(move || thread.join()).await?;
        ended.map_err(|_| anyhow!("a client failed"))??;
        Ok(self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

async fn client(target: SocketAddr, stop: Arc<AtomicBool>, seen: Arc<Mutex<Seen>>) {
    while !stop.load(Ordering::Relaxed) {
        let outcome = tokio::time::timeout(PATIENCE, ask(target)).await;
        {
            let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
            let words = match outcome {
                Ok(Ok(answer)) => seen.answers.entry(answer),
                Ok(Err(error)) => seen.failures.entry(error.to_string()),
                Err(_) => seen.failures.entry(format!("no answer within {} s", PATIENCE.as_secs())),
            };
            *words.or_default() += 1;
        }
        tokio::time::sleep(PACE).await;
    }
}

/// One request on a connection of its own; returns the body of an answer that is a success.
async fn ask(target: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(target).await?;
    stream.write_all(b"GET / HTTP/1.1\r\nhost: web\r\nconnection: close\r\n\r\n").await?;
    let mut answer = Vec::new();
    // The server keeps the connection: the length says where the answer ends.
    loop {
        if stream.read_buf(&mut answer).await? == 0 {
            return Err(std::io::Error::new(std::io::ErrorKind::UnexpectedEof, "the connection was cut"));
        }
        let text = String::from_utf8_lossy(&answer);
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length =
            head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
        if length.is_some_and(|length| body.len() >= length) {
            return match head.starts_with("HTTP/1.1 200") {
                true => Ok(body.trim().to_owned()),
                false => Err(std::io::Error::other(head.lines().next().unwrap_or_default().to_owned())),
            };
        }
    }
}
