//! Forwarded ports over the channels of a WebSocket: one connection a port, with a channel for data and the next one for
//! errors. The first two bytes of each channel are the port, the less significant byte first.

use futures::{SinkExt as _, StreamExt as _, stream::SplitStream};
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::Message;

use super::{Dialer, Input, Output, WAITING};
use crate::streams::channel::Coding;
use crate::streams::websocket::{self, Socket};

/// The protocols served, best first. Some clients name none.
pub(super) const PROTOCOLS: [&str; 3] = ["v4.channel.k8s.io", "v4.base64.channel.k8s.io", ""];
/// As many as there are pairs of channels.
pub(super) const MAX_PORTS: usize = 128;
/// Messages that wait to be written.
const QUEUE: usize = 16;

/// The two channels of one port, towards the client.
struct Channels {
    data: u8,
    coding: Coding,
    messages: mpsc::Sender<Message>,
}

/// Carries one connection to each port until all have ended or the client is gone.
pub(super) async fn run(socket: Socket, coding: Coding, dialer: Dialer, ports: Vec<u16>) {
    let (mut sink, stream) = socket.split();
    let (messages, mut queue) = mpsc::channel(QUEUE);
    let mut ways = Vec::new();
    let mut connections = Vec::new();
    for (data, port) in (0_u8..=254).step_by(2).zip(ports) {
        let (way, input) = mpsc::channel(WAITING);
        ways.push(way);
        let (dialer, output) = (&dialer, Channels { data, coding, messages: messages.clone() });
        connections.push(async move {
            output.announce(port).await;
            dialer.forward(port, input, &output).await;
        });
    }
    drop(messages);
    let all = futures::future::join_all(connections);
    let write = async {
        while let Some(message) = queue.recv().await {
            if sink.send(message).await.is_err() {
                return;
            }
        }
        websocket::close(sink).await;
    };
    tokio::select! {
        // Nothing is written any more when the connections have ended.
        _ = async { tokio::join!(all, write) } => {}
        () = read(stream, coding, ways) => {}
    }
}

/// Client to connections. Ends when the client closes its connection.
async fn read(mut stream: SplitStream<Socket>, coding: Coding, ways: Vec<mpsc::Sender<Input>>) {
    while let Some(Ok(message)) = stream.next().await {
        if message.is_close() {
            return;
        }
        if let Some((channel, bytes)) = coding.read(message)
            && let Some(port) = port(channel)
            && !bytes.is_empty()
            && let Some(way) = ways.get(port)
        {
            // An error means that the connection has ended, which its channels have told.
            let _ = way.send(Input::Bytes(bytes)).await;
        }
    }
}

/// The place of the port whose data a channel has.
fn port(channel: u8) -> Option<usize> {
    channel.is_multiple_of(2).then_some(usize::from(channel / 2))
}

// === impl Channels ===

impl Channels {
    async fn announce(&self, port: u16) {
        for channel in [self.data, self.data + 1] {
            // An error means that the client is gone.
            let _ = self.messages.send(self.coding.write(channel, &port.to_le_bytes())).await;
        }
    }
}

impl Output for Channels {
    async fn bytes(&self, bytes: &[u8]) -> bool {
        self.messages.send(self.coding.write(self.data, bytes)).await.is_ok()
    }

    /// There is no message for the end of a channel, in neither direction: the end of the last connection ends the socket.
    async fn end(&self) -> bool {
        false
    }

    async fn fail(&self, why: &str) {
        // An error means that the client is gone.
        let _ = self.messages.send(self.coding.write(self.data + 1, why.as_bytes())).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_channels_are_even() {
        assert_eq!([0, 1, 2, 4, 5].map(port), [Some(0), None, Some(1), Some(2), None]);
    }
}
