//! Clients of the bare store: a few keys, unique values, transactions with comparisons, linearizable reads.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::rc::Rc;

use bytes::Bytes;
use store_core::{Expect, Outcome, Txn};

use crate::cluster::Cluster;
use crate::kernel::{MS, SECOND, Scope};
use crate::network::Place;
use crate::server::{CommitError, Server};

const TIMEOUT: u64 = 5 * SECOND;

/// One client.
struct Client {
    cluster: Rc<Cluster>,
    place: Place,
    number: u64,
    keys: u64,
    written: u64,
    /// The server that was last of use.
    favourite: u64,
    done: Rc<Cell<u64>>,
}

/// What a write came to.
type Written = Option<Result<Outcome, CommitError>>;

/// Starts clients that go on until their process is killed. Returns how many operations have succeeded so far.
pub fn start(cluster: &Rc<Cluster>, scope: Scope, count: u64) -> Rc<Cell<u64>> {
    let done = Rc::new(Cell::new(0));
    let keys = cluster.sim.between(1, 6);
    for number in 0..count {
        let client = Client {
            cluster: cluster.clone(),
            place: Place::Host(1000 + number),
            number,
            keys,
            written: 0,
            favourite: cluster.any().map_or(1, |server| server.member),
            done: done.clone(),
        };
        cluster.sim.spawn(scope, client.run());
    }
    done
}

/// Writes a key through every member until each has acknowledged that, for `within` seconds at most. Returns the
/// members that have not.
pub async fn settle(cluster: Rc<Cluster>, within: u64) -> BTreeSet<u64> {
    let end = cluster.sim.now() + within * SECOND;
    let mut served = BTreeSet::new();
    let mut number = 0;
    loop {
        let mut silent: BTreeSet<u64> = cluster.servers().iter().map(|server| server.member).collect();
        silent.retain(|member| !served.contains(member));
        if silent.is_empty() || cluster.sim.now() >= end {
            return silent;
        }
        for member in silent {
            number += 1;
            let txn = Txn::put("/registers/last", format!("last-{member}-{number}"));
            let floor = cluster.checks.store.acknowledged();
            let written = write(&cluster, Place::Host(999), member, txn.clone()).await;
            check(&cluster, floor, &txn, &written);
            if matches!(written, Some(Ok(Outcome::Committed { .. }))) {
                served.insert(member);
            }
        }
        cluster.sim.sleep(SECOND / 5).await;
    }
}

fn check(cluster: &Cluster, floor: u64, txn: &Txn, written: &Written) {
    let order = cluster.checks.replicas.order();
    let store = &cluster.checks.store;
    match written {
        Some(Ok(Outcome::Committed { revisions })) => store.committed(&order, floor, txn, revisions),
        Some(Ok(Outcome::Conflict { compare })) => store.conflicted(&order, floor, txn, *compare),
        Some(Err(CommitError::NotLeader | CommitError::DiskFull)) => store.refuse(txn),
        Some(Err(CommitError::Unknown)) | None => {}
    }
}

async fn write(cluster: &Rc<Cluster>, from: Place, member: u64, txn: Txn) -> Written {
    let serve = |server: Rc<Server>| -> crate::cluster::Work<Result<Outcome, CommitError>> {
        let answered = server.commit(txn);
        Box::pin(async move { answered.await.unwrap_or(Err(CommitError::Unknown)) })
    };
    cluster.ask(from, member, TIMEOUT, serve).await
}

async fn read(
    cluster: &Rc<Cluster>,
    from: Place,
    member: u64,
    key: String,
) -> Option<Option<(u64, Option<Bytes>)>> {
    let serve = |server: Rc<Server>| -> crate::cluster::Work<Option<(u64, Option<Bytes>)>> {
        let confirmed = server.confirm();
        Box::pin(async move {
            if !confirmed.await.unwrap_or(false) {
                return None;
            }
            let view = server.view()?;
            let found = view.snapshot.get(key.as_bytes()).map(|entry| entry.value.clone());
            Some((view.snapshot.revision(), found))
        })
    };
    cluster.ask(from, member, TIMEOUT, serve).await
}

// === impl Client ===

impl Client {
    async fn run(mut self) {
        loop {
            let sim = self.cluster.sim.clone();
            sim.sleep(sim.between(MS, 60 * MS)).await;
            let served = if sim.chance(0.35) { self.read().await } else { self.write().await };
            if served {
                self.done.set(self.done.get() + 1);
            } else if let Some(server) = self.cluster.any() {
                self.favourite = server.member;
            }
        }
    }

    fn key(&self) -> String {
        format!("/registers/{}", self.cluster.sim.between(0, self.keys))
    }

    async fn read(&mut self) -> bool {
        let key = self.key();
        let floor = self.cluster.checks.store.acknowledged();
        let found = read(&self.cluster, self.place, self.favourite, key.clone()).await;
        let Some(Some((revision, value))) = found else { return false };
        self.cluster.sim.note(format_args!("client {} reads {key} at {revision}", self.number));
        let order = self.cluster.checks.replicas.order();
        self.cluster.checks.store.read(&order, floor, key.as_bytes(), revision, value.as_ref());
        true
    }

    async fn write(&mut self) -> bool {
        let txn = self.txn();
        let floor = self.cluster.checks.store.acknowledged();
        let written = write(&self.cluster, self.place, self.favourite, txn.clone()).await;
        self.cluster.sim.note(format_args!("client {} writes: {written:?}", self.number));
        check(&self.cluster, floor, &txn, &written);
        matches!(written, Some(Ok(_)))
    }

    fn value(&mut self) -> String {
        let sim = &self.cluster.sim;
        self.written += 1;
        let mut value = format!("{}-{}-", self.number, self.written);
        let length = if sim.chance(0.1) { sim.between(100, 5000) } else { sim.between(0, 60) } as usize;
        value.extend(std::iter::repeat_n('.', length));
        value
    }

    fn txn(&mut self) -> Txn {
        let (key, value) = (self.key(), self.value());
        let sim = self.cluster.sim.clone();
        let mut txn = match sim.between(0, 10) {
            0 => Txn::delete(key.clone()),
            1 => {
                let mut txn = Txn::put(key.clone(), value);
                let other = Txn::put(self.key(), self.value());
                txn.ops.extend(other.ops);
                txn
            }
            _ => Txn::put(key.clone(), value),
        };
        if sim.chance(0.5) {
            let newest = self.cluster.checks.replicas.order().newest();
            let known = newest.get(key.as_bytes()).map(|(revision, _)| *revision);
            txn = match known {
                Some(revision) if sim.chance(0.8) => txn.when(key, Expect::Revision(revision)),
                Some(_) => txn.when(key, Expect::Present),
                None => txn.when(key, Expect::Absent),
            };
        }
        txn
    }
}
