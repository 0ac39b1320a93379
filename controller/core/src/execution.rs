//! How plans are carried out: which writes go together, what an error makes of the plan, and what becomes of the key.
//!
//! The shell sends what it is told to send, and tells how that went. What it is told is decided here.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use client_core::clock::Now;
use client_core::error::Error;
use client_core::object::{ObjectKey, Target};
use client_core::plan::Write;
use client_core::queue::WorkQueue;
use jiff::Timestamp;
use serde_json::Value;

use crate::plan::{Action, Failure, Plan, Question, Step, is_namespace_terminating};
use crate::world::{Key, Work};

/// How often a plan may ask before it is left for later.
const ROUNDS: usize = 4;
/// How often a create of unknown outcome is repeated.
const REPEATS: u32 = 5;
/// How long it takes until the first repetition; each further one takes three times as long.
const REPEAT_AFTER: Duration = Duration::from_millis(100);
/// The least time after which a key is looked at again.
const SOON: Duration = Duration::from_millis(1);

/// What became of a plan, or of a part of it.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// Everything was written.
    Done,
    /// Something was refused for good; time will tell.
    GivenUp,
    /// It is worth another attempt; the failure, if users are to hear of it.
    Failed(Option<Failure>),
}

/// The steps of a plan while they are carried out.
#[derive(Debug)]
pub struct Execution {
    steps: VecDeque<Step>,
    /// What is left of a step that starts slowly, and how many of its actions come next.
    slow: Option<(Vec<Action>, usize)>,
    outcome: Outcome,
}

/// Counts how often a plan has asked.
#[derive(Debug)]
pub struct Rounds(usize);

/// A write while it is sent. A create whose outcome is unknown is repeated under the same name, so that it is made at most
/// once.
#[derive(Debug)]
pub struct Sending {
    /// What a create makes; other writes are not repeated.
    made: Option<Target>,
    repeats: u32,
    unknown: bool,
}

/// What follows an attempt to send a write that has failed.
#[derive(Clone, Debug, PartialEq)]
pub enum Next {
    /// Send it again after this time.
    Again(Duration),
    /// An earlier attempt got through: the object that is there is the answer.
    Read(Target),
    /// It stays at the error.
    Fail,
}

/// What an error makes of an action.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// What was wanted is so.
    Done,
    /// It will be refused again.
    GivenUp,
    /// A stale view: it explains itself with the next plan.
    Stale,
    /// Users are to hear of it.
    Failed,
}

/// The failures of earlier attempts, by what was attempted.
#[derive(Clone, Debug, Default)]
pub struct Failures(BTreeMap<Work, Failure>);

// === impl Outcome ===

impl Outcome {
    /// The worse of two.
    #[must_use]
    pub fn and(self, other: Outcome) -> Outcome {
        match (self, other) {
            (Outcome::Done, other) => other,
            (Outcome::Failed(None) | Outcome::GivenUp, Outcome::Failed(failure)) => Outcome::Failed(failure),
            (mine, _) => mine,
        }
    }
}

// === impl Execution ===

impl Execution {
    /// Nothing is done yet.
    pub fn new(steps: Vec<Step>) -> Self {
        Self { steps: steps.into(), slow: None, outcome: Outcome::Done }
    }

    /// The actions that come next. They do not depend on each other: all are tried, a bounded number at a time. Answered
    /// with [`Execution::settle`]. After a failure only those due in any case come.
    pub fn next_actions(&mut self) -> Option<Vec<Action>> {
        let well = self.outcome == Outcome::Done;
        if let Some((mut actions, size)) = self.slow.take()
            && well
            && !actions.is_empty()
        {
            let rest = actions.split_off(size.min(actions.len()));
            self.slow = Some((rest, size * 2));
            return Some(actions);
        }
        while let Some(step) = self.steps.pop_front() {
            match step {
                Step::Always(action) => return Some(vec![action]),
                _ if !well => {}
                Step::One(action) => return Some(vec![action]),
                Step::Together(actions) => return Some(actions),
                Step::SlowStart(actions) => {
                    self.slow = Some((actions, 1));
                    return self.next_actions();
                }
            }
        }
        None
    }

    /// What came of the actions, all together.
    pub fn settle(&mut self, outcome: Outcome) {
        let before = std::mem::replace(&mut self.outcome, Outcome::Done);
        self.outcome = before.and(outcome);
    }

    /// What came of the plan.
    pub fn outcome(self) -> Outcome {
        self.outcome
    }
}

// === impl Rounds ===

impl Default for Rounds {
    fn default() -> Self {
        Self(ROUNDS)
    }
}

impl Rounds {
    /// What has to be asked before the key is planned again; `None`: the plan stands, or has asked too often.
    pub fn questions(&mut self, plan: &mut Plan) -> Option<Vec<Question>> {
        if plan.questions.is_empty() {
            return None;
        }
        self.0 = self.0.checked_sub(1)?;
        Some(std::mem::take(&mut plan.questions))
    }
}

// === impl Sending ===

impl Sending {
    /// Nothing was sent yet.
    pub fn new(write: &Write) -> Self {
        let made = match write {
            Write::Create { resource, namespace, object } => {
                let name = object.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
                let key = ObjectKey::new(namespace.as_str(), name);
                Some(Target { resource: resource.clone(), key })
            }
            _ => None,
        };
        Self { made, repeats: 0, unknown: false }
    }

    /// An attempt has failed.
    pub fn failed(&mut self, error: &Error) -> Next {
        let Some(made) = &self.made else { return Next::Fail };
        if self.unknown && error.is_already_exists() {
            return Next::Read(made.clone());
        }
        if !error.is_outcome_unknown() || self.repeats == REPEATS {
            return Next::Fail;
        }
        self.unknown = true;
        self.repeats += 1;
        Next::Again(REPEAT_AFTER * 3_u32.pow(self.repeats - 1))
    }
}

// === impl Verdict ===

impl Verdict {
    /// Judges why an action was not carried out.
    pub fn of(error: &Error, tolerant: bool) -> Self {
        match error {
            _ if tolerant && (error.is_not_found() || error.is_already_exists()) => Self::Done,
            _ if error.status().is_some_and(is_namespace_terminating) => Self::GivenUp,
            _ if error.is_conflict() || error.is_already_exists() || error.is_not_found() => Self::Stale,
            _ => Self::Failed,
        }
    }
}

// === impl Failures ===

impl Failures {
    /// The failure of the last attempt, if users were to hear of it.
    pub fn of(&self, work: &Work) -> Option<&Failure> {
        self.0.get(work)
    }

    /// Notes how an attempt has ended.
    pub fn note(&mut self, work: &Work, outcome: &Outcome) {
        match outcome {
            Outcome::Done => drop(self.0.remove(work)),
            Outcome::Failed(Some(failure)) => drop(self.0.insert(work.clone(), failure.clone())),
            Outcome::GivenUp | Outcome::Failed(None) => {}
        }
    }
}

/// Gives a key back to its queue. `look_again_at` is what its plan says; a key whose attempt has failed comes again after a
/// growing pause.
pub fn give_back(
    queue: &mut WorkQueue<Key>,
    key: &Key,
    outcome: &Outcome,
    look_again_at: Option<Timestamp>,
    now: Now,
) {
    if let Outcome::Failed(_) = outcome {
        queue.add_failed(key.clone(), now.moment);
    } else {
        queue.forget(key);
        if let Some(at) = look_again_at {
            let wait = Duration::try_from(at.duration_since(now.wall)).unwrap_or(Duration::ZERO);
            queue.add_after(key.clone(), wait.max(SOON), now.moment);
        }
    }
    queue.done(key);
}

#[cfg(test)]
mod tests {
    use client_core::object::ResourceType;
    use http::StatusCode;
    use k8s_openapi::api::core::v1::Pod;
    use serde_json::json;

    use super::*;
    use crate::plan::create;

    fn error(code: StatusCode, reason: &str) -> Error {
        Error::from_answer(code, json!({"code": code.as_u16(), "reason": reason}).to_string().as_bytes())
    }

    fn unknown() -> Error {
        error(StatusCode::GATEWAY_TIMEOUT, "Timeout")
    }

    fn action(name: &str) -> Action {
        create::<Pod>(Some("default"), json!({"metadata": {"name": name}}))
    }

    /// The sizes of what is carried out together, when the action of this number fails.
    fn sizes(steps: Vec<Step>, fails: usize) -> (Vec<usize>, Outcome) {
        let mut execution = Execution::new(steps);
        let mut sizes = Vec::new();
        while let Some(actions) = execution.next_actions() {
            let begun: usize = sizes.iter().sum();
            sizes.push(actions.len());
            let failed = (begun..begun + actions.len()).contains(&fails);
            execution.settle(if failed { Outcome::Failed(None) } else { Outcome::Done });
        }
        (sizes, execution.outcome())
    }

    #[test]
    fn a_slow_start_doubles_and_ends_with_a_failure_but_status_is_always_written() {
        let steps = || {
            let pods = (0..10).map(|number| action(&format!("pod-{number}"))).collect();
            vec![Step::One(action("first")), Step::SlowStart(pods), Step::Always(action("status"))]
        };
        assert_eq!(sizes(steps(), 99), (vec![1, 1, 2, 4, 3, 1], Outcome::Done));
        assert_eq!(sizes(steps(), 2), (vec![1, 1, 2, 1], Outcome::Failed(None)));
        assert_eq!(sizes(steps(), 0), (vec![1, 1], Outcome::Failed(None)));
        assert_eq!(sizes(Vec::new(), 0), (vec![], Outcome::Done));
    }

    #[test]
    fn a_create_of_unknown_outcome_is_repeated_and_found() {
        let write = action("a").write;
        let mut sending = Sending::new(&write);
        assert_eq!(sending.failed(&unknown()), Next::Again(Duration::from_millis(100)));
        assert_eq!(sending.failed(&unknown()), Next::Again(Duration::from_millis(300)));
        let exists = error(StatusCode::CONFLICT, "AlreadyExists");
        let target = Target { resource: ResourceType::of::<Pod>(), key: ObjectKey::new("default", "a") };
        assert_eq!(sending.failed(&exists), Next::Read(target));
        let mut first = Sending::new(&write);
        assert_eq!(first.failed(&exists), Next::Fail, "nothing of ours can be there");
        let mut patient = Sending::new(&write);
        let again = (0..9).filter(|_| patient.failed(&unknown()) != Next::Fail).count();
        assert_eq!(again, 5);
        assert_eq!(
            Sending::new(&crate::plan::delete::<Pod>(&Default::default()).write).failed(&unknown()),
            Next::Fail
        );
    }

    #[test]
    fn errors_are_told_apart() {
        let verdict = |code, reason, tolerant| Verdict::of(&error(code, reason), tolerant);
        assert_eq!(verdict(StatusCode::NOT_FOUND, "NotFound", true), Verdict::Done);
        assert_eq!(verdict(StatusCode::NOT_FOUND, "NotFound", false), Verdict::Stale);
        assert_eq!(verdict(StatusCode::CONFLICT, "Conflict", true), Verdict::Stale);
        assert_eq!(verdict(StatusCode::FORBIDDEN, "Forbidden", true), Verdict::Failed);
        let details = json!({"causes": [{"reason": "NamespaceTerminating"}]});
        let body = json!({"code": 403, "reason": "Forbidden", "details": details}).to_string();
        let terminating = Error::from_answer(StatusCode::FORBIDDEN, body.as_bytes());
        assert_eq!(Verdict::of(&terminating, false), Verdict::GivenUp);
    }

    #[test]
    fn a_plan_may_ask_some_times_only() {
        let question = Question::List(ResourceType::of::<Pod>(), String::new());
        let mut rounds = Rounds::default();
        let mut plan = Plan::default();
        assert_eq!(rounds.questions(&mut plan), None);
        for _ in 0..ROUNDS {
            plan = Plan::ask(vec![question.clone()]);
            assert!(rounds.questions(&mut plan).is_some());
        }
        plan = Plan::ask(vec![question]);
        assert_eq!(rounds.questions(&mut plan), None);
        assert!(!plan.questions.is_empty(), "it has asked too often");
    }

    #[test]
    fn what_has_failed_comes_again_later_each_time() {
        let key = ObjectKey::new("default", "a");
        let now = |ms| Now { moment: Duration::from_millis(ms), wall: Timestamp::UNIX_EPOCH };
        let mut queue = WorkQueue::default();
        queue.add(key.clone());
        assert!(queue.pop(now(0).moment).is_some());
        give_back(&mut queue, &key, &Outcome::Failed(None), None, now(0));
        assert_eq!(queue.poll_timeout(), Some(Duration::from_millis(5)));
        assert!(queue.pop(now(5).moment).is_some());
        let later = Timestamp::from_second(3).expect("a time");
        give_back(&mut queue, &key, &Outcome::GivenUp, Some(later), now(5));
        assert_eq!((queue.failures(&key), queue.poll_timeout()), (0, Some(Duration::from_millis(3005))));
    }
}
