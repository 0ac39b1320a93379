//! The one form of every failure, and of the success of a deletion: `Status` objects, in Kubernetes' words.

use std::fmt;

use serde_json::{Map, Value, json};

use crate::{catalogue::Resource, field::FieldError};

/// An answer that is not an object.
#[derive(Clone, Debug, PartialEq)]
pub struct Status {
    /// HTTP status.
    pub code: u16,
    /// One word for programs; empty for success.
    pub reason: &'static str,
    /// A sentence for people.
    pub message: String,
    /// What it is about.
    pub details: Option<Box<Details>>,
}

/// What a status is about.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Details {
    /// Name of the object.
    pub name: String,
    /// Its API group.
    pub group: String,
    /// Its kind, or its resource.
    pub kind: String,
    /// Its uid.
    pub uid: String,
    /// What is wrong, field by field.
    pub causes: Vec<Cause>,
    /// When to try again.
    pub retry_after_seconds: u32,
}

/// One thing that is wrong.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Cause {
    /// One word for programs.
    pub reason: String,
    /// A sentence for people.
    pub message: String,
    /// Path of the field.
    pub field: String,
}

/// A resource as errors name it.
#[derive(Clone, Copy, Debug)]
pub struct ResourceName<'a> {
    /// API group.
    pub group: &'a str,
    /// Plural.
    pub resource: &'a str,
}

impl<'a> From<&'a Resource> for ResourceName<'a> {
    fn from(resource: &'a Resource) -> Self {
        Self { group: &resource.group, resource: &resource.plural }
    }
}

impl fmt::Display for ResourceName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.resource)?;
        if !self.group.is_empty() {
            write!(f, ".{}", self.group)?;
        }
        Ok(())
    }
}

/// The message of a conflict between a write and a newer version.
pub const MODIFIED: &str =
    "the object has been modified; please apply your changes to the latest version and try again";

/// The message for a continue token whose snapshot is gone.
pub const CONTINUE_EXPIRED: &str = "The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter.";

// === impl Status ===

impl Status {
    fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        Self { code, reason, message: message.into(), details: None }
    }

    fn about(mut self, resource: ResourceName<'_>, name: &str) -> Self {
        let details = self.details.get_or_insert_default();
        details.name = name.to_owned();
        details.group = resource.group.to_owned();
        details.kind = resource.resource.to_owned();
        self
    }

    /// Adds when to try again.
    pub fn retry_after(mut self, seconds: u32) -> Self {
        self.details.get_or_insert_default().retry_after_seconds = seconds;
        self
    }

    /// Adds a cause.
    pub fn with_cause(mut self, reason: &str, message: impl Into<String>, field: &str) -> Self {
        self.details.get_or_insert_default().causes.push(Cause {
            reason: reason.to_owned(),
            message: message.into(),
            field: field.to_owned(),
        });
        self
    }

    /// 200: the object is gone.
    pub fn deleted<'a>(resource: impl Into<ResourceName<'a>>, name: &str, uid: &str) -> Self {
        let mut status = Self::new(200, "", "").about(resource.into(), name);
        status.details.get_or_insert_default().uid = uid.to_owned();
        status
    }

    /// 200 or 201 without more to say.
    pub fn success(code: u16) -> Self {
        Self::new(code, "", "")
    }

    /// 404: no such object.
    pub fn not_found<'a>(resource: impl Into<ResourceName<'a>>, name: &str) -> Self {
        let resource = resource.into();
        Self::new(404, "NotFound", format!("{resource} \"{name}\" not found")).about(resource, name)
    }

    /// 404: no such path.
    pub fn no_such_path() -> Self {
        let mut status = Self::new(404, "NotFound", "the server could not find the requested resource");
        status.details = Some(Box::default());
        status
    }

    /// 409: the name is taken.
    pub fn already_exists<'a>(resource: impl Into<ResourceName<'a>>, name: &str) -> Self {
        let resource = resource.into();
        Self::new(409, "AlreadyExists", format!("{resource} \"{name}\" already exists")).about(resource, name)
    }

    /// 409: no free name was found for `generateName`.
    pub fn no_unique_name<'a>(resource: impl Into<ResourceName<'a>>, name: &str) -> Self {
        let mut status = Self::already_exists(resource, name).retry_after(1);
        status.message.push_str(", the server was not able to generate a unique name for the object");
        status
    }

    /// 409: the object is not as the caller believes.
    pub fn conflict<'a>(resource: impl Into<ResourceName<'a>>, name: &str, why: impl fmt::Display) -> Self {
        let resource = resource.into();
        let message = format!("Operation cannot be fulfilled on {resource} \"{name}\": {why}");
        Self::new(409, "Conflict", message).about(resource, name)
    }

    /// 409: fields of an applied configuration are owned by others.
    pub fn apply_conflict(message: impl Into<String>) -> Self {
        Self::new(409, "Conflict", message)
    }

    /// 422: fields are not acceptable.
    pub fn invalid(group: &str, kind: &str, name: &str, errors: &[FieldError]) -> Self {
        let qualified = if group.is_empty() { kind.to_owned() } else { format!("{kind}.{group}") };
        let mut message = format!("{qualified} \"{name}\" is invalid");
        match errors {
            [] => {}
            [only] => message.push_str(&format!(": {only}")),
            several => {
                let mut words: Vec<String> = Vec::new();
                for word in several.iter().map(ToString::to_string) {
                    if !words.contains(&word) {
                        words.push(word);
                    }
                }
                match words.as_slice() {
                    [only] => message.push_str(&format!(": {only}")),
                    words => message.push_str(&format!(": [{}]", words.join(", "))),
                }
            }
        }
        let mut status = Self::new(422, "Invalid", message);
        let details = status.details.get_or_insert_default();
        details.name = name.to_owned();
        details.group = group.to_owned();
        details.kind = kind.to_owned();
        details.causes = errors
            .iter()
            .map(|error| Cause {
                reason: error.kind.reason().to_owned(),
                message: error.body(),
                field: error.path.clone(),
            })
            .collect();
        status
    }

    /// 400: the request makes no sense.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message)
    }

    /// 400: a body that does not decode as its kind.
    pub fn cannot_decode(kind: &str, version: &str, why: impl fmt::Display) -> Self {
        let message = format!("{kind} in version {version:?} cannot be handled as a {kind}: {why}");
        Self::bad_request(message)
    }

    /// 401: nobody is known by these credentials.
    pub fn unauthorized() -> Self {
        Self::new(401, "Unauthorized", "Unauthorized")
    }

    /// 403: not allowed.
    pub fn forbidden<'a>(resource: impl Into<ResourceName<'a>>, name: &str, why: impl fmt::Display) -> Self {
        let resource = resource.into();
        let message = match (resource.resource, name) {
            ("", _) => format!("forbidden: {why}"),
            (_, "") => format!("{resource} is forbidden: {why}"),
            (_, name) => format!("{resource} \"{name}\" is forbidden: {why}"),
        };
        Self::new(403, "Forbidden", message).about(resource, name)
    }

    /// 410: the version asked for is no longer known.
    pub fn expired(message: impl Into<String>) -> Self {
        Self::new(410, "Expired", message)
    }

    /// 410: a watch from a version that is no longer known.
    pub fn too_old_resource_version(asked: u64, oldest: u64) -> Self {
        Self::expired(format!("too old resource version: {asked} ({oldest})"))
    }

    /// 410: what was there is gone for good.
    pub fn gone(message: impl Into<String>) -> Self {
        Self::new(410, "Gone", message)
    }

    /// 504: this member has not come to the version asked for.
    pub fn too_large_resource_version(asked: u64, current: u64) -> Self {
        Self::timeout(format!("Too large resource version: {asked}, current: {current}"), 1).with_cause(
            "ResourceVersionTooLarge",
            "Too large resource version",
            "",
        )
    }

    /// 405: the resource has no such verb.
    pub fn method_not_allowed<'a>(resource: impl Into<ResourceName<'a>>, verb: &str) -> Self {
        let resource = resource.into();
        let message = format!("{verb} is not supported on resources of kind \"{resource}\"");
        Self::new(405, "MethodNotAllowed", message).about(resource, "")
    }

    /// 405: the path has no such method.
    pub fn method_not_allowed_here() -> Self {
        let message = "the server does not allow this method on the requested resource";
        Self::new(405, "MethodNotAllowed", message)
    }

    /// 406: no form that the caller accepts.
    pub fn not_acceptable(offered: &[&str]) -> Self {
        let offered = offered.join(", ");
        let message = format!("only the following media types are accepted: {offered}");
        Self::new(406, "NotAcceptable", message)
    }

    /// 415: a body in an unknown form.
    pub fn unsupported_media_type(accepted: &[&str]) -> Self {
        let accepted = accepted.join(", ");
        let words = "the body of the request was in an unknown format - accepted media types include";
        Self::new(415, "UnsupportedMediaType", format!("{words}: {accepted}"))
    }

    /// 413: a body that is too large.
    pub fn too_large(limit: usize) -> Self {
        Self::new(413, "RequestEntityTooLarge", format!("Request entity too large: limit is {limit}"))
    }

    /// 504: no answer in time.
    pub fn timeout(message: impl fmt::Display, retry_after_seconds: u32) -> Self {
        Self::new(504, "Timeout", format!("Timeout: {message}")).retry_after(retry_after_seconds)
    }

    /// 500: try again.
    pub fn server_timeout<'a>(resource: impl Into<ResourceName<'a>>, operation: &str) -> Self {
        let resource = resource.into();
        let message = format!(
            "The {operation} operation against {resource} could not be completed at this time, please try again."
        );
        Self::new(500, "ServerTimeout", message).about(resource, operation).retry_after(1)
    }

    /// 429: too much at once.
    pub fn too_many_requests(message: impl Into<String>, retry_after_seconds: u32) -> Self {
        Self::new(429, "TooManyRequests", message).retry_after(retry_after_seconds)
    }

    /// 422: a well-formed request that cannot be carried out.
    pub fn unprocessable(message: impl Into<String>) -> Self {
        Self::new(422, "Invalid", "the server rejected our request due to an error in our request")
            .with_cause("UnexpectedServerResponse", message, "")
    }

    /// 500: an error that Kubernetes gives no reason for.
    pub fn unexplained(message: impl Into<String>) -> Self {
        Self::new(500, "", message)
    }

    /// 503: not able to serve.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(503, "ServiceUnavailable", message)
    }

    /// 500: our fault.
    pub fn internal(error: impl fmt::Display) -> Self {
        let error = error.to_string();
        Self::new(500, "InternalError", format!("Internal error occurred: {error}")).with_cause("", error, "")
    }

    /// Whether it tells of success.
    pub fn is_success(&self) -> bool {
        self.code < 400
    }

    /// The object that is sent.
    pub fn to_json(&self) -> Value {
        let mut object = json!({
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": if self.is_success() { "Success" } else { "Failure" },
        });
        if let Value::Object(map) = &mut object {
            insert_text(map, "message", &self.message);
            insert_text(map, "reason", self.reason);
            if let Some(details) = &self.details {
                map.insert("details".to_owned(), details.to_json());
            }
            if !self.is_success() {
                map.insert("code".to_owned(), self.code.into());
            }
        }
        object
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Status {}

impl Details {
    fn to_json(&self) -> Value {
        let mut map = Map::new();
        insert_text(&mut map, "name", &self.name);
        insert_text(&mut map, "group", &self.group);
        insert_text(&mut map, "kind", &self.kind);
        insert_text(&mut map, "uid", &self.uid);
        if !self.causes.is_empty() {
            let causes = self.causes.iter().map(|cause| {
                let mut map = Map::new();
                insert_text(&mut map, "reason", &cause.reason);
                insert_text(&mut map, "message", &cause.message);
                insert_text(&mut map, "field", &cause.field);
                Value::Object(map)
            });
            map.insert("causes".to_owned(), causes.collect());
        }
        if self.retry_after_seconds > 0 {
            map.insert("retryAfterSeconds".to_owned(), self.retry_after_seconds.into());
        }
        Value::Object(map)
    }
}

fn insert_text(map: &mut Map<String, Value>, key: &str, text: &str) {
    if !text.is_empty() {
        map.insert(key.to_owned(), text.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::Catalogue;

    #[test]
    fn words_failures_as_kubernetes_does() {
        let deployments = Catalogue::builtin().resource("apps", "v1", "deployments").expect("deployments");
        let status = Status::not_found(deployments, "web");
        assert_eq!(
            status.to_json(),
            json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                "message": "deployments.apps \"web\" not found", "reason": "NotFound",
                "details": {"name": "web", "group": "apps", "kind": "deployments"}, "code": 404})
        );
        let error = FieldError::required("spec.selector", "");
        let status = Status::invalid("apps", "Deployment", "web", &[error]);
        assert_eq!(status.message, "Deployment.apps \"web\" is invalid: spec.selector: Required value");
        assert_eq!(status.to_json()["details"]["causes"][0]["field"], "spec.selector");
    }

    #[test]
    fn tells_of_a_deletion() {
        let pods = Catalogue::builtin().resource("", "v1", "pods").expect("pods");
        let status = Status::deleted(pods, "a", "u1").to_json();
        assert_eq!((&status["status"], &status["details"]["uid"]), (&json!("Success"), &json!("u1")));
        assert!(status.get("code").is_none());
    }
}
