//! A watcher that loses its connection, goes on at another server, and must miss nothing and see nothing twice.

use std::io::{BufRead, BufReader, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::https::Api;

/// A connection that says nothing for this long is given up.
const SILENCE: Duration = Duration::from_millis(500);

/// What a watcher saw: revision, kind and name, in order.
pub type Seen = Vec<(u64, String, String)>;

/// A watcher on a thread of its own.
pub struct Watcher {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<Seen>>,
}

// === impl Watcher ===

impl Watcher {
    /// Watches a collection from a revision on, at each of the servers in turn.
    pub fn start(servers: Vec<Api>, path: &str, from: u64) -> Watcher {
        let stop = Arc::new(AtomicBool::new(false));
        let (told, path) = (stop.clone(), path.to_owned());
        let thread = std::thread::spawn(move || follow(&servers, &path, from, &told));
        Watcher { stop, thread }
    }

    /// Ends the watch once it has seen this revision; returns all that it saw.
    ///
    /// # Errors
    /// When it was told what contradicts itself.
    pub fn finish(self) -> Result<Seen> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| anyhow::anyhow!("a watcher failed"))?
    }
}

fn follow(servers: &[Api], path: &str, from: u64, stop: &AtomicBool) -> Result<Seen> {
    let (mut seen, mut last) = (Vec::new(), from);
    for server in servers.iter().cycle() {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        // A server that is away is the next one's turn.
        if let Err(error) = follow_one(server, path, &mut last, &mut seen, stop)
            && error.is::<Contradiction>()
        {
            return Err(error);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(seen)
}

/// What no server may say.
#[derive(Debug)]
struct Contradiction(String);

impl std::fmt::Display for Contradiction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Contradiction {}

fn follow_one(server: &Api, path: &str, last: &mut u64, seen: &mut Seen, stop: &AtomicBool) -> Result<()> {
    let mut stream = server.open(SILENCE)?;
    let request = format!("{path}?watch=true&allowWatchBookmarks=true&resourceVersion={last}");
    stream.write_all(server.head("GET", &request, "application/json", 0).as_bytes())?;
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    ensure!(line.contains(" 200"), "{line}");
    let mut partial = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let mut chunk = Vec::new();
        if reader.read_until(b'\n', &mut chunk)? == 0 {
            bail!("the watch ended");
        }
        partial.extend_from_slice(&chunk);
        // Heads and sizes of chunks are lines too; events are JSON.
        let text = std::mem::take(&mut partial);
        let Ok(event) = serde_json::from_slice::<Value>(text.trim_ascii()) else { continue };
        if event.is_object() {
            take(&event, last, seen)?;
        }
    }
    Ok(())
}

fn take(event: &Value, last: &mut u64, seen: &mut Seen) -> Result<()> {
    let kind = event["type"].as_str().unwrap_or_default();
    let metadata = &event["object"]["metadata"];
    if kind == "ERROR" {
        return Err(Contradiction(format!("the history was said to be gone: {event}")).into());
    }
    let revision: u64 = metadata["resourceVersion"].as_str().context("no version")?.parse()?;
    if kind == "BOOKMARK" {
        if revision < *last {
            return Err(Contradiction(format!("a bookmark at {revision} after {last}")).into());
        }
    } else {
        if revision <= *last {
            return Err(Contradiction(format!("an event of {revision} after {last}: {event}")).into());
        }
        seen.push((revision, kind.to_owned(), metadata["name"].as_str().unwrap_or_default().to_owned()));
    }
    *last = revision;
    Ok(())
}
