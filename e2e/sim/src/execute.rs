//! Carries plans out and asks their questions, as the controllers' shell does.

use client_core::object::{ObjectKey, PartialObject, ResourceType, Target};
use client_core::plan::Write;
use controller_core::plan::{Action, Answer, Answers, Failure, Question, Step, is_namespace_terminating};
use controller_core::world::WriteKind;
use futures::future::join_all;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Status};
use serde::Deserialize;
use serde_json::Value;

use crate::caller::{self, Caller, JSON};
use crate::controllers::{Desk, Host};
use crate::kernel::MS;

/// How often a create of unknown outcome is repeated.
const REPEATS: u32 = 5;
/// How many writes of one plan are under way at once.
const AT_ONCE: usize = 16;

/// What became of a plan.
pub enum Outcome {
    /// Everything was written.
    Done,
    /// Something was refused for good; time will tell.
    GivenUp,
    /// It is worth another attempt; the failure, if users are to hear of it.
    Failed(Option<Failure>),
}

// === impl Outcome ===

impl Outcome {
    /// The worse of two.
    fn and(self, other: Outcome) -> Outcome {
        match (self, other) {
            (Outcome::Done, other) => other,
            (Outcome::Failed(None) | Outcome::GivenUp, Outcome::Failed(failure)) => Outcome::Failed(failure),
            (mine, _) => mine,
        }
    }
}

/// Carries out the steps in order. After a failure only those due in any case are carried out.
pub async fn carry_out(host: &Host, desk: &Desk, steps: Vec<Step>) -> Outcome {
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

async fn together(host: &Host, desk: &Desk, mut actions: Vec<Action>) -> Outcome {
    let mut worst = Outcome::Done;
    while !actions.is_empty() {
        let rest = actions.split_off(AT_ONCE.min(actions.len()));
        let outcomes = join_all(actions.into_iter().map(|action| one(host, desk, action))).await;
        worst = outcomes.into_iter().fold(worst, Outcome::and);
        actions = rest;
    }
    worst
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

async fn one(host: &Host, desk: &Desk, action: Action) -> Outcome {
    let Action { write, guard, failed, tolerant, .. } = action;
    if let Some(guard) = guard {
        match metadata(&desk.caller, &guard.target).await {
            Ok(live) if guard.holds(live.as_ref()) => {}
            Ok(_) | Err(_) => return Outcome::Failed(None),
        }
    }
    let kind = WriteKind::of(&write);
    match send(host, desk, write).await {
        Ok(answer) => {
            if let Some(kind) = kind {
                host.change(|world, now| world.written(&kind, &answer, now));
            }
            Outcome::Done
        }
        Err(error) if tolerant && (error.is_not_found() || error.is_already_exists()) => Outcome::Done,
        Err(error) if status(&error).is_some_and(|status| is_namespace_terminating(&status)) => {
            Outcome::GivenUp
        }
        Err(error) if error.is_conflict() || error.is_already_exists() || error.is_not_found() => {
            Outcome::Failed(None)
        }
        Err(error) => {
            let message = format!("{error:?}");
            Outcome::Failed(failed.map(|note| Failure { reason: note.reason, message }))
        }
    }
}

fn status(failure: &caller::Failure) -> Option<Status> {
    match failure {
        caller::Failure::Status { body, .. } => serde_json::from_slice(body).ok(),
        caller::Failure::Transport => None,
    }
}

/// Sends a write. A create whose outcome is unknown is repeated under the same name.
async fn send(host: &Host, desk: &Desk, write: Write) -> Result<bytes::Bytes, caller::Failure> {
    let Write::Create { resource, namespace, object } = &write else {
        return desk.caller.write(write).await;
    };
    let name = object.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
    let target = Target { resource: resource.clone(), key: ObjectKey::new(namespace.as_str(), name) };
    let mut delay = 100 * MS;
    let mut unknown = false;
    for _ in 0..REPEATS {
        match desk.caller.write(write.clone()).await {
            Err(error) if error.is_unknown() => unknown = true,
            Err(error) if unknown && error.is_already_exists() => {
                return desk.caller.get_as(&target.path(None), JSON).await;
            }
            answer => return answer,
        }
        host.sim.sleep(delay).await;
        delay *= 3;
    }
    desk.caller.write(write).await
}

// === questions ===

/// Asks the API server.
pub async fn ask(caller: &Caller, questions: Vec<Question>) -> Answers {
    let mut answers = Answers::new();
    for question in questions {
        let answer = match &question {
            Question::Get(target) => metadata(caller, target)
                .await
                .map(|meta| meta.map_or(Answer::Absent, |meta| Answer::Found(Box::new(meta)))),
            Question::Whole(target) => match caller.get_as(&target.path(None), JSON).await {
                Ok(bytes) => serde_json::from_slice(&bytes)
                    .map(|document| Answer::Document(Box::new(document)))
                    .map_err(|_| caller::Failure::Transport),
                Err(error) if error.is_not_found() => Ok(Answer::Absent),
                Err(error) => Err(error),
            },
            Question::List(resource, namespace) => {
                list(caller, resource, namespace).await.map(Answer::Listed)
            }
        };
        answers.insert(question, answer.unwrap_or_else(|error| Answer::Failed(format!("{error:?}"))));
    }
    answers
}

async fn metadata(caller: &Caller, target: &Target) -> Result<Option<ObjectMeta>, caller::Failure> {
    match caller.get(&target.path(None)).await {
        Ok(object) => {
            let object: Result<PartialObject, _> = serde_json::from_value(object);
            object.map(|object| Some(object.metadata)).map_err(|_| caller::Failure::Transport)
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

async fn list(
    caller: &Caller,
    resource: &ResourceType,
    namespace: &str,
) -> Result<Vec<ObjectMeta>, caller::Failure> {
    let page = caller.get(&resource.collection_path(Some(namespace))).await?;
    let page: Page = serde_json::from_value(page).map_err(|_| caller::Failure::Transport)?;
    Ok(page.items.unwrap_or_default().into_iter().map(|object| object.metadata).collect())
}
