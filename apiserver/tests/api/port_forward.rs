//! Forwarded ports, from the client's streams to the agent's end of the tunnel and back.

use std::collections::BTreeMap;

use flate2::{Compress, Compression, FlushCompress};
use futures::{SinkExt as _, StreamExt as _};
use http::StatusCode;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::agent::{Agent, REFUSED};
use crate::streams::{Socket, socket};
use crate::support::{Cluster, POD, cluster_with_pod};

const FIN: u8 = 1;
const SYN_STREAM: u16 = 1;
const RST_STREAM: u16 = 3;
const PING: u16 = 6;

/// What carries the SPDY frames.
enum Transport {
    Plain(Box<TlsStream<TcpStream>>),
    Tunnel(Box<Socket>),
}

/// A client that speaks SPDY.
struct Spdy {
    transport: Transport,
    headers: Compress,
    unread: Vec<u8>,
    /// By stream: what was said, and whether that was all.
    said: BTreeMap<u32, (Vec<u8>, bool)>,
    pings: Vec<u32>,
    resets: Vec<u32>,
}

impl Spdy {
    fn new(transport: Transport) -> Spdy {
        // Frames without the dictionary are allowed too.
        let headers = Compress::new(Compression::fast(), true);
        Spdy {
            transport,
            headers,
            unread: Vec::new(),
            said: BTreeMap::new(),
            pings: Vec::new(),
            resets: Vec::new(),
        }
    }

    async fn plain(cluster: &Cluster) -> Spdy {
        let mut stream = cluster.connect(Some(&cluster.admin()), "http/1.1").await;
        let head = format!(
            "POST {POD}/portforward HTTP/1.1\r\nhost: k\r\nconnection: Upgrade\r\nupgrade: SPDY/3.1\r\n\
             x-stream-protocol-version: portforward.k8s.io\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.expect("sent");
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            answer.push(stream.read_u8().await.expect("a byte"));
        }
        let answer = String::from_utf8_lossy(&answer).to_ascii_lowercase();
        assert!(answer.starts_with("http/1.1 101 "), "{answer}");
        assert!(answer.contains("x-stream-protocol-version: portforward.k8s.io"), "{answer}");
        Spdy::new(Transport::Plain(Box::new(stream)))
    }

    async fn tunnelled(cluster: &Cluster) -> Spdy {
        let path = format!("{POD}/portforward");
        let socket = socket(cluster, &path, "SPDY/3.1+portforward.k8s.io").await.expect("a socket");
        Spdy::new(Transport::Tunnel(Box::new(socket)))
    }

    async fn send(&mut self, bytes: Vec<u8>) {
        match &mut self.transport {
            Transport::Plain(stream) => stream.write_all(&bytes).await.expect("sent"),
            Transport::Tunnel(socket) => {
                // Where messages begin and end means nothing.
                let (first, rest) = bytes.split_at(bytes.len() / 2);
                for part in [first, rest] {
                    socket.send(Message::Binary(part.to_vec().into())).await.expect("sent");
                }
            }
        }
    }

    async fn open(&mut self, stream: u32, headers: &[(&str, &str)]) {
        let mut plain = u32::try_from(headers.len()).expect("few").to_be_bytes().to_vec();
        for text in headers.iter().flat_map(|(name, value)| [name, value]) {
            plain.extend_from_slice(&u32::try_from(text.len()).expect("short").to_be_bytes());
            plain.extend_from_slice(text.as_bytes());
        }
        let mut packed = Vec::with_capacity(plain.len() + 128);
        self.headers.compress_vec(&plain, &mut packed, FlushCompress::Sync).expect("compressed");
        let mut payload = stream.to_be_bytes().to_vec();
        payload.extend_from_slice(&[0; 6]);
        payload.extend_from_slice(&packed);
        self.control(SYN_STREAM, &payload).await;
    }

    /// Opens the two streams of a connection: `stream` for errors, the next one for data.
    async fn connect(&mut self, stream: u32, port: u16, request: &str) {
        let port = port.to_string();
        for (stream, kind) in [(stream, "error"), (stream + 2, "data")] {
            self.open(stream, &[("streamtype", kind), ("port", &port), ("requestid", request)]).await;
        }
    }

    async fn control(&mut self, kind: u16, payload: &[u8]) {
        let mut frame = vec![0x80, 3];
        frame.extend_from_slice(&kind.to_be_bytes());
        frame.extend_from_slice(&u32::try_from(payload.len()).expect("short").to_be_bytes());
        frame.extend_from_slice(payload);
        self.send(frame).await;
    }

    async fn data(&mut self, stream: u32, bytes: &[u8], flags: u8) {
        let mut frame = stream.to_be_bytes().to_vec();
        frame.extend_from_slice(
            &(u32::try_from(bytes.len()).expect("short") | u32::from(flags) << 24).to_be_bytes(),
        );
        frame.extend_from_slice(bytes);
        self.send(frame).await;
    }

    /// Reads until `enough` says so.
    async fn until(&mut self, enough: impl Fn(&Spdy) -> bool) {
        while !enough(self) {
            let more = match &mut self.transport {
                Transport::Plain(stream) => {
                    let mut chunk = vec![0; 4096];
                    let count = stream.read(&mut chunk).await.expect("read");
                    chunk.truncate(count);
                    chunk
                }
                Transport::Tunnel(socket) => match socket.next().await {
                    Some(Ok(Message::Binary(bytes))) => bytes.to_vec(),
                    Some(Ok(Message::Ping(_) | Message::Pong(_))) => continue,
                    _ => Vec::new(),
                },
            };
            assert!(!more.is_empty(), "the connection ended; until then: {:?}", self.said);
            self.unread.extend_from_slice(&more);
            self.take();
        }
    }

    fn take(&mut self) {
        while self.unread.len() >= 8 {
            let word = |at: usize| u32::from_be_bytes(self.unread[at..at + 4].try_into().expect("four"));
            let (first, second) = (word(0), word(4));
            let end = 8 + (second & 0x00ff_ffff) as usize;
            if self.unread.len() < end {
                return;
            }
            let payload: Vec<u8> = self.unread.drain(..end).skip(8).collect();
            if first & 0x8000_0000 == 0 {
                let said = self.said.entry(first).or_default();
                said.0.extend_from_slice(&payload);
                said.1 |= second >> 24 & u32::from(FIN) != 0;
                continue;
            }
            let about = u32::from_be_bytes(payload[..4].try_into().expect("four"));
            match first as u16 {
                PING => self.pings.push(about),
                RST_STREAM => self.resets.push(about),
                _ => {}
            }
        }
    }

    fn said(&self, stream: u32) -> (String, bool) {
        let (bytes, ended) = self.said.get(&stream).cloned().unwrap_or_default();
        (String::from_utf8_lossy(&bytes).into_owned(), ended)
    }

    fn ended(&self, streams: &[u32]) -> bool {
        streams.iter().all(|stream| self.said.get(stream).is_some_and(|(_, ended)| *ended))
    }
}

async fn forwards(mut client: Spdy) {
    client.connect(1, 8080, "0").await;
    client.connect(5, REFUSED, "1").await;
    client.data(3, b"hello ", 0).await;
    client.until(|it| it.ended(&[5, 7])).await;
    let (why, _) = client.said(5);
    assert!(why.starts_with("error forwarding port 1 to pod web, uid "), "{why}");
    assert!(why.ends_with(": connection refused"), "{why}");
    // A connection that was refused ends no other, and no later one.
    client.connect(9, 8081, "2").await;
    client.data(11, b"second", FIN).await;
    client.data(3, b"world ", FIN).await;
    client.until(|it| it.ended(&[1, 3, 9, 11])).await;
    assert_eq!(client.said(3).0, "hello world bye");
    assert_eq!(client.said(11).0, "secondbye");
    assert_eq!((client.said(1).0, client.said(9).0), (String::new(), String::new()));
    // Clients without request ids open the error stream first, and the data stream next.
    client.open(13, &[("streamtype", "error"), ("port", "80")]).await;
    client.open(15, &[("streamtype", "data"), ("port", "80")]).await;
    let large = vec![b'x'; 200 << 10];
    client.data(15, &large, FIN).await;
    client.until(|it| it.ended(&[13, 15])).await;
    assert_eq!(client.said(15).0.len(), large.len() + 3);
    client.open(17, &[("streamtype", "data"), ("port", "0"), ("requestid", "9")]).await;
    client.control(PING, &7_u32.to_be_bytes()).await;
    client.until(|it| it.pings == [7]).await;
    assert_eq!(client.resets, [17]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_end_one_by_one_over_spdy() {
    let cluster = cluster_with_pod().await;
    let _agent = Agent::start(&cluster, "node-1").await;
    forwards(Spdy::plain(&cluster).await).await;
    forwards(Spdy::tunnelled(&cluster).await).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_connections_go_on_at_once() {
    let cluster = cluster_with_pod().await;
    let _agent = Agent::start(&cluster, "node-1").await;
    let mut client = Spdy::tunnelled(&cluster).await;
    let first: Vec<u32> = (0..100).map(|index| 1 + 4 * index).collect();
    for stream in &first {
        client.connect(*stream, 8080, &stream.to_string()).await;
    }
    for stream in &first {
        client.data(stream + 2, stream.to_string().as_bytes(), FIN).await;
    }
    let all: Vec<u32> = first.iter().flat_map(|stream| [*stream, stream + 2]).collect();
    client.until(|it| it.ended(&all)).await;
    for stream in first {
        assert_eq!(client.said(stream + 2).0, format!("{stream}bye"));
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn channels_carry_a_connection_for_each_port() {
    let cluster = cluster_with_pod().await;
    let _agent = Agent::start(&cluster, "node-1").await;
    let path = format!("{POD}/portforward?ports=8080&ports={REFUSED}");
    let mut socket = socket(&cluster, &path, "v4.channel.k8s.io").await.expect("a socket");
    let mut channels: [Vec<u8>; 4] = Default::default();
    let whole = |channels: &[Vec<u8>; 4]| channels[3].len() > 2 && channels[0].ends_with(b"hi");
    socket.send(Message::Binary(b"\x00hi".to_vec().into())).await.expect("sent");
    while !whole(&channels) {
        if let Message::Binary(bytes) = socket.next().await.expect("a message").expect("read") {
            channels[usize::from(bytes[0])].extend_from_slice(&bytes[1..]);
        }
    }
    assert_eq!(channels[0], b"\x90\x1fhi");
    assert_eq!((&channels[1][..], &channels[2][..]), (&b"\x90\x1f"[..], &b"\x01\x00"[..]));
    let why = String::from_utf8_lossy(&channels[3][2..]);
    assert!(why.starts_with("error forwarding port 1 to pod web, uid "), "{why}");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_names_no_port_or_protocol_is_refused() {
    let cluster = cluster_with_pod().await;
    for (protocol, words) in
        [("v4.channel.k8s.io", "is required"), ("v9.channel.k8s.io", "unable to negotiate")]
    {
        let Err(Error::Http(response)) = socket(&cluster, &format!("{POD}/portforward"), protocol).await
        else {
            panic!("a socket was opened")
        };
        let body = String::from_utf8_lossy(response.body().as_deref().unwrap_or_default()).into_owned();
        assert_eq!(response.status(), StatusCode::BAD_REQUEST, "{body}");
        assert!(body.contains(words), "{body}");
    }
    cluster.stop().await;
}
