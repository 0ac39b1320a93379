//! What a request becomes: an answer, or a transaction and the answer that follows it.

use api::schema;
use bytes::{Bytes, BytesMut};
use http::{HeaderName, HeaderValue, StatusCode};
use serde_json::{Value as Json, json};
use store_core::{Outcome, Txn, Value};

use crate::ask::Ask;
use crate::connect::ConnectPlan;
use crate::delete::collection::DeletionPart;
use crate::metrics::MeasurePlan;
use crate::request::{Consistency, RequestInfo};
use crate::watch::WatchPlan;

/// What the shell is to do.
pub enum Prepared {
    /// Answer at once; nothing is written.
    Respond(Response),
    /// Commit, then render the reply. When a compare failed, prepare again on a newer snapshot.
    Commit(Commit),
    /// Commit a part of a deletion, then prepare again from where it ends.
    Part(Box<DeletionPart>),
    /// Follow changes.
    Watch(Box<WatchPlan>),
    /// Open a stream to a node.
    Connect(Box<ConnectPlan>),
    /// Ask webhooks, then prepare again with their answers.
    Ask(Ask),
    /// Ask nodes what they have measured, then render the answer.
    Measure(Box<MeasurePlan>),
}

/// A transaction and what to say when it is done.
pub struct Commit {
    /// The writes and their conditions.
    pub txn: Txn,
    /// The answer.
    pub reply: Reply,
}

/// An answer, complete but for the HTTP version.
#[derive(Clone, Debug)]
pub struct Response {
    /// The status code.
    pub status: StatusCode,
    /// The content type.
    pub content_type: &'static str,
    /// Further headers (`Warning`, `Retry-After`, `ETag`).
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// The body.
    pub body: Body,
}

/// A body in one piece, or in pieces that are sent one after the other.
#[derive(Clone, Debug)]
pub enum Body {
    /// One buffer.
    One(Bytes),
    /// Several buffers.
    Many(Vec<Bytes>),
}

/// Renders the answer once the outcome of the transaction is known.
pub struct Reply {
    kind: ReplyKind,
    /// The answer is sent as protobuf.
    protobuf: bool,
    /// Headers besides those that the answer has of itself.
    headers: Vec<(HeaderName, HeaderValue)>,
}

/// What came of a commit.
pub enum Rendered {
    /// The answer.
    Respond(Response),
    /// The state moved on in between: prepare again on a snapshot that holds what it moved to.
    Retry,
}

type Finish = Box<dyn FnOnce(&[u64]) -> Response + Send>;

enum ReplyKind {
    /// The same whatever the revisions are.
    Fixed(Response),
    /// The stored value of operation `op`.
    Stored { op: usize, value: Value, status: StatusCode, headers: Vec<(HeaderName, HeaderValue)> },
    /// Something made of the revisions.
    Made(Finish),
}

/// The content type of JSON answers.
pub const JSON: &str = "application/json";

// === impl Prepared ===

impl Prepared {
    /// Whether the request must be planned again on the newest state before this is done.
    ///
    /// A transaction is compared with the newest state when it is applied. Who wanted to write and is told without one that
    /// nothing is there, or nothing to do, must not be told so by a server that is behind.
    pub fn must_be_confirmed(&self, info: &RequestInfo, planned_on: Consistency) -> bool {
        matches!(self, Prepared::Respond(_)) && info.is_write() && planned_on == Consistency::Any
    }

    /// The same, answered in protobuf.
    pub(crate) fn into_protobuf(self) -> Prepared {
        match self {
            Prepared::Respond(response) => Prepared::Respond(response.into_protobuf()),
            Prepared::Commit(Commit { txn, reply }) => {
                Prepared::Commit(Commit { txn, reply: Reply { protobuf: true, ..reply } })
            }
            // A watch and what was deleted in parts have theirs from their output; a stream is not the server's to encode; for
            // measures there is no such form here.
            other @ (Prepared::Part(_)
            | Prepared::Ask(_)
            | Prepared::Measure(_)
            | Prepared::Watch(_)
            | Prepared::Connect(_)) => other,
        }
    }

    /// The same, with warnings beside the answer.
    pub(crate) fn warn(mut self, warnings: &[&str]) -> Prepared {
        if warnings.is_empty() {
            return self;
        }
        let headers = warnings.iter().filter_map(|text| warning(text));
        match &mut self {
            Prepared::Respond(response) => response.headers.extend(headers),
            Prepared::Commit(commit) => commit.reply.headers.extend(headers),
            Prepared::Part(part) => part.headers.extend(headers),
            Prepared::Ask(_) | Prepared::Measure(_) | Prepared::Watch(_) | Prepared::Connect(_) => {}
        }
        self
    }
}

// === impl Body ===

impl Body {
    /// The length in bytes.
    pub fn len(&self) -> usize {
        match self {
            Body::One(bytes) => bytes.len(),
            Body::Many(parts) => parts.iter().map(Bytes::len).sum(),
        }
    }

    /// Whether there is nothing to send.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The whole body in one buffer.
    pub fn to_bytes(&self) -> Bytes {
        match self {
            Body::One(bytes) => bytes.clone(),
            Body::Many(parts) => {
                let mut out = BytesMut::with_capacity(self.len());
                parts.iter().for_each(|part| out.extend_from_slice(part));
                out.freeze()
            }
        }
    }
}

// === impl Response ===

impl Response {
    /// A JSON answer of bytes.
    pub fn json(status: StatusCode, body: impl Into<Bytes>) -> Response {
        Response { status, content_type: JSON, headers: Vec::new(), body: Body::One(body.into()) }
    }

    /// A JSON answer of a document.
    pub fn document(status: StatusCode, document: &Json) -> Response {
        Response::json(status, document.to_string())
    }

    /// A plain text answer.
    pub fn text(status: StatusCode, text: impl Into<Bytes>) -> Response {
        Response { content_type: "text/plain; charset=utf-8", ..Response::json(status, text) }
    }

    /// 400 with a reason.
    pub fn bad_request(message: &str) -> Response {
        Response::failure(StatusCode::BAD_REQUEST, "BadRequest", message)
    }

    /// A `Status` of kind Failure, without details.
    pub fn failure(status: StatusCode, reason: &str, message: &str) -> Response {
        let mut body = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": message, "code": status.as_u16()});
        if !reason.is_empty() {
            body["reason"] = reason.into();
        }
        Response::document(status, &body)
    }

    /// The same document as protobuf; what has no such form stays as it is.
    pub(crate) fn into_protobuf(self) -> Response {
        if self.content_type != JSON {
            return self;
        }
        let document = crate::object::parse(&self.body.to_bytes());
        match document.and_then(|document| api::protobuf::encode_document(schema::builtin(), &document)) {
            Some(bytes) => {
                Response { content_type: api::protobuf::MEDIA_TYPE, body: Body::One(bytes.into()), ..self }
            }
            None => self,
        }
    }

    /// Adds a `Warning` header (299).
    pub fn warn(&mut self, text: &str) {
        self.headers.extend(warning(text));
    }
}

/// A `Warning` header, if the text can be one.
pub(crate) fn warning(text: &str) -> Option<(HeaderName, HeaderValue)> {
    let quoted: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect::<String>()
        .replace('\\', "\\\\")
        .replace('"', "\\\"");
    HeaderValue::from_bytes(format!("299 - \"{quoted}\"").as_bytes())
        .ok()
        .map(|value| (http::header::WARNING, value))
}

// === impl Reply ===

impl Reply {
    /// The same answer whatever the revisions are.
    pub fn fixed(response: Response) -> Reply {
        Reply { kind: ReplyKind::Fixed(response), protobuf: false, headers: Vec::new() }
    }

    /// The value that operation `op` stores.
    pub fn stored(
        op: usize,
        value: Value,
        status: StatusCode,
        headers: Vec<(HeaderName, HeaderValue)>,
    ) -> Reply {
        Reply { kind: ReplyKind::Stored { op, value, status, headers }, protobuf: false, headers: Vec::new() }
    }

    /// An answer made of the operations' revisions.
    pub fn made(finish: impl FnOnce(&[u64]) -> Response + Send + 'static) -> Reply {
        Reply { kind: ReplyKind::Made(Box::new(finish)), protobuf: false, headers: Vec::new() }
    }

    /// The answer to `outcome`.
    pub fn render(self, outcome: &Outcome) -> Rendered {
        let Outcome::Committed { revisions } = outcome else { return Rendered::Retry };
        let mut response = match self.kind {
            ReplyKind::Fixed(response) => response,
            ReplyKind::Made(finish) => finish(revisions),
            ReplyKind::Stored { op, value, status, headers } => {
                let revision = revisions.get(op).copied().unwrap_or_default();
                Response { headers, ..Response::json(status, spliced(&value, revision)) }
            }
        };
        response.headers.extend(self.headers);
        Rendered::Respond(if self.protobuf { response.into_protobuf() } else { response })
    }
}

/// The bytes of `value` with its revision, as the store keeps them.
pub fn spliced(value: &Value, revision: u64) -> Bytes {
    let Some(at) = value.splice_at else { return value.bytes.clone() };
    let at = (at as usize).min(value.bytes.len());
    let digits = revision.to_string();
    let mut out = BytesMut::with_capacity(value.bytes.len() + digits.len());
    out.extend_from_slice(&value.bytes[..at]);
    out.extend_from_slice(digits.as_bytes());
    out.extend_from_slice(&value.bytes[at..]);
    out.freeze()
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;

    #[test]
    fn only_a_write_that_ends_without_a_transaction_on_whatever_was_there_is_confirmed() {
        let info = |method| RequestInfo::parse(&method, "/api/v1/namespaces/a/pods/b", "").expect("parsed");
        let answer = || Prepared::Respond(Response::bad_request("no"));
        let commit = Prepared::Commit(Commit {
            txn: Txn::default(),
            reply: Reply::fixed(Response::bad_request("no")),
        });
        let delete = info(Method::DELETE);
        assert!(answer().must_be_confirmed(&delete, Consistency::Any));
        assert!(!answer().must_be_confirmed(&delete, Consistency::Latest), "once");
        assert!(!answer().must_be_confirmed(&info(Method::GET), Consistency::Any));
        assert!(!commit.must_be_confirmed(&delete, Consistency::Any));
    }
}
