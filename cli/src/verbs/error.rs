//! What goes wrong in a verb, and the words in which it is told.

use std::io::Write as _;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;

/// Why a verb failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Told with `error: ` before it.
    #[error("{0}")]
    Message(String),
    /// Told as it is.
    #[error("{0}")]
    Plain(String),
    /// The API server refused, or could not be asked.
    #[error(transparent)]
    Server(#[from] client::Error),
    /// The same, for an object that came from a file.
    #[error("error when {action} {source_name:?}")]
    Sourced {
        /// What was tried, as `creating`.
        action: &'static str,
        /// The file.
        source_name: String,
        /// What happened.
        source: client::Error,
    },
    /// There is no way to the API server.
    #[error(transparent)]
    Connect(#[from] client::ConnectError),
    /// A stream could not be opened.
    #[error(transparent)]
    Stream(#[from] kube::Error),
    /// Standard output, or a file, cannot be written or read.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// Several things went wrong.
    #[error("{} errors", .0.len())]
    Many(Vec<Error>),
    /// Everything was told already.
    #[error("exit status {0}")]
    Exit(u8),
}

/// Shorthand of the verbs.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Leaves with a message.
pub fn message<T>(text: impl Into<String>) -> Result<T> {
    Err(Error::Message(text.into()))
}

// === impl Error ===

impl Error {
    /// The exit status that it means.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Exit(code) => *code,
            _ => 1,
        }
    }

    /// Whether the reader of our output went away, which is no failure worth telling.
    pub fn is_broken_pipe(&self) -> bool {
        matches!(self, Self::Io(error) if error.kind() == std::io::ErrorKind::BrokenPipe)
    }

    /// Whether the object does not exist.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Server(error) if error.is_not_found())
    }

    /// Collects the errors of a loop that goes on after one.
    pub fn all(mut errors: Vec<Error>) -> Result<()> {
        match errors.len() {
            0 => Ok(()),
            1 => Err(errors.remove(0)),
            _ => Err(Self::Many(errors)),
        }
    }

    /// Tells the error on standard error.
    pub fn tell(&self) {
        let mut stderr = std::io::stderr().lock();
        for line in self.lines() {
            // Nobody is left to be told when standard error is closed.
            let _ = writeln!(stderr, "{line}");
        }
    }

    /// The error in kubectl's words.
    pub fn lines(&self) -> Vec<String> {
        match self {
            Self::Message(text) => vec![format!("error: {text}")],
            Self::Plain(text) => vec![text.clone()],
            Self::Server(client::Error::Status(status)) => vec![status_line(status, None)],
            Self::Sourced { action, source_name, source: client::Error::Status(status) } => {
                vec![status_line(status, Some(&format!("error when {action} \"{source_name}\": ")))]
            }
            Self::Server(error) | Self::Sourced { source: error, .. } => {
                vec![format!("Unable to connect to the server: {}", chain(error))]
            }
            Self::Stream(kube::Error::Api(status)) => {
                let reason = if status.reason.is_empty() { "Unknown" } else { &status.reason };
                vec![format!("Error from server ({reason}): {}", status.message)]
            }
            Self::Stream(error) => vec![format!("error: {}", chain(error))],
            Self::Connect(error) => vec![format!("error: {}", chain(error))],
            Self::Io(error) => vec![format!("error: {error}")],
            Self::Many(errors) => errors.iter().flat_map(Self::lines).collect(),
            Self::Exit(_) => Vec::new(),
        }
    }
}

/// An error with what caused it, each said once.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = error.source();
    }
    text
}

/// A refusal in kubectl's words: field errors are listed, everything else is one line.
fn status_line(status: &Status, prefix: Option<&str>) -> String {
    let prefix = prefix.unwrap_or_default();
    let text = status.message.as_deref().unwrap_or("unknown");
    match status.reason.as_deref() {
        Some("Invalid") => invalid(status, text),
        Some("Unauthorized") if prefix.is_empty() => {
            format!("error: You must be logged in to the server ({text})")
        }
        Some(reason) if !reason.is_empty() => format!("Error from server ({reason}): {prefix}{text}"),
        _ => format!("Error from server: {prefix}{text}"),
    }
}

fn invalid(status: &Status, text: &str) -> String {
    let Some(details) = &status.details else { return format!("The request is invalid: {text}") };
    let kind = details.kind.as_deref().unwrap_or_default();
    let name = details.name.as_deref().unwrap_or_default();
    let causes: Vec<String> = details
        .causes
        .iter()
        .flatten()
        .map(|cause| {
            let text = cause.message.as_deref().unwrap_or_default();
            match cause.field.as_deref().filter(|field| !field.is_empty()) {
                Some(field) => format!("{field}: {text}"),
                None => text.to_owned(),
            }
        })
        .collect();
    let head = match (kind.is_empty() && name.is_empty(), causes.is_empty()) {
        (false, _) => format!("The {kind} \"{name}\" is invalid"),
        (true, true) => format!("The request is invalid: {text}"),
        (true, false) => "The request is invalid".to_owned(),
    };
    match causes.as_slice() {
        [] => head,
        [one] => format!("{head}: {one}"),
        many => many.iter().fold(format!("{head}: "), |text, cause| format!("{text}\n* {cause}")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(status: serde_json::Value, prefix: Option<&str>, expected: &str) {
        let status: Status = serde_json::from_value(status).expect("a status");
        assert_eq!(status_line(&status, prefix), expected);
    }

    #[test]
    fn words() {
        check(
            json!({"reason": "NotFound", "message": "pods \"x\" not found", "code": 404}),
            None,
            "Error from server (NotFound): pods \"x\" not found",
        );
        check(
            json!({"reason": "AlreadyExists", "message": "pods \"x\" already exists", "code": 409}),
            Some("error when creating \"f\": "),
            "Error from server (AlreadyExists): error when creating \"f\": pods \"x\" already exists",
        );
        check(
            json!({"reason": "Invalid", "message": "long", "details": {"kind": "Pod", "name": "x",
                "causes": [{"field": "spec.a", "message": "Required value"}]}}),
            None,
            "The Pod \"x\" is invalid: spec.a: Required value",
        );
        check(
            json!({"reason": "Invalid", "message": "long", "details": {"kind": "Pod", "name": "x", "causes": [
                {"field": "spec.a", "message": "one"}, {"field": "spec.b", "message": "two"}]}}),
            None,
            "The Pod \"x\" is invalid: \n* spec.a: one\n* spec.b: two",
        );
    }
}
