//! What other members call: takes in their states, and tells what this member knows. Checks who they are.

use std::sync::Arc;

use arc_swap::ArcSwap;
use bytes::Bytes;
use proto::peer::peer_server::{Peer, PeerServer};
use proto::peer::{DescribeReply, DescribeRequest, InstallPart, InstallReply, Member as WireMember};
use protobuf::Message as _;
use raft::eraftpb::{Message, MessageType};
use store_core::checkpoint::{CheckpointError, Received, Receiver};
use store_core::members::Members;
use store_core::node::Event;
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio_rustls::TlsStream;
use tonic::{Code, Request as Call, Response, Status, Streaming};

use crate::frames::MESSAGE_LIMIT;
use crate::handle::Request;
use crate::membership::{PeerId, Role, View};
use crate::peers::Addresses;

/// Parts of a state on their way to the disk.
const PARTS: usize = 4;

/// Answers other members. Made by [`Store::peer_service`](crate::Store::peer_service).
#[derive(Clone)]
pub struct PeerService {
    inner: Arc<Inner>,
}

struct Inner {
    member: u64,
    requests: UnboundedSender<Request>,
    members: Arc<ArcSwap<Members>>,
    addresses: Arc<Addresses>,
    /// Where streams of messages are taken in: the store's thread.
    runtime: Handle,
    /// One state is taken in at a time.
    installs: Semaphore,
}

// === impl PeerService ===

impl PeerService {
    pub(crate) fn new(
        member: u64,
        requests: UnboundedSender<Request>,
        members: Arc<ArcSwap<Members>>,
        addresses: Arc<Addresses>,
        runtime: Handle,
    ) -> Self {
        let installs = Semaphore::new(1);
        Self { inner: Arc::new(Inner { member, requests, members, addresses, runtime, installs }) }
    }

    pub(crate) fn server(self) -> PeerServer<Self> {
        PeerServer::new(self).max_decoding_message_size(MESSAGE_LIMIT)
    }

    /// Who calls, when it is one who may.
    fn caller<T>(&self, call: &Call<T>) -> Result<u64, Status> {
        let PeerId(caller) = call
            .extensions()
            .get::<PeerId>()
            .ok_or_else(|| Status::unauthenticated("only members of the cluster may call"))?;
        self.check(*caller)?;
        Ok(*caller)
    }

    /// Refuses members that were removed.
    pub(crate) fn check(&self, caller: u64) -> Result<(), Status> {
        if !self.inner.members.load().was_removed(caller) {
            return Ok(());
        }
        Err(Status::failed_precondition(format!("member {caller} was removed from the cluster")))
    }

    pub(crate) fn tell(&self, request: Request) -> Result<(), Status> {
        self.inner.requests.send(request).map_err(|_| closed())
    }

    /// Reads a message, and checks that it is meant for this member and comes from the caller. What a member passes
    /// on to the leader may come from a third.
    pub(crate) fn message(&self, caller: u64, bytes: &Bytes) -> Result<Box<Message>, Status> {
        let message = Message::parse_from_carllerche_bytes(bytes)
            .map_err(|error| Status::invalid_argument(format!("a message cannot be read: {error}")))?;
        let passed_on = matches!(
            message.get_msg_type(),
            MessageType::MsgPropose | MessageType::MsgReadIndex | MessageType::MsgTransferLeader
        );
        if message.to != self.inner.member {
            let (to, own) = (message.to, self.inner.member);
            return Err(Status::invalid_argument(format!("the message is for member {to}, this is {own}")));
        }
        if message.from != caller && !passed_on {
            return Err(Status::permission_denied(format!("member {caller} speaks for {}", message.from)));
        }
        Ok(Box::new(message))
    }

    /// Notes where a member says that it can be reached.
    pub(crate) fn learn(&self, caller: u64, address: String) {
        self.inner.addresses.set_told(caller, address);
    }

    /// Takes in a stream of messages from a member, on the store's thread.
    pub(crate) fn take_stream(&self, PeerId(caller): PeerId, stream: TlsStream<TcpStream>) {
        self.inner.runtime.spawn(self.clone().receive(caller, stream));
    }

    async fn receiver(&self, version: u32) -> Result<Receiver, Status> {
        let (answer, answered) = oneshot::channel();
        self.tell(Request::Receive { version, answer })?;
        let receiver = answered.await.map_err(|_| closed())?;
        receiver.map_err(|error| Status::failed_precondition(error.to_string()))
    }
}

/// Whether the caller was refused because the group has removed it.
pub(crate) fn is_removal(status: &Status) -> bool {
    status.code() == Code::FailedPrecondition
}

fn closed() -> Status {
    Status::unavailable("the store is closed")
}

#[tonic::async_trait]
impl Peer for PeerService {
    async fn install(&self, call: Call<Streaming<InstallPart>>) -> Result<Response<InstallReply>, Status> {
        let caller = self.caller(&call)?;
        let Ok(_one) = self.inner.installs.try_acquire() else {
            return Err(Status::unavailable("another state is being taken in"));
        };
        let mut stream = call.into_inner();
        let first = stream.message().await?.unwrap_or_default();
        let Some(head) = first.head.as_ref().filter(|head| head.member == caller) else {
            return Err(Status::permission_denied("the head and the certificate name different members"));
        };
        let message = self.message(caller, &head.message)?;
        let (parts, taken) = mpsc::channel(PARTS);
        let writing = tokio::task::spawn_blocking({
            let receiver = self.receiver(head.version).await?;
            move || write(receiver, taken)
        });
        let mut next = Some(first);
        while let Some(part) = next {
            if crc32fast::hash(&part.text) != part.checksum {
                return Err(Status::data_loss("a part was damaged on its way"));
            }
            // An error means that the writer has failed: it says why.
            if parts.send(Some(part.text)).await.is_err() {
                break;
            }
            next = stream.message().await?;
        }
        // Without this the writer takes what it has for a part of the state only.
        let _ = parts.send(None).await;
        let written = writing.await.map_err(|error| Status::internal(error.to_string()))?;
        match written {
            Ok(Some(received)) => self.tell(Request::Tell(Event::Install { message, received }))?,
            Ok(None) => return Err(Status::aborted("the state did not come to its end")),
            Err(error) => return Err(Status::internal(error.to_string())),
        }
        Ok(Response::new(InstallReply {}))
    }

    async fn describe(&self, call: Call<DescribeRequest>) -> Result<Response<DescribeReply>, Status> {
        self.caller(&call)?;
        let (answer, answered) = oneshot::channel();
        self.tell(Request::Describe { answer })?;
        Ok(Response::new(reply(answered.await.map_err(|_| closed())?)))
    }
}

/// Writes what comes, until its end is said. `None`: it ended before.
fn write(
    mut receiver: Receiver,
    mut parts: mpsc::Receiver<Option<Bytes>>,
) -> Result<Option<Received>, CheckpointError> {
    loop {
        match parts.blocking_recv() {
            Some(Some(text)) => receiver.push(&text)?,
            Some(None) => return receiver.finish().map(Some),
            None => return Ok(None),
        }
    }
}

fn reply(view: View) -> DescribeReply {
    let member = |(id, member, role, matched): (u64, store_core::members::Member, Role, Option<u64>)| {
        let voter = role == Role::Voter;
        WireMember { id, name: member.name, address: member.address, voter, matched }
    };
    DescribeReply {
        member: view.member,
        leader: view.leader.unwrap_or(0),
        applied: view.applied,
        revision: view.revision,
        members: view.members.into_iter().map(member).collect(),
    }
}
