//! Remote commands: exec and attach, over WebSocket or SPDY.
//!
//! Beside bytes their channels carry terminal sizes in, and the final Status out.

use apiserver_core::connect::Streams;
use apiserver_core::failure::Refused;
use bytes::Bytes;
use http::{HeaderMap, Response, request::Parts};
use hyper::upgrade::Upgraded;
use proto::tunnel::{Resize, frame, open};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{open_failure, spdy as spdy_connection, websocket as socket};
use crate::body::Body;
use crate::metrics::LongRunning;
use crate::respond::IntoHttp as _;
use crate::shell::Shell;
use crate::tunnel::{Receiver, Session};

mod spdy;
mod websocket;

/// How a client wants its streams carried.
enum Carrier {
    WebSocket(socket::Accepted),
    Spdy(spdy_connection::Accepted),
}

/// Opens the session and answers; the streams go on by themselves.
pub(super) async fn carry(
    shell: &Shell,
    node: &str,
    request: open::Request,
    streams: Streams,
    parts: Parts,
    guard: LongRunning,
) -> Response<Body> {
    let carrier = match Carrier::accept(&parts.headers) {
        Ok(carrier) => carrier,
        Err(refusal) => return refusal.into_http(),
    };
    let session = match shell.tunnels.open(node, request).await {
        Ok(session) => session,
        Err(error) => return open_failure(&error),
    };
    let answer = carrier.response();
    super::upgrade(shell, parts, guard, move |upgraded| carrier.run(upgraded, session, streams));
    answer
}

// === impl Carrier ===

impl Carrier {
    fn accept(headers: &HeaderMap) -> Result<Carrier, Refused> {
        if spdy_connection::is_asked(headers) {
            return spdy_connection::accept(headers, spdy::PROTOCOL).map(Carrier::Spdy);
        }
        socket::accept(headers, &websocket::PROTOCOLS).map(Carrier::WebSocket)
    }

    fn response(&self) -> Response<Body> {
        match self {
            Carrier::WebSocket(accepted) => accepted.response(),
            Carrier::Spdy(accepted) => accepted.response(),
        }
    }

    async fn run(self, upgraded: Upgraded, session: Session, streams: Streams) {
        match self {
            Carrier::WebSocket(accepted) => websocket::run(accepted, upgraded, session, streams).await,
            Carrier::Spdy(_) => spdy::run(upgraded, session, streams).await,
        }
    }
}

/// The next thing that a remote command says.
enum Said {
    Stdout(Bytes),
    Stderr(Bytes),
    /// The command is over: the Status for the error channel.
    Over(String),
}

/// Reads the agent's frames until there is something to tell the client.
async fn said(incoming: &mut Receiver) -> Said {
    loop {
        return match incoming.next().await {
            Ok(Some(frame::Frame::Stdout(bytes))) => Said::Stdout(bytes.into()),
            Ok(Some(frame::Frame::Stderr(bytes))) => Said::Stderr(bytes.into()),
            Ok(Some(frame::Frame::Exit(exit))) => Said::Over(exit_status(exit.code)),
            Ok(Some(frame::Frame::Failure(failure))) => Said::Over(failure_status(&failure.message)),
            Ok(Some(_)) => continue,
            // The agent's last frame says how the command ended: without it nothing is known.
            Ok(None) => Said::Over(failure_status("the node ended the stream before the command ended")),
            Err(error) => Said::Over(failure_status(&error.to_string())),
        };
    }
}

/// The size of a terminal as clients send it.
#[derive(Deserialize)]
struct Size {
    #[serde(rename = "Width")]
    width: u16,
    #[serde(rename = "Height")]
    height: u16,
}

/// Reads a terminal size; anything else is ignored, as clients expect.
fn resize(payload: &[u8]) -> Option<Resize> {
    let size: Size = serde_json::from_slice(payload).ok()?;
    Some(Resize { width: size.width.into(), height: size.height.into() })
}

/// The Status that tells how a command ended.
fn exit_status(code: i32) -> String {
    if code == 0 {
        return r#"{"metadata":{},"status":"Success"}"#.into();
    }
    json!({
        "metadata": {},
        "status": "Failure",
        "message": format!("command terminated with non-zero exit code: exit status {code}"),
        "reason": "NonZeroExitCode",
        "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]},
    })
    .to_string()
}

/// The words of a Status that tells of a failure.
fn failure_text(status: &str) -> Option<String> {
    let status: Value = serde_json::from_str(status).ok()?;
    (status["status"] != "Success").then(|| status["message"].as_str().unwrap_or_default().to_owned())
}

/// The Status that tells why a command could not go on.
fn failure_status(message: &str) -> String {
    json!({
        "metadata": {},
        "status": "Failure",
        "message": format!("Internal error occurred: {message}"),
        "reason": "InternalError",
        "details": {"causes": [{"message": message}]},
        "code": 500,
    })
    .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exit_code_is_the_cause() {
        let status: serde_json::Value = serde_json::from_str(&exit_status(3)).expect("JSON");
        assert_eq!(status["details"]["causes"][0], json!({"reason": "ExitCode", "message": "3"}));
        assert_eq!(exit_status(0), r#"{"metadata":{},"status":"Success"}"#);
    }

    #[test]
    fn sizes_are_read_and_nonsense_is_ignored() {
        let size = resize(br#"{"Width":80,"Height":24}"#).expect("a size");
        assert_eq!((size.width, size.height), (80, 24));
        assert!(resize(b"big").is_none());
    }
}
