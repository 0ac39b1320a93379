//! Exec, attach and logs, from the client's connection to the agent's end of the tunnel and back.

use futures::{SinkExt as _, StreamExt as _};
use http::{HeaderValue, Method, StatusCode};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Error, Message, client::IntoClientRequest as _},
};

use crate::agent::{self, Agent};
use crate::support::{Cluster, POD, cluster_with_pod};

pub type Socket = WebSocketStream<tokio_rustls::client::TlsStream<tokio::net::TcpStream>>;

pub async fn socket(cluster: &Cluster, path: &str, protocol: &'static str) -> Result<Socket, Error> {
    let stream = cluster.connect(Some(&cluster.admin()), "http/1.1").await;
    let mut request = format!("wss://kubernetes{path}").into_client_request().expect("a request");
    if !protocol.is_empty() {
        request.headers_mut().insert("sec-websocket-protocol", HeaderValue::from_static(protocol));
    }
    let (socket, response) = tokio_tungstenite::client_async(request, stream).await?;
    let agreed = response.headers().get("sec-websocket-protocol").map(HeaderValue::as_bytes);
    assert_eq!(agreed.unwrap_or_default(), protocol.as_bytes());
    Ok(socket)
}

/// Everything that the server sends, by channel.
async fn output(socket: &mut Socket) -> [Vec<u8>; 4] {
    let mut channels: [Vec<u8>; 4] = Default::default();
    while let Some(Ok(message)) = socket.next().await {
        if let Message::Binary(bytes) = message {
            let (channel, data) = bytes.split_first().expect("a channel");
            channels[usize::from(*channel)].extend_from_slice(data);
        }
    }
    channels
}

fn status(channels: &[Vec<u8>; 4]) -> Value {
    serde_json::from_slice(&channels[3]).expect("a Status")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exec_tells_output_and_exit_code() {
    let cluster = cluster_with_pod().await;
    let _agent = Agent::start(&cluster, "node-1").await;
    for protocol in ["v4.channel.k8s.io", "v5.channel.k8s.io"] {
        let path = format!("{POD}/exec?command=exit&command=3&stdout=true&stderr=true");
        let mut socket = socket(&cluster, &path, protocol).await.expect("a socket");
        let channels = output(&mut socket).await;
        assert_eq!((&channels[1][..], &channels[2][..]), (&b"out\n"[..], &b"err\n"[..]));
        let status = status(&channels);
        assert_eq!(status["details"]["causes"][0], json!({"reason": "ExitCode", "message": "3"}), "{status}");
    }
    cluster.stop().await;
}

/// Some clients name no protocol, as the oldest did.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_names_no_protocol_gets_the_oldest() {
    let cluster = cluster_with_pod().await;
    let _agent = Agent::start(&cluster, "node-1").await;
    let path = format!("{POD}/exec?command=exit&command=3&stdout=true&stderr=true");
    let channels = output(&mut socket(&cluster, &path, "").await.expect("a socket")).await;
    assert_eq!(channels[1], b"out\n");
    let words = String::from_utf8_lossy(&channels[3]);
    assert_eq!(words, "command terminated with non-zero exit code: exit status 3");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn input_can_be_closed_in_v5_and_terminals_resized() {
    let cluster = cluster_with_pod().await;
    let _agent = Agent::start(&cluster, "node-1").await;
    let path = format!("{POD}/attach?container=main&stdin=true&stdout=true&tty=true");
    let mut socket = socket(&cluster, &path, "v5.channel.k8s.io").await.expect("a socket");
    // Some clients call text what was typed.
    let binary = |bytes: &'static [u8]| Message::Binary(bytes.into());
    let resize = binary(b"\x04{\"Width\":80,\"Height\":24}");
    for message in [binary(b"\x00hello "), resize, Message::Text("\0world".into()), binary(b"\xff\x00")] {
        socket.send(message).await.expect("sent");
    }
    let channels = output(&mut socket).await;
    assert_eq!(String::from_utf8_lossy(&channels[1]), "hello 80x24\nworld");
    assert_eq!(status(&channels), json!({"metadata": {}, "status": "Success"}));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_that_cannot_start_is_an_http_error() {
    let cluster = cluster_with_pod().await;
    let path = format!("{POD}/exec?command=refuse&stdout=true");
    let refused = async |expected: u16, words: &str| {
        let Err(Error::Http(response)) = socket(&cluster, &path, "v5.channel.k8s.io").await else {
            panic!("a socket was opened")
        };
        let body = String::from_utf8_lossy(response.body().as_deref().unwrap_or_default()).into_owned();
        assert_eq!(response.status().as_u16(), expected, "{body}");
        assert!(body.contains(words), "{body}");
    };
    refused(502, "error dialing backend").await;
    let _agent = Agent::start(&cluster, "node-1").await;
    refused(400, "no such command").await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_input_in_one_message_arrives_whole() {
    let cluster = cluster_with_pod().await;
    let _agent = Agent::start(&cluster, "node-1").await;
    let path = format!("{POD}/attach?container=main&stdin=true&stdout=true");
    let mut socket = socket(&cluster, &path, "v5.channel.k8s.io").await.expect("a socket");
    let mut message = vec![b'x'; 3 << 20];
    message[0] = 0;
    for message in [message, b"\xff\x00".to_vec()] {
        socket.send(Message::Binary(message.into())).await.expect("sent");
    }
    let channels = output(&mut socket).await;
    assert_eq!(channels[1].len(), (3 << 20) - 1);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exec_needs_an_upgrade() {
    let cluster = cluster_with_pod().await;
    let mut admin = cluster.admin_client().await;
    let (status, body) = admin.get(&format!("{POD}/exec?command=true&stdout=true")).await;
    assert_eq!((status, &body["message"]), (StatusCode::BAD_REQUEST, &"Upgrade request required".into()));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logs_are_plain_text_and_end_with_the_server_when_followed() {
    let cluster = cluster_with_pod().await;
    let _agent = Agent::start(&cluster, "node-1").await;
    let mut admin = cluster.admin_client().await;
    let response = admin.send(admin.request(Method::GET, &format!("{POD}/log?tailLines=3"), "")).await;
    assert_eq!(response.headers()["content-type"], "text/plain");
    let text = response.into_body().collect().await.expect("a body").to_bytes();
    assert_eq!(text, "line 0\nline 1\nline 2\n");

    let mut followed =
        admin.send(admin.request(Method::GET, &format!("{POD}/log?follow=true&tailLines=1"), "")).await;
    followed.frame().await.expect("a line").expect("a frame");
    cluster.server.shutdown().await;
    while let Some(Ok(_)) = followed.frame().await {}
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_a_nodes_own_certificate_listens_for_it() {
    let cluster = Cluster::start().await;
    let mut client = agent::connect(&cluster, "node-1").await;
    let hello = proto::tunnel::Hello { node: "node-2".into() };
    let Err(refusal) = client.listen(futures::stream::iter([hello])).await else {
        panic!("an impostor listens")
    };
    assert_eq!(refusal.code(), tonic::Code::PermissionDenied);
    assert!(!cluster.server.tunnels().is_connected("node-2"));

    let agent = Agent::start(&cluster, "node-1").await;
    assert!(cluster.server.tunnels().is_connected("node-1"));
    drop(agent);
    cluster.stop().await;
}
