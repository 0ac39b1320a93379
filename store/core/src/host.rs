//! Carries out a node's actions on a disk, in order. What is left for the shell is to publish, to send, and to run
//! the background jobs.

use std::collections::BTreeSet;
use std::sync::Arc;

use raft::eraftpb::Message;
use rand::{RngCore, SeedableRng};
use rand_chacha::ChaCha20Rng;

use crate::checkpoint::{self, CheckpointError, Image, Receiver};
use crate::crypt::{self, Key, Keys};
use crate::disk::{self, Disk, DiskError};
use crate::files::{FilesError, LogFiles};
use crate::log;
use crate::node::{Action, ChangeRefusal, EXPIRE_BYTES, Event, Node, Published, Refusal, Settings};
use crate::recovery::{self, RecoveryError, Start};
use crate::snapshot::Snapshot;
use crate::txn::Txn;

/// A checkpoint is due when this many segments have come together, however small they are.
const MANY_SEGMENTS: usize = 64;

/// A node on a disk.
pub struct Host {
    node: Node,
    files: LogFiles,
    disk: Arc<dyn Disk>,
    keys: Keys,
    rng: ChaCha20Rng,
    checkpoints: Vec<u64>,
    /// The newest sync that the node waits for.
    unsynced: Option<u64>,
    done: Vec<Output>,
}

/// What the shell does, in order.
#[derive(Debug)]
pub enum Output {
    /// Make a state visible, then tell the writers.
    Publish(Published),
    /// Tell readers that the published state is confirmed.
    Confirm(Vec<u64>),
    /// Tell writers or readers that they get no outcome.
    Refuse(Vec<(u64, Refusal)>),
    /// Tell writers that the disk is full; nothing was done.
    DiskFull(Vec<u64>),
    /// Make a state visible to which no events lead: whoever follows starts over.
    Replace(Snapshot),
    /// Tell who wanted a change of the group: the id of the member that it was about.
    Changed {
        /// Who waits.
        ticket: u64,
        /// The member's id, or why nothing was done.
        result: Result<u64, ChangeRefusal>,
    },
    /// Send messages to peers. They may be lost.
    Send(Vec<Message>),
    /// Send a whole state ([`checkpoint::Texts`]) to the peer that the message is for, which takes it in
    /// ([`checkpoint::Receiver`]) and hands both to its node ([`Event::Install`]); then hand back
    /// [`Event::StateSent`].
    SendState {
        /// The message.
        message: Box<Message>,
        /// The state.
        image: Box<Image>,
    },
    /// Run a job on another thread, and hand its event back.
    Job(Box<Job>),
}

/// Work that may take long and needs nothing but the disk.
pub struct Job {
    disk: Arc<dyn Disk>,
    keys: Keys,
    rng: ChaCha20Rng,
    work: Work,
}

enum Work {
    Checkpoint(Box<Image>),
    Remove(Vec<String>),
}

/// How a job ended.
#[derive(Debug)]
pub struct JobDone {
    /// What the node is told.
    pub event: Option<Event>,
    /// What went wrong; the job is tried again later.
    pub error: Option<CheckpointError>,
}

/// How a host is opened.
#[derive(Clone, Debug)]
pub struct HostSettings {
    /// The node's settings.
    pub node: Settings,
    /// How it begins when the disk is empty.
    pub start: Start,
    /// The size of a log segment.
    pub segment_bytes: u64,
    /// Goes into the number that names this run; use the time, in milliseconds.
    pub boot: u64,
    /// Where all randomness of this run comes from.
    pub seed: [u8; 32],
}

/// Why a host could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// The data cannot be continued.
    #[error(transparent)]
    Recovery(#[from] RecoveryError),
    /// The log cannot be written.
    #[error(transparent)]
    Stopped(#[from] Stopped),
    /// Raft refused what was recovered.
    #[error("the recovered state makes no sense: {0}")]
    Raft(String),
}

/// Why a host cannot go on: the process must end.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Stopped {
    /// The log could not be written or synced; what is on the disk is not known any more.
    #[error("the log could not be written: {0}")]
    Log(#[from] FilesError),
    /// The log holds what this version cannot apply.
    #[error("{reason}")]
    Halted {
        /// Why.
        reason: String,
    },
}

// === impl Host ===

impl Host {
    /// Recovers what is on the disk and starts the node. The state is complete when this returns, for a group of
    /// one; in a larger one it is complete when a read was confirmed. [`Self::notes`](recovery::Recovered::notes) of what was mended come back beside the host.
    pub fn open(
        disk: Arc<dyn Disk>,
        keys: Keys,
        settings: &HostSettings,
        now_ms: i64,
    ) -> Result<(Self, Vec<String>), HostError> {
        let mut rng = ChaCha20Rng::from_seed(settings.seed);
        let member = settings.node.member;
        let mut recovered = recovery::recover(&*disk, &keys, member, &settings.start, &mut rng)?;
        let notes = std::mem::take(&mut recovered.notes);
        let mut files = LogFiles::new(
            disk.clone(),
            keys.clone(),
            ChaCha20Rng::from_rng(&mut rng),
            settings.segment_bytes,
            std::mem::take(&mut recovered.segments),
            recovered.next_segment,
            recovered.hard_state.clone(),
        );
        files.replace(&recovered.dropped).map_err(Stopped::Log)?;
        let mut checkpoints = recovered.old_checkpoints.clone();
        let index = recovered.image.applied.index;
        checkpoints.push(index);
        let wants_checkpoint = recovered.uses_retired_key || files.segments() >= MANY_SEGMENTS;
        let node = Node::new(settings.node, recovered, settings.boot, rng.next_u64(), now_ms)
            .map_err(|error| HostError::Raft(error.to_string()))?;
        let mut host = Self { node, files, disk, keys, rng, checkpoints, unsynced: None, done: Vec::new() };
        host.run()?;
        host.finish(now_ms)?;
        let (Start::First(described) | Start::Join(described)) = &settings.start;
        if !described.name.is_empty() {
            host.node.describe(described.clone());
            host.run()?;
            host.finish(now_ms)?;
        }
        host.release(index)?;
        if wants_checkpoint {
            host.handle(Event::WantCheckpoint, now_ms)?;
        }
        Ok((host, notes))
    }

    /// Hands writers' transactions to the node. They become one log entry, and one sync covers them.
    pub fn commit(&mut self, txns: Vec<(u64, Txn)>, now_ms: i64) -> Result<(), Stopped> {
        self.take_in(txns, Vec::new(), now_ms)
    }

    /// Hands the node an event and carries out what follows from it.
    pub fn handle(&mut self, event: Event, now_ms: i64) -> Result<(), Stopped> {
        self.take_in(Vec::new(), vec![event], now_ms)
    }

    /// Hands the node what has come together, transactions first; one sync covers all that follows from it.
    pub fn take_in(&mut self, txns: Vec<(u64, Txn)>, events: Vec<Event>, now_ms: i64) -> Result<(), Stopped> {
        self.begin(txns, events, now_ms)?;
        self.finish(now_ms)
    }

    /// The first half of [`Self::take_in`]: everything up to the sync. A shell that sends what is in the outputs before
    /// it goes on with [`Self::sync`] has its peers write and sync while this member does.
    pub fn begin(&mut self, txns: Vec<(u64, Txn)>, events: Vec<Event>, now_ms: i64) -> Result<(), Stopped> {
        let bytes: usize = txns.iter().map(|(_, txn)| txn.size() + txn.ops.len() * 16 + 64).sum();
        // What waits in the node keeps the room that was found for it.
        let bytes = bytes + self.node.gathered_bytes();
        if txns.is_empty() || self.reserve(bytes)? {
            for (ticket, txn) in txns {
                self.node.handle(Event::Commit { ticket, txn }, now_ms);
            }
        } else {
            self.done.push(Output::DiskFull(txns.into_iter().map(|(ticket, _)| ticket).collect()));
        }
        let mut reserved = 0;
        for event in events {
            let wanted = self.log_bytes(&event);
            if wanted == 0 || self.reserve(bytes + reserved + wanted)? {
                reserved += wanted;
                self.node.handle(event, now_ms);
            } else if matches!(event, Event::Tick) {
                self.node.handle(Event::NoRoom, now_ms);
                self.node.handle(event, now_ms);
            }
            // Another member's writes are not taken without room: it proposes them again.
        }
        self.run()
    }

    /// Makes durable what was appended, and carries out what follows; `false`: there was nothing left to sync.
    pub fn sync(&mut self, now_ms: i64) -> Result<bool, Stopped> {
        let Some(number) = self.unsynced.take() else { return Ok(false) };
        self.files.sync()?;
        self.node.handle(Event::Persisted { number }, now_ms);
        self.run()?;
        Ok(true)
    }

    fn finish(&mut self, now_ms: i64) -> Result<(), Stopped> {
        while self.sync(now_ms)? {}
        Ok(())
    }

    /// How much an event may make a leader write of its own accord.
    fn log_bytes(&self, event: &Event) -> usize {
        match event {
            _ if !self.node.leads() => 0,
            Event::Tick => EXPIRE_BYTES,
            event => event.log_bytes(),
        }
    }

    /// Makes sure that there is room in the log; `false`: the disk is full.
    fn reserve(&mut self, bytes: usize) -> Result<bool, Stopped> {
        match self.files.reserve(log::size_bound(bytes, 16)) {
            Ok(()) => Ok(true),
            Err(FilesError::Disk(DiskError::Full)) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Encrypts new files with this key. The log goes on in a new segment, and a checkpoint is written at once: after it, or
    /// after the next one, no file needs the key before ([`key_ids`]). Asked again, it only has another checkpoint written.
    ///
    /// # Errors
    /// When the log cannot be written.
    pub fn rekey(&mut self, key: Key, now_ms: i64) -> Result<(), Stopped> {
        if key.id() != self.keys.active_id() {
            self.keys = self.keys.succeeded_by(key);
            self.files.rekey(self.keys.clone());
        }
        self.handle(Event::WantCheckpoint, now_ms)
    }

    /// The disk that the host works on.
    pub fn disk(&self) -> &Arc<dyn Disk> {
        &self.disk
    }

    /// What takes in a state that another member sends, whose texts are of that version.
    pub fn receiver(&mut self, version: u32) -> Result<Receiver, CheckpointError> {
        let rng = ChaCha20Rng::from_rng(&mut self.rng);
        Receiver::new(self.disk.clone(), self.keys.clone(), rng, self.snapshot().clone(), version)
    }

    /// What has come together for the shell to do.
    pub fn take_outputs(&mut self) -> Vec<Output> {
        std::mem::take(&mut self.done)
    }

    /// The node.
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// The applied state.
    pub fn snapshot(&self) -> &Snapshot {
        self.node.state().snapshot()
    }

    fn run(&mut self) -> Result<(), Stopped> {
        while let Some(action) = self.node.poll_action() {
            match action {
                Action::Append(record) => self.files.append(&record)?,
                Action::Sync { number } => self.unsynced = Some(number),
                Action::Send(messages) => self.done.push(Output::Send(messages)),
                Action::SendState { message, image } => self.done.push(Output::SendState { message, image }),
                Action::Install { file, index } => self.install(&file, index)?,
                Action::Discard { file } => self.job(Work::Remove(vec![file])),
                Action::Replace(snapshot) => self.done.push(Output::Replace(snapshot)),
                Action::Changed { ticket, result } => self.done.push(Output::Changed { ticket, result }),
                Action::Publish(published) => self.done.push(Output::Publish(published)),
                Action::Confirm { tickets } => self.done.push(Output::Confirm(tickets)),
                Action::Refuse(tickets) => self.done.push(Output::Refuse(tickets)),
                Action::Checkpoint(image) => self.begin_checkpoint(image)?,
                Action::Release { index } => self.release(index)?,
                Action::Halt { reason } => return Err(Stopped::Halted { reason }),
            }
        }
        Ok(())
    }

    fn begin_checkpoint(&mut self, image: Box<Image>) -> Result<(), Stopped> {
        match self.files.roll(log::size_bound(self.node.gathered_bytes(), 16)) {
            // The log goes on in its old segment, which then goes with a later checkpoint.
            Ok(()) | Err(FilesError::Disk(DiskError::Full)) => {}
            Err(error) => return Err(error.into()),
        }
        self.checkpoints.push(image.applied.index);
        self.job(Work::Checkpoint(image));
        Ok(())
    }

    /// Gives a received checkpoint its name, and lets the log go that came before: in an order in which a stop at any
    /// point leaves either the old state or the new one.
    fn install(&mut self, file: &str, index: u64) -> Result<(), Stopped> {
        self.disk.rename(file, &checkpoint::name(index)).map_err(FilesError::from)?;
        self.disk.sync_dir().map_err(FilesError::from)?;
        self.checkpoints.push(index);
        Ok(self.files.restart()?)
    }

    fn release(&mut self, index: u64) -> Result<(), Stopped> {
        let mut names = self.files.release(index)?;
        self.checkpoints.sort_unstable();
        self.checkpoints.dedup();
        names.extend(self.checkpoints.iter().filter(|old| **old < index).map(|old| checkpoint::name(*old)));
        self.checkpoints.retain(|old| *old >= index);
        if !names.is_empty() {
            self.job(Work::Remove(names));
        }
        Ok(())
    }

    fn job(&mut self, work: Work) {
        let (disk, keys) = (self.disk.clone(), self.keys.clone());
        let rng = ChaCha20Rng::from_rng(&mut self.rng);
        self.done.push(Output::Job(Box::new(Job { disk, keys, rng, work })));
    }
}

/// The ids of the keys that the files of a member are encrypted with.
///
/// # Errors
/// When a file cannot be read.
pub fn key_ids(disk: &dyn Disk) -> Result<BTreeSet<u64>, DiskError> {
    let mut ids = BTreeSet::new();
    for name in disk.list()? {
        let mut head = [0; crypt::HEADER_LEN];
        match disk.open(&name).and_then(|mut file| disk::read_full(&mut *file, &mut head)) {
            Ok(_) => ids.extend(crypt::key_id(&head)),
            // It has gone meanwhile.
            Err(DiskError::NotFound { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(ids)
}

// === impl Job ===

impl Job {
    /// What the node is told when the job could not run to its end.
    pub fn when_lost(&self) -> Option<Event> {
        matches!(self.work, Work::Checkpoint(_)).then_some(Event::CheckpointFailed)
    }

    /// Runs the job to its end.
    pub fn run(mut self) -> JobDone {
        match self.work {
            Work::Checkpoint(image) => {
                match checkpoint::write(&*self.disk, &self.keys, &mut self.rng, *image) {
                    Ok(applied) => JobDone {
                        event: Some(Event::CheckpointWritten { index: applied.index }),
                        error: None,
                    },
                    Err(error) => JobDone { event: Some(Event::CheckpointFailed), error: Some(error) },
                }
            }
            Work::Remove(names) => {
                // Oldest first, so that what is left after a stop in between is still without a gap.
                let removed = names.iter().try_for_each(|name| match self.disk.remove(name) {
                    Err(DiskError::NotFound { .. }) => Ok(()),
                    removed => removed,
                });
                JobDone { event: None, error: removed.err().map(CheckpointError::Disk) }
            }
        }
    }
}

impl std::fmt::Debug for Job {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let work = match &self.work {
            Work::Checkpoint(_) => "checkpoint",
            Work::Remove(_) => "remove",
        };
        f.debug_struct("Job").field("work", &work).finish_non_exhaustive()
    }
}
