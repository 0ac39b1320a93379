//! The channels of a WebSocket: each message is a piece of one channel, written as one of Kubernetes' channel protocols
//! has it.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::{BufMut as _, Bytes, BytesMut};
use tokio_tungstenite::tungstenite::Message;

/// How a message is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Coding {
    /// A byte, which is the channel's number, and the data.
    Binary,
    /// A digit, and the data in base64: for clients that handle nothing but text.
    Base64,
}

// === impl Coding ===

impl Coding {
    /// That of a protocol by its name.
    pub(super) fn of(protocol: &str) -> Coding {
        if protocol.contains("base64") { Coding::Base64 } else { Coding::Binary }
    }

    /// The channel and the data of a client's message; `None` for one that has neither.
    ///
    /// It does not matter whether the client calls the message text or binary: Kubernetes does not look at that either,
    /// and some clients send as text what was typed.
    pub(super) fn read(self, message: Message) -> Option<(u8, Bytes)> {
        let payload: Bytes = match message {
            Message::Binary(bytes) => bytes,
            Message::Text(text) => text.into(),
            _ => return None,
        };
        let (first, data) = (*payload.first()?, payload.slice(1..));
        match self {
            Coding::Binary => Some((first, data)),
            Coding::Base64 => Some((first.checked_sub(b'0')?, STANDARD.decode(data).ok()?.into())),
        }
    }

    /// A message to the client.
    pub(super) fn write(self, channel: u8, data: &[u8]) -> Message {
        match self {
            Coding::Binary => {
                let mut bytes = BytesMut::with_capacity(data.len() + 1);
                bytes.put_u8(channel);
                bytes.extend_from_slice(data);
                Message::Binary(bytes.freeze())
            }
            Coding::Base64 => {
                let mut text = String::from(char::from(b'0'.saturating_add(channel)));
                STANDARD.encode_string(data, &mut text);
                Message::Text(text.into())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(coding: Coding, message: Message, expected: Option<(u8, &'static [u8])>) {
        let expected = expected.map(|(channel, data)| (channel, Bytes::from_static(data)));
        assert_eq!(coding.read(message), expected);
    }

    #[test]
    fn pieces_are_read_whatever_the_message_is_called() {
        check(Coding::Binary, Message::Binary(Bytes::from_static(b"\x00ls")), Some((0, b"ls")));
        check(Coding::Binary, Message::Text("\u{1}ls".into()), Some((1, b"ls")));
        check(Coding::Binary, Message::Binary(Bytes::new()), None);
        check(Coding::Binary, Message::Ping(Bytes::from_static(b"\x00ls")), None);
        check(Coding::Base64, Message::Text("0bHM=".into()), Some((0, b"ls")));
        check(Coding::Base64, Message::Text("0?".into()), None);
        check(Coding::Base64, Message::Text("\u{1}bHM=".into()), None);
    }

    #[test]
    fn what_is_written_is_read() {
        for protocol in ["v4.channel.k8s.io", "v4.base64.channel.k8s.io"] {
            let coding = Coding::of(protocol);
            check(coding, coding.write(2, b"\x00\xffout"), Some((2, b"\x00\xffout")));
        }
    }
}
