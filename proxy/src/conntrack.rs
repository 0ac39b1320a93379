//! Forgets tracked UDP flows whose backend is gone: the kernel would keep sending there.
//!
//! Numbers are those of the kernel's `include/uapi/linux/netfilter/nfnetlink_conntrack.h`.

use std::net::Ipv4Addr;

use proxy_core::services::{Backend, Frontend};
use proxy_core::table::StaleFlow;

use crate::netlink::{Attributes, Batch, Error, NLM_F_ACK, NLM_F_DUMP, Socket, attribute};

const SUBSYSTEM: u16 = 1;
const GET: u16 = 1;
const DELETE: u16 = 2;
const FAMILY_IPV4: u8 = 2;
const TUPLE_ORIGINAL: u16 = 1;
const TUPLE_REPLY: u16 = 2;

/// One direction of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Tuple {
    source: (Ipv4Addr, u16),
    destination: (Ipv4Addr, u16),
    protocol: u8,
}

/// Forgets the flows; those that the kernel has forgotten itself are no error.
pub fn flush(socket: &Socket, stale: &[StaleFlow]) -> Result<(), Error> {
    if stale.is_empty() {
        return Ok(());
    }
    let mut request = Batch::default();
    let what = "a list of tracked flows".to_owned();
    request.message(SUBSYSTEM << 8 | GET, NLM_F_DUMP, FAMILY_IPV4, 0, &Attributes::default(), what);
    let mut found = Vec::new();
    socket.dump(&request, |payload| {
        let original = attribute(payload, TUPLE_ORIGINAL);
        let reply = attribute(payload, TUPLE_REPLY).and_then(tuple);
        if let (Some(bytes), Some(reply)) = (original, reply)
            && let Some(original) = tuple(bytes)
            && stale.iter().any(|flow| concerns(flow, &original, &reply))
        {
            found.push(bytes.to_vec());
        }
    })?;
    for original in found {
        let mut request = Batch::default();
        let attributes = Attributes::default().bytes(TUPLE_ORIGINAL | 0x8000, &original);
        let what = "removal of a tracked flow".to_owned();
        request.message(SUBSYSTEM << 8 | DELETE, NLM_F_ACK, FAMILY_IPV4, 0, &attributes, what);
        match socket.send(&request, 0) {
            Err(Error::Refused { errno: nix::errno::Errno::ENOENT, .. }) => {}
            other => other?,
        }
    }
    Ok(())
}

fn concerns(flow: &StaleFlow, original: &Tuple, reply: &Tuple) -> bool {
    let StaleFlow { frontend: Frontend { address, protocol, port }, backend } = flow;
    let to_frontend = original.protocol == protocol.number()
        && original.destination.1 == *port
        && (address.is_unspecified() || original.destination.0 == *address);
    let through = match backend {
        Some(Backend { address, port }) => reply.source == (*address, *port),
        // Without a backend it went on untranslated: the answer would come from the frontend itself.
        None => reply.source == original.destination,
    };
    to_frontend && through
}

fn tuple(bytes: &[u8]) -> Option<Tuple> {
    let addresses = attribute(bytes, 1)?;
    let transport = attribute(bytes, 2)?;
    let address = |kind| Some(Ipv4Addr::from(<[u8; 4]>::try_from(attribute(addresses, kind)?).ok()?));
    let port = |kind| Some(u16::from_be_bytes(attribute(transport, kind)?.try_into().ok()?));
    Some(Tuple {
        source: (address(1)?, port(2)?),
        destination: (address(2)?, port(3)?),
        protocol: *attribute(transport, 1)?.first()?,
    })
}
