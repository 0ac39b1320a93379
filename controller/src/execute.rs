//! Carries plans out and asks their questions.

use std::collections::BTreeMap;

use bytes::Bytes;
use client::{Client, Error};
use client_core::object::{PartialObject, Target};
use client_core::plan::Write;
use client_core::wire::{METADATA, METADATA_LIST};
use controller_core::execution::{Execution, Next, Outcome, Sending, Verdict};
use controller_core::plan::{Action, Answer, Answers, Failure, Question, Step};
use controller_core::world::WriteKind;
use futures::StreamExt;
use http::header::{ACCEPT, HeaderValue};
use serde::Deserialize;
use serde_json::Value;

use crate::host::{Desk, Host};

/// How many objects one page of a list holds.
const PAGE: usize = 500;

/// Carries a plan out.
pub(crate) async fn carry_out(host: &Host, desk: &Desk, steps: Vec<Step>) -> Outcome {
    let mut execution = Execution::new(steps);
    while let Some(actions) = execution.next_actions() {
        let outcome = futures::stream::iter(actions)
            .map(|action| one(host, desk, action))
            .buffer_unordered(host.writes)
            .fold(Outcome::Done, async |worst, next| worst.and(next))
            .await;
        execution.settle(outcome);
    }
    execution.outcome()
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
    let error = match send(desk, write).await {
        Ok(answer) => {
            if let Some(kind) = kind {
                host.change(|world, now| world.written(&kind, &answer, now));
            }
            if let Some(note) = succeeded {
                desk.recorder.note(note.into());
            }
            return Outcome::Done;
        }
        Err(error) => error,
    };
    let verdict = Verdict::of(&error, tolerant);
    if matches!(verdict, Verdict::Stale | Verdict::Failed) {
        tracing::debug!(object = %what, %error, "a write failed");
    }
    match verdict {
        Verdict::Done => Outcome::Done,
        Verdict::GivenUp => Outcome::GivenUp,
        Verdict::Stale => Outcome::Failed(None),
        Verdict::Failed => Outcome::Failed(failed.map(|mut note| {
            let message = error.to_string();
            note.message.push_str(&message);
            let failure = Failure { reason: note.reason, message };
            desk.recorder.note(note.into());
            failure
        })),
    }
}

/// Sends a write, and sends it again as long as it is said to.
async fn send(desk: &Desk, write: Write) -> Result<Bytes, Error> {
    let mut sending = Sending::new(&write);
    loop {
        let error = match desk.client.write(write.clone(), &desk.recorder).await {
            Ok(answer) => return Ok(answer),
            Err(error) => error,
        };
        match sending.failed(&error) {
            Next::Again(pause) => tokio::time::sleep(pause).await,
            Next::Read(target) => {
                let path = target.path(None);
                return desk.client.request_bytes(Client::build(http::Method::GET, &path)?).await;
            }
            Next::Fail => return Err(error),
        }
    }
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
