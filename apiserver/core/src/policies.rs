//! Admission policies: which of them a write concerns, and what they make of it.
//!
//! A policy says something only through its bindings. Both are kept in an index beside the snapshot, so that a cluster without
//! policies pays for a look at an empty map; expressions are compiled when a policy is used first.

use std::sync::{Arc, OnceLock};

use api::catalogue::Resource;
use api::policy::{self, Compiled, Kinds};
use bytes::Bytes;
use imbl::OrdMap;
use serde_json::Value;
use store_core::Snapshot;

use crate::admission::matching::{Constraints, Operation, Target, is_exempt};
use crate::call::Call;
use crate::failure::Refused;
use crate::keys;
use crate::object::{self, items, meta};
use crate::served::Served;

mod conditions;
mod evaluate;
mod mutate;
mod parameters;
mod typecheck;
mod validate;

pub(crate) use conditions::hold as conditions_hold;
pub(crate) use mutate::{Round, mutate};
pub(crate) use typecheck::settle;
pub(crate) use validate::validate;

/// The groups of reviews.
const REVIEWS: [&str; 2] = ["authentication.k8s.io", "authorization.k8s.io"];

/// The policies and bindings of a cluster. A value: cheap to clone.
#[derive(Clone, Default)]
pub struct Policies {
    validating: Set,
    mutating: Set,
}

/// Policies of one kind and their bindings, by their keys: in the order of their names.
#[derive(Clone, Default)]
struct Set {
    policies: OrdMap<Bytes, Arc<Policy>>,
    bindings: OrdMap<Bytes, Arc<Binding>>,
}

/// A policy.
#[derive(Debug)]
struct Policy {
    name: String,
    spec: Value,
    constraints: Constraints,
    /// `failurePolicy: Ignore`: what cannot be evaluated refuses nothing.
    is_ignored: bool,
    /// `reinvocationPolicy: IfNeeded`: it is asked again when others have changed the object after it.
    is_reinvoked: bool,
    compiled: OnceLock<Result<Compiled, String>>,
}

/// A binding.
#[derive(Debug)]
struct Binding {
    name: String,
    policy: String,
    spec: Value,
    constraints: Constraints,
}

/// One write, as policies look at it.
pub(crate) struct Write<'a> {
    pub operation: Operation,
    /// Empty where it is not known yet.
    pub name: &'a str,
    /// The object as it is stored, or the document of a subresource; null when it goes.
    pub object: &'a Value,
    /// What it was before; null when it is new.
    pub old: &'a Value,
}

/// What matching and evaluation need besides the write.
struct Scene {
    /// The namespace of the object; null where it has none.
    namespace: Value,
    /// Other resources that serve the same objects.
    others: Vec<Served>,
}

// === impl Policies ===

impl Policies {
    /// The index of a state.
    pub fn build(snapshot: &Snapshot) -> Policies {
        let mut policies = Policies::default();
        for (key, entry) in snapshot.prefix(keys::ADMISSION) {
            policies.put(key, &entry.value);
        }
        policies
    }

    /// Takes in a policy or a binding that was written.
    pub fn put(&mut self, key: &Bytes, value: &[u8]) {
        let Some(is_policy) = self.of_key(key).map(|(_, is_policy)| is_policy) else { return };
        let Some(object) = object::parse(value) else { return };
        let Some((set, _)) = self.of_key(key) else { return };
        match is_policy {
            true => drop(set.policies.insert(key.clone(), Arc::new(Policy::read(&object)))),
            false => drop(set.bindings.insert(key.clone(), Arc::new(Binding::read(&object)))),
        }
    }

    /// Forgets a policy or a binding.
    pub fn remove(&mut self, key: &[u8]) {
        if let Some((set, _)) = self.of_key(key) {
            set.policies.remove(key);
            set.bindings.remove(key);
        }
    }

    /// The set that a key belongs to, and whether it is that of a policy.
    fn of_key(&mut self, key: &[u8]) -> Option<(&mut Set, bool)> {
        let plural = key.strip_prefix(keys::ADMISSION)?.split(|byte| *byte == b'/').next()?;
        match plural {
            b"validatingadmissionpolicies" => Some((&mut self.validating, true)),
            b"validatingadmissionpolicybindings" => Some((&mut self.validating, false)),
            b"mutatingadmissionpolicies" => Some((&mut self.mutating, true)),
            b"mutatingadmissionpolicybindings" => Some((&mut self.mutating, false)),
            _ => None,
        }
    }
}

// === impl Set ===

impl Set {
    fn is_empty(&self) -> bool {
        self.policies.is_empty() || self.bindings.is_empty()
    }

    /// The policies, each with its bindings.
    fn bound(&self) -> impl Iterator<Item = (&Policy, Vec<&Binding>)> {
        self.policies.values().map(|policy| {
            let bindings = self.bindings.values().map(|binding| &**binding);
            (&**policy, bindings.filter(|binding| binding.policy == policy.name).collect())
        })
    }
}

// === impl Policy ===

impl Policy {
    fn read(object: &Value) -> Policy {
        let spec = object["spec"].clone();
        Policy {
            name: meta(object, "name").to_owned(),
            constraints: Constraints::read(&spec["matchConstraints"], "resourceRules"),
            is_ignored: spec["failurePolicy"] == "Ignore",
            is_reinvoked: spec["reinvocationPolicy"] == "IfNeeded",
            spec,
            compiled: OnceLock::new(),
        }
    }

    /// The expressions; an error if one cannot be used, as of a policy that was written by another version.
    fn compiled(&self) -> Result<&Compiled, String> {
        let compile = || {
            let (compiled, faults) = policy::compile(&self.spec, &Kinds::default());
            match faults.first() {
                None => Ok(compiled),
                Some(fault) => Err(format!("{}: {}", fault.path, fault.detail)),
            }
        };
        self.compiled.get_or_init(compile).as_ref().map_err(Clone::clone)
    }
}

// === impl Binding ===

impl Binding {
    fn read(object: &Value) -> Binding {
        let spec = object["spec"].clone();
        Binding {
            name: meta(object, "name").to_owned(),
            policy: spec["policyName"].as_str().unwrap_or_default().to_owned(),
            constraints: Constraints::read(&spec["matchResources"], "resourceRules"),
            spec,
        }
    }

    /// What it does about an object that does not fulfil the policy.
    fn does(&self, action: &str) -> bool {
        items(&self.spec["validationActions"]).iter().any(|known| known == action)
    }
}

// === impl Scene ===

impl Scene {
    fn of(call: &Call<'_>) -> Result<Scene, Refused> {
        let namespace = match call.namespace() {
            "" => Value::Null,
            name => match call.world.snapshot.get(&keys::object("", "namespaces", "", name)) {
                Some(entry) => call.parsed(entry)?,
                None => Value::Null,
            },
        };
        Ok(Scene { namespace, others: call.world.equivalents(call.served) })
    }

    /// The version of the resource as which a policy wants to see a write; nothing if it does not.
    fn wanted<'r>(
        &'r self,
        call: &Call<'r>,
        write: &'r Write<'r>,
        constraints: &Constraints,
        is_binding: bool,
    ) -> Option<&'r Resource> {
        let target = Target {
            operation: write.operation,
            resource: call.resource,
            subresource: call.subresource(),
            name: write.name,
            object: write.object,
            old: write.old,
            namespace: &self.namespace,
        };
        let others: Vec<&'r Resource> = self.others.iter().map(|other| &**other).collect();
        match is_binding {
            true => constraints.matched_or_all(&target, &others),
            false => constraints.matched(&target, &others),
        }
    }
}

/// Whether any validating policy may have a say in a request.
pub(crate) fn validates(call: &Call<'_>) -> bool {
    !call.world.derived.policies().validating.is_empty() && has_say(call.resource)
}

/// Whether any mutating policy may have a say in a request.
pub(crate) fn mutates(call: &Call<'_>) -> bool {
    !call.world.derived.policies().mutating.is_empty() && has_say(call.resource)
}

/// Whether policies have a say in a resource. In reviews they have none: a policy that refused those would lock the cluster.
fn has_say(resource: &Resource) -> bool {
    let is_review = !resource.stored && REVIEWS.contains(&&*resource.group);
    !is_review && !is_exempt(resource)
}
