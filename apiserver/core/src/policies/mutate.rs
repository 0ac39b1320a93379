//! Mutating policies: what they add to an object that is written.

use api::catalogue::Resource;
use api::conversion;
use api::policy::{Compiled, Mutation};
use api::status::Status;
use serde_json::Value;

use super::evaluate::{Budget, View};
use super::{Binding, Policy, Scene, Write, mutates, parameters};
use crate::admission::matching::Operation;
use crate::call::Call;
use crate::failure::Refused;
use crate::kinds;

/// Applies the mutating policies to an object as it is stored; whether any of them changed it.
///
/// `renewed` brings an object that was changed into form: what defaults add to it.
///
/// # Errors
///
/// The refusal of a policy that cannot be carried out.
pub(crate) fn mutate(
    call: &Call<'_>,
    operation: Operation,
    (object, old): (&mut Value, &Value),
    renewed: &mut dyn FnMut(&mut Value) -> Result<(), Refused>,
) -> Result<bool, Refused> {
    if !mutates(call) || !object.is_object() {
        return Ok(false);
    }
    let scene = Scene::of(call)?;
    let before = object.clone();
    // Each policy with the object as it left it: one that others change further is asked once more.
    let mut left: Vec<(&Policy, Value)> = Vec::new();
    for round in 0..2 {
        for (policy, bindings) in call.world.derived.policies().mutating.bound() {
            let again = left.iter().any(|(known, left)| std::ptr::eq(*known, policy) && *left != *object);
            if round > 0 && !(policy.is_reinvoked && again) {
                continue;
            }
            let was = object.clone();
            for binding in bindings {
                apply(call, operation, (policy, binding), (&mut *object, old), &scene)?;
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
    operation: Operation,
    (policy, binding): (&Policy, &Binding),
    (object, old): (&mut Value, &Value),
    scene: &Scene,
) -> Result<(), Refused> {
    let name = crate::object::meta(object, "name").to_owned();
    let refused = |why: String| match policy.is_ignored {
        true => Ok(()),
        false => {
            let why =
                format!("policy '{}' with binding '{}' denied request: {why}", policy.name, binding.name);
            Err(Status::forbidden(call.resource, &name, why).into())
        }
    };
    let was = object.clone();
    let write = Write { operation, name: &name, object: &was, old };
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
    for params in &parameters {
        if let Err(why) = with(compiled, &mut view, params, seen_as) {
            return refused(why);
        }
    }
    *object = view.object().clone();
    conversion::to_stored(seen_as, object);
    Ok(())
}

/// Applies the mutations of a policy, one after the other.
fn with(compiled: &Compiled, view: &mut View<'_>, params: &Value, seen_as: &Resource) -> Result<(), String> {
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
                *object = kinds::merged(seen_as, object, &change);
                check_identity(&names, object).map_err(fault)?;
            }
        }
    }
    Ok(())
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
