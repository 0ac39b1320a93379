//! The pure store: transactions, the multi-version state machine, the Raft machine, log and checkpoint formats.
//!
//! Nothing here reads a clock, draws from a global generator or touches a file: times, randomness and the
//! [`disk::Disk`] are passed in, so that production and simulation host the very same code.

pub mod audit;
pub mod checkpoint;
pub mod command;
pub mod crypt;
mod delta;
pub mod disk;
pub mod event;
pub mod files;
pub mod hash;
pub mod history;
pub mod host;
pub mod log;
pub mod members;
pub mod node;
pub mod recovery;
pub mod refound;
pub mod snapshot;
pub mod state;
pub mod txn;
pub mod wire;

pub use event::{Change, Event};
pub use snapshot::{Entry, Snapshot};
pub use txn::{Compare, Expect, Op, Outcome, Txn, Value};
