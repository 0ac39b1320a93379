//! Mutating policies: what they add to an object that is written.

use api::policy::{Compiled, Mutation};
use api::status::Status;
use api::{conversion, managed_fields};
use serde_json::Value;

use super::evaluate::{Budget, View};
use super::{Binding, Policy, Scene, Write, mutates, parameters};
use crate::admission::matching::Operation;
use crate::admission::request::Spoken;
use crate::call::Call;
use crate::failure::Refused;

/// Which policies are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Round {
    /// All: nobody has changed the object yet.
    First,
    /// Those that wish to see what others have changed after them (`reinvocationPolicy: IfNeeded`).
    Again,
}

/// Applies the mutating policies to an object as it is stored, or to the document of a subresource; whether any of them changed
/// it.
///
/// `renewed` brings an object that was changed into form: what defaults add to it.
///
/// # Errors
///
/// The refusal of a policy that cannot be carried out.
pub(crate) fn mutate(
    call: &Call<'_>,
    (operation, name): (Operation, &str),
    (object, old): (&mut Value, &Value),
    round: Round,
    renewed: &mut dyn FnMut(&mut Value) -> Result<(), Refused>,
) -> Result<bool, Refused> {
    if !mutates(call) || !object.is_object() {
        return Ok(false);
    }
    let scene = Scene::of(call)?;
    let before = object.clone();
    // Each policy with the object as it left it: one that others change further is asked once more.
    let mut left: Vec<(&Policy, Value)> = Vec::new();
    for turn in 0..2 {
        for (policy, bindings) in call.world.derived.policies().mutating.bound() {
            let again = left.iter().any(|(known, left)| std::ptr::eq(*known, policy) && *left != *object);
            let due = match (round, turn) {
                (Round::First, 0) => true,
                (Round::Again, 0) => policy.is_reinvoked,
                _ => policy.is_reinvoked && again,
            };
            if !due {
                continue;
            }
            let was = object.clone();
            for binding in bindings {
                apply(call, (operation, name), (policy, binding), (&mut *object, old), &scene)?;
            }
            if was != *object {
                renewed(object)?;
            }
            left.retain(|(known, _)| !std::ptr::eq(*known, policy));
            left.push((policy, object.clone()));
        }
    }
    Ok(before != *object)
}

fn apply(
    call: &Call<'_>,
    (operation, name): (Operation, &str),
    (policy, binding): (&Policy, &Binding),
    (object, old): (&mut Value, &Value),
    scene: &Scene,
) -> Result<(), Refused> {
    let refused = |why: String| match policy.is_ignored {
        true => Ok(()),
        false => {
            let why =
                format!("policy '{}' with binding '{}' denied request: {why}", policy.name, binding.name);
            Err(Status::forbidden(call.resource, name, why).into())
        }
    };
    let was = object.clone();
    let write = Write { operation, name, object: &was, old };
    let Some(seen_as) = scene.wanted(call, &write, &policy.constraints, false) else { return Ok(()) };
    if scene.wanted(call, &write, &binding.constraints, true).is_none() {
        return Ok(());
    }
    let compiled = match policy.compiled() {
        Ok(compiled) => compiled,
        Err(fault) => return refused(format!("failed to configure policy: {fault}")),
    };
    let parameters = match parameters::collect(call, policy, binding) {
        Ok(parameters) => parameters,
        Err(fault) => return refused(format!("failed to configure binding: {fault}")),
    };
    let mut view = View::new(call, &write, scene, seen_as);
    let spoken = Spoken::of(call, seen_as);
    for params in &parameters {
        if let Err(why) = with(compiled, &mut view, params, spoken) {
            return refused(why);
        }
    }
    *object = view.object().clone();
    if spoken.is_own {
        conversion::to_stored(seen_as, object);
    }
    Ok(())
}

/// Applies the mutations of a policy, one after the other.
fn with(compiled: &Compiled, view: &mut View<'_>, params: &Value, spoken: Spoken<'_>) -> Result<(), String> {
    if !view.variables(compiled, params).all_hold(&compiled.conditions)? {
        return Ok(());
    }
    let mut budget = Budget::new();
    for mutation in &compiled.mutations {
        let change = change(mutation, compiled, view, params, &mut budget)?;
        let object = view.object_mut();
        let fault = |why: String| format!("error applying patch: {why}");
        match mutation.is_patch {
            true => api::patch::json(object, &change).map_err(|error| fault(error.to_string()))?,
            false => {
                let names = ["apiVersion", "kind", "metadata"].map(|field| object[field].clone());
                let schema = spoken.schema.ok_or_else(|| fault(no_type(&spoken)))?;
                *object = managed_fields::merged(spoken.schemas, schema, object, &change);
                check_identity(&names, object).map_err(fault)?;
            }
        }
    }
    Ok(())
}

fn no_type(spoken: &Spoken<'_>) -> String {
    format!("no corresponding type for {}/{}, Kind={}", spoken.group, spoken.version, spoken.kind)
}

fn change(
    mutation: &Mutation,
    compiled: &Compiled,
    view: &View<'_>,
    params: &Value,
    budget: &mut Budget,
) -> Result<Value, String> {
    let variables = view.variables(compiled, params);
    let value = variables.value(&mutation.expression.program, &mutation.expression.text, budget)?;
    value.to_json().ok_or_else(|| "the result has no form in JSON".to_owned())
}

/// What an object is called is not for a policy to change.
fn check_identity([version, kind, metadata]: &[Value; 3], object: &Value) -> Result<(), String> {
    let same = object["apiVersion"] == *version
        && object["kind"] == *kind
        && ["name", "namespace", "uid"].iter().all(|field| object["metadata"][*field] == metadata[*field]);
    if same { Ok(()) } else { Err("name, namespace, uid, apiVersion and kind may not be changed".to_owned()) }
}
