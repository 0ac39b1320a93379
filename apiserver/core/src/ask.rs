//! Questions that a plan has for webhooks, and what they have answered.
//!
//! Planning stays pure: where it needs a webhook it stops with an [`Ask`]. The shell asks, and plans again with the
//! [`Answers`] as a further argument. An answer belongs to the very text that was asked, so a plan on another state asks
//! again only about what has changed in between.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;

/// What a plan waits for. The questions may be asked in any order, or all at once.
#[derive(Clone, Debug, Default)]
pub struct Ask {
    /// The questions, at least one.
    pub questions: Vec<Question>,
}

/// One POST to a webhook.
#[derive(Clone, Debug)]
pub struct Question {
    /// Where it is posted to, always `https`. The certificate must be one for the host of this address.
    pub url: String,
    /// How the host is reached.
    pub route: Route,
    /// The certificates (PEM) by one of which the webhook's must be signed; empty for those that the machine trusts.
    pub ca_bundle: Bytes,
    /// How long the webhook may take, connecting included.
    pub timeout: Duration,
    /// What is asked.
    pub review: Review,
    /// The `request` of the review without its uid, as JSON.
    request: Bytes,
}

/// How the host of a webhook is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// As its name says.
    Host,
    /// By one of the ready endpoints of its service.
    Endpoints(Vec<Endpoint>),
}

/// One endpoint of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The node whose tunnel leads to it; `None` for an endpoint that is no pod, and is dialed directly.
    pub node: Option<String>,
    /// Its address.
    pub ip: IpAddr,
    /// Its port.
    pub port: u16,
}

/// The kind of a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Review {
    /// `AdmissionReview` of `admission.k8s.io/v1`.
    Admission,
    /// `ConversionReview` of `apiextensions.k8s.io/v1`.
    Conversion,
}

/// Why there is no usable answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The webhook was not reached, or did not answer with success.
    #[error("failed to call webhook: {0}")]
    Call(String),
    /// It answered something else than was asked.
    #[error("received invalid webhook response: {0}")]
    Response(String),
}

/// What a webhook has answered: the `response` of its review.
pub type Answer = Result<Value, Fault>;

/// All that was answered in the course of one request.
#[derive(Clone, Debug, Default)]
pub struct Answers {
    of: BTreeMap<(String, Bytes), Answer>,
}

// === impl Review ===

impl Review {
    fn kind(self) -> &'static str {
        match self {
            Review::Admission => "AdmissionReview",
            Review::Conversion => "ConversionReview",
        }
    }

    fn api_version(self) -> &'static str {
        match self {
            Review::Admission => "admission.k8s.io/v1",
            Review::Conversion => "apiextensions.k8s.io/v1",
        }
    }
}

// === impl Question ===

impl Question {
    /// A question about `request`, an object without a uid.
    pub(crate) fn new(review: Review, to: Recipient, request: &Value) -> Question {
        let Recipient { url, route, ca_bundle, timeout } = to;
        Question { url, route, ca_bundle, timeout, review, request: request.to_string().into() }
    }

    /// The body to post. The uid is for this one call.
    pub fn body(&self, uid: &str) -> Bytes {
        let (kind, api_version) = (self.review.kind(), self.review.api_version());
        let rest = self.request.get(1..).unwrap_or_default();
        let mut body =
            format!("{{\"kind\":\"{kind}\",\"apiVersion\":\"{api_version}\",\"request\":{{\"uid\":\"{uid}\"")
                .into_bytes();
        if rest != b"}" {
            body.push(b',');
        }
        body.extend_from_slice(rest);
        body.push(b'}');
        body.into()
    }

    /// Reads what the webhook has answered to [`Question::body`] of that uid.
    pub fn read(&self, uid: &str, body: &[u8]) -> Answer {
        let document: Value = serde_json::from_slice(body)
            .map_err(|error| Fault::Call(format!("the answer is not JSON: {error}")))?;
        let response = &document["response"];
        if !response.is_object() {
            let why = match self.review {
                Review::Admission => "webhook response was absent",
                Review::Conversion => "no response provided",
            };
            return Err(Fault::Response(why.to_owned()));
        }
        let found = response["uid"].as_str().unwrap_or_default();
        if found != uid {
            return Err(Fault::Response(format!("expected response.uid={uid:?}, got {found:?}")));
        }
        let text = |field: &str| document[field].as_str().unwrap_or_default();
        let (api_version, kind) = (text("apiVersion"), text("kind"));
        if (api_version, kind) != (self.review.api_version(), self.review.kind()) {
            let (version, expected) = (self.review.api_version(), self.review.kind());
            return Err(Fault::Response(format!(
                "expected webhook response of {version}, Kind={expected}, got {api_version}, Kind={kind}"
            )));
        }
        match document {
            Value::Object(mut document) => Ok(document.remove("response").unwrap_or_default()),
            _ => Err(Fault::Response("webhook response was absent".to_owned())),
        }
    }
}

/// Whom a question goes to.
pub(crate) struct Recipient {
    pub url: String,
    pub route: Route,
    pub ca_bundle: Bytes,
    pub timeout: Duration,
}

// === impl Answers ===

impl Answers {
    /// Keeps an answer.
    pub fn put(&mut self, question: &Question, answer: Answer) {
        self.of.insert((question.url.clone(), question.request.clone()), answer);
    }

    /// What was answered to that question.
    pub(crate) fn get(&self, question: &Question) -> Option<&Answer> {
        self.of.get(&(question.url.clone(), question.request.clone()))
    }

    /// The warnings in all answers, each once.
    pub(crate) fn warnings(&self) -> Vec<&str> {
        let mut warnings = Vec::new();
        for answer in self.of.values().flatten() {
            for warning in crate::object::items(&answer["warnings"]).iter().filter_map(Value::as_str) {
                if !warnings.contains(&warning) {
                    warnings.push(warning);
                }
            }
        }
        warnings
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn question() -> Question {
        let to = Recipient {
            url: "https://hook.example/".to_owned(),
            route: Route::Host,
            ca_bundle: Bytes::new(),
            timeout: Duration::from_secs(1),
        };
        Question::new(Review::Admission, to, &json!({"name": "a"}))
    }

    #[track_caller]
    fn check(answer: Value, expected: Result<Value, &str>) {
        let found = question().read("u", answer.to_string().as_bytes());
        assert_eq!(found.map_err(|fault| fault.to_string()), expected.map_err(str::to_owned));
    }

    #[test]
    fn a_body_is_a_review_with_its_uid() {
        let body: Value = serde_json::from_slice(&question().body("u")).expect("JSON");
        let expected = json!({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1",
            "request": {"uid": "u", "name": "a"}});
        assert_eq!(body, expected);
    }

    #[test]
    fn only_the_answer_to_the_question_counts() {
        let review = |response: Value| json!({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "response": response});
        let response = json!({"uid": "u", "allowed": true});
        check(review(response.clone()), Ok(response.clone()));
        check(review(Value::Null), Err("received invalid webhook response: webhook response was absent"));
        check(
            review(json!({"uid": "v"})),
            Err("received invalid webhook response: expected response.uid=\"u\", got \"v\""),
        );
        check(
            json!({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1beta1", "response": response}),
            Err(
                "received invalid webhook response: expected webhook response of admission.k8s.io/v1, Kind=AdmissionReview, got admission.k8s.io/v1beta1, Kind=AdmissionReview",
            ),
        );
    }
}
