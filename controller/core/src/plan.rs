//! What a planner answers: the writes to make, when to look again, and why.

use crate::write::{ObjectKey, PatchKind, Precondition, Propagation, ResourceType, Target, Write};
use client_core::events::EventType;
use jiff::Timestamp;
use k8s_openapi::Metadata;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::Value;

/// The writes that bring the world nearer to what an object asks for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// Carried out in order. A step that fails ends the plan, except for its [`Step::Always`] steps.
    pub steps: Vec<Step>,
    /// The moment at which time alone may change the answer.
    pub look_again_at: Option<Timestamp>,
    /// What must be asked of the API server itself before anything can be planned. Such a plan has no
    /// steps: it is planned again with the answers.
    pub questions: Vec<Question>,
}

/// Something that no cache may answer.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Question {
    /// The metadata of one object.
    Get(Target),
    /// One object with all that it says.
    Whole(Target),
    /// The metadata of all objects of a resource in a namespace; everywhere when it is empty.
    List(ResourceType, String),
}

/// What the API server said.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// The object is there.
    Found(Box<ObjectMeta>),
    /// The object as a document.
    Document(Box<Value>),
    /// There is no such object.
    Absent,
    /// All objects.
    Listed(Vec<ObjectMeta>),
    /// The question failed.
    Failed(String),
}

/// Answers by question.
pub type Answers = std::collections::BTreeMap<Question, Answer>;

/// One step of a plan.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// A write on which the later ones rest.
    One(Action),
    /// Writes independent of each other: all are tried, a bounded number at a time.
    Together(Vec<Action>),
    /// Like `Together`, in batches of 1, 2, 4…: a batch in which one failed is the last. A quota or an
    /// admission that refuses one pod would refuse the next 500 too.
    SlowStart(Vec<Action>),
    /// A write that is due even when an earlier step has failed: status.
    Always(Action),
}

/// A write and what is said about its outcome.
#[derive(Clone, Debug, PartialEq)]
pub struct Action {
    /// The write.
    pub write: Write,
    /// What must hold live, beyond any cache, before the write is made.
    pub guard: Option<Guard>,
    /// The event when it has succeeded.
    pub succeeded: Option<EventNote>,
    /// The event when it has failed; the error's text is appended to its message.
    pub failed: Option<EventNote>,
    /// That the target is gone, or (for a create) is there already, counts as success.
    pub tolerant: bool,
}

/// The live check before a write: the object is there, is the one meant, and is not being deleted.
#[derive(Clone, Debug, PartialEq)]
pub struct Guard {
    /// The object asked for.
    pub target: Target,
    /// The uid that it must have.
    pub uid: String,
}

/// An event to record.
#[derive(Clone, Debug, PartialEq)]
pub struct EventNote {
    /// The object the event is about.
    pub regarding: Subject,
    /// Whether it is a Warning (else Normal).
    pub warning: bool,
    /// CamelCase reason.
    pub reason: &'static str,
    /// Human message.
    pub message: String,
}

/// The object that an event is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Subject {
    /// `apps/v1`.
    pub api_version: &'static str,
    /// `ReplicaSet`.
    pub kind: &'static str,
    /// Empty for a cluster-scoped object.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Uid.
    pub uid: String,
    /// resourceVersion, empty when unknown.
    pub resource_version: String,
}

/// Why a plan looks as it does: events that rest on no write, and one line for `why`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// Events to record at once.
    pub events: Vec<EventNote>,
    /// The reasons, most important first.
    pub why: Vec<String>,
}

/// The failure of an earlier attempt at the same key, told to the planner that turns it into a condition.
#[derive(Clone, Debug, PartialEq)]
pub struct Failure {
    /// The reason of the failed action's event (`FailedCreate`), empty if it had none.
    pub reason: &'static str,
    /// The error as the API server worded it.
    pub message: String,
}

// === impl Plan ===

impl Plan {
    /// Whether nothing is to be written.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// Asks to be planned again at `at`, or earlier if that was asked already.
    pub fn look_again(&mut self, at: Timestamp) {
        self.look_again_at = Some(self.look_again_at.map_or(at, |earlier| earlier.min(at)));
    }

    /// A plan that only asks.
    pub fn ask(questions: Vec<Question>) -> Plan {
        Plan { questions, ..Plan::default() }
    }

    /// Appends a write on which the later ones rest.
    pub fn one(&mut self, action: Action) {
        self.steps.push(Step::One(action));
    }

    /// Appends a write due even after a failure.
    pub fn always(&mut self, action: Action) {
        self.steps.push(Step::Always(action));
    }

    /// Appends independent writes, if there are any.
    pub fn together(&mut self, actions: Vec<Action>) {
        if !actions.is_empty() {
            self.steps.push(Step::Together(actions));
        }
    }

    /// Appends independent writes in growing batches, if there are any.
    pub fn slow_start(&mut self, actions: Vec<Action>) {
        if !actions.is_empty() {
            self.steps.push(Step::SlowStart(actions));
        }
    }

    /// Every action in the order of the steps.
    pub fn actions(&self) -> impl Iterator<Item = &Action> {
        self.steps.iter().flat_map(|step| match step {
            Step::One(action) | Step::Always(action) => std::slice::from_ref(action),
            Step::Together(actions) | Step::SlowStart(actions) => actions.as_slice(),
        })
    }
}

// === impl Action ===

impl From<Write> for Action {
    fn from(write: Write) -> Self {
        Action { write, guard: None, succeeded: None, failed: None, tolerant: false }
    }
}

impl Action {
    /// Records `note` after success.
    pub fn then(mut self, note: EventNote) -> Self {
        self.succeeded = Some(note);
        self
    }

    /// Records `note` (with the error appended) after a failure.
    pub fn otherwise(mut self, note: EventNote) -> Self {
        self.failed = Some(note);
        self
    }

    /// Makes the write only if `guard` holds live.
    pub fn guarded(mut self, guard: Guard) -> Self {
        self.guard = Some(guard);
        self
    }

    /// Counts an absent target, or an object that is there already, as success.
    pub fn tolerant(mut self) -> Self {
        self.tolerant = true;
        self
    }
}

// === impl Guard ===

impl Guard {
    /// Whether the live metadata (None: not found) satisfies the guard.
    pub fn holds(&self, live: Option<&ObjectMeta>) -> bool {
        live.is_some_and(|meta| {
            meta.uid.as_deref() == Some(self.uid.as_str()) && meta.deletion_timestamp.is_none()
        })
    }
}

// === impl EventNote ===

impl EventNote {
    /// A Normal event.
    pub fn normal(regarding: &Subject, reason: &'static str, message: impl Into<String>) -> Self {
        EventNote { regarding: regarding.clone(), warning: false, reason, message: message.into() }
    }

    /// A Warning event.
    pub fn warning(regarding: &Subject, reason: &'static str, message: impl Into<String>) -> Self {
        EventNote { regarding: regarding.clone(), warning: true, reason, message: message.into() }
    }
}

// === impl Subject ===

impl Subject {
    /// The subject that a typed object is.
    pub fn of<K: k8s_openapi::Resource + Metadata<Ty = ObjectMeta>>(object: &K) -> Self {
        let meta = object.metadata();
        Subject {
            api_version: K::API_VERSION,
            kind: K::KIND,
            namespace: meta.namespace.clone().unwrap_or_default(),
            name: meta.name.clone().unwrap_or_default(),
            uid: meta.uid.clone().unwrap_or_default(),
            resource_version: meta.resource_version.clone().unwrap_or_default(),
        }
    }
}

// === builders of writes ===

/// A typed kind that plans write.
pub trait Kind: client_core::object::Kind {}
impl<K: client_core::object::Kind> Kind for K {}

/// The address of an object of kind `K`.
pub fn target_of<K: Kind>(meta: &ObjectMeta) -> Target {
    Target::of::<K>(ObjectKey::of_meta(meta))
}

/// Creates `object` (a whole JSON document) in `namespace`.
pub fn create<K: Kind>(namespace: Option<&str>, mut object: Value) -> Action {
    if let Value::Object(map) = &mut object {
        map.insert("apiVersion".into(), K::API_VERSION.into());
        map.insert("kind".into(), K::KIND.into());
    }
    let namespace = namespace.unwrap_or_default().to_owned();
    Write::Create { resource: ResourceType::of::<K>(), namespace, object }.into()
}

/// A merge patch that holds only for the very revision that was looked at.
pub fn merge_exact<K: Kind>(meta: &ObjectMeta, subresource: Option<&'static str>, body: Value) -> Action {
    let precondition =
        Precondition { uid: meta.uid.clone(), resource_version: meta.resource_version.clone() };
    patch::<K>(meta, subresource, precondition, PatchKind::Merge, body)
}

/// A patch of an object that only has to be the one meant (same uid).
pub fn patch_same<K: Kind>(
    meta: &ObjectMeta,
    subresource: Option<&'static str>,
    kind: PatchKind,
    body: Value,
) -> Action {
    let precondition = Precondition { uid: meta.uid.clone(), resource_version: None };
    patch::<K>(meta, subresource, precondition, kind, body)
}

fn patch<K: Kind>(
    meta: &ObjectMeta,
    subresource: Option<&'static str>,
    precondition: Precondition,
    kind: PatchKind,
    body: Value,
) -> Action {
    Write::Patch { target: target_of::<K>(meta), subresource, precondition, kind, body }.into()
}

/// Deletes the object meant (same uid), with its own grace period. An object already gone is fine.
pub fn delete<K: Kind>(meta: &ObjectMeta) -> Action {
    delete_with::<K>(meta, None, None)
}

/// Deletes the object meant, with a grace period and propagation of the caller's choice.
pub fn delete_with<K: Kind>(
    meta: &ObjectMeta,
    grace_period_seconds: Option<i64>,
    propagation: Option<Propagation>,
) -> Action {
    let precondition = Precondition { uid: meta.uid.clone(), resource_version: None };
    Action::from(Write::Delete {
        target: target_of::<K>(meta),
        precondition,
        grace_period_seconds,
        propagation,
    })
    .tolerant()
}

impl From<EventNote> for client_core::events::EventNote {
    fn from(note: EventNote) -> Self {
        let Subject { api_version, kind, namespace, name, uid, resource_version } = note.regarding;
        let some = |text: String| Some(text).filter(|text| !text.is_empty());
        client_core::events::EventNote {
            regarding: k8s_openapi::api::core::v1::ObjectReference {
                api_version: Some(api_version.to_owned()),
                kind: Some(kind.to_owned()),
                namespace: some(namespace),
                name: some(name),
                uid: some(uid),
                resource_version: some(resource_version),
                field_path: None,
            },
            kind: if note.warning { EventType::Warning } else { EventType::Normal },
            reason: note.reason.to_owned(),
            action: String::new(),
            message: note.message,
        }
    }
}

/// Whether a refusal will not change while the namespace lives: it is being deleted.
pub fn is_namespace_terminating(status: &k8s_openapi::apimachinery::pkg::apis::meta::v1::Status) -> bool {
    let causes = status.details.as_ref().and_then(|details| details.causes.as_deref()).unwrap_or_default();
    causes.iter().any(|cause| cause.reason.as_deref() == Some("NamespaceTerminating"))
}
