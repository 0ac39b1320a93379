//! Who belongs to the group: it is founded by one, others join, members go, and one that lost its disk is replaced.

use std::cell::RefMut;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use raft::eraftpb::ConfState;
use store_core::members::Member;
use store_core::node::{Change, ChangeRefusal, Settings};
use store_core::recovery::Start;

use crate::cluster::Cluster;
use crate::kernel::{SECOND, Sim};
use crate::server::Server;

/// How many changes may be asked for at once.
const AT_ONCE: usize = 2;
/// How long a group without faults may take to become complete.
const FORMS_WITHIN: u64 = 30 * SECOND;

/// What is known of the group beside what its members know.
#[derive(Default)]
pub(super) struct Group {
    /// Counts the machines that there ever were.
    machines: u64,
    /// The index up to which some member has applied the log, and the voters and learners from there on.
    newest: (u64, Voices),
    /// The group that each member knows, and would know after a cut of its power.
    known: BTreeMap<u64, Voices>,
    /// The machine that was told each id.
    ids: BTreeMap<u64, String>,
    /// Members that are to be removed, or were.
    leaving: BTreeSet<u64>,
    /// How many changes are being made, each asked of another member than the one before.
    changing: usize,
    /// How many of them take a member away.
    removing: usize,
    /// How many members lost their disk and still belong to the group.
    lost: usize,
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Voices {
    voters: BTreeSet<u64>,
    learners: BTreeSet<u64>,
}

// === impl Voices ===

impl Voices {
    fn of(group: &ConfState) -> Voices {
        let ids = |ids: &[u64]| ids.iter().copied().collect();
        Voices { voters: ids(&group.voters), learners: ids(&group.learners) }
    }
}

/// Logs, kept entries and marks are small, so that checkpoints, states that travel and comparisons come often.
pub(super) fn settings(sim: &Sim) -> Settings {
    Settings {
        checkpoint_log_bytes: sim.between(4_000, 200_000),
        catch_up_bytes: sim.between(2_000, 100_000) as usize,
        mark_ticks: sim.between(10, 100),
        patience_ticks: sim.between(20, 200),
        join_ticks: sim.between(40, 400) as usize,
        ..Settings::new(1)
    }
}

impl Cluster {
    /// Founds a group and has others join it, until it has `count` voters.
    pub fn form(self: &Rc<Self>, count: u64) {
        let first = self.machine();
        self.place(1, Start::First(first));
        let scope = self.sim.scope();
        for voters in 1..=count {
            if voters > 1 {
                self.sim.spawn(scope, self.clone().join());
            }
            let cluster = self.clone();
            self.sim
                .run_until(self.sim.now() + FORMS_WITHIN, move || cluster.voters().len() as u64 == voters);
        }
        let formed = self.voters().len() as u64;
        if self.sim.violation().is_none() && formed != count {
            self.sim.violated("converges", format!("a group of {count} has {formed} voters after a while"));
        }
    }

    /// The voters of the newest group that any member has applied.
    pub fn voters(&self) -> BTreeSet<u64> {
        self.group.borrow().newest.1.voters.clone()
    }

    /// A member has applied the log up to an index, and knows this group.
    pub fn observe(&self, member: u64, applied: u64, group: &ConfState) {
        let mut known = self.group.borrow_mut();
        if applied < known.newest.0 {
            return;
        }
        let group = Voices::of(group);
        if applied > known.newest.0 {
            if known.newest.1 != group {
                self.sim.note(format_args!("the group at {applied}, says {member}: {group:?}"));
            }
            known.newest = (applied, group);
        } else if known.newest.1 != group {
            let message =
                format!("at entry {applied} member {member} knows {group:?}, others {:?}", known.newest.1);
            self.sim.violated("replicas-agree", message);
        }
    }

    /// What a member knows of the group is on its disk.
    pub fn remember(&self, member: u64, group: &ConfState) {
        self.changes().known.insert(member, Voices::of(group));
    }

    /// Whether a member may find that it was removed.
    pub fn is_leaving(&self, member: u64) -> bool {
        self.group.borrow().leaving.contains(&member)
    }

    /// A server is no more.
    pub fn retire(&self, server: &Server) {
        server.retire();
        self.servers.borrow_mut().retain(|other| other.member != server.member);
    }

    /// Has another machine join, unless enough changes are being made.
    pub async fn add(self: Rc<Self>) {
        if self.begin_change(0, 0) {
            self.clone().join().await;
            self.end_change(0, 0);
        }
    }

    /// Removes a member, unless enough changes are being made.
    pub async fn remove(self: Rc<Self>, member: u64) {
        if !self.is_leaving(member) && self.begin_change(1, 0) {
            self.clone().leave(member).await;
            self.end_change(1, 0);
        }
    }

    /// A member loses its disk for good, and another machine takes its place.
    pub async fn replace(self: Rc<Self>, member: u64) {
        if self.is_leaving(member) || !self.is_settled_without(member) || !self.begin_change(1, 1) {
            return;
        }
        if let Some(server) = self.server(member) {
            self.retire(&server);
        }
        self.clone().leave(member).await;
        self.changes().lost -= 1;
        self.clone().join().await;
        self.end_change(1, 0);
    }

    /// Whether the voters beside this one know who belongs to the group. Who does not know yet that it has grown counts
    /// votes by the group before, which may be none without this one; its log alone does not tell it what is committed.
    fn is_settled_without(&self, member: u64) -> bool {
        let group = self.group.borrow();
        let newest = &group.newest.1;
        let mut others = newest.voters.iter().filter(|id| **id != member && self.server(**id).is_some());
        others.all(|id| group.known.get(id) == Some(newest))
    }

    fn changes(&self) -> RefMut<'_, Group> {
        self.group.borrow_mut()
    }

    /// Notes a change that takes so many members away, of which so many are lost already. It is not made when what is
    /// left could not decide anything, in whatever order the changes come.
    fn begin_change(&self, removing: usize, lost: usize) -> bool {
        let mut group = self.changes();
        let living = group.newest.1.voters.len().saturating_sub(group.removing + removing);
        let fits = living > group.lost + lost && living >= 1;
        if group.changing >= AT_ONCE || (removing > 0 && !fits) {
            return false;
        }
        group.changing += 1;
        group.removing += removing;
        group.lost += lost;
        true
    }

    fn end_change(&self, removing: usize, lost: usize) {
        let mut group = self.changes();
        group.changing -= 1;
        group.removing -= removing;
        group.lost -= lost;
    }

    /// Asks one member after the other until a machine is added, and starts it.
    async fn join(self: Rc<Self>) {
        let machine = self.machine();
        loop {
            let added = self.ask_for(Change::Add(machine.clone())).await;
            if let Some(Ok(member)) = added {
                self.place(member, Start::Join(machine));
                return;
            }
            self.sim.sleep(SECOND).await;
        }
    }

    /// Asks one member after the other until a member is gone.
    async fn leave(self: Rc<Self>, member: u64) {
        self.changes().leaving.insert(member);
        loop {
            // Who is behind may say that there is no such member.
            let removed = self.ask_for(Change::Remove(member)).await;
            if matches!(removed, Some(Ok(_) | Err(ChangeRefusal::Removed))) {
                return;
            }
            self.sim.sleep(SECOND).await;
        }
    }

    async fn ask_for(&self, change: Change) -> Option<Result<u64, ChangeRefusal>> {
        let server = self.any().filter(|server| server.scope().is_some())?;
        let told = format!("server {} is asked for {change:?}", server.member);
        let answer = server.change(change).await.ok();
        self.sim.note(format_args!("{told}: {answer:?}"));
        answer
    }

    fn machine(&self) -> Member {
        let mut group = self.changes();
        group.machines += 1;
        let number = group.machines;
        Member { name: format!("server-{number}"), address: format!("machine-{number}:6443") }
    }

    fn place(self: &Rc<Self>, member: u64, start: Start) {
        let (Start::First(machine) | Start::Join(machine)) = &start;
        let told = self.changes().ids.entry(member).or_insert_with(|| machine.name.clone()).clone();
        if told != machine.name {
            let message = format!("{} and {told} were both told that they are member {member}", machine.name);
            self.sim.violated("member-id-unique", message);
        }
        if self.server(member).is_some() {
            return;
        }
        let server = Server::new(&self.sim, &Rc::downgrade(self), member, start);
        server.clock.drift(self.sim.between(0, 400).cast_signed() - 200);
        self.servers.borrow_mut().push(server.clone());
        server.start();
    }
}
