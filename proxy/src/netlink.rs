//! Netlink messages of the netfilter family, and a socket that sends a batch and hears whether the kernel took it.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::sockopt::{RcvBufForce, ReceiveTimeout, SndBufForce};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, setsockopt, socket,
};
use nix::sys::time::TimeVal;

const NLM_F_REQUEST: u16 = 1;
/// Ask for an answer even when all went well.
pub const NLM_F_ACK: u16 = 4;
/// Ask for all objects of a kind.
pub const NLM_F_DUMP: u16 = 0x300;
/// Create what is not there.
pub const NLM_F_CREATE: u16 = 0x400;
/// Add at the end.
pub const NLM_F_APPEND: u16 = 0x800;

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLA_F_NESTED: u16 = 0x8000;
const NLA_TYPE_MASK: u16 = 0x3fff;
const HEADER_BYTES: usize = 16;
/// The kernel answers within microseconds; a longer silence is a failure of its own.
const ANSWER_TIMEOUT_S: i64 = 10;

/// The kernel refused, or could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The socket failed.
    #[error("netlink socket")]
    Socket(#[source] Errno),
    /// A message of the batch was refused; nothing of the batch was applied.
    #[error("the kernel refused {what}")]
    Refused {
        /// Which message.
        what: String,
        /// Why.
        #[source]
        errno: Errno,
    },
}

/// Attributes of a message, in the order in which they were put.
#[derive(Clone, Debug, Default)]
pub struct Attributes(Vec<u8>);

impl Attributes {
    /// Puts raw bytes.
    pub fn bytes(mut self, kind: u16, value: &[u8]) -> Self {
        self.put(kind, value);
        self
    }

    /// Puts a string with its closing zero.
    pub fn text(self, kind: u16, value: &str) -> Self {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.bytes(kind, &bytes)
    }

    /// Puts a number in network byte order.
    pub fn number(self, kind: u16, value: u32) -> Self {
        self.bytes(kind, &value.to_be_bytes())
    }

    /// Puts attributes within an attribute.
    pub fn nested(self, kind: u16, inner: Attributes) -> Self {
        self.bytes(kind | NLA_F_NESTED, &inner.0)
    }

    /// How long they are on the wire.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// There is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn put(&mut self, kind: u16, value: &[u8]) {
        let length = (4 + value.len()) as u16;
        self.0.extend_from_slice(&length.to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }
}

/// Reads attributes: kind and value of each.
pub fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(bytes.get(0..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(bytes.get(2..4)?.try_into().ok()?) & NLA_TYPE_MASK;
        let value = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// The value of the first attribute of a kind.
pub fn attribute(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes).find(|(found, _)| *found == kind).map(|(_, value)| value)
}

/// Messages that are sent together.
#[derive(Debug, Default)]
pub struct Batch {
    bytes: Vec<u8>,
    names: Vec<String>,
}

impl Batch {
    /// Adds a message. `kind` is subsystem and message type; `family` and `resource` fill the netfilter header; `what` names
    /// it in errors.
    pub fn message(
        &mut self,
        kind: u16,
        flags: u16,
        family: u8,
        resource: u16,
        attributes: &Attributes,
        what: String,
    ) {
        let length = (HEADER_BYTES + 4 + attributes.len()) as u32;
        let sequence = self.names.len() as u32;
        self.bytes.extend_from_slice(&length.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(&(flags | NLM_F_REQUEST).to_ne_bytes());
        self.bytes.extend_from_slice(&sequence.to_ne_bytes());
        self.bytes.extend_from_slice(&0u32.to_ne_bytes());
        self.bytes.extend_from_slice(&[family, 0]);
        self.bytes.extend_from_slice(&resource.to_be_bytes());
        self.bytes.extend_from_slice(&attributes.0);
        self.names.push(what);
    }

    /// How many messages it has.
    pub fn count(&self) -> usize {
        self.names.len()
    }
}

/// A socket of the netfilter family, in the network namespace of the thread that opened it.
#[derive(Debug)]
pub struct Socket {
    socket: OwnedFd,
}

impl Socket {
    /// Opens a socket in the calling thread's network namespace; it stays there.
    pub fn open() -> Result<Socket, Error> {
        let protocol = SockProtocol::NetlinkNetFilter;
        let socket = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)
            .map_err(Error::Socket)?;
        setsockopt(&socket, ReceiveTimeout, &TimeVal::new(ANSWER_TIMEOUT_S, 0)).map_err(Error::Socket)?;
        Ok(Socket { socket })
    }

    /// Sends a batch and waits for the acknowledgement of message `last`, the only one that asks for one.
    pub fn send(&self, batch: &Batch, last: usize) -> Result<(), Error> {
        self.write(batch)?;
        let mut refused = None;
        let mut buffer = vec![0; 1 << 16];
        loop {
            let length =
                recv(self.socket.as_raw_fd(), &mut buffer, MsgFlags::empty()).map_err(Error::Socket)?;
            for message in messages(buffer.get(..length).unwrap_or_default()) {
                let Some(code) = message.error else { continue };
                if code != 0 && refused.is_none() {
                    let what = batch.names.get(message.sequence as usize).cloned().unwrap_or_default();
                    refused = Some(Error::Refused { what, errno: Errno::from_raw(-code) });
                }
                if message.sequence as usize == last || (code != 0 && message.sequence == 0) {
                    return refused.map_or(Ok(()), Err);
                }
            }
        }
    }

    /// Sends one dump request and hands every answer's payload (behind the netfilter header) to `each`.
    pub fn dump(&self, request: &Batch, mut each: impl FnMut(&[u8])) -> Result<(), Error> {
        self.write(request)?;
        let mut buffer = vec![0; 1 << 16];
        loop {
            let length =
                recv(self.socket.as_raw_fd(), &mut buffer, MsgFlags::empty()).map_err(Error::Socket)?;
            for message in messages(buffer.get(..length).unwrap_or_default()) {
                match (message.kind, message.error) {
                    (NLMSG_DONE, _) => return Ok(()),
                    (_, Some(code)) => {
                        let what = request.names.first().cloned().unwrap_or_default();
                        return Err(Error::Refused { what, errno: Errno::from_raw(-code) });
                    }
                    _ => each(message.payload.get(4..).unwrap_or_default()),
                }
            }
        }
    }

    fn write(&self, batch: &Batch) -> Result<(), Error> {
        // The kernel wants a batch in one piece, and answers each refused message.
        let room = batch.bytes.len() * 2 + (1 << 20);
        for result in
            [setsockopt(&self.socket, SndBufForce, &room), setsockopt(&self.socket, RcvBufForce, &room)]
        {
            result.map_err(Error::Socket)?;
        }
        let kernel = NetlinkAddr::new(0, 0);
        sendto(self.socket.as_fd().as_raw_fd(), &batch.bytes, &kernel, MsgFlags::empty())
            .map_err(Error::Socket)?;
        Ok(())
    }
}

struct Received<'a> {
    kind: u16,
    sequence: u32,
    /// Of an error message: 0 acknowledges.
    error: Option<i32>,
    payload: &'a [u8],
}

fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Received<'_>> {
    std::iter::from_fn(move || {
        let length = u32::from_ne_bytes(bytes.get(0..4)?.try_into().ok()?) as usize;
        let kind = u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?);
        let sequence = u32::from_ne_bytes(bytes.get(8..12)?.try_into().ok()?);
        let payload = bytes.get(HEADER_BYTES..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        let code = || Some(i32::from_ne_bytes(payload.get(0..4)?.try_into().ok()?));
        let error = if kind == NLMSG_ERROR { code() } else { None };
        Some(Received { kind, sequence, error, payload })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_read_as_they_were_put() {
        let inner = Attributes::default().text(1, "abc").number(2, 7);
        let outer = Attributes::default().bytes(5, &[1, 2, 3]).nested(6, inner);
        let read: Vec<(u16, usize)> = attributes(&outer.0).map(|(kind, value)| (kind, value.len())).collect();
        assert_eq!(read, [(5, 3), (6, 16)]);
        let nested = attribute(&outer.0, 6).unwrap();
        assert_eq!(attribute(nested, 1), Some(&b"abc\0"[..]));
        assert_eq!(attribute(nested, 2), Some(&[0, 0, 0, 7][..]));
    }

    #[test]
    fn cut_messages_end_the_reading() {
        assert_eq!(attributes(&[9, 0, 1, 0, 1]).count(), 0);
        assert_eq!(attributes(&[0, 0, 0, 0, 0, 0, 0, 0]).count(), 0);
        assert_eq!(messages(&[200, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]).count(), 0);
    }
}
