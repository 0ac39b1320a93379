//! The watches of one server: as the hub does, each watcher gets the history first and then what is applied.

use std::sync::Arc;

use apiserver_core::WatchPlan;
use bytes::Bytes;
use futures::channel::mpsc;
use store_core::Event;

use crate::cluster::Cluster;
use crate::kernel::{SECOND, Time};
use crate::network::Place;

const BOOKMARK_EVERY: Time = 60 * SECOND;
/// How long a client takes to notice that a connection is dead.
const BREAK_AFTER: Time = 15 * SECOND;

/// What comes out of a watch.
#[derive(Clone, Debug)]
pub enum Line {
    /// One event, as a line of JSON.
    Event(Bytes),
    /// The server ended the watch in good order.
    End,
}

/// The watchers of a server.
#[derive(Default)]
pub struct Watchers {
    all: Vec<Watcher>,
}

struct Watcher {
    plan: WatchPlan,
    client: Place,
    lines: mpsc::UnboundedSender<Line>,
    /// Everything up to this revision was sent.
    known: u64,
    bookmark_at: Time,
    end_at: Time,
    /// When the last line arrives: a connection keeps its order.
    arrives: Time,
    broken: bool,
}

// === impl Watchers ===

impl Watchers {
    /// Starts a watch on the events that are known to have happened after its version.
    pub fn add(
        &mut self,
        cluster: &Cluster,
        server: Place,
        client: Place,
        mut plan: WatchPlan,
        past: &[Arc<Event>],
    ) -> mpsc::UnboundedReceiver<Line> {
        let (lines, receiver) = mpsc::unbounded();
        let now = cluster.sim.now();
        let chosen = cluster.sim.between(60, 120) * SECOND;
        let length = plan.timeout.map_or(chosen, |timeout| timeout.as_micros() as Time);
        let initial = std::mem::take(&mut plan.initial);
        let mut watcher = Watcher {
            known: plan.after,
            plan,
            client,
            lines,
            bookmark_at: now + BOOKMARK_EVERY,
            end_at: now + length,
            arrives: now,
            broken: false,
        };
        initial.into_iter().for_each(|line| watcher.send(cluster, server, Line::Event(line)));
        past.iter().for_each(|event| watcher.take(cluster, server, event));
        self.all.push(watcher);
        receiver
    }

    /// Hands events to those whom they concern.
    pub fn deliver(&mut self, cluster: &Cluster, server: Place, events: &[Arc<Event>]) {
        for watcher in &mut self.all {
            events.iter().for_each(|event| watcher.take(cluster, server, event));
        }
        self.all.retain(|watcher| !watcher.broken);
    }

    /// Sends bookmarks and ends watches whose time has come.
    pub fn tend(&mut self, cluster: &Cluster, server: Place) {
        let now = cluster.sim.now();
        for watcher in &mut self.all {
            let over = watcher.end_at <= now;
            if watcher.plan.bookmarks && (over || watcher.bookmark_at <= now) {
                watcher.bookmark_at = now + BOOKMARK_EVERY;
                let line = watcher.plan.bookmark(watcher.known);
                watcher.send(cluster, server, Line::Event(line));
            }
            if over {
                watcher.send(cluster, server, Line::End);
                watcher.broken = true;
            }
        }
        self.all.retain(|watcher| !watcher.broken && !watcher.lines.is_closed());
    }
}

// === impl Watcher ===

impl Watcher {
    fn take(&mut self, cluster: &Cluster, server: Place, event: &Event) {
        if event.revision <= self.known {
            return;
        }
        self.known = event.revision;
        if let Some(line) = self.plan.line(event) {
            self.send(cluster, server, Line::Event(line));
        }
    }

    fn send(&mut self, cluster: &Cluster, server: Place, line: Line) {
        if self.broken {
            return;
        }
        let lines = self.lines.clone();
        let now = cluster.sim.now();
        match cluster.network.delay_in_order(server, self.client) {
            Some(delay) => {
                self.arrives = self.arrives.max(now + delay);
                cluster.sim.at(self.arrives, move || {
                    // Who watched may have gone.
                    let _ = lines.unbounded_send(line);
                });
            }
            None => {
                self.broken = true;
                // The sender lives until the client notices.
                cluster.sim.at(self.arrives.max(now + BREAK_AFTER), move || drop(lines));
            }
        }
    }
}
