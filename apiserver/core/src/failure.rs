//! Refusals as Kubernetes words them: `Status` objects that name what is wrong and where.

use http::StatusCode;
use serde_json::{Value, json};

use crate::response::Response;

/// A request that was refused: the answer to send.
pub type Refused = Box<Response>;

/// What a refusal is about.
#[derive(Clone, Copy, Debug, Default)]
pub struct About<'a> {
    /// The API group.
    pub group: &'a str,
    /// The resource (or, for invalid objects, the kind).
    pub kind: &'a str,
    /// The object's name.
    pub name: &'a str,
}

// === impl About ===

impl About<'_> {
    fn qualified(&self) -> String {
        match self.group.is_empty() {
            true => self.kind.to_owned(),
            false => format!("{}.{}", self.kind, self.group),
        }
    }

    fn details(&self) -> Value {
        let mut details = json!({});
        for (key, value) in [("name", self.name), ("group", self.group), ("kind", self.kind)] {
            if !value.is_empty() {
                details[key] = value.into();
            }
        }
        details
    }
}

fn refuse(code: StatusCode, reason: &str, message: &str, details: Value) -> Refused {
    let mut body = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": message, "code": code.as_u16()});
    if !reason.is_empty() {
        body["reason"] = reason.into();
    }
    if details.as_object().is_some_and(|details| !details.is_empty()) {
        body["details"] = details;
    }
    Box::new(Response::document(code, &body))
}

/// 404: there is no such object.
pub fn not_found(about: About<'_>) -> Refused {
    let message = format!("{} {:?} not found", about.qualified(), about.name);
    refuse(StatusCode::NOT_FOUND, "NotFound", &message, about.details())
}

/// 404: there is no such path.
pub fn no_such_path() -> Refused {
    let message = "the server could not find the requested resource";
    refuse(StatusCode::NOT_FOUND, "NotFound", message, json!({}))
}

/// 409: the name is taken.
pub fn already_exists(about: About<'_>) -> Refused {
    let message = format!("{} {:?} already exists", about.qualified(), about.name);
    refuse(StatusCode::CONFLICT, "AlreadyExists", &message, about.details())
}

/// 409: the object is not as the writer believed.
pub fn conflict(about: About<'_>, why: &str) -> Refused {
    let message = format!("Operation cannot be fulfilled on {} {:?}: {why}", about.qualified(), about.name);
    refuse(StatusCode::CONFLICT, "Conflict", &message, about.details())
}

/// 409 of an update whose resourceVersion is not the newest.
pub fn stale(about: About<'_>) -> Refused {
    conflict(
        about,
        "the object has been modified; please apply your changes to the latest version and try again",
    )
}

/// 403 with a reason.
pub fn forbidden(about: About<'_>, why: &str) -> Refused {
    refuse(StatusCode::FORBIDDEN, "Forbidden", &forbidden_message(about, why), about.details())
}

/// The message of a 403.
pub fn forbidden_message(about: About<'_>, why: &str) -> String {
    match (about.kind.is_empty(), about.name.is_empty()) {
        (true, _) => format!("forbidden: {why}"),
        (false, true) => format!("{} is forbidden: {why}", about.qualified()),
        (false, false) => format!("{} {:?} is forbidden: {why}", about.qualified(), about.name),
    }
}

/// 403 of a namespace that is being deleted.
pub fn namespace_terminating(about: About<'_>, namespace: &str) -> Refused {
    let why = format!("unable to create new content in namespace {namespace} because it is being terminated");
    let mut details = about.details();
    details["causes"] = json!([{"reason": "NamespaceTerminating",
        "message": format!("namespace {namespace} is being terminated"), "field": "metadata.namespace"}]);
    refuse(StatusCode::FORBIDDEN, "Forbidden", &forbidden_message(about, &why), details)
}

/// 400 with a reason.
pub fn bad_request(message: &str) -> Refused {
    Box::new(Response::bad_request(message))
}

/// 405: the resource exists, the method does not.
pub fn method_not_allowed() -> Refused {
    let message = "the server does not allow this method on the requested resource";
    refuse(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", message, json!({}))
}

/// 406: no content type that is asked for can be served.
pub fn not_acceptable(offered: &str) -> Refused {
    let message = format!("only the following media types are accepted: {offered}");
    refuse(StatusCode::NOT_ACCEPTABLE, "NotAcceptable", &message, json!({}))
}

/// 415: the body's content type cannot be read.
pub fn unsupported_media_type(accepted: &str) -> Refused {
    let message = format!(
        "the body of the request was in an unknown format - accepted media types include: {accepted}"
    );
    refuse(StatusCode::UNSUPPORTED_MEDIA_TYPE, "UnsupportedMediaType", &message, json!({}))
}

/// 413: the body is larger than is read.
pub fn too_large(limit: usize) -> Refused {
    let message = format!("Request entity too large: limit is {limit}");
    refuse(StatusCode::PAYLOAD_TOO_LARGE, "RequestEntityTooLarge", &message, json!({}))
}

/// 410: the revision was forgotten.
pub fn expired(message: &str) -> Refused {
    refuse(StatusCode::GONE, "Expired", message, json!({}))
}

/// 500: something that should have worked did not.
pub fn internal(message: &str) -> Refused {
    let message = format!("Internal error occurred: {message}");
    refuse(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", &message, json!({}))
}

/// 504: a revision that this member has not reached.
pub fn too_large_resource_version(current: u64, wanted: u64) -> Refused {
    let message = format!("Too large resource version: {wanted}, current: {current}");
    let details = json!({"causes": [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}],
        "retryAfterSeconds": 1});
    refuse(StatusCode::GATEWAY_TIMEOUT, "Timeout", &message, details)
}

/// 429: come back later.
pub fn too_many_requests(message: &str, retry_after: u64) -> Refused {
    let mut refused = refuse(
        StatusCode::TOO_MANY_REQUESTS,
        "TooManyRequests",
        message,
        json!({"retryAfterSeconds": retry_after}),
    );
    refused.headers.push((http::header::RETRY_AFTER, retry_after.into()));
    refused
}

/// 401: who is asking?
pub fn unauthorized() -> Refused {
    refuse(StatusCode::UNAUTHORIZED, "Unauthorized", "Unauthorized", json!({}))
}

/// 422: fields of the object are wrong. `causes` are (reason, message, field).
pub fn invalid(about: About<'_>, causes: &[(String, String, String)]) -> Refused {
    let lines: Vec<String> = causes.iter().map(|(_, message, field)| format!("{field}: {message}")).collect();
    let all = match lines.as_slice() {
        [one] => one.clone(),
        many => format!("[{}]", many.join(", ")),
    };
    let message = format!("{} {:?} is invalid: {all}", about.qualified(), about.name);
    let mut details = about.details();
    details["causes"] = causes
        .iter()
        .map(|(reason, message, field)| json!({"reason": reason, "message": message, "field": field}))
        .collect();
    refuse(StatusCode::UNPROCESSABLE_ENTITY, "Invalid", &message, details)
}
