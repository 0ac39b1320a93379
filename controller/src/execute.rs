//! Carries plans out and asks their questions.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use client::{Client, Error};
use client_core::object::{ObjectKey, PartialObject, Target};
use client_core::plan::Write;
use controller_core::plan::{Action, Answer, Answers, Failure, Question, Step, is_namespace_terminating};
use controller_core::world::WriteKind;
use futures::StreamExt;
use http::header::{ACCEPT, HeaderValue};
use serde::Deserialize;
use serde_json::Value;

use crate::host::{Desk, Host};

const METADATA: &str = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json";
const METADATA_LIST: &str =
    "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json";
/// How often a create of unknown outcome is repeated.
const REPEATS: u32 = 5;
/// How many objects one page of a list holds.
const PAGE: usize = 500;

/// What became of a plan.
pub(crate) enum Outcome {
    /// Everything was written.
    Done,
    /// Something was refused for good; time will tell.
    GivenUp,
    /// It is worth another attempt; the failure, if users are to hear of it.
    Failed(Option<Failure>),
}

impl Outcome {
    /// The worse of two.
    fn and(self, other: Outcome) -> Outcome {
        match (self, other) {
            (Outcome::Done, other) => other,
            (Outcome::Failed(None), Outcome::Failed(failure)) => Outcome::Failed(failure),
            (Outcome::GivenUp, Outcome::Failed(failure)) => Outcome::Failed(failure),
            (mine, _) => mine,
        }
    }
}

/// Carries out the steps in order. After a failure only those due in any case are carried out.
pub(crate) async fn carry_out(host: &Host, desk: &Desk, steps: Vec<Step>) -> Outcome {
    let mut outcome = Outcome::Done;
    for step in steps {
        let going_on = matches!(outcome, Outcome::Done);
        let next = match step {
            Step::Always(action) => one(host, desk, action).await,
            _ if !going_on => continue,
            Step::One(action) => one(host, desk, action).await,
            Step::Together(actions) => together(host, desk, actions).await,
            Step::SlowStart(actions) => slow_start(host, desk, actions).await,
        };
        outcome = outcome.and(next);
    }
    outcome
}

async fn together(host: &Host, desk: &Desk, actions: Vec<Action>) -> Outcome {
    futures::stream::iter(actions)
        .map(|action| one(host, desk, action))
        .buffer_unordered(host.writes)
        .fold(Outcome::Done, async |worst, next| worst.and(next))
        .await
}

async fn slow_start(host: &Host, desk: &Desk, mut actions: Vec<Action>) -> Outcome {
    let mut size = 1;
    while !actions.is_empty() {
        let rest = actions.split_off(size.min(actions.len()));
        let outcome = together(host, desk, actions).await;
        if !matches!(outcome, Outcome::Done) {
            return outcome;
        }
        actions = rest;
        size *= 2;
    }
    Outcome::Done
}

/// Carries one action out and tells what was promised of its outcome.
async fn one(host: &Host, desk: &Desk, action: Action) -> Outcome {
    let Action { write, guard, succeeded, failed, tolerant } = action;
    if let Some(guard) = guard {
        match metadata(&desk.client, &guard.target).await {
            Ok(live) if guard.holds(live.as_ref()) => {}
            Ok(_) => return Outcome::Failed(None),
            Err(error) => {
                tracing::debug!(%error, "a check before a write failed");
                return Outcome::Failed(None);
            }
        }
    }
    let kind = WriteKind::of(&write);
    let what = write.key();
    match send(desk, write).await {
        Ok(answer) => {
            if let Some(kind) = kind {
                host.change(|world, now| world.written(&kind, &answer, now));
            }
            if let Some(note) = succeeded {
                desk.recorder.note(note.into());
            }
            Outcome::Done
        }
        Err(error) if tolerant && (error.is_not_found() || error.is_already_exists()) => Outcome::Done,
        Err(error) if error.status().is_some_and(is_namespace_terminating) => Outcome::GivenUp,
        Err(error) => {
            tracing::debug!(object = %what, %error, "a write failed");
            // A stale view explains itself with the next plan.
            if error.is_conflict() || error.is_already_exists() || error.is_not_found() {
                return Outcome::Failed(None);
            }
            let failure = failed.map(|mut note| {
                let message = error.to_string();
                note.message.push_str(&message);
                let failure = Failure { reason: note.reason, message };
                desk.recorder.note(note.into());
                failure
            });
            Outcome::Failed(failure)
        }
    }
}

/// Sends a write. A create whose outcome is unknown is repeated under the same name, so that it is made at
/// most once: where an earlier attempt got through, the object that is there is the answer.
async fn send(desk: &Desk, write: Write) -> Result<Bytes, Error> {
    let Write::Create { resource, namespace, object } = &write else {
        return desk.client.write(write, &desk.recorder).await;
    };
    let name = object.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
    let target = Target { resource: resource.clone(), key: ObjectKey::new(namespace.as_str(), name) };
    let mut delay = Duration::from_millis(100);
    let mut unknown = false;
    for _ in 0..REPEATS {
        match desk.client.write(write.clone(), &desk.recorder).await {
            Err(error) if is_outcome_unknown(&error) => unknown = true,
            Err(error) if unknown && error.is_already_exists() => {
                let path = target.path(None);
                return desk.client.request_bytes(Client::build(http::Method::GET, &path)?).await;
            }
            answer => return answer,
        }
        tokio::time::sleep(delay).await;
        delay *= 3;
    }
    desk.client.write(write, &desk.recorder).await
}

fn is_outcome_unknown(error: &Error) -> bool {
    matches!(error, Error::Transport(_)) || error.code() == Some(504)
}

// === questions ===

/// Asks the API server, some questions at a time.
pub(crate) async fn ask(client: &Client, questions: Vec<Question>, at_once: usize) -> Answers {
    futures::stream::iter(questions)
        .map(async |question| {
            let answer = match &question {
                Question::Get(target) => metadata(client, target)
                    .await
                    .map(|meta| meta.map_or(Answer::Absent, |meta| Answer::Found(Box::new(meta)))),
                Question::Whole(target) => document(client, target).await.map(|document| {
                    document.map_or(Answer::Absent, |document| Answer::Document(Box::new(document)))
                }),
                Question::List(resource, namespace) => {
                    list(client, &resource.collection_path(Some(namespace))).await.map(Answer::Listed)
                }
            };
            (question, answer.unwrap_or_else(|error| Answer::Failed(error.to_string())))
        })
        .buffer_unordered(at_once)
        .collect::<BTreeMap<_, _>>()
        .await
}

type Meta = k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

async fn metadata(client: &Client, target: &Target) -> Result<Option<Meta>, Error> {
    let mut request = Client::build(http::Method::GET, &target.path(None))?;
    request.headers_mut().insert(ACCEPT, HeaderValue::from_static(METADATA));
    match client.request::<PartialObject>(request).await {
        Ok(object) => Ok(Some(object.metadata)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

async fn document(client: &Client, target: &Target) -> Result<Option<Value>, Error> {
    match client.request(Client::build(http::Method::GET, &target.path(None))?).await {
        Ok(document) => Ok(Some(document)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

#[derive(Deserialize)]
struct Page {
    #[serde(default)]
    metadata: PageMeta,
    #[serde(default)]
    items: Option<Vec<PartialObject>>,
}

#[derive(Default, Deserialize)]
struct PageMeta {
    #[serde(rename = "continue", default)]
    token: Option<String>,
}

async fn list(client: &Client, path: &str) -> Result<Vec<Meta>, Error> {
    let mut all = Vec::new();
    let mut query = format!("{path}?limit={PAGE}");
    loop {
        let mut request = Client::build(http::Method::GET, &query)?;
        request.headers_mut().insert(ACCEPT, HeaderValue::from_static(METADATA_LIST));
        let page: Page = client.request(request).await?;
        all.extend(page.items.unwrap_or_default().into_iter().map(|object| object.metadata));
        match page.metadata.token.filter(|token| !token.is_empty()) {
            Some(token) => query = format!("{path}?limit={PAGE}&continue={}", escape(&token)),
            None => return Ok(all),
        }
    }
}

/// Percent-encodes what may not stand in a query.
fn escape(token: &str) -> String {
    let mut escaped = String::with_capacity(token.len());
    for byte in token.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    escaped
}
