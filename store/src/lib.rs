//! The Raft-replicated, multi-version store on real disks.
//!
//! [`Store`] is the handle; one thread of its own drives the pure core in `store-core`. Reads of the newest state
//! never wait for it; writes that wait at the same time share one log record and one sync. Members reach each other
//! through a [`Connector`]; what comes from them goes to [`Store::take_stream`] and to the service that
//! [`Store::peer_service`] returns.

mod alarm;
mod answers;
pub mod backup;
mod connector;
mod direct;
mod driver;
mod error;
mod frames;
mod handle;
mod inbound;
mod jobs;
mod membership;
pub mod offline;
mod options;
mod peer_service;
mod peers;
mod published;
mod real_disk;

pub use connector::{Connector, PEER_PROTOCOL, PeerTls, SharedConnector};
pub use error::{CommitError, FatalError, OpenError, ReadError, RekeyError};
pub use handle::Store;
pub use membership::{ChangeError, Leadership, MemberStatus, PeerId, Role};
pub use options::{DiskLayer, Options, Start};
pub use peer_service::PeerService;
pub use published::Observer;
pub use store_core::crypt::{Key, Keys};
pub use store_core::history::{Compacted, Limits};
pub use store_core::{Change, Compare, Entry, Event, Expect, Op, Outcome, Snapshot, Txn, Value};
