//! The life of a server's process, and what befalls it and its disk.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use apiserver_core::Derived;
use raft::eraftpb::MessageType;
use store_core::crypt::{Key, Keys};
use store_core::disk::{DiskError, Faults};
use store_core::files::FilesError;
use store_core::history::History;
use store_core::host::{Host, HostError, HostSettings, Output, Stopped};
use store_core::node::Settings;
use store_core::recovery::RecoveryError;

use super::{HISTORY, Running, Server, Trap, View};
use crate::streams::Watchers;

/// The size of a log segment: a leader keeps room for a batch of expiries, so that twice that much is the least.
const SEGMENT_BYTES: u64 = 512 << 10;

impl Server {
    /// Starts the process.
    pub fn start(self: &Rc<Self>) {
        if self.running.borrow().is_some() || self.retired.get() {
            return;
        }
        self.boots.set(self.boots.get() + 1);
        let now_ms = self.clock.wall_ms();
        let Some(cluster) = self.cluster.upgrade() else { return };
        let node = Settings { member: self.member, ..cluster.settings };
        let seed = self.sim.rng(rand::Rng::random);
        let boot = now_ms.max(1).cast_unsigned();
        let settings =
            HostSettings { node, start: self.start.clone(), segment_bytes: SEGMENT_BYTES, boot, seed };
        let opened = Host::open(Arc::new(self.disk.clone()), keys(), &settings, now_ms);
        let (mut host, notes) = match opened {
            Ok(opened) => opened,
            Err(error) => return self.refused_to_start(&error),
        };
        for note in notes {
            self.sim.note(format_args!("server {} found: {note}", self.member));
        }
        let outputs = host.take_outputs();
        let first = outputs.iter().find_map(|output| match output {
            Output::Publish(batch) => Some(batch.events.first()?.revision - 1),
            _ => None,
        });
        let begin = first.unwrap_or(host.snapshot().revision());
        let history = History::new(begin, HISTORY);
        let snapshot = host.snapshot().clone().with_compacted_revision(begin);
        let scope = self.sim.scope();
        self.sim.note(format_args!(
            "server {} runs, applied {} revision {}",
            self.member,
            host.node().state().applied().index,
            snapshot.revision()
        ));
        let published = View { derived: Derived::build(&snapshot), snapshot };
        *self.running.borrow_mut() = Some(Running {
            scope,
            host,
            published,
            history,
            writers: BTreeMap::new(),
            readers: BTreeMap::new(),
            changes: BTreeMap::new(),
            waiting: Vec::new(),
            intake: Vec::new(),
            watchers: Watchers::default(),
            armed: None,
        });
        self.perform(outputs);
        if let Some(view) = self.view() {
            cluster.checks.replicas.state(self.member, &view.snapshot);
        }
        self.arm();
        self.tend_watchers(scope);
        cluster.started(self, scope);
    }

    fn refused_to_start(self: &Rc<Self>, error: &HostError) {
        self.sim.note(format_args!("server {} refuses to start: {error}", self.member));
        if let HostError::Recovery(RecoveryError::Disk(disk))
        | HostError::Stopped(Stopped::Log(FilesError::Disk(disk))) = error
        {
            // A full disk is waited for; any other is as good as a lost power supply.
            if *disk != DiskError::Full
                && let Some(cluster) = self.cluster.upgrade()
            {
                cluster.stopped(self);
            }
            return;
        }
        if let Some((name, bit)) = self.flipped.borrow_mut().take() {
            // Whoever runs the cluster puts the disk right: nothing wrong was served.
            self.disk.flip_bit(&name, bit);
            return;
        }
        self.sim.violated("member-recovers", format!("member {} does not recover: {error}", self.member));
    }

    /// Ends the process as SIGKILL does; what it wrote is in the system's hands.
    pub fn kill(&self) {
        let ended = self.running.borrow_mut().take();
        *self.backlog.borrow_mut() = None;
        if let Some(running) = ended {
            self.sim.note(format_args!("server {} ends", self.member));
            self.sim.kill(running.scope);
        }
    }

    /// Ends the process for good.
    pub fn retire(&self) {
        self.kill();
        self.retired.set(true);
    }

    /// Ends the process and loses what was not synced.
    pub fn cut_power(&self) {
        self.kill();
        self.sim.rng(|rng| self.disk.power_cut(rng));
    }

    /// Has this happen when it has sent a message of a kind the next time.
    pub fn ambush(&self, kind: MessageType, trap: Trap) {
        self.ambush.set(Some((kind, trap)));
    }

    /// Ends what still waits for it.
    pub fn forget_ambush(&self) {
        self.ambush.set(None);
    }

    /// Stops the process as SIGSTOP does.
    pub fn pause(&self) {
        if let Some(scope) = self.scope() {
            self.backlog.borrow_mut().get_or_insert_default();
            self.sim.pause(scope);
        }
    }

    /// Lets a stopped process go on.
    pub fn resume(self: &Rc<Self>) {
        let Some(events) = self.backlog.borrow_mut().take() else { return };
        if let Some(scope) = self.scope() {
            self.sim.resume(scope);
        }
        let txns = self.running.borrow_mut().as_mut().map(|running| std::mem::take(&mut running.intake));
        self.drive(|host, now_ms| host.take_in(txns.unwrap_or_default(), events, now_ms));
        self.arm();
    }

    /// Whether it is stopped as by SIGSTOP.
    pub fn is_paused(&self) -> bool {
        self.backlog.borrow().is_some()
    }

    /// Flips a bit of what lies on the disk, where that cannot be taken for the torn end of the log.
    pub fn flip_bit(&self) -> bool {
        let names: Vec<String> = store_core::disk::Disk::list(&self.disk).unwrap_or_default();
        if names.is_empty() || self.flipped.borrow().is_some() {
            return false;
        }
        let name = names[self.sim.index(names.len())].clone();
        let content = self.disk.content(&name).unwrap_or_default();
        let used = content.iter().rposition(|byte| *byte != 0).unwrap_or(0);
        let newest_log = names.iter().rfind(|name| name.starts_with("log-"));
        if used < 128 || (newest_log == Some(&name) && used < 48 << 10) {
            return false;
        }
        let bit = self.sim.between(0, used as u64 / 2 * 8);
        self.sim.note(format_args!("server {}: bit {bit} of {name} flips", self.member));
        self.disk.flip_bit(&name, bit);
        *self.flipped.borrow_mut() = Some((name, bit));
        true
    }

    /// Mends a flipped bit that nobody has noticed.
    pub fn unflip(&self) {
        if let Some((name, bit)) = self.flipped.borrow_mut().take() {
            self.disk.flip_bit(&name, bit);
        }
    }

    /// Sets what goes wrong with the disk from here on.
    pub fn break_disk(&self, faults: Faults) {
        self.disk.set_faults(faults);
    }
}

fn keys() -> Keys {
    Keys::new(Key::new(1, [7; 32]), Vec::new())
}
