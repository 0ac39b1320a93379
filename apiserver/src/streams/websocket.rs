//! WebSocket: the handshake, the socket behind it, and the socket as a stream of bytes.

use std::{io, time::Duration};

use apiserver_core::failure::{self, Refused};
use bytes::Bytes;
use futures::{Sink, SinkExt as _, Stream, StreamExt as _};
use http::{HeaderMap, HeaderValue, Response, header};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        self, Message,
        handshake::derive_accept_key,
        protocol::{CloseFrame, Role, WebSocketConfig, frame::coding::CloseCode},
    },
};

use super::switching;
use crate::body::Body;
use crate::respond::header_has;

/// The largest message that a client may send. Clients in Go send what they have in one write as one message.
const MAX_MESSAGE: usize = 32 * 1024 * 1024;
/// How long a client may take to read the closing message.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

pub(super) type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// A handshake that was found good.
pub(super) struct Accepted {
    accept: HeaderValue,
    /// The protocol that was agreed on; empty when the client named none.
    pub(super) protocol: &'static str,
}

/// Whether the client asks for a WebSocket at all.
pub(super) fn is_asked(headers: &HeaderMap) -> bool {
    header_has(headers, header::UPGRADE, "websocket") && header_has(headers, header::CONNECTION, "upgrade")
}

/// Checks the handshake. `protocols` are those that are served, best first; the empty one is for clients that name none.
pub(super) fn accept(headers: &HeaderMap, protocols: &[&'static str]) -> Result<Accepted, Refused> {
    if !is_asked(headers) {
        return Err(failure::bad_request("Upgrade request required"));
    }
    let Some(key) = headers.get(header::SEC_WEBSOCKET_KEY) else {
        return Err(failure::bad_request("Sec-WebSocket-Key is missing"));
    };
    if headers.get(header::SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
        return Err(failure::bad_request("only WebSocket version 13 is served"));
    }
    let protocol = protocols
        .iter()
        .find(|protocol| match protocol.is_empty() {
            true => !headers.contains_key(header::SEC_WEBSOCKET_PROTOCOL),
            false => header_has(headers, header::SEC_WEBSOCKET_PROTOCOL, protocol),
        })
        .ok_or_else(|| {
            let named: Vec<&str> = protocols.iter().copied().filter(|name| !name.is_empty()).collect();
            let served = named.join(", ");
            failure::bad_request(&format!("unable to negotiate: the server speaks {served}"))
        })?;
    let accept = HeaderValue::from_str(&derive_accept_key(key.as_bytes()))
        .map_err(|_| failure::bad_request("Sec-WebSocket-Key cannot be read"))?;
    Ok(Accepted { accept, protocol })
}

// === impl Accepted ===

impl Accepted {
    /// The answer that ends the handshake.
    pub(super) fn response(&self) -> Response<Body> {
        let mut response = switching("websocket");
        let headers = response.headers_mut();
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, self.accept.clone());
        if !self.protocol.is_empty() {
            headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(self.protocol));
        }
        response
    }
}

/// The server's end of an upgraded connection.
pub(super) async fn socket(upgraded: Upgraded) -> Socket {
    let config =
        WebSocketConfig::default().max_message_size(Some(MAX_MESSAGE)).max_frame_size(Some(MAX_MESSAGE));
    WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, Some(config)).await
}

/// Ends a socket properly.
pub(super) async fn close(mut sink: impl Sink<Message, Error = tungstenite::Error> + Unpin) {
    let normal = CloseFrame { code: CloseCode::Normal, reason: "".into() };
    let closing = async {
        // Closing can only fail when the client is gone, which ends the stream just as well.
        let _ = sink.send(Message::Close(Some(normal))).await;
        let _ = sink.close().await;
    };
    let _ = tokio::time::timeout(CLOSE_TIMEOUT, closing).await;
}

/// The socket's binary messages as bytes, in both directions.
pub(super) fn bytes(
    socket: Socket,
) -> (impl Sink<Bytes, Error = io::Error> + Unpin, impl Stream<Item = io::Result<Bytes>> + Unpin) {
    let (sink, stream) = socket.split();
    let sink = sink.sink_map_err(io::Error::other).with(|bytes: Bytes| {
        let message = if bytes.is_empty() { Message::Close(None) } else { Message::Binary(bytes) };
        futures::future::ready(Ok(message))
    });
    let stream = stream.filter_map(|message| {
        futures::future::ready(match message {
            Ok(Message::Binary(bytes)) => Some(Ok(bytes)),
            Ok(_) => None,
            Err(error) => Some(Err(io::Error::other(error))),
        })
    });
    (sink, stream)
}
