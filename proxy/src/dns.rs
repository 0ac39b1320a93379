//! Cluster DNS on one node: answers from the zone of this process, asks the host's resolvers for everything else.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use std::{io, str};

use arc_swap::ArcSwap;
use hickory_server::Server;
use hickory_server::net::runtime::Time;
use hickory_server::net::xfer::Protocol;
use hickory_server::proto::op::{Message, Metadata, ResponseCode};
use hickory_server::proto::rr::rdata::{A, AAAA, CNAME, PTR, SOA, SRV, TXT};
use hickory_server::proto::rr::{Name, RData, RecordType};
use hickory_server::server::{Request, RequestHandler, ResponseHandler, ResponseInfo};
use hickory_server::zone_handler::MessageResponseBuilder;
use proxy_core::names::{Answer, Question, Record, Zone};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tracing::debug;

use crate::netns;

type DnsRecord = hickory_server::proto::rr::Record;

/// How long clients may keep an answer about the cluster.
const TTL_S: u32 = 5;
const PORT: u16 = 53;
/// How long one resolver of the host may take before the next is asked.
const UPSTREAM_TIMEOUT: Duration = Duration::from_secs(2);
const TCP_IDLE: Duration = Duration::from_secs(10);
const TCP_ANSWERS_MAX: usize = 32;
const UDP_ANSWER_BYTES_MAX: usize = 4096;
/// Links between names of the cluster and outside are followed so often.
const LINKS_MAX: usize = 8;

/// Serves DNS on `address` inside the network namespace at `netns` until the returned server is dropped.
pub fn serve(
    address: Ipv4Addr,
    netns: Option<&Path>,
    zone: Arc<ArcSwap<Zone>>,
    upstream: Vec<SocketAddr>,
) -> io::Result<Server<impl RequestHandler>> {
    let (udp, tcp) = netns::within(netns, move || {
        let udp = std::net::UdpSocket::bind((address, PORT))?;
        let tcp = std::net::TcpListener::bind((address, PORT))?;
        udp.set_nonblocking(true)?;
        tcp.set_nonblocking(true)?;
        Ok((udp, tcp))
    })?;
    let mut server = Server::new(Resolver { zone, upstream });
    server.register_socket(UdpSocket::from_std(udp)?);
    server.register_listener(TcpListener::from_std(tcp)?, TCP_IDLE, TCP_ANSWERS_MAX);
    Ok(server)
}

/// The host's resolvers, from the text of its `resolv.conf`.
pub fn upstream(resolv_conf: &str) -> Vec<SocketAddr> {
    let servers = resolv_conf.lines().filter_map(|line| line.trim().strip_prefix("nameserver"));
    servers.filter_map(|address| Some(SocketAddr::new(address.trim().parse().ok()?, PORT))).collect()
}

struct Resolver {
    zone: Arc<ArcSwap<Zone>>,
    upstream: Vec<SocketAddr>,
}

/// The sections of an answer.
#[derive(Default)]
struct Sections {
    code: ResponseCode,
    authoritative: bool,
    answers: Vec<DnsRecord>,
    authorities: Vec<DnsRecord>,
    additionals: Vec<DnsRecord>,
}

#[async_trait::async_trait]
impl RequestHandler for Resolver {
    async fn handle_request<R: ResponseHandler, T: Time>(
        &self,
        request: &Request,
        mut response: R,
    ) -> ResponseInfo {
        let sections = self.resolve(request).await;
        let mut metadata = Metadata::response_from_request(&request.metadata);
        metadata.response_code = sections.code;
        metadata.authoritative = sections.authoritative;
        metadata.recursion_available = true;
        let message = MessageResponseBuilder::from_message_request(request).build(
            metadata,
            &sections.answers,
            &sections.authorities,
            std::iter::empty(),
            &sections.additionals,
        );
        match response.send_response(message).await {
            Ok(info) => info,
            Err(error) => {
                // The client asks again.
                debug!(%error, "a DNS answer was not sent");
                hickory_server::proto::op::Header {
                    metadata,
                    counts: hickory_server::proto::op::HeaderCounts::default(),
                }
                .into()
            }
        }
    }
}

impl Resolver {
    async fn resolve(&self, request: &Request) -> Sections {
        let Ok(info) = request.request_info() else {
            return Sections { code: ResponseCode::FormErr, ..Sections::default() };
        };
        let asked = info.query.original();
        let kind = asked.query_type();
        let (local, outside) = self.local(asked.name(), kind);
        let Some(outside) = outside else { return local };
        if local.answers.is_empty() {
            return self.forward(request.as_slice(), info.protocol).await;
        }
        self.follow(local, outside, kind).await
    }

    /// What the cluster knows, and the name outside that the rest of the answer is about.
    fn local(&self, name: &Name, kind: RecordType) -> (Sections, Option<Name>) {
        let zone = self.zone.load();
        let mut sections = Sections { authoritative: true, ..Sections::default() };
        let mut name = name.clone();
        for _ in 0..LINKS_MAX {
            let records = match zone.answer(&name.to_ascii(), question(kind)) {
                Answer::Elsewhere => return (sections, Some(name)),
                Answer::NoSuchName => {
                    sections.code = ResponseCode::NXDomain;
                    sections.authorities.extend(start_of_authority(&zone));
                    return (sections, None);
                }
                Answer::Records(records) => records,
            };
            let next = records.iter().find_map(|record| match record {
                Record::Cname(target) if kind != RecordType::CNAME => Name::from_ascii(target).ok(),
                _ => None,
            });
            sections.answers.extend(records.iter().filter_map(|record| encode(&name, record)));
            if sections.answers.is_empty() {
                sections.authorities.extend(start_of_authority(&zone));
            }
            match next {
                Some(next) => name = next,
                None => return (sections, None),
            }
        }
        (sections, None)
    }

    /// Adds what the resolvers of the host say of a name to which a name of the cluster links.
    async fn follow(&self, mut local: Sections, name: Name, kind: RecordType) -> Sections {
        let mut query = Message::query();
        query.metadata.recursion_desired = true;
        query.queries.push(hickory_server::proto::op::Query::query(name, kind));
        let Ok(bytes) = query.to_vec() else { return Sections { code: ResponseCode::ServFail, ..local } };
        let answer = self.forward(&bytes, Protocol::Udp).await;
        local.code = answer.code;
        local.answers.extend(answer.answers);
        local.authorities.extend(answer.authorities);
        local
    }

    async fn forward(&self, request: &[u8], protocol: Protocol) -> Sections {
        for server in &self.upstream {
            let asked = async {
                match protocol {
                    Protocol::Udp => ask_udp(*server, request).await,
                    _ => ask_tcp(*server, request).await,
                }
            };
            match tokio::time::timeout(UPSTREAM_TIMEOUT, asked).await {
                Ok(Ok(message)) => {
                    return Sections {
                        code: message.metadata.response_code,
                        authoritative: false,
                        answers: message.answers,
                        authorities: message.authorities,
                        additionals: message.additionals,
                    };
                }
                Ok(Err(error)) => debug!(%error, %server, "a resolver of the host did not answer"),
                Err(_) => debug!(%server, "a resolver of the host did not answer in time"),
            }
        }
        Sections { code: ResponseCode::ServFail, ..Sections::default() }
    }
}

async fn ask_udp(server: SocketAddr, request: &[u8]) -> io::Result<Message> {
    let local: SocketAddr = if server.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0u16; 8], 0).into() };
    let socket = UdpSocket::bind(local).await?;
    socket.connect(server).await?;
    socket.send(request).await?;
    let mut buffer = vec![0; UDP_ANSWER_BYTES_MAX];
    loop {
        let length = socket.recv(&mut buffer).await?;
        let answer = buffer.get(..length).unwrap_or_default();
        // An answer to another question is somebody's guess.
        if answer.get(..2) != request.get(..2) {
            continue;
        }
        let message = Message::from_vec(answer).map_err(io::Error::other)?;
        return if message.metadata.truncation { ask_tcp(server, request).await } else { Ok(message) };
    }
}

async fn ask_tcp(server: SocketAddr, request: &[u8]) -> io::Result<Message> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(request.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes(), request].concat()).await?;
    let mut answer = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut answer).await?;
    Message::from_vec(&answer).map_err(io::Error::other)
}

fn question(kind: RecordType) -> Question {
    match kind {
        RecordType::A => Question::A,
        RecordType::AAAA => Question::Aaaa,
        RecordType::SRV => Question::Srv,
        RecordType::PTR => Question::Ptr,
        RecordType::TXT => Question::Txt,
        _ => Question::Other,
    }
}

fn encode(name: &Name, record: &Record) -> Option<DnsRecord> {
    let data = match record {
        Record::A(address) => RData::A(A(*address)),
        Record::Aaaa(address) => RData::AAAA(AAAA(*address)),
        Record::Cname(target) => RData::CNAME(CNAME(Name::from_ascii(target).ok()?)),
        Record::Srv { port, target } => RData::SRV(SRV::new(0, 100, *port, Name::from_ascii(target).ok()?)),
        Record::Ptr(target) => RData::PTR(PTR(Name::from_ascii(target).ok()?)),
        Record::Txt(text) => RData::TXT(TXT::new(vec![text.clone()])),
    };
    Some(DnsRecord::from_rdata(name.clone(), TTL_S, data))
}

fn start_of_authority(zone: &Zone) -> Option<DnsRecord> {
    let name = |prefix: &str| Name::from_ascii(format!("{prefix}{}.", zone.domain())).ok();
    let data = SOA::new(name("ns.dns.")?, name("hostmaster.")?, 1, 7200, 1800, 86400, TTL_S);
    Some(DnsRecord::from_rdata(name("")?, TTL_S, RData::SOA(data)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolvers_of_the_host() {
        let text =
            "# comment\nsearch example.org\nnameserver 192.0.2.1\nnameserver ::1\nnameserver nonsense\n";
        let shown: Vec<String> = upstream(text).iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["192.0.2.1:53", "[::1]:53"]);
    }
}
