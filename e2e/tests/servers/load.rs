//! Clients that write and read, and watchers, at all servers at once; and the check of what they saw.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use e2e::history::{History, Kind, Operation, Summary};
use e2e::https::{Answer, Api};
use e2e::wait::eventually;
use e2e::watching::{Seen, Watcher};
use serde_json::json;

use crate::trio::Trio;

const COLLECTION: &str = "/api/v1/namespaces/default/configmaps";
const KEYS: usize = 4;
const CLIENTS: usize = 4;
/// How long a client waits for an answer before it calls the outcome unknown.
const PATIENCE: Duration = Duration::from_secs(5);
const PACE: Duration = Duration::from_millis(5);

/// Clients and watchers at work.
pub struct Load {
    history: Arc<History>,
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<()>>,
    watchers: Vec<Watcher>,
    begun_at: u64,
}

impl Load {
    /// Makes the objects, and starts everybody.
    ///
    /// # Errors
    /// When the objects cannot be made.
    pub fn start(trio: &Trio) -> Result<Load> {
        let history = Arc::new(History::default());
        let mut begun_at = 0;
        for key in 0..KEYS {
            let asked = Instant::now();
            let body = json!({"metadata": {"name": name(key)}, "data": {"value": "first"}});
            let answer = trio.api(1).post(COLLECTION, body.to_string())?;
            ensure!(answer.status == 201, "{}", answer.text());
            begun_at = revision(&answer)?;
            history.add(Operation {
                key: name(key),
                kind: Kind::Write,
                asked,
                answered: Some(Instant::now()),
                revision: Some(begun_at),
                value: "first".to_owned(),
            });
        }
        let stop = Arc::new(AtomicBool::new(false));
        let servers: Vec<Api> = trio.apis().iter().map(|api| api.with_patience(PATIENCE)).collect();
        let clients = (0..CLIENTS)
            .map(|client| {
                let (servers, history, stop) = (servers.clone(), history.clone(), stop.clone());
                std::thread::spawn(move || work(client, &servers, &history, &stop))
            })
            .collect();
        let watchers = (0..3)
            .map(|first| {
                let mut servers = trio.apis();
                servers.rotate_left(first);
                Watcher::start(servers, COLLECTION, begun_at)
            })
            .collect();
        Ok(Load { history, stop, clients, watchers, begun_at })
    }

    /// What was done so far.
    pub fn history(&self) -> &History {
        &self.history
    }

    /// Writes more than a small disk holds.
    ///
    /// # Errors
    /// When no server takes it.
    pub fn write_much(&self, trio: &Trio) -> Result<()> {
        let leader = trio.api(trio.one(true)?);
        let text = "x".repeat(900 << 10);
        for number in 0..60 {
            let body = json!({"metadata": {"name": format!("much-{number}")}, "data": {"text": text}});
            let answer = leader.post(COLLECTION, body.to_string())?;
            ensure!(answer.status == 201, "{}", answer.text());
            let name = format!("{COLLECTION}/much-{number}");
            leader.send("DELETE", &name, "application/json", b"")?;
        }
        Ok(())
    }

    /// Stops everybody and checks what they saw.
    ///
    /// # Errors
    /// With what cannot be.
    pub fn finish(self, trio: &Trio) -> Result<Summary> {
        self.stop.store(true, Ordering::Relaxed);
        for client in self.clients {
            client.join().map_err(|_| anyhow::anyhow!("a client failed"))?;
        }
        let summary = self.history.check()?;
        // A last write, so that watchers know when they have seen everything.
        let last = eventually("a last write", || {
            let body = json!({"metadata": {"generateName": "last-"}}).to_string();
            let answer = trio.api(trio.one(true)?).post(COLLECTION, body)?;
            ensure!(answer.status == 201, "{}", answer.text());
            revision(&answer)
        })?;
        // Watchers are on their way to it; they are given the time of a few reconnections.
        std::thread::sleep(Duration::from_secs(3));
        let seen = self.watchers.into_iter().map(Watcher::finish).collect::<Result<Vec<Seen>>>()?;
        check_watchers(&seen, &self.history, self.begun_at, last)?;
        Ok(summary)
    }
}

/// All watchers saw the same, and every acknowledged write is in it.
fn check_watchers(seen: &[Seen], history: &History, from: u64, last: u64) -> Result<()> {
    let Some(first) = seen.first() else { bail!("nobody watched") };
    for one in seen {
        ensure!(
            one.last().is_some_and(|(revision, ..)| *revision == last),
            "a watcher is behind: {:?}",
            one.last()
        );
        let differs = first.iter().zip(one).find(|(left, right)| left != right);
        ensure!(differs.is_none() && first.len() == one.len(), "watchers saw different things: {differs:?}");
    }
    let told: BTreeSet<u64> = first.iter().map(|(revision, ..)| *revision).collect();
    for (key, writes) in history.acknowledged() {
        for (revision, value) in writes.range(from + 1..) {
            ensure!(told.contains(revision), "no watcher saw {value} of {key} at {revision}");
        }
    }
    Ok(())
}

fn name(key: usize) -> String {
    format!("register-{key}")
}

fn revision(answer: &Answer) -> Result<u64> {
    let object = answer.json()?;
    Ok(object["metadata"]["resourceVersion"].as_str().context("no version")?.parse()?)
}

fn work(client: usize, servers: &[Api], history: &History, stop: &AtomicBool) {
    for number in 0.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let key = name(number % KEYS);
        match number % 3 {
            0 => read(&key, servers, client + number, history),
            _ => write(&key, format!("{client}-{number}"), servers, client + number, history),
        }
        std::thread::sleep(PACE);
    }
}

/// Asks one server; at another, when that one has certainly done nothing.
fn write(key: &str, value: String, servers: &[Api], first: usize, history: &History) {
    let path = format!("{COLLECTION}/{key}");
    let body = json!({"data": {"value": value}}).to_string();
    for step in 0..40 {
        let server = &servers[(first + step) % servers.len()];
        let asked = Instant::now();
        let sent = server.send("PATCH", &path, "application/merge-patch+json", body.as_bytes());
        let outcome = match &sent {
            Ok(answer) if answer.status == 200 => revision(answer).ok(),
            // It was not carried out: a client asks again.
            Ok(answer) if matches!(answer.status, 409 | 429 | 503) => {
                std::thread::sleep(Duration::from_millis(50));
                continue;
            }
            Err(error) if error.to_string().starts_with("connecting to") => {
                std::thread::sleep(Duration::from_millis(50));
                continue;
            }
            _ => None,
        };
        if outcome.is_none() {
            let why = sent.map_or_else(|error| format!("{error:#}"), |answer| answer.text());
            println!("an unknown outcome: {why}");
        }
        let answered = outcome.map(|_| Instant::now());
        let operation =
            Operation { key: key.to_owned(), kind: Kind::Write, asked, answered, revision: outcome, value };
        return history.add(operation);
    }
}

fn read(key: &str, servers: &[Api], first: usize, history: &History) {
    let asked = Instant::now();
    let Ok(answer) = servers[first % servers.len()].get(&format!("{COLLECTION}/{key}")) else { return };
    let (Ok(object), true) = (answer.json(), answer.status == 200) else { return };
    history.add(Operation {
        key: key.to_owned(),
        kind: Kind::Read,
        asked,
        answered: Some(Instant::now()),
        revision: revision(&answer).ok(),
        value: object["data"]["value"].as_str().unwrap_or_default().to_owned(),
    });
}
