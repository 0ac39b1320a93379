//! Admission webhooks: which of them a write concerns, what they are asked, and what their answers make of it.
//!
//! Mutating webhooks are asked one after the other, each about what the one before has left ([`mutate`]); validating ones
//! all at once ([`validate`]). Without a configuration neither costs more than a look at an empty index.

use std::sync::Arc;
use std::time::Duration;

use api::catalogue::Resource;
use api::policy::{self, Expression, Kinds};
use bytes::Bytes;
use imbl::OrdMap;
use serde_json::Value;
use store_core::Snapshot;

use crate::admission::matching::{Constraints, Operation, Target, is_exempt};
use crate::admission::request;
use crate::ask::{Ask, Fault, Question, Review};
use crate::call::Call;
use crate::failure;
use crate::object::{self, items};
use crate::prepare::{Planned, Stop};
use crate::served::Served;
use crate::{keys, policies};

pub(crate) mod client;
mod mutate;
mod review;
mod validate;

pub(crate) use mutate::{Between, mutate};
pub(crate) use validate::validate;

use client::Client;

/// The webhooks of all configurations, each kind in the order in which it is asked: by the names of the configurations, then as
/// they are listed. A value: cheap to clone.
#[derive(Clone, Default)]
pub struct Hooks {
    mutating: OrdMap<Bytes, Arc<[Hook]>>,
    validating: OrdMap<Bytes, Arc<[Hook]>>,
}

/// One webhook.
#[derive(Debug)]
pub(crate) struct Hook {
    name: String,
    constraints: Constraints,
    /// All of its conditions must hold.
    conditions: Vec<Expression>,
    client: Client,
    timeout: Duration,
    /// Whether it knows `AdmissionReview` of `v1`.
    speaks_v1: bool,
    /// Whether it may be asked about a write that is not carried out.
    may_dry_run: bool,
    /// `failurePolicy: Ignore`: without its answer the write goes on.
    is_ignored: bool,
    /// `reinvocationPolicy: IfNeeded`: it is asked again when others have changed the object after it.
    is_reinvoked: bool,
}

/// One write, as webhooks are told of it.
pub(crate) struct Write {
    pub operation: Operation,
    /// Empty where it is not known yet.
    pub name: String,
    /// The object in the version of the request; null when it goes.
    pub object: Value,
    /// What it was before, in the version of the request; null when it is new.
    pub old: Value,
}

// === impl Hooks ===

impl Hooks {
    /// The webhooks of a state.
    pub(crate) fn build(snapshot: &Snapshot) -> Hooks {
        let mut hooks = Hooks::default();
        for (key, entry) in snapshot.prefix(keys::ADMISSION) {
            hooks.put(key, &entry.value);
        }
        hooks
    }

    fn of_key(&mut self, key: &[u8]) -> Option<&mut OrdMap<Bytes, Arc<[Hook]>>> {
        match key {
            _ if key.starts_with(keys::MUTATING_WEBHOOKS) => Some(&mut self.mutating),
            _ if key.starts_with(keys::VALIDATING_WEBHOOKS) => Some(&mut self.validating),
            _ => None,
        }
    }

    /// Takes in a configuration that was written.
    pub(crate) fn put(&mut self, key: &Bytes, value: &[u8]) {
        let Some(known) = self.of_key(key) else { return };
        let Some(configuration) = object::parse(value) else { return };
        let hooks: Arc<[Hook]> = items(&configuration["webhooks"]).iter().map(Hook::read).collect();
        match hooks.is_empty() {
            true => known.remove(key),
            false => known.insert(key.clone(), hooks),
        };
    }

    /// Forgets a configuration.
    pub(crate) fn remove(&mut self, key: &[u8]) {
        if let Some(known) = self.of_key(key) {
            known.remove(key);
        }
    }

    fn mutating(&self) -> impl Iterator<Item = &Hook> {
        self.mutating.values().flat_map(|hooks| hooks.iter())
    }

    fn validating(&self) -> impl Iterator<Item = &Hook> {
        self.validating.values().flat_map(|hooks| hooks.iter())
    }
}

/// Whether any webhook may have a say in a request. Where none has, objects need not be made ready to be shown.
pub(crate) fn any(call: &Call<'_>) -> bool {
    let hooks = call.world.derived.hooks();
    let listening = !hooks.mutating.is_empty() || !hooks.validating.is_empty();
    listening && !is_exempt(call.resource)
}

/// Whether any webhook may change what a request writes.
pub(crate) fn may_change(call: &Call<'_>) -> bool {
    !call.world.derived.hooks().mutating.is_empty() && !is_exempt(call.resource)
}

// === impl Hook ===

impl Hook {
    fn read(webhook: &Value) -> Hook {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let seconds = webhook["timeoutSeconds"].as_u64().unwrap_or(10);
        Hook {
            name: text(&webhook["name"]),
            constraints: Constraints::read(webhook, "rules"),
            conditions: policy::compile(webhook, &Kinds::default()).0.conditions,
            client: Client::read(&webhook["clientConfig"]),
            timeout: Duration::from_secs(seconds),
            speaks_v1: items(&webhook["admissionReviewVersions"]).iter().any(|version| version == "v1"),
            may_dry_run: matches!(webhook["sideEffects"].as_str(), Some("None" | "NoneOnDryRun")),
            is_ignored: webhook["failurePolicy"] == "Ignore",
            is_reinvoked: webhook["reinvocationPolicy"] == "IfNeeded",
        }
    }

    /// The resource as whose version the webhook wants to be asked about a write; `None` if it does not want to be.
    fn wanted(&self, call: &Call<'_>, write: &Write, scene: &Scene) -> Planned<Option<Served>> {
        let target = Target {
            operation: write.operation,
            resource: call.resource,
            subresource: call.subresource(),
            name: &write.name,
            object: &write.object,
            old: &write.old,
            namespace: &scene.namespace,
        };
        let others: Vec<&Resource> = scene.others.iter().map(|other| &**other).collect();
        let Some(matched) = self.constraints.matched(&target, &others) else { return Ok(None) };
        let other = scene.others.iter().find(|other| std::ptr::eq(&***other, matched));
        let matched = other.unwrap_or(call.served).clone();
        if self.conditions.is_empty() {
            return Ok(Some(matched));
        }
        let (object, old) = review::seen_as(call, write, &matched)?;
        let Write { operation, ref name, .. } = *write;
        let seen = policies::Write { operation, name, object: &object, old: &old };
        match policies::conditions_hold(call, &seen, &matched, &self.conditions) {
            Ok(true) => Ok(Some(matched)),
            Ok(false) => Ok(None),
            Err(_) if self.is_ignored => Ok(None),
            Err(why) => Err(call.forbidden(&write.name, why).into()),
        }
    }

    /// What the webhook is asked about a write that is shown as `object` and `old`.
    fn question(
        &self,
        call: &Call<'_>,
        write: &Write,
        matched: &Resource,
        seen: (&Value, &Value),
    ) -> Result<Question, Fault> {
        if !self.speaks_v1 {
            let why = "could not create admission objects: webhook does not accept known AdmissionReview versions (v1)";
            return Err(Fault::Call(why.to_owned()));
        }
        let to = self.client.recipient(call.world.snapshot, self.timeout)?;
        Ok(Question::new(Review::Admission, to, &review::request(call, write, matched, seen)))
    }

    /// Refuses a dry run that the webhook does not support.
    fn check_dry_run(&self, call: &Call<'_>, write: &Write) -> Result<(), Stop> {
        match !self.may_dry_run && request::is_dry_run(call, write.operation) {
            true => {
                let why = format!("admission webhook {:?} does not support dry run", self.name);
                Err(failure::bad_request(&why).into())
            }
            false => Ok(()),
        }
    }

    /// What is known of a question.
    fn answered<'a>(&self, call: &Call<'a>, asked: &Result<Question, Fault>) -> Answered<'a> {
        match asked {
            Err(fault) => Answered::Known(Err(fault.clone())),
            Ok(question) => match call.answers.get(question) {
                Some(answer) => Answered::Known(answer.as_ref().map_err(Clone::clone)),
                None => Answered::Open(question.clone()),
            },
        }
    }

    /// What a missing answer means: nothing, or a refusal.
    fn missed(&self, fault: &Fault) -> Result<(), Stop> {
        match self.is_ignored {
            true => Ok(()),
            false => {
                let why = format!("failed calling webhook {:?}: {fault}", self.name);
                Err(failure::internal(&why).into())
            }
        }
    }
}

/// What is known of a question.
enum Answered<'a> {
    Known(Result<&'a Value, Fault>),
    Open(Question),
}

/// What matching needs besides the write.
struct Scene {
    /// The namespace of the request, of which only the labels are read.
    namespace: Value,
    /// Other versions of the resource.
    others: Vec<Served>,
}

// === impl Scene ===

impl Scene {
    fn of(call: &Call<'_>) -> Scene {
        let namespace = match call.namespace() {
            "" => Value::Null,
            name => {
                let entry = call.world.snapshot.get(&keys::object("", "namespaces", "", name));
                let labels = entry.and_then(|entry| {
                    let range = crate::scan::locate(&entry.value, &["metadata", "labels"])?;
                    object::parse(&entry.value[range])
                });
                serde_json::json!({"metadata": {"labels": labels.unwrap_or_default()}})
            }
        };
        Scene { namespace, others: call.world.equivalents(call.served) }
    }
}

/// Stops with questions, if there are any.
fn ask(questions: Vec<Question>) -> Result<(), Stop> {
    match questions.is_empty() {
        true => Ok(()),
        false => Err(Stop::Ask(Ask { questions })),
    }
}
