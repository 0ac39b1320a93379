//! What a node is told, and what it has its host do.

use std::sync::Arc;

use raft::eraftpb::Message;

use crate::checkpoint::{Image, Received};
use crate::event;
use crate::log::Record;
use crate::members::Member;
use crate::snapshot::Snapshot;
use crate::txn::{Outcome, Txn};

/// What the host tells the node.
#[derive(Debug)]
pub enum Event {
    /// A writer waits for a transaction. Those handed in before the next action is taken share an entry.
    Commit {
        /// By what name the answer comes.
        ticket: u64,
        /// What to apply.
        txn: Txn,
    },
    /// A reader waits for confirmed state.
    Read {
        /// By what name the answer comes.
        ticket: u64,
    },
    /// Someone wants other members, or another leader.
    Change {
        /// By what name the answer comes.
        ticket: u64,
        /// What is wanted.
        change: Change,
    },
    /// A [`Action::Sync`] is done.
    Persisted {
        /// Its number.
        number: u64,
    },
    /// A message came from a peer.
    Message(Box<Message>),
    /// A whole state came from the leader with a message, and is complete on the disk.
    Install {
        /// The message that it belongs to.
        message: Box<Message>,
        /// The state.
        received: Received,
    },
    /// A [`Action::SendState`] ended.
    StateSent {
        /// To whom.
        member: u64,
        /// Whether the member has it.
        ok: bool,
    },
    /// Messages to a member were lost, or the connection to it broke.
    Unreachable {
        /// The member.
        member: u64,
    },
    /// A peer refuses this member, because the group has removed it.
    Removed,
    /// What this member did last took half as long as its followers wait for a leader at least, or longer.
    Slow,
    /// Nothing happened but time. May make the node write up to [`EXPIRE_BYTES`](super::EXPIRE_BYTES).
    Tick,
    /// There is no room to write expiries: the node waits before it tries again.
    NoRoom,
    /// A checkpoint is wanted, however short the log is.
    WantCheckpoint,
    /// The checkpoint at this index is complete and was read back.
    CheckpointWritten {
        /// Its applied index.
        index: u64,
    },
    /// The checkpoint could not be written; it is tried again when the log has grown further.
    CheckpointFailed,
}

/// A change of the group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A new member, which begins as a learner.
    Add(Member),
    /// A learner becomes a voter.
    Promote(u64),
    /// A member goes for good.
    Remove(u64),
    /// A voter becomes the leader.
    TransferLead(u64),
}

/// What the host does for the node, in order.
#[derive(Debug)]
pub enum Action {
    /// Append a record to the log. It need not be durable before the next `Sync`.
    Append(Record),
    /// Make all appended records durable, then report [`Event::Persisted`]. Later actions need not wait for it:
    /// whatever depends on durability is held back by the node. If the sync fails the process must end.
    Sync {
        /// Names this sync.
        number: u64,
    },
    /// Send messages to peers. They may be sent at once, whatever syncs are under way; they may be lost.
    Send(Vec<Message>),
    /// Send a whole state to a peer that is too far behind, with the message that it belongs to; then report
    /// [`Event::StateSent`].
    SendState {
        /// The message.
        message: Box<Message>,
        /// The state.
        image: Box<Image>,
    },
    /// Continue from a received checkpoint: make it the newest, and let the log go that came before. Durable when
    /// this is done.
    Install {
        /// Its file.
        file: String,
        /// Its applied index.
        index: u64,
    },
    /// Remove a received checkpoint that is of no use. Any time later.
    Discard {
        /// Its file.
        file: String,
    },
    /// Make the new state visible: the snapshot and its events first, only then the answers.
    Publish(Published),
    /// Make a state visible to which no events lead; whoever follows starts over.
    Replace(Snapshot),
    /// Answer readers: the state that was published last is confirmed for them.
    Confirm {
        /// The readers.
        tickets: Vec<u64>,
    },
    /// Tell writers and readers that they will get no outcome from here.
    Refuse(Vec<(u64, Refusal)>),
    /// Answer who wanted a change: the member that it was about.
    Changed {
        /// Who waits.
        ticket: u64,
        /// The member's id, or why nothing was done.
        result: Result<u64, ChangeRefusal>,
    },
    /// Write a checkpoint, in the background, then report it. No other is under way. The log goes on in a new
    /// segment from here, so that the checkpoint covers whole segments.
    Checkpoint(Box<Image>),
    /// Remove what the checkpoint at this index covers: earlier segments and other checkpoints. Any time later.
    Release {
        /// The checkpoint's applied index.
        index: u64,
    },
    /// This member must not go on: stop, and say so.
    Halt {
        /// Why, and what to do.
        reason: String,
    },
}

/// A new state, and who waited for it.
#[derive(Debug)]
pub struct Published {
    /// The state after the batch.
    pub snapshot: Snapshot,
    /// What the batch did, in order.
    pub events: Vec<Arc<event::Event>>,
    /// The outcomes, by ticket.
    pub answers: Vec<(u64, Outcome)>,
}

/// Why a writer or reader gets no outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// No leader was found for it in time; nothing was done.
    NotLeader {
        /// Who leads, when that is known.
        leader: Option<u64>,
    },
    /// It was under way for too long: it may have been done, or may still be.
    Unknown,
}

/// Why a change of the group was not made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeRefusal {
    /// There is no such member.
    NoSuchMember,
    /// The member was removed.
    Removed,
    /// It is the last voter.
    LastVoter,
    /// Only a voter can lead.
    NotVoter,
    /// It was not seen to happen in time; it may still happen.
    TimedOut,
}

/// What the node is told once.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// This member's id; not 0.
    pub member: u64,
    /// The length of a Raft tick in milliseconds. Leaders send a sign of life with every tick.
    pub tick_ms: i64,
    /// The least number of ticks without a leader after which an election begins.
    pub election_ticks: usize,
    /// The log grows at least this large before a checkpoint.
    pub checkpoint_log_bytes: u64,
    /// How far expiries are put together, in milliseconds.
    pub expiry_grain_ms: i64,
    /// The bytes of applied entries that are kept for slow peers.
    pub catch_up_bytes: usize,
    /// The bytes of applied entries that are kept while a peer is being sent a whole state.
    pub transfer_bytes: usize,
    /// How many commands of this member may be under way at once; at most half of what a session remembers.
    pub under_way: usize,
    /// How many rounds of entries a leader has under way at once; what is proposed meanwhile waits for the next.
    pub rounds: usize,
    /// How long a leader waits for the next entries, which tell followers that those before are committed, in
    /// milliseconds. After one that came alone it does not wait.
    pub tell_ms: i64,
    /// After how many ticks a writer, reader or change that waits is given up.
    pub patience_ticks: u64,
    /// After how many ticks without a word from its group a member that has joined, and has no state yet, gives up.
    pub join_ticks: usize,
    /// The ticks between two marks at which members compare their states.
    pub mark_ticks: u64,
}

// === impl Settings ===

impl Settings {
    /// The usual settings.
    pub fn new(member: u64) -> Self {
        Self {
            member,
            tick_ms: 50,
            election_ticks: 6,
            checkpoint_log_bytes: 8 << 20,
            expiry_grain_ms: 2000,
            catch_up_bytes: 16 << 20,
            transfer_bytes: 256 << 20,
            under_way: 4,
            rounds: 2,
            tell_ms: 5,
            patience_ticks: 200,
            join_ticks: 2400,
            mark_ticks: 100,
        }
    }
}
