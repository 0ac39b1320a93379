//! Why a request failed, and what that means to who sent it.

use std::error::Error as Cause;

use http::StatusCode;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;

type BoxError = Box<dyn Cause + Send + Sync>;

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server refused.
    #[error("{}", message(.0))]
    Status(Box<Status>),
    /// The request or its answer did not get through. Whether a write was carried out is unknown.
    #[error("request failed: {}", cause(.0))]
    Transport(BoxError),
    /// The answer is not what was asked for.
    #[error("answer not understood")]
    Decode(#[source] serde_json::Error),
    /// The object cannot be written as JSON, or a name does not fit into a URL.
    #[error("request not possible: {0}")]
    Request(#[source] BoxError),
}

// === impl Error ===

impl Error {
    /// The HTTP status code, when the API server answered.
    pub fn code(&self) -> Option<u16> {
        match self {
            Self::Status(status) => status.code.and_then(|code| u16::try_from(code).ok()),
            _ => None,
        }
    }

    /// The machine-readable reason, when the API server gave one.
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Status(status) => status.reason.as_deref(),
            _ => None,
        }
    }

    /// The API server's whole answer.
    pub fn status(&self) -> Option<&Status> {
        match self {
            Self::Status(status) => Some(status),
            _ => None,
        }
    }

    /// The object does not exist.
    pub fn is_not_found(&self) -> bool {
        self.code() == Some(404)
    }

    /// A precondition did not hold.
    pub fn is_conflict(&self) -> bool {
        self.code() == Some(409) && self.reason() != Some("AlreadyExists")
    }

    /// An object of this name exists.
    pub fn is_already_exists(&self) -> bool {
        self.reason() == Some("AlreadyExists")
    }

    /// The version that was asked for is too old.
    pub fn is_expired(&self) -> bool {
        self.code() == Some(410) || matches!(self.reason(), Some("Expired" | "Gone"))
    }

    /// The same request may succeed later: the server was busy, or could not be reached.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Status(_) => matches!(self.code(), Some(429 | 500..=599)),
            Self::Transport(_) => true,
            Self::Decode(_) | Self::Request(_) => false,
        }
    }

    /// Whether a write was carried out is not known: it may have been, or may still be.
    pub fn is_outcome_unknown(&self) -> bool {
        matches!(self, Self::Transport(_)) || self.code() == Some(504)
    }

    /// The request or its answer did not get through.
    pub fn transport(source: impl Into<BoxError>) -> Self {
        Self::Transport(source.into())
    }

    /// The request cannot be made.
    pub fn request(source: impl Into<BoxError>) -> Self {
        Self::Request(source.into())
    }

    /// The error that an answer with this code and body stands for.
    pub fn from_answer(code: StatusCode, body: &[u8]) -> Self {
        let status = serde_json::from_slice::<Status>(body)
            .ok()
            .filter(|status| status.code.is_some() || status.message.is_some())
            .unwrap_or_else(|| {
                let text = String::from_utf8_lossy(body.get(..body.len().min(1024)).unwrap_or_default());
                let text = text.trim();
                let message = if text.is_empty() {
                    format!("the server answered {code}")
                } else {
                    format!("the server answered {code}: {text}")
                };
                Status { status: Some("Failure".to_owned()), message: Some(message), ..Status::default() }
            });
        let code = status.code.unwrap_or_else(|| i32::from(code.as_u16()));
        Self::Status(Box::new(Status { code: Some(code), ..status }))
    }
}

/// The innermost reason: the libraries around it each repeat what is within them.
fn cause(error: &BoxError) -> String {
    let mut cause: &(dyn Cause + 'static) = error.as_ref();
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

fn message(status: &Status) -> String {
    match (&status.message, &status.reason) {
        (Some(message), _) if !message.is_empty() => message.clone(),
        (_, Some(reason)) => reason.clone(),
        _ => format!("the server answered {}", status.code.unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_become_errors() {
        let conflict = br#"{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Conflict","message":"m","code":409}"#;
        let error = Error::from_answer(StatusCode::CONFLICT, conflict);
        assert!(error.is_conflict() && !error.is_already_exists() && !error.is_transient());
        assert_eq!(error.to_string(), "m");
        let plain = Error::from_answer(StatusCode::BAD_GATEWAY, b" upstream is down\n");
        assert_eq!(plain.to_string(), "the server answered 502 Bad Gateway: upstream is down");
        assert!(plain.is_transient());
        assert_eq!(plain.code(), Some(502));
        let gone = Error::from_answer(StatusCode::GONE, b"");
        assert!(gone.is_expired());
    }

    #[test]
    fn a_reason_is_told_once() {
        #[derive(Debug, thiserror::Error)]
        #[error("connecting: {0}")]
        struct Outer(#[source] std::io::Error);
        let error = Error::transport(Outer(std::io::Error::other("no route to host")));
        assert_eq!(error.to_string(), "request failed: no route to host");
    }
}
