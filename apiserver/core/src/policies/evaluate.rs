//! The variables of a policy's expressions, and what the expressions come to.

use std::cell::RefCell;

use api::catalogue::Resource;
use api::cel::{
    Answer, Authority, Bindings, CALL_BUDGET, Fault, OBJECT_BUDGET, Program, Question, Value as Cel, Verdict,
};
use api::conversion;
use api::policy::{Compiled, Expression, place};
use serde_json::{Value, json};

use super::{Scene, Write};
use crate::admission::request::{self, Spoken};
use crate::authz::{self, Attributes};
use crate::call::Call;
use crate::user::User;

/// All `matchConditions` of a policy may take so many steps.
const CONDITIONS_BUDGET: u64 = OBJECT_BUDGET / 4;
const OUT_OF_BUDGET: &str =
    "validation failed due to running out of cost budget, no further validation rules will be run";

/// A write in the version in which a policy wants to see it, and what else its expressions can name.
pub(super) struct View<'a> {
    object: Value,
    old: Value,
    request: Value,
    namespace: Value,
    authority: UserAuthority<'a>,
    question: Question,
}

/// The variables of one evaluation. Those that a policy defines are found when they are asked for first.
pub(super) struct Variables<'a> {
    compiled: &'a Compiled,
    fixed: [Cel<'a>; place::VARIABLES],
    found: RefCell<Vec<Option<Answer<'a>>>>,
}

/// What expressions of one policy have left of their budget.
pub(super) struct Budget {
    left: u64,
}

/// Answers for who makes the request.
#[derive(Clone, Copy)]
struct UserAuthority<'a> {
    call: Call<'a>,
}

// === impl View ===

impl<'a> View<'a> {
    pub fn new(call: &Call<'a>, write: &Write<'_>, scene: &Scene, seen_as: &Resource) -> View<'a> {
        let is_own = Spoken::of(call, seen_as).is_own;
        let seen = |object: &Value| {
            let mut object = object.clone();
            if is_own && object.is_object() {
                conversion::from_stored(seen_as, &mut object);
            }
            object
        };
        // A namespace is not in itself.
        let namespace = if call.is("", "namespaces") { Value::Null } else { public(&scene.namespace) };
        let (object, old) = (seen(write.object), seen(write.old));
        View { object, old, namespace, ..View::of_request(call, write, seen_as) }
    }

    /// A write whose objects are in that version already. Of the namespace it shows nothing.
    pub fn of_request(call: &Call<'a>, write: &Write<'_>, seen_as: &Resource) -> View<'a> {
        let info = &call.request.info;
        View {
            object: write.object.clone(),
            old: write.old.clone(),
            request: Value::Object(request::described(call, (write.operation, write.name), seen_as)),
            namespace: Value::Null,
            authority: UserAuthority { call: *call },
            question: Question {
                group: info.group.clone(),
                resource: info.resource.clone(),
                subresource: info.subresource.clone(),
                namespace: info.namespace.clone(),
                name: write.name.to_owned(),
                ..Question::default()
            },
        }
    }

    /// The object, to be changed.
    pub fn object_mut(&mut self) -> &mut Value {
        &mut self.object
    }

    /// The object.
    pub fn object(&self) -> &Value {
        &self.object
    }

    /// The variables with these parameters.
    pub fn variables<'v>(&'v self, compiled: &'v Compiled, params: &'v Value) -> Variables<'v> {
        let read = |value: &'v Value| Cel::of_json(value);
        let fixed = [
            read(&self.object),
            read(&self.old),
            read(&self.request),
            read(&self.namespace),
            Cel::authorizer(&self.authority),
            Cel::request_resource(&self.authority, self.question.clone()),
            read(params),
        ];
        let found = RefCell::new(vec![None; compiled.variables.len()]);
        Variables { compiled, fixed, found }
    }
}

/// What expressions see of a namespace.
fn public(namespace: &Value) -> Value {
    if namespace.is_null() {
        return Value::Null;
    }
    let mut metadata = namespace["metadata"].clone();
    if let Value::Object(map) = &mut metadata {
        map.remove("managedFields");
        map.remove("ownerReferences");
    }
    json!({"metadata": metadata, "spec": namespace["spec"], "status": {"phase": namespace["status"]["phase"]}})
}

// === impl Variables ===

impl<'a> Bindings<'a> for Variables<'a> {
    fn get(&self, at: usize, spent: &mut u64, limit: u64) -> Answer<'a> {
        if let Some(value) = self.fixed.get(at) {
            return Ok(value.clone());
        }
        let own = at - place::VARIABLES;
        if let Some(Some(found)) = self.found.borrow().get(own) {
            return found.clone();
        }
        let program = self.compiled.variables.get(own).ok_or(Fault::NoOverload)?;
        let (answer, cost) = program.evaluate(self, limit.saturating_sub(*spent));
        *spent = spent.saturating_add(cost);
        if let Some(known) = self.found.borrow_mut().get_mut(own) {
            *known = Some(answer.clone());
        }
        answer
    }
}

impl<'a> Variables<'a> {
    /// What an expression comes to; an error says why it comes to nothing, in the words of Kubernetes.
    pub fn value(&self, program: &Program, text: &str, budget: &mut Budget) -> Result<Cel<'a>, String> {
        let (answer, spent) = program.evaluate(self, CALL_BUDGET);
        if spent > budget.left {
            budget.left = 0;
            return Err(OUT_OF_BUDGET.to_owned());
        }
        budget.left -= spent;
        answer.map_err(|fault| format!("expression '{text}' resulted in error: {fault}"))
    }

    /// Whether all conditions hold. One that does not makes up for those that come to nothing.
    pub fn all_hold(&self, conditions: &[Expression]) -> Result<bool, String> {
        let mut budget = Budget { left: CONDITIONS_BUDGET };
        let mut faults = Vec::new();
        for condition in conditions {
            match self.value(&condition.program, &condition.text, &mut budget) {
                Ok(Cel::Bool(true)) => {}
                Ok(_) => return Ok(false),
                Err(fault) => faults.push(fault),
            }
        }
        match faults.as_slice() {
            [] => Ok(true),
            [one] => Err(one.clone()),
            several => Err(format!("[{}]", several.join(", "))),
        }
    }
}

// === impl Budget ===

impl Budget {
    pub fn new() -> Budget {
        Budget { left: OBJECT_BUDGET }
    }
}

// === impl UserAuthority ===

impl std::fmt::Debug for UserAuthority<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("UserAuthority").field(&self.call.user.name).finish()
    }
}

impl Authority for UserAuthority<'_> {
    fn decide(&self, account: Option<(&str, &str)>, question: &Question) -> Verdict {
        let account = account.map(|(namespace, name)| User::service_account(namespace, name));
        let user = account.as_ref().unwrap_or(self.call.user);
        let attributes = Attributes {
            verb: &question.verb,
            is_resource: question.path.is_empty(),
            group: &question.group,
            resource: &question.resource,
            subresource: &question.subresource,
            namespace: &question.namespace,
            name: &question.name,
            path: &question.path,
            field_selector: "",
        };
        match authz::authorize(&self.call.world, user, &attributes) {
            authz::Decision::Allow(reason) => Verdict { allowed: true, reason },
            authz::Decision::NoOpinion(reason) => Verdict { allowed: false, reason },
        }
    }
}
