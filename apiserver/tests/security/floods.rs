//! Floods of HTTP/2: frames that cost the sender little and would cost the server much.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::support::Cluster;
use crate::wire::{PATIENCE, is_well};

const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GO_AWAY: u8 = 7;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
/// The head of `GET /version` in HPACK.
const GET: &[u8] = b"\x82\x87\x44\x08/version\x41\x01k";
/// A client that is not held back stops by itself.
const ENOUGH: usize = 48 << 20;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("short").to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// A connection of somebody who has proved nothing.
async fn connect(cluster: &Cluster) -> TlsStream<TcpStream> {
    let mut stream = cluster.connect(None, "h2").await;
    let mut start = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    start.extend(frame(SETTINGS, 0, 0, &[]));
    stream.write_all(&start).await.expect("sent");
    stream
}

/// Sends until the server takes no more, and reads nothing; how much it took.
async fn pour(stream: &mut TlsStream<TcpStream>, chunk: &[u8]) -> usize {
    let mut taken = 0;
    while taken < ENOUGH {
        let written = tokio::time::timeout(Duration::from_secs(3), async {
            stream.write_all(chunk).await?;
            stream.flush().await
        });
        match written.await {
            Ok(Ok(())) => taken += chunk.len(),
            _ => break,
        }
    }
    taken
}

/// The kinds of the frames that come until the server ends the connection.
async fn answered(mut stream: TlsStream<TcpStream>) -> Vec<u8> {
    let mut bytes = Vec::new();
    let ended = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut bytes)).await;
    assert!(ended.is_ok(), "the server keeps the connection");
    let (mut kinds, mut rest) = (Vec::new(), &bytes[..]);
    while let Some((head, after)) = rest.split_first_chunk::<9>() {
        kinds.push(head[3]);
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        rest = after.get(length..).unwrap_or_default();
    }
    kinds
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_that_are_reset_at_once_end_the_connection() {
    let cluster = Cluster::start().await;
    let mut stream = connect(&cluster).await;
    let cancel = 8u32.to_be_bytes();
    let burst: Vec<u8> = (0..5000u32)
        .flat_map(|number| {
            let id = 2 * number + 1;
            [frame(HEADERS, END_STREAM | END_HEADERS, id, GET), frame(RST_STREAM, 0, id, &cancel)].concat()
        })
        .collect();
    let _ = stream.write_all(&burst).await;
    let kinds = answered(stream).await;
    assert!(kinds.contains(&GO_AWAY), "{kinds:?}");
    is_well(&cluster).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_head_that_is_continued_for_ever_ends_the_connection() {
    let cluster = Cluster::start().await;
    let mut stream = connect(&cluster).await;
    stream.write_all(&frame(HEADERS, END_STREAM, 1, GET)).await.expect("sent");
    // A header `x: yyy…`, never indexed.
    let mut header = vec![0x00, 0x01, b'x', 0x7f, 0xe1, 0x1e];
    header.extend(vec![b'y'; 4032]);
    let chunk = frame(CONTINUATION, 0, 1, &header).repeat(4);
    assert!(pour(&mut stream, &chunk).await < ENOUGH, "all of it was taken");
    let small = frame(CONTINUATION, 0, 1, &[]).repeat(2000);
    let mut empty = connect(&cluster).await;
    empty.write_all(&frame(HEADERS, END_STREAM, 1, GET)).await.expect("sent");
    assert!(pour(&mut empty, &small).await < ENOUGH, "all of the empty ones were taken");
    is_well(&cluster).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_that_nobody_reads_do_not_pile_up() {
    let cluster = Cluster::start().await;
    for (kind, payload) in [(PING, &[0u8; 8][..]), (SETTINGS, &[0, 4, 0, 0, 0xff, 0xff][..])] {
        let mut stream = connect(&cluster).await;
        let chunk = frame(kind, 0, 0, payload).repeat(1000);
        let taken = pour(&mut stream, &chunk).await;
        assert!(taken < ENOUGH, "frames of kind {kind}: all was taken");
        is_well(&cluster).await;
    }
    cluster.stop().await;
}
