//! Carries plans out and asks their questions, as the controllers' shell does.

use bytes::Bytes;
use client_core::error::Error;
use client_core::object::{PartialObject, ResourceType, Target};
use client_core::plan::Write;
use client_core::wire::JSON;
use controller_core::execution::{Execution, Next, Outcome, Sending, Verdict};
use controller_core::plan::{Action, Answer, Answers, Failure, Question, Step};
use controller_core::world::WriteKind;
use futures::StreamExt as _;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Deserialize;

use crate::caller::Caller;
use crate::controllers::{Desk, Host};
use crate::kernel::Time;

/// How many writes of one plan, or questions, are under way at once.
const AT_ONCE: usize = 16;

/// Carries a plan out.
pub async fn carry_out(host: &Host, desk: &Desk, steps: Vec<Step>) -> Outcome {
    let mut execution = Execution::new(steps);
    while let Some(actions) = execution.next_actions() {
        let outcome = futures::stream::iter(actions)
            .map(|action| one(host, desk, action))
            .buffer_unordered(AT_ONCE)
            .fold(Outcome::Done, async |worst, next| worst.and(next))
            .await;
        execution.settle(outcome);
    }
    execution.outcome()
}

async fn one(host: &Host, desk: &Desk, action: Action) -> Outcome {
    let Action { write, guard, failed, tolerant, .. } = action;
    if let Some(guard) = guard {
        match metadata(&desk.caller, &guard.target).await {
            Ok(live) if guard.holds(live.as_ref()) => {}
            Ok(_) | Err(_) => return Outcome::Failed(None),
        }
    }
    let kind = WriteKind::of(&write);
    let error = match send(host, desk, write).await {
        Ok(answer) => {
            if let Some(kind) = kind {
                host.change(|world, now| world.written(&kind, &answer, now));
            }
            return Outcome::Done;
        }
        Err(error) => error,
    };
    match Verdict::of(&error, tolerant) {
        Verdict::Done => Outcome::Done,
        Verdict::GivenUp => Outcome::GivenUp,
        Verdict::Stale => Outcome::Failed(None),
        Verdict::Failed => {
            let message = error.to_string();
            Outcome::Failed(failed.map(|note| Failure { reason: note.reason, message }))
        }
    }
}

/// Sends a write, and sends it again as long as it is said to.
async fn send(host: &Host, desk: &Desk, write: Write) -> Result<Bytes, Error> {
    let mut sending = Sending::new(&write);
    loop {
        let error = match desk.caller.write(write.clone()).await {
            Ok(answer) => return Ok(answer),
            Err(error) => error,
        };
        match sending.failed(&error) {
            Next::Again(pause) => host.sim.sleep(pause.as_micros() as Time).await,
            Next::Read(target) => return desk.caller.get_as(&target.path(None), JSON).await,
            Next::Fail => return Err(error),
        }
    }
}

// === questions ===

/// Asks the API server, some questions at a time.
pub async fn ask(caller: &Caller, questions: Vec<Question>) -> Answers {
    futures::stream::iter(questions)
        .map(async |question| {
            let answer = match &question {
                Question::Get(target) => metadata(caller, target)
                    .await
                    .map(|meta| meta.map_or(Answer::Absent, |meta| Answer::Found(Box::new(meta)))),
                Question::Whole(target) => whole(caller, target).await,
                Question::List(resource, namespace) => {
                    list(caller, resource, namespace).await.map(Answer::Listed)
                }
            };
            (question, answer.unwrap_or_else(|error| Answer::Failed(error.to_string())))
        })
        .buffer_unordered(AT_ONCE)
        .collect()
        .await
}

async fn whole(caller: &Caller, target: &Target) -> Result<Answer, Error> {
    match caller.get(&target.path(None)).await {
        Ok(document) => Ok(Answer::Document(Box::new(document))),
        Err(error) if error.is_not_found() => Ok(Answer::Absent),
        Err(error) => Err(error),
    }
}

async fn metadata(caller: &Caller, target: &Target) -> Result<Option<ObjectMeta>, Error> {
    match caller.get(&target.path(None)).await {
        Ok(object) => {
            let object: PartialObject = serde_json::from_value(object).map_err(Error::Decode)?;
            Ok(Some(object.metadata))
        }
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

#[derive(Deserialize)]
struct Page {
    #[serde(default)]
    items: Option<Vec<PartialObject>>,
}

async fn list(caller: &Caller, resource: &ResourceType, namespace: &str) -> Result<Vec<ObjectMeta>, Error> {
    let page = caller.get(&resource.collection_path(Some(namespace))).await?;
    let page: Page = serde_json::from_value(page).map_err(Error::Decode)?;
    Ok(page.items.unwrap_or_default().into_iter().map(|object| object.metadata).collect())
}
