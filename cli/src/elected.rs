//! Runs something in one process at a time: in the one that holds a Lease.
//!
//! Whatever it writes names the term in which the Lease was held, so that a process that was paused while another took
//! over can do no harm when it wakes up.

use std::time::Duration;

use anyhow::Result;
use client::Client;
use client::core::election::{self, Held};
use client::core::object::ObjectKey;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::warn;

/// So long others wait for a holder that has fallen silent.
const LEASE_DURATION: Duration = Duration::from_secs(8);
/// So long a holder that cannot renew goes on.
const RENEW_DEADLINE: Duration = Duration::from_secs(5);
/// How often the Lease is renewed, or looked at.
const RETRY_PERIOD: Duration = Duration::from_secs(2);

/// Who stands for election.
pub struct Candidate {
    /// Reads and writes the Lease.
    pub client: Client,
    /// The Lease's name; it is in kube-system.
    pub lease: &'static str,
    /// The candidate's name among the others.
    pub identity: String,
    /// Tells that the parts were started with what is not true any more: they begin anew within the term.
    pub outdated: Option<watch::Receiver<()>>,
}

/// Why an elected process has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It was told to.
    Told,
    /// A part has ended by itself, which told why.
    Failed,
}

// === impl Candidate ===

impl Candidate {
    /// Stands for election, and runs the parts that `start` makes whenever this process is elected: they write in the name
    /// of the term, and end when their token says so. Returns when told to stop, or as soon as a part has ended by itself.
    ///
    /// # Errors
    /// When the parts do not start.
    pub async fn run(
        self,
        stopping: CancellationToken,
        start: impl Fn(&Held, &CancellationToken) -> Result<JoinSet<()>>,
    ) -> Result<End> {
        let Candidate { client, lease, identity, mut outdated } = self;
        let config = election::Config {
            lease_duration: LEASE_DURATION,
            renew_deadline: RENEW_DEADLINE,
            retry_period: RETRY_PERIOD,
            ..election::Config::new(ObjectKey::new("kube-system", lease), identity.clone())
        };
        let lease = config.lease.clone();
        // The Lease is given back only after the parts have ended, so that no two run at the same time.
        let ended = CancellationToken::new();
        let _release = ended.clone().drop_guard();
        let mut role = client::election::stand(client, config, ended.clone());
        let mut end = End::Told;
        loop {
            let transitions = tokio::select! {
                () = stopping.cancelled() => break,
                transitions = elected(&mut role) => transitions,
            };
            let Some(transitions) = transitions else { break };
            let held = Held { lease: lease.clone(), identity: identity.clone(), transitions };
            let over = CancellationToken::new();
            let mut running = start(&held, &over)?;
            tokio::select! {
                () = stopping.cancelled() => {}
                () = deposed(&mut role, transitions) => warn!(lease = %lease, "another holds the Lease now"),
                () = told(&mut outdated) => {}
                _ = running.join_next() => end = End::Failed,
            }
            over.cancel();
            while running.join_next().await.is_some() {}
            if end == End::Failed || stopping.is_cancelled() {
                break;
            }
        }
        ended.cancel();
        // The channel closes when the Lease was given back.
        while role.changed().await.is_ok() {}
        Ok(end)
    }
}

/// Waits until this candidate leads; `None` when it has stopped.
async fn elected(role: &mut watch::Receiver<election::Role>) -> Option<i32> {
    let leader = role.wait_for(|role| matches!(role, election::Role::Leader { .. })).await.ok()?;
    match *leader {
        election::Role::Leader { transitions } => Some(transitions),
        election::Role::Follower { .. } => None,
    }
}

/// Waits for the next word, where there is somebody who may say it.
async fn told(outdated: &mut Option<watch::Receiver<()>>) {
    if let Some(word) = outdated
        && word.changed().await.is_ok()
    {
        return;
    }
    std::future::pending().await
}

/// Waits until this candidate's term is over.
async fn deposed(role: &mut watch::Receiver<election::Role>, term: i32) {
    let same = |role: &election::Role| *role == election::Role::Leader { transitions: term };
    // An error means that the candidate has stopped.
    let _ = role.wait_for(|role| !same(role)).await;
}
